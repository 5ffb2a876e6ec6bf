"""Targets and hosts: one canonical path for everybody (SECURITY.md T10, T11)."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.wire.target import canonical_path, is_valid_host, split_target

# What most paths are made of is in it more than once.
PIECES = ["/", "/", "/", "a", "b", "admin", "admin", "//", ".", "..", "...", "..;", ".;", ";", "%3b", "\\", "%"]
PIECES += ["%2e", "%2E", "%2e%2e", ".%2e", "%2f", "%2F", "%5c", "%00", "%25", "%252e", "%252f", "%61dmin", "%7e", "%c3"]
targets = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: ("/" + "".join(pieces)).encode())


def lenient(path: bytes) -> bytes:
    """What the most forgiving backend makes of a path: decodes all, takes "\\" for "/", cuts dots' parameters off."""
    path = unquote_to_bytes(path).replace(b"\\", b"/").split(b"\0")[0]
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        plain = segment.split(b";")[0]
        if plain == b"..":
            del kept[-1:]
        elif segment and plain != b".":
            kept.append(segment)
    return b"/" + b"/".join(kept)


def canonical(target: bytes) -> bytes | None:
    """The canonical path of a target, or None when it is refused."""
    try:
        return split_target(b"GET", target)[0]
    except WireError as error:
        # any other failure is let through, for the test to fail with
        if error.failure is not Failure.BAD_TARGET:
            raise
        return None


@settings(max_examples=300, deadline=None)
@given(targets)
def test_canonical_form_is_stable(target: bytes) -> None:
    """Normalising a canonical path changes nothing."""
    path = canonical(target)
    if path is not None:
        assert canonical_path(path) == path
        assert canonical(path) == path


@settings(max_examples=500, deadline=None)
@given(targets)
def test_no_lenient_reading_reaches_another_prefix(target: bytes) -> None:
    """A path that is not under /admin for gogate is not under /admin for the most forgiving backend (T11)."""
    path = canonical(target)
    if path is not None and not re.match(rb"/admin(?![a-zA-Z0-9.%])", path):
        assert not re.match(rb"/admin(/|\Z)", lenient(path))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=30))
def test_any_bytes_are_a_verdict(target: bytes) -> None:
    """Arbitrary targets are accepted as visible ASCII or refused; there is no other outcome."""
    try:
        path, query, authority = split_target(b"OPTIONS", target)
    except WireError:
        return
    assert re.fullmatch(rb"\*|/[!-~]*", path)
    assert re.fullmatch(rb"(\?[!-~]*)?", query)
    assert not authority or is_valid_host(authority)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/..", b"/"),
        (b"/a/b/..", b"/a/"),
        (b"/.", b"/"),
        (b"//", b"/"),
        (b"/%7Ea/%2E%2E/b", b"/b"),
        (b"/%e2%82%ac", b"/%E2%82%AC"),
        (b"/a;x=..;/b", None),
        (b"/%2F", None),
        (b"/a/../..", None),
    ],
)
def test_canonical_paths(path: bytes, expected: bytes | None) -> None:
    """Examples of RFC 3986 section 6.2.2 normalisation, and of what is refused instead."""
    if expected is None:
        with pytest.raises(WireError):
            canonical_path(path)
    else:
        assert canonical_path(path) == expected


def test_trailing_newlines_are_not_overlooked() -> None:
    """A newline at the very end, which "$" would let through, is refused everywhere."""
    assert not is_valid_host(b"a\n")
    assert canonical(b"/a\n") is None
