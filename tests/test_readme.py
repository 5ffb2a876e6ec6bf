"""README.md is true: its configurations can run, it leads to the documentation (test_docs.py checks links, names of
metrics and paths of all pages)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gogate_py.config.loader import load_text
from gogate_py.demo.configuration import Ports
from gogate_py.demo.show import welcome
from gogate_py.policy.balancers import BALANCERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONFIGURATIONS = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=range(1, len(CONFIGURATIONS) + 1))
def test_every_configuration_runs(text: str) -> None:
    """Each YAML block loads without a problem."""
    assert load_text(text, "README.md", {}).effective_routes()


def test_there_are_configurations() -> None:
    """The minimal, the production and the long form are shown."""
    assert len(CONFIGURATIONS) == 3


def test_every_page_of_the_documentation_is_linked() -> None:
    """README.md or the index of docs/ leads to each page."""
    index = README + (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert re.search(rf"\]\((?:docs/)?{re.escape(page.name)}[)#]", index), page


def test_the_balancers_that_are_named_are_all() -> None:
    """The mistake that is shown lists what is allowed."""
    shown = re.search(r"^ +allowed: (.*)$", README, re.MULTILINE)
    assert shown is not None
    assert tuple(shown[1].split(", ")) == tuple(BALANCERS)


def test_the_demo_says_what_the_first_screen_shows() -> None:
    """The lines above the commands are those of the demo."""
    shown = re.search(r"^\$ make demo\n(.*?)^\$", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    said = welcome(Ports(http=8081, tcp=8080, admin=9090), Path("config.yaml")).splitlines()
    lines = [line for line in shown[1].splitlines() if line]
    assert len(lines) == 4
    assert set(lines) <= set(said)


def test_what_is_said_of_speed_is_in_the_table() -> None:
    """The figures are those of the last table of docs/performance.md."""
    table = (ROOT / "docs" / "performance.md").read_text()
    for peer, name in (("envoy", "Envoy"), ("nginx", "nginx")):
        measured = re.search(rf"^\| small GET, 64 clients \| [^|]* {peer} \| ([0-9.]+)x {peer} \|", table, re.MULTILINE)
        assert measured is not None
        assert re.search(rf"\b{re.escape(measured[1])}\s+times {name}'s", README)
