"""YAML text → nodes with positions. Only plain data is ever made of them: nothing of YAML constructs an object here.

Anchors, aliases and merge keys (``<<``) work; a file is one document.
"""

from __future__ import annotations

from typing import Any

import attrs
import yaml
from yaml.reader import Reader

from gogate_py.config.problems import Findings, Path, Place

# libyaml is ten times as fast on a file of thousands of routes; its nodes and marks are the same.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_STANDARD_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"))
#: Deeper than any valid configuration, and far from where recursion over the nodes would end.
MAX_DEPTH = 50


@attrs.frozen
class Entry:
    """One key of a mapping with its value. ``path`` is set where the key stands elsewhere than its setting does."""

    key: str
    key_node: yaml.Node
    value: yaml.Node
    path: Path = ()

    def place(self) -> Place:
        """Where key and value are written."""
        key, value = self.key_node.start_mark, self.value.start_mark
        return Place(value.line + 1, value.column + 1, key.line + 1, key.column + 1, "",
                     width(self.value), width(self.key_node))


def compose(text: str, findings: Findings) -> yaml.Node | None:
    """The root node; None for a file without content or one that is not YAML (then the problem is in ``findings``)."""
    strange = Reader.NON_PRINTABLE.search(text)
    if strange:
        before = text[: strange.start()]
        line = before.count("\n") + 1
        column = strange.start() - (before.rfind("\n") + 1) + 1
        findings.add_at(line, column, (), f"the character U+{ord(strange[0]):04X} is not possible in YAML")
        return None
    if _depth_exceeded(text, findings):
        return None
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        _report_syntax(error, findings)
        return None
    except yaml.YAMLError as error:
        findings.add_at(1, 1, (), f"not valid YAML: {error}")
        return None
    return root


def _depth_exceeded(text: str, findings: Findings) -> bool:
    """Refuse absurd nesting before the composer recurses into it (its C form would overflow the stack)."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    mark: Any = event.start_mark
                    findings.add_at(mark.line + 1, mark.column + 1, (), f"nested deeper than {MAX_DEPTH} levels")
                    return True
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        pass  # reported by the composer, which meets the same error
    return False


def _report_syntax(error: yaml.MarkedYAMLError, findings: Findings) -> None:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    what = error.problem or "syntax error"
    if "another document" in what or "single document" in (error.context or ""):
        message = "a configuration is one YAML document; a second one begins here"
    else:
        message = f"not valid YAML: {what}"
        if error.context and error.context_mark is not None:
            message += f" ({error.context} from line {error.context_mark.line + 1})"
        source = findings.lines[line - 1] if line <= len(findings.lines) else ""
        if source[column - 1 : column] == "\t":
            message += "; indent with spaces, not tabs"
        elif "${" in source and "flow" in (error.context or ""):
            message += "; put a value with ${…} in quotes where it stands inside { } or [ ]"
    findings.add_at(line, column, (), message)


def width(node: yaml.Node) -> int:
    """The characters of a node that begins and ends in one line, quotes included; else 0."""
    start, end = node.start_mark, node.end_mark
    return end.column - start.column if start.line == end.line else 0


def is_null(node: yaml.Node) -> bool:
    """Whether a value was left empty (or written as null)."""
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def is_merge(node: yaml.Node) -> bool:
    """Whether a key is ``<<``."""
    return bool(node.tag == _MERGE)


def has_foreign_tag(node: yaml.Node) -> bool:
    """Whether a node carries a tag of its own (``!name``, ``!!python/…``), which no setting understands."""
    return node.tag not in _STANDARD_TAGS


class Entries:
    """Reads the entries of mapping nodes; keeps what it flattened, so that nested merge keys cost their size once."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._flat: dict[int, list[Entry]] = {}

    def of(self, node: yaml.MappingNode, path: Path) -> list[Entry]:
        """The entries in the order of the file, merged ones last; a key of the mapping itself beats a merged one."""
        known = self._flat.get(id(node))
        if known is not None:
            return known
        self._flat[id(node)] = own = []
        merged: list[Entry] = []
        for key, value in node.value:
            if is_merge(key):
                merged += self._merged(value, path)
            elif isinstance(key, yaml.ScalarNode):
                own.append(Entry(key.value, key, value))
            else:
                mark = key.start_mark
                self._findings.add_at(mark.line + 1, mark.column + 1, path, "a key must be text")
        taken = {entry.key for entry in own}
        for entry in merged:
            if entry.key not in taken:
                taken.add(entry.key)
                own.append(entry)
        return own

    def _merged(self, node: yaml.Node, path: Path) -> list[Entry]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: list[Entry] = []
        for source in sources:
            if isinstance(source, yaml.MappingNode):
                merged += self.of(source, path)
            else:
                mark = source.start_mark
                self._findings.add_at(mark.line + 1, mark.column + 1, path, "<< takes a mapping or a list of mappings")
        return merged
