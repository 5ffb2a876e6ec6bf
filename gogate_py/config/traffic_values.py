"""Kinds of values of traffic management: thresholds, keys of limits, conditions, origins, what a route does with paths.

Pure, like values.py. What is right is decided by the module that will use the value (policy/ and middleware/): these
kinds ask it, so that the loader and the data path cannot differ.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from gogate_py import addresses
from gogate_py.config.names import METHODS, FieldName, Method, PathPrefix, StatusRanges, status_ranges
from gogate_py.config.values import BadValue, Choice, Integer, closest, quote, squash
from gogate_py.middleware.cors import valid_origin
from gogate_py.middleware.request_keys import PLAIN_KEYS, valid_key
from gogate_py.policy.credentials import check_jwks_url
from gogate_py.policy.router import check_pattern
from gogate_py.policy.signature_keys import KINDS

#: What the value true of stripPrefix is until the prefix is known (resolving.py); no path is written like this.
WHOLE_PREFIX: Final = "true"
#: The word of retry.methods for all methods that may be repeated (policy/retry.py).
IDEMPOTENT: Final = "idempotent"

_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@attrs.frozen
class Threshold:
    """What opens a breaker: ``count`` consecutive failures, or (count 0) this ``ratio`` of failures in a window."""

    count: int
    ratio: float = 0.0


@attrs.frozen
class FailureThreshold:
    """A count of consecutive failures, or a percentage of the outcomes in a window. Which one is meant is told by the
    percent sign alone, never guessed by size."""

    low: int
    high: int

    @property
    def unit(self) -> str:
        return 'or "50%" of the outcomes in window'

    def parse(self, text: str, quoted: bool) -> Threshold:
        if not text.endswith("%"):
            return Threshold(Integer(self.low, self.high).parse(text, quoted))
        match = _PERCENT.match(text)
        ratio = float(match[1]) / 100 if match else 0.0
        if not 0 < ratio <= 1:
            raise BadValue(f"{text!r} is not a percentage above 0% and up to 100%")
        return Threshold(0, ratio)

    def show(self, value: Any) -> str:
        return str(value.count) if value.count else f'"{value.ratio * 100:g}%"'


class Percent(Integer):
    """A whole percentage; the percent sign may be left out."""

    @property
    def unit(self) -> str:
        return f"percent; 0 = {self.zero}" if self.zero else "percent"

    def parse(self, text: str, quoted: bool) -> int:
        return super().parse(text.removesuffix("%").removesuffix(" "), quoted)


@attrs.frozen
class Factor:
    """A number from 1 on, or 0 for no bound."""

    high: float

    @property
    def unit(self) -> str:
        return "0 = no bound"

    def parse(self, text: str, quoted: bool) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", text):
            raise BadValue(f"{text!r} is not a number such as 1.25")
        value = float(text)
        if value and not 1 <= value <= self.high:
            raise BadValue(f"{text} is neither 0 nor from 1 to {self.high:g}")
        return value

    def show(self, value: Any) -> str:
        return f"{value:g}"


@attrs.frozen
class OneOf:
    """One of a few numbers."""

    numbers: tuple[int, ...]

    @property
    def unit(self) -> str:
        return " | ".join(map(str, self.numbers))

    def parse(self, text: str, quoted: bool) -> int:
        for number in self.numbers:
            if text == str(number):
                return number
        raise BadValue(f"{text!r} is not possible here", allowed=tuple(map(str, self.numbers)))

    def show(self, value: Any) -> str:
        return str(value)


@attrs.frozen
class _Word:
    """What the kinds below share: no unit, and shown as text."""

    @property
    def unit(self) -> str:
        return ""

    def show(self, value: Any) -> str:
        return quote(value)


class PlainText(_Word):
    """Any text without control characters, also none."""

    def parse(self, text: str, quoted: bool) -> str:
        if _CONTROL.search(text):
            raise BadValue("text with a control character (a line break, a tab) is not possible here")
        return text


class LongText(_Word):
    """Any text, of several lines too."""

    def parse(self, text: str, quoted: bool) -> str:
        return text

    def show(self, value: Any) -> str:
        return quote(value).replace("\n", "\\n")


class Secret(_Word):
    """Text that no problem may show: the loader hides the line it stands in."""

    def parse(self, text: str, quoted: bool) -> str:
        return text


class FailureStatuses(StatusRanges):
    """Statuses of answers that count as a backend's failure: within 400 to 599."""

    def parse(self, text: str, quoted: bool) -> str:
        found = super().parse(text, quoted)
        if any(low < 400 or high > 599 for low, high in status_ranges(found)):
            raise BadValue("only statuses from 400 to 599 can be failures; an answer below is a success")
        return found


class RetryReason(_Word):
    """What a request is tried again for: connect, reset, timeout, or a status of 500 to 599."""

    WORDS: Final = Choice(
        ("connect", "reset", "timeout"),
        aliases={"connect_failure": "connect", "connection_error": "connect", "error": "reset", "per_try": "timeout"})

    def parse(self, text: str, quoted: bool) -> str:
        if re.fullmatch(r"5[0-9]{2}", text):
            return text
        if re.fullmatch(r"[0-9]{3}|[45][xX]{2}|gateway[-_]error|retriable[-_]4xx", text):
            raise BadValue(
                f"{text!r}: name each status, from 500 to 599; others are the client's own or a success",
                allowed=("connect", "reset", "timeout", "500", "502", "503", "504"))
        return self.WORDS.parse(text, quoted)

    def show(self, value: Any) -> str:
        return str(value)


