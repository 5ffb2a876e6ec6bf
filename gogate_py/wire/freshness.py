"""Freshness: what RFC 9111 (caching) and RFC 9110 section 13 (conditions) compute from header fields alone.

How long an answer may be used again, from the first of these that is there (RFC 9111 section 4.2.1):

    Cache-Control: s-maxage=N           N seconds
    Cache-Control: max-age=N            N seconds
    Expires                             Expires - Date; by the time it came when it has no Date
    none, heuristic status              the configured time (0 = not at all)
    none, any other status              not at all

and less its Age. Rules where the RFC leaves a choice, or where two caches could disagree:

- Not to be kept at all: no-store, private, no-cache, the ones limited to some fields included; Pragma: no-cache without
  a Cache-Control. must-revalidate and proxy-revalidate are about stale answers, which are never used here.
- What cannot be read is stale: a max-age that is no number, an Expires that is no date ("0" is common). Of two values
  the least counts. A Cache-Control line that breaks the grammar counts as no-store: what is behind the break is
  unknown.
- Age is believed, Date is not compared with the own clock: apparent_age (section 4.2.3) is for caches of HTTP/1.0
  between, and a backend whose clock is slow would have nothing cached.
- A request's max-stale is not needed, as no stale answer is ever used. stale-while-revalidate and stale-if-error
  likewise; must-understand is no reason to keep what no-store forbids.

Numbers are seconds; the wall clock is given, as seconds since 1970. Knows nothing of what is stored, or where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from gogate_py.wire.headers import TOKEN
from gogate_py.wire.possessive import MAYBE, STAR

#: RFC 9111 section 1.2.2: what a larger number of seconds is taken for.
MAX_SECONDS: Final = 2**31

#: Statuses that are kept when they say for how long. 206 and 304 are parts and confirmations, not answers; the others
#: are mostly accidents.
STATUSES: Final = frozenset((200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501))
#: Those of them that are kept for the configured time when they do not say.
HEURISTIC_STATUSES: Final = frozenset((200, 203, 204, 301, 308, 404, 410))

_directive: Final = re.compile(
    rb'[ \t,]*+(%b++)(?:=(?:(%b++)|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])%b)"))%b[ \t]*+(?:,|\Z)'
    % (TOKEN, TOKEN, STAR, MAYBE)
).match
_blank: Final = re.compile(rb"[ \t,]*+").fullmatch
_seconds: Final = re.compile(rb"[0-9]+").fullmatch
_MALFORMED: Final = (b"no-store", b"")
_AGES: Final = frozenset((b"max-age", b"s-maxage"))

_DAYS: Final = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS: Final = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
)  # fmt: skip
_month = b"(" + b"|".join(_MONTHS) + b")"
_time = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})"
# RFC 9110 section 5.6.7: the one form to send, and the two old ones that must still be read.
_fixdate: Final = re.compile(rb"[A-Z][a-z]{2}, ([0-9]{2}) %b ([0-9]{4}) %b GMT" % (_month, _time)).fullmatch
_rfc850: Final = re.compile(rb"[A-Z][a-z]{5,8}, ([0-9]{2})-%b-([0-9]{2}) %b GMT" % (_month, _time)).fullmatch
_asctime: Final = re.compile(rb"[A-Z][a-z]{2} %b ([ 0-9][0-9]) %b ([0-9]{4})" % (_month, _time)).fullmatch

ETAG: Final = rb'"[!#-~\x80-\xff]*"'
is_etag: Final = re.compile(rb"(?:W/)?" + ETAG).fullmatch
_opaque_tags: Final = re.compile(rb"(?:W/)?(%b)" % ETAG).findall


def directives(lines: Iterable[bytes]) -> dict[bytes, bytes]:
    """Cache-Control lines as lower-case name → value without quotes, b"" for none (RFC 9111 section 5.2).

    A malformed line adds no-store. Of several max-age or s-maxage the least counts, unreadable ones being least.
    """
    found: dict[bytes, bytes] = {}
    for line in lines:
        at = 0
        while (one := _directive(line, at)) is not None:
            at = one.end()
            name = one[1].lower()
            value = one[2] or one[3] or b""
            if name in _AGES and name in found:
                value = min(found[name], value, key=_or_stale)
            found[name] = value
        if not _blank(line, at):
            found.update((_MALFORMED,))
    return found


def delta_seconds(value: bytes) -> int | None:
    """A number of seconds up to MAX_SECONDS; None when it is none (RFC 9111 section 1.2.2)."""
    if _seconds(value) is None:
        return None
    # Ten digits are more than MAX_SECONDS already; int() of megabytes of digits would take its time.
    digits = value.lstrip(b"0") or b"0"
    return min(int(digits), MAX_SECONDS) if len(digits) <= 10 else MAX_SECONDS


def _or_stale(value: bytes) -> int:
    """Seconds, 0 for what cannot be read."""
    return delta_seconds(value) or 0


class RequestTerms(NamedTuple):
    """What a request asks of caches (RFC 9111 section 5.2.1). Ages in seconds."""

    no_store: bool = False
    #: The answer must come from the backend; it may be stored.
    no_cache: bool = False
    max_age: int = MAX_SECONDS
    #: How much longer the answer must stay fresh.
    min_fresh: int = 0
    only_if_cached: bool = False


_NO_TERMS: Final = RequestTerms()


def request_terms(cache_control: bytes | None, pragma: bytes | None) -> RequestTerms:
    """Read a request's Cache-Control, and its Pragma where there is none (RFC 9111 section 5.4)."""
    if cache_control is None:
        if pragma is not None and b"no-cache" in pragma.lower():
            return RequestTerms(no_cache=True)
        return _NO_TERMS
    found = directives((cache_control,))
    max_age = found.get(b"max-age")
    min_fresh = found.get(b"min-fresh")
    fresh_for = 0
    if min_fresh is not None:
        wanted = delta_seconds(min_fresh)
        fresh_for = MAX_SECONDS if wanted is None else wanted
    return RequestTerms(
        b"no-store" in found,
        b"no-cache" in found,
        MAX_SECONDS if max_age is None else _or_stale(max_age),
        fresh_for,
        b"only-if-cached" in found,
    )


