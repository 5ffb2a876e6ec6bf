"""Header fields of authentication: challenges, and values that cannot say two things."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.middleware.auth_fields import MAX_VALUE, challenge, field_value


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("alice", b"alice"),
        ("John Smith", b"John Smith"),
        (" x ", b"%20x%20"),
        (" ", b"%20"),
        ("100%", b"100%25"),
        ("a,b", b"a,b"),
        ("Zoë", b"Zo%C3%AB"),
        ("a\r\nX: y", b"a%0D%0AX: y"),
        ("a\tb\0\x7f", b"a%09b%00%7F"),
        (7, b"7"),
        (-1.5, b"-1.5"),
        (True, b"true"),
        (False, b"false"),
        (["a", 1, True, "b c"], b"a,1,true,b c"),
        (["a,b", " c"], b"a%2Cb,%20c"),
        ("", None),
        (None, None),
        ([], None),
        ([""], None),
        (["a", None], None),
        (["a", ["b"]], None),
        ({"a": 1}, None),
        (float("inf"), None),
        ("x" * MAX_VALUE, b"x" * MAX_VALUE),
        ("x" * (MAX_VALUE + 1), None),
    ],
)
def test_values_of_fields(value: Any, field: bytes | None) -> None:
    """The table of the module."""
    assert field_value(value) == field


@given(st.text(min_size=1, max_size=30))
def test_every_text_is_a_safe_field_and_can_be_read_back(text: str) -> None:
    """Visible ASCII and inner blanks only; decoding gives the text, and no other text makes the same field."""
    field = field_value(text)
    assert field is not None
    assert re.fullmatch(rb"[!-~](?:[ -~]*[!-~])?", field)
    assert unquote(field.decode()) == text


@given(st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=5))
def test_lists_can_be_read_back(texts: list[str]) -> None:
    """A comma separates elements and never stands in one."""
    field = field_value(texts)
    assert field is not None
    assert [unquote(part) for part in field.decode().split(",")] == texts


@given(st.text(max_size=30))
def test_a_realm_cannot_leave_its_quotes(realm: str) -> None:
    """Whatever the realm is, the line is one challenge (RFC 9110 section 5.6.4)."""
    line = challenge("Basic", realm, 'charset="UTF-8"')
    assert re.fullmatch(rb'WWW-Authenticate: Basic realm="(?:[ !#-\[\]-~]|\\["\\])*", charset="UTF-8"\r\n', line)
