"""The tables of docs/configuration.md are what the classes say."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from test_config_schema import CLASSES

from gogate_py.config.reference import main, reference, renewed
from gogate_py.config.settings import settings_of

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_generated_from_the_classes() -> None:
    """The page is what ``python -m gogate_py.config.reference docs/configuration.md`` makes of it."""
    assert PAGE.read_text() == renewed(PAGE.read_text())


def test_what_stands_around_the_tables_stays(tmp_path: Path) -> None:
    """Writing the tables replaces what is between the marks, and nothing else."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- reference: begin -->\nwhat was there\n<!-- reference: end -->\nafter\n")
    main([str(page)])
    assert page.read_text().startswith("before\n<!-- reference: begin -->\n\n### The file\n")
    assert page.read_text().endswith("\n<!-- reference: end -->\nafter\n")
    assert "what was there" not in page.read_text()


@pytest.mark.parametrize("cls", CLASSES)
def test_every_key_has_a_row(cls: type[attrs.AttrsInstance]) -> None:
    """One table has exactly the keys of the class, in their order."""
    keys = [named.key for named in settings_of(cls)]
    tables = [
        [line.split("`")[1] for line in section.splitlines() if line.startswith(("| `", "| [`"))]
        for section in reference().split("### ")
    ]
    assert keys in tables


def test_ranges_and_defaults_are_shown() -> None:
    """A row has the key, what it may be, what it is without being written, and its meaning."""
    assert "| `weight` | integer, 0 to 1000 | `1` | share of the work; 0 = kept, but gets none |" in reference()
    assert "| `interval` | duration, 10ms to 24h | `5s` |" in reference()
    assert "| `addr` | address | required |" in reference()


def test_a_bar_inside_of_a_cell_is_no_end_of_it() -> None:
    """Every row has four cells, whatever its text."""
    rows = [line for line in reference().splitlines() if line.startswith("| ")]
    assert {len(row.replace("\\|", "").split("|")) for row in rows} == {6}