class RetryMethod(_Word):
    """``idempotent`` for GET, HEAD, OPTIONS, PUT and DELETE, or the name of a method."""

    def parse(self, text: str, quoted: bool) -> str:
        if squash(text) == IDEMPOTENT:
            return IDEMPOTENT
        if text.upper() not in METHODS and closest(text, (IDEMPOTENT,)):
            raise BadValue(f"{text!r} is not a method", suggestion=IDEMPOTENT)
        return Method().parse(text, quoted)


class KeySpec(_Word):
    """What tells clients apart (middleware/request_keys.py)."""

    def parse(self, text: str, quoted: bool) -> str:
        spec = _canonical_key(text)
        wrong = valid_key(spec)
        if wrong:
            meant = closest(text.partition(":")[0], PLAIN_KEYS) if ":" not in text else ""
            raise BadValue(f"{text!r} {wrong}", suggestion=meant)
        return spec


def _canonical_key(text: str) -> str:
    """``API-Key`` is api_key, ``Header:X-A`` header:X-A; the name behind the colon stays what it is."""
    kind, colon, name = text.partition(":")
    kind = {"apikey": "api_key", "clientip": "ip", "remoteip": "ip"}.get(squash(kind), kind.lower())
    return f"{kind}{colon}{name}"


class StickyKey(KeySpec):
    """What a client keeps its arm by: cookie, ip, header:NAME or jwt:CLAIM."""

    def parse(self, text: str, quoted: bool) -> str:
        if text.lower() == "cookie":
            return "cookie"
        kind = text.partition(":")[0].lower()
        if kind not in ("ip", "header", "jwt"):
            known = ("cookie", "ip", "header:NAME", "jwt:CLAIM")
            hint = "; the cookie's name is the key cookie beside it" if kind == "cookie" else ""
            raise BadValue(f"{text!r} cannot keep a client in its arm{hint}", allowed=known)
        return super().parse(text, quoted)


class Condition(_Word):
    """The value that a field or parameter must have: itself, ``~`` and a regular expression, or "" for any."""

    def parse(self, text: str, quoted: bool) -> str:
        if _CONTROL.search(text):
            raise BadValue("no value of a request has control characters: this could never match")
        if text.startswith("~"):
            wrong = check_pattern(text[1:])
            if wrong:
                raise BadValue(f"the regular expression is not possible here: {wrong}")
        return text


class StripPrefix(_Word):
    """true (the matched prefix), false, or the beginning of paths that is cut off."""

    def parse(self, text: str, quoted: bool) -> str:
        if text.lower() in ("true", "false") and not quoted:
            return WHOLE_PREFIX if text.lower() == "true" else ""
        return PathPrefix().parse(text, quoted)

    def show(self, value: Any) -> str:
        return "true" if value == WHOLE_PREFIX else "false" if not value else quote(value)


class Origin(_Word):
    """An origin as browsers send it, or ``*``."""

    def parse(self, text: str, quoted: bool) -> str:
        wrong = valid_origin(text)
        if wrong:
            raise BadValue(f"{text!r}: {wrong}")
        return text


class MethodOrAll(Method):
    """A method, or ``*``."""

    def parse(self, text: str, quoted: bool) -> str:
        return text if text == "*" else super().parse(text, quoted)


class FieldNameOrAll(FieldName):
    """The name of a header field, or ``*``."""

    def parse(self, text: str, quoted: bool) -> str:
        return text if text == "*" else super().parse(text, quoted)


class Algorithm(_Word):
    """A JWS algorithm; ``none`` is none."""

    def parse(self, text: str, quoted: bool) -> str:
        for known in KINDS:
            if squash(known) == squash(text):
                return known
        if text.lower() == "none":
            raise BadValue("none means tokens without a signature: that is never accepted", allowed=tuple(KINDS))
        raise BadValue(f"{text!r} is not an algorithm that is known here", tuple(KINDS), closest(text, tuple(KINDS)))


class JwksUrl(_Word):
    """Where a key set is: https, or http to this machine."""

    def parse(self, text: str, quoted: bool) -> str:
        wrong = check_jwks_url(text)
        if wrong:
            raise BadValue(wrong)
        return text


class ServiceUrl(_Word):
    """An HTTP service that gogate itself asks: http://host[:port][/path], or https."""

    def parse(self, text: str, quoted: bool) -> str:
        match = re.fullmatch(r"(https?)://([^/?#@]+)(/[!-\"$-~]*)?", text)
        if match is None:
            raise BadValue(f"{text!r} is not a URL like http://127.0.0.1:9000/verify")
        usual = 443 if match[1] == "https" else 80
        authority = match[2] if re.search(r":[0-9]+\Z", match[2]) else f"{match[2]}:{usual}"
        try:
            addresses.parse(authority, need_host=True)
        except ValueError as error:
            raise BadValue(str(error)) from None
        return text


class DocumentSource(ServiceUrl):
    """Where an OpenAPI document is: a URL that gogate asks, or the path of a file."""

    def parse(self, text: str, quoted: bool) -> str:
        if "://" in text:
            return super().parse(text, quoted)
        if not text.strip():
            raise BadValue("is empty; write a URL like http://127.0.0.1:9001/openapi.json, or the path of a file")
        return text