class AnswerTerms(NamedTuple):
    """How an answer may be used again."""

    #: Seconds from its making; always more than ``age``.
    lifetime: float
    #: Seconds that it spent in other caches.
    age: int
    #: It says itself that it may serve others than who asked (RFC 9111 section 3.5).
    shared: bool


def answer_terms(
    status: int, fields: Iterable[tuple[bytes, bytes]], ttl: float, received_at: float
) -> AnswerTerms | None:
    """The terms of a complete answer to GET; None when a shared cache must not keep it, or it is stale already.

    ``ttl``: seconds for answers that do not say; ``received_at``: wall clock, seconds since 1970.
    """
    if status not in STATUSES:
        return None
    control: list[bytes] = []
    expires: list[bytes] = []
    date = b""
    age = 0
    pragma = False
    for name, value in fields:
        lower = name.lower()
        if lower == b"cache-control":
            control.append(value)
        elif lower == b"expires":
            expires.append(value)
        elif lower == b"date":
            date = value
        elif lower == b"age":
            age = max(age, _or_stale(value))
        elif lower == b"pragma":
            pragma = pragma or b"no-cache" in value.lower()
    found = directives(control)
    if b"no-store" in found or b"private" in found or b"no-cache" in found or (pragma and not control):
        return None
    lifetime: float
    limit = found.get(b"s-maxage", found.get(b"max-age"))
    if limit is not None:
        lifetime = _or_stale(limit)
    elif expires:
        ends = [parse_date(value) for value in expires]
        dated = parse_date(date)
        made = received_at if dated is None else dated
        lifetime = min(0.0 if end is None else end - made for end in ends)
    elif status in HEURISTIC_STATUSES:
        lifetime = ttl
    else:
        return None
    lifetime = min(lifetime, MAX_SECONDS)
    if lifetime <= age:
        return None
    shared = b"public" in found or b"s-maxage" in found or b"must-revalidate" in found
    return AnswerTerms(lifetime, age, shared)


def parse_date(value: bytes) -> int | None:
    """An HTTP date of any of its three forms, as seconds since 1970; None when it is none."""
    if found := _fixdate(value):
        day, month, year, hour, minute, second = found.groups()
    elif found := _rfc850(value):
        day, month, year, hour, minute, second = found.groups()
        # Two digits, for programs older than this one: 1970 to 2069, as POSIX has it.
        year = (b"19" if year >= b"70" else b"20") + year
    elif found := _asctime(value):
        month, day, hour, minute, second, year = found.groups()
        day = day.replace(b" ", b"0")
    else:
        return None
    try:
        moment = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC
        )
    except ValueError:  # the 31st of February
        return None
    # 60 is a leap second, which no clock here knows: it is the second before it.
    return int(moment.timestamp()) if int(second) <= 60 else None


def http_date(seconds: float) -> bytes:
    """The moment ``seconds`` after 1970 began as an HTTP date. The languages of a locale are not asked."""
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        _DAYS[moment.weekday()], moment.day, _MONTHS[moment.month - 1], moment.year,
        moment.hour, moment.minute, moment.second,
    )  # fmt: skip


def not_modified(
    none_match: bytes | None, modified_since: bytes | None, etag: bytes, last_modified: int | None
) -> bool:
    """Whether the client's copy is the stored answer (RFC 9110 section 13.2.2).

    ``etag`` b"" and ``last_modified`` None: it has none. If-None-Match is compared weakly, and where it is there,
    If-Modified-Since counts for nothing.
    """
    if none_match is not None:
        if none_match == b"*":
            return True
        return etag != b"" and etag[etag.index(b'"') :] in _opaque_tags(none_match)
    if modified_since is None or last_modified is None:
        return False
    since = parse_date(modified_since)
    return since is not None and last_modified <= since
