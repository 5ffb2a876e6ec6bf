"""Distinguished names as one line of a header field."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.wire.distinguished_name import distinguished_name


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((), ""),
        (((("commonName", "alice"),),), "CN=alice"),
        (
            ((("countryName", "DE"),), (("organizationName", "Example"),), (("commonName", "A, B"),)),
            "CN=A\\, B,O=Example,C=DE",
        ),
        (((("organizationalUnitName", "x"), ("commonName", "y")),), "OU=x+CN=y"),
        (((("emailAddress", "a@b.test"),), (("1.2.3.4", "own"),)), "1.2.3.4=own,emailAddress=a@b.test"),
        (((("commonName", " a#b "),),), "CN=\\ a#b\\ "),
        (((("commonName", "#x"),),), "CN=\\#x"),
        (((("commonName", 'q"+;<>\\='),),), 'CN=q\\"\\+\\;\\<\\>\\\\\\='),
        (((("commonName", "Ä"),),), "CN=\\C3\\84"),
        (((("commonName", "a\r\nX-Admin: 1\0"),),), "CN=a\\0D\\0AX-Admin: 1\\00"),
        (((("commonName", "\ud800"),),), "CN=\\3F"),
    ],
)
def test_text(steps: tuple[tuple[tuple[str, str], ...], ...], text: str) -> None:
    """RFC 4514: the last step first, special characters escaped, everything else in hex."""
    assert distinguished_name(steps) == text


@given(st.lists(st.text(), min_size=1))
def test_no_value_ends_the_line_or_begins_another_step(values: list[str]) -> None:
    """Whatever a certificate says: visible ASCII, and as many steps as there are."""
    text = distinguished_name([(("commonName", value),) for value in values])
    assert re.fullmatch(r"[ -~]*", text)
    assert len(re.sub(r"\\.", "", text).split(",")) == len(values)
