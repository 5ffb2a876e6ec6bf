"""docs/troubleshooting.md has every reason that gogate gives, with the status that goes with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gogate_py.dataplane import admission, ends, proxy_intake, sni_intake, tls_intake
from gogate_py.errors import Failure

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
DATAPLANE = ROOT / "gogate_py" / "dataplane"


def section(heading: str) -> str:
    """What stands below a heading of the second level."""
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(heading: str) -> set[str]:
    """The words in the first cells of a section's tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", section(heading), re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([a-z_]+)`", row)}


def test_every_reason_of_an_answer_is_listed_once() -> None:
    """Each Failure has its row, with its status, and there is no other one."""
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \| \S.* \| \S.* \|$", section("Reasons of answers"), re.MULTILINE)
    assert sorted(rows) == sorted((str(failure.status), failure.reason) for failure in Failure)


def test_every_reason_of_a_closed_connection_is_listed() -> None:
    """What the intakes count, and what a relay counts for want of a backend."""
    counted = {
        value for module in (admission, proxy_intake, sni_intake, tls_intake) for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    } - {tls_intake.OK, tls_intake.RESUMED, ends.UNIX}  # fmt: skip
    relay = (DATAPLANE / "tcp_relay.py").read_text() + (DATAPLANE / "tcp_downstream.py").read_text()
    counted |= {name.lower() for name in re.findall(r"refuse\(Failure\.([A-Z_]+)\.reason\)", relay)}
    # The relay counts what LivePool.why_none answers, too.
    assert "refuse(failure.reason)" in relay
    pool = (DATAPLANE / "live_pool.py").read_text()
    counted |= {name.lower() for name in re.findall(r"Failure\.([A-Z_]+)", pool)}
    assert first_cells("Connections that were closed at once") == counted


def test_every_result_of_a_tcp_connection_is_listed() -> None:
    """What a relay says of itself, and what others say who cut it."""
    text = "".join(path.read_text() for path in DATAPLANE.glob("*.py"))
    text += (ROOT / "gogate_py" / "process" / "worker.py").read_text()
    said = set(re.findall(r'relay\.cut\("([a-z_]+)"\)|self\.cut\("([a-z_]+)"\)|_give_up\("([a-z_]+)"', text))
    said = {word for words in said for word in words if word}
    for line in re.findall(r"(?:_result|_failed_as) = (.*)", (DATAPLANE / "tcp_relay.py").read_text()):
        said |= set(re.findall(r'"([a-z_]+)"', line))
    assert first_cells("How TCP connections end") == said | {Failure.BACKEND_DRAINED.reason}


@pytest.mark.parametrize("reason", sorted(first_cells("Answers that were cut")))
def test_the_reasons_of_cut_answers_exist(reason: str) -> None:
    """Each is a word of the data plane, or a Failure's."""
    text = "".join(path.read_text() for path in DATAPLANE.glob("*.py"))
    assert f'"{reason}"' in text or reason in {failure.reason for failure in Failure}
