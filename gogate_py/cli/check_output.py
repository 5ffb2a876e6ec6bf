"""How ``gogate check`` tells its findings: for people, for programs (json), as annotations of GitHub Actions.

Pure: findings → text. Findings of the file that was checked come in its order, errors before advice is never mixed:
with errors there is no advice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from gogate_py.config.codes import ERROR, NOTE, WARNING
from gogate_py.config.problems import Problem

_SEVERITIES: Final = (ERROR, WARNING, NOTE)
#: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
_COMMANDS: Final = {ERROR: "error", WARNING: "warning", NOTE: "notice"}


def as_text(finding: Problem) -> str:
    """A finding for people; its code stands behind the first line."""
    first, *rest = finding.render().split("\n")
    return "\n".join((f"{first} [{finding.code}]", *rest))


def as_github(finding: Problem) -> str:
    """A finding as a workflow command, which GitHub shows beside the line."""
    properties: dict[str, object] = {"file": finding.file}
    if finding.line:
        properties |= {"line": finding.line, "col": finding.column}
        if finding.end_column:
            properties |= {"endLine": finding.line, "endColumn": finding.end_column}
    properties["title"] = f"{finding.code} {finding.variable or finding.key}".rstrip(" ")
    shown = ",".join(f"{name}={_escape(str(value), ':,')}" for name, value in properties.items())
    message = "; ".join(part for part in (finding.message, _allowed(finding), _suggested(finding), finding.fix) if part)
    return f"::{_COMMANDS[finding.severity]} {shown}::{_escape(message)}"


def as_json(file: str, findings: Sequence[Problem], failed: bool, summary: str) -> str:
    """Everything as one object."""
    counts = Counter(finding.severity for finding in findings)
    return json.dumps(
        {
            "file": file,
            "ok": not failed,
            "summary": summary,
            "counts": {severity: counts[severity] for severity in _SEVERITIES},
            "findings": [_object(finding) for finding in findings],
        },
        indent=2, ensure_ascii=False)


def counted(findings: Sequence[Problem]) -> str:
    """``2 warnings, 1 note``; "" for none."""
    counts = Counter(finding.severity for finding in findings)
    return ", ".join(
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in _SEVERITIES if counts[severity])


def _object(finding: Problem) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "file": finding.file,
        # null where it is not about a place in the file
        "line": finding.line or None,
        "column": finding.column or None,
        "endColumn": finding.end_column or None,
        "key": finding.key,
        "variable": finding.variable,
        "message": finding.message,
        "fix": finding.fix,
        "allowed": list(finding.allowed),
        "suggestion": finding.suggestion,
    }


def _allowed(finding: Problem) -> str:
    return f"allowed: {', '.join(finding.allowed)}" if finding.allowed else ""


def _suggested(finding: Problem) -> str:
    return f"did you mean {finding.suggestion}?" if finding.suggestion else ""


def _escape(text: str, also: str = "") -> str:
    """Percent-encoding of what would end a command or a property of it."""
    for character in "%\r\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
