"""Request targets and hosts: one canonical path, one authority, or a refusal (SECURITY.md T10 to T12, H10).

Routing, limits and the backend must see the very same path: what one of them reads differently is a way around the
others. So the path is brought into one form (RFC 3986 section 6.2.2) and that form is what is forwarded; what different
servers are known to read differently (encoded slashes, backslashes, dot segments with parameters) is refused. A query
is forwarded byte for byte, because nobody agrees on its meaning, but it must be plain visible ASCII.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from gogate_py.errors import Failure, WireError
from gogate_py.wire.possessive import STAR

# Visible ASCII without # " < > \ ^ ` { }. None of these is legal in a URI (RFC 3986 appendix A; # starts a fragment,
# which is never sent) and all have been used to hide a part of a target from one of two parsers (CVE-2023-45539).
QUERY_CHARACTERS: Final = rb"!$-;=?-\[\]_a-z|~"
# The same without ? (it ends the path) and | (which IIS and some CGIs read as a path of their own).
PATH_CHARACTERS: Final = rb"!$-;=@-\[\]_a-z~"

_split: Final = re.compile(rb"(/[%b]*)(\?[%b]*)?" % (PATH_CHARACTERS, QUERY_CHARACTERS)).fullmatch
_absolute: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE).fullmatch
# Paths without any of these are canonical already; nearly all are.
_needs_work: Final = re.compile(rb"[%;]|//|/\.").search
_slashes: Final = re.compile(rb"//+")
_escape: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_dot_with_parameters: Final = re.compile(rb"/\.{1,2}(?:;|%3B)").search
_dot_segment: Final = re.compile(rb"/\.{1,2}(?:/|;|%3B|\Z)").search

# What an escaped octet becomes: unreserved characters themselves (RFC 3986 section 2.3), the others in upper case.
_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_DECODED: Final = {
    b"%02X" % octet: (bytes((octet,)) if octet in _UNRESERVED else b"%%%02X" % octet) for octet in range(256)
}
# "/", "\" and NUL: half of the servers decode them before they split the path, the other half after.
_REFUSED: Final = frozenset((b"2F", b"5C", b"00"))

# Stricter than RFC 3986's reg-name: no sub-delims, no escapes, no empty labels. 255 bytes is DNS's limit with room for
# a short port; PORT ends at 65535.
PORT: Final = rb":(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])(?![0-9])"
NAME: Final = rb"[A-Za-z0-9_\-]++(?:\.[A-Za-z0-9_\-]++)%b\.?+" % STAR
MAX_HOST: Final = 255
_host: Final = re.compile(rb"(?:%b|\[([0-9A-Fa-f:.]+)\])(?:%b)?" % (NAME, PORT)).fullmatch


def is_valid_host(host: bytes) -> bool:
    """Whether this is a host with an optional port: a name, an IPv4 address or an IPv6 address in brackets."""
    found = _host(host) if len(host) <= MAX_HOST else None
    if found is None:
        return False
    v6: bytes | None = found[1]
    if v6 is None:
        return True
    try:
        ipaddress.IPv6Address(v6.decode("ascii"))
    except ValueError:
        return False
    return True


def split_target(method: bytes, target: bytes, escaped_slashes: bool = False) -> tuple[bytes, bytes, bytes]:
    """Take a request target apart: (canonical path, query with its "?" or b"", authority or b"").

    The authority is only there in absolute-form (RFC 9112 section 3.2.2), where it replaces Host. Raises
    WireError(BAD_TARGET), or BAD_HOST when the authority is not a valid host (userinfo included).
    """
    if target == b"*":
        if method == b"OPTIONS":
            return b"*", b"", b""
        raise WireError(Failure.BAD_TARGET, "only OPTIONS may have the target *")
    authority = b""
    if not target.startswith(b"/"):
        absolute = _absolute(target)
        if absolute is None:
            raise WireError(Failure.BAD_TARGET, "the target is neither a path nor an http URI")
        authority, target = absolute.groups()
        if not is_valid_host(authority):
            raise WireError(Failure.BAD_HOST, "the target's authority is not a valid host")
        if not target.startswith(b"/"):
            # RFC 9112 section 3.2.4: OPTIONS with neither path nor query asks about the server as a whole.
            if not target and method == b"OPTIONS":
                return b"*", b"", authority
            target = b"/" + target
    parts = _split(target)
    if parts is None:
        raise WireError(Failure.BAD_TARGET, "the target has a character that a URI cannot have")
    return canonical_path(parts[1], escaped_slashes), parts[2] or b"", authority


def canonical_path(path: bytes, escaped_slashes: bool = False) -> bytes:
    """Bring a path that starts with "/" into its one form; doing it twice changes nothing.

    Unreserved escapes are decoded, other escapes get upper-case digits, repeated slashes are merged, dot segments are
    removed (in this order: an encoded dot is a dot). Raises WireError(BAD_TARGET) for an invalid escape, for %2F, %5C
    and %00, for dot segments with parameters and for a path that climbs above its root.

    ``escaped_slashes``: %2F is data and stays as it is, for routing and the backend alike (npm and GitLab have such
    paths); refused is only a path that would have dot segments for a backend that decodes it first.
    """
    if _needs_work(path) is None:
        return path
    if b"%" in path:
        path = _escape.sub(_decode_and_keep_slashes if escaped_slashes else _decode_escape, path)
        if escaped_slashes and b"%2F" in path and _dot_segment(path.replace(b"%2F", b"/")) is not None:
            raise WireError(Failure.BAD_TARGET, "the path has a dot segment beside an encoded slash")
    path = _slashes.sub(b"/", path)
    # Servlet containers cut ";..." off a segment before they resolve dots: "/a/..;/b" is "/b" to them and not to us.
    # "..;" inside of a longer segment is refused with it, as the rule says (T11).
    if b"..;" in path or _dot_with_parameters(path) is not None:
        raise WireError(Failure.BAD_TARGET, "the path has a dot segment with parameters")
    if b"/." in path:
        path = _remove_dot_segments(path)
    return path


def _decode_and_keep_slashes(found: re.Match[bytes]) -> bytes:
    return b"%2F" if found[1] is not None and found[1].upper() == b"2F" else _decode_escape(found)


def _decode_escape(found: re.Match[bytes]) -> bytes:
    digits: bytes | None = found[1]
    if digits is None:
        raise WireError(Failure.BAD_TARGET, "the path has an invalid percent-escape")
    digits = digits.upper()
    if digits in _REFUSED:
        raise WireError(Failure.BAD_TARGET, "the path has an encoded slash, backslash or NUL")
    return _DECODED[digits]


def _remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4 for a path without empty segments, refusing to climb above the root."""
    kept: list[bytes] = []
    segments = path[1:].split(b"/")
    for segment in segments:
        if segment == b"..":
            if not kept:
                raise WireError(Failure.BAD_TARGET, "the path climbs above its root")
            kept.pop()
        elif segment != b".":
            kept.append(segment)
    # A dot segment at the end names a directory: /a/b/.. is /a/, not /a.
    if segments[-1] in (b".", b"..") and kept:
        kept.append(b"")
    return b"/" + b"/".join(kept)
