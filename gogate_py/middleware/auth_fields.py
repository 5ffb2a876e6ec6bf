"""Header fields of authentication: what a 401 asks for, and how a name or claim is told to a backend.

A value from a token, a user name or a key's name becomes a field value like this, and can be read back in one way only:

    visible ASCII but %    as it is
    a blank                as it is, at either end %20
    anything else          its UTF-8 bytes as %XX; % itself as %25
    a list                 its elements joined with commas, a comma in an element as %2C
    a number, true, false  as JSON writes it
    null, an object, an empty list, more than 4 KiB    no field at all

So no value can end its line, pass for two values of a list, or say something else to a backend that reads Latin-1.
"""

from __future__ import annotations

import re
from typing import Final

from gogate_py.policy.token_check import plain_text

MAX_VALUE: Final = 4096

_is_plain: Final = re.compile(r"[!-$&-~](?:[ -$&-~]*[!-$&-~])?").fullmatch
_is_plain_element: Final = re.compile(r"[!-$&-+\--~](?:[ -$&-+\--~]*[!-$&-+\--~])?").fullmatch
_AS_IT_IS: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def challenge(scheme: str, realm: str, *parameters: str) -> bytes:
    """A finished WWW-Authenticate line (RFC 9110 section 11.6.1); ``realm`` becomes a quoted string."""
    safe = "".join(char if " " <= char <= "~" else "?" for char in realm).replace("\\", "\\\\").replace('"', '\\"')
    said = ", ".join((f'{scheme} realm="{safe}"', *parameters))
    return f"WWW-Authenticate: {said}\r\n".encode()


def field_value(value: object) -> bytes | None:
    """A claim or name as the value of a header field; None when there is none to tell (see the table above)."""
    if isinstance(value, list):
        texts = [plain_text(one) for one in value]
        if not texts or None in texts:
            return None
        encoded = b",".join(_encoded(text, True) for text in texts if text is not None)
    else:
        text = plain_text(value)
        if not text:
            return None
        encoded = _encoded(text, False)
    return encoded if 0 < len(encoded) <= MAX_VALUE else None


def _encoded(text: str, element: bool) -> bytes:
    if (_is_plain_element if element else _is_plain)(text) is not None:
        return text.encode()
    data = text.encode()
    last = len(data) - 1
    return b"".join(
        b"%%%02X" % byte
        if byte not in _AS_IT_IS or (byte == 0x20 and place in (0, last)) or (element and byte == 0x2C)
        else bytes((byte,))
        for place, byte in enumerate(data)
    )
