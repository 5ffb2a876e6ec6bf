"""Is a regular expression of the configuration safe to be matched against what clients send?

Python's ``re`` goes back and tries again, and has no time limit: one bad pattern lets a client stop a worker with one
header field. So the work that a pattern can make on its worst value of MAX_VALUE bytes is bounded here, before it is
ever used. The bound is computed from the parsed pattern, from its end to its beginning, by asking at each place where
the matcher has a choice whether the next byte decides it:

    [0-9]+\\.[0-9]+     after the digits comes no digit: one end only, work adds up         n + n
    (foo|bar)          the branches begin with different bytes: one of them only           the larger
    .*foo              each byte may be where foo begins: every end is tried               n · (work behind it)
    foo.*              nothing behind it, any byte will do: succeeds at once               1
    -[0-9]*$           a run that cannot contain the byte before it begins once per "-"     1 (amortised)
    (a|ab)             one byte does not decide between them: both are tried               sum
    (x)*               a repeated group that leaves a choice inside, or may be empty       refused

"Next byte" is any byte that can come next, whatever is optional in between. This is the LL(1) condition of parsing;
patterns that meet it everywhere take linear time. Refused are also what the bound cannot be computed for: references
back, look-around, conditions, flags other than (?i).

A pattern is matched against the whole value, as bytes; "." is any byte (DOTALL). The rules err on the side of refusing.
"""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]  # private, but the only parse that is re's own
import warnings
from collections.abc import Sequence
from typing import Any, Final

#: A pattern longer than this is refused; the longest sensible ones (lists of names) are shorter.
MAX_PATTERN: Final = 256
#: A longer value does not match any pattern.
MAX_VALUE: Final = 4096
#: Steps of the matcher on the worst value; 2**18 are a few milliseconds. ".*some words.*" takes a tenth of it.
MAX_WORK: Final = 1 << 18

_ANY: Final = (1 << 256) - 1
_Item = tuple[Any, Any]

_CATEGORIES: Final = {
    str(category): sum(1 << octet for octet in range(256) if re.match(escape, bytes((octet,))))
    for category, escape in (
        ("CATEGORY_DIGIT", rb"\d"), ("CATEGORY_NOT_DIGIT", rb"\D"), ("CATEGORY_SPACE", rb"\s"),
        ("CATEGORY_NOT_SPACE", rb"\S"), ("CATEGORY_WORD", rb"\w"), ("CATEGORY_NOT_WORD", rb"\W"))
}
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_NESTED: Final = "a repetition of something that can itself match in several ways can take for ever; write it without"
_TOO_MUCH: Final = (
    "matching could take too long: several parts can match the same characters; exclude what comes next, as in "
    "[^/]*/ instead of .*/")


class _RefusedError(Exception):
    """Why the pattern is refused."""


def compile_pattern(pattern: str) -> re.Pattern[bytes]:
    """The pattern as it is matched. Raises re.error; call :func:`check_pattern` first."""
    return re.compile(pattern.encode(), re.DOTALL)


def check_pattern(pattern: str) -> str:
    """Why a pattern cannot be used on values from clients; "" when it can. For the configuration, not for requests."""
    if len(pattern) > MAX_PATTERN:
        return f"it is longer than {MAX_PATTERN} characters"
    if not pattern.isascii():
        return "it has characters outside of ASCII; write their UTF-8 bytes as \\xNN"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what will mean something else in a later Python
            compile_pattern(pattern)
            tree = parser.parse(pattern.encode(), re.DOTALL)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return f"it is not a regular expression: {error}"
    if tree.state.flags & ~(re.DOTALL | re.IGNORECASE):
        return "of the flags, only (?i) is possible"
    try:
        work = _Analysis(bool(tree.state.flags & re.IGNORECASE)).bound(list(tree))
    except _RefusedError as refused:
        return str(refused)
    return _TOO_MUCH if work > MAX_WORK else ""


class _Analysis:
    """Sets are 256-bit masks of bytes; what follows the whole pattern is 0, the end of the value."""

    def __init__(self, ignore_case: bool) -> None:
        self._ignore_case = ignore_case
        self._amortise = True
        self._choices = 0
        # id of an item → what it can begin with, and whether it can be empty; the tree keeps the items alive. Without
        # it, deep nesting would take seconds.
        self._beginnings: dict[int, tuple[int, bool]] = {}

    def bound(self, items: Sequence[_Item]) -> int:
        """Steps on the worst value. Raises _RefusedError."""
        work = self.work(items, 0, 1)
        # A run begins once per byte before it only if there is one way to get there: with one choice, there is.
        if self._choices > 1:
            self._amortise = False
            work = self.work(items, 0, 1)
        return work

    # --- what can come first

    def first(self, items: Sequence[_Item], follow: int) -> int:
        """The bytes that ``items``, with ``follow`` behind them, can begin with."""
        found = 0
        for item in items:
            octets, nullable = self._beginning(item)
            found |= octets
            if not nullable:
                return found
        return found | follow

    def _beginning(self, item: _Item) -> tuple[int, bool]:
        """The bytes that an item can begin with, and whether it can match nothing."""
        known = self._beginnings.get(id(item))
        if known is None:
            one = self._set(item)
            if one is not None:
                known = (one, False)
            else:
                kind, bodies = str(item[0]), _bodies(item)
                octets = 0
                for body in bodies:
                    octets |= self.first(body, 0)
                optional = kind == "AT" or (kind in _REPEATS and item[1][0] == 0)
                known = (octets, optional or any(all(map(self._nullable, body)) for body in bodies))
            self._beginnings[id(item)] = known
        return known

    def _nullable(self, item: _Item) -> bool:
        return self._beginning(item)[1]

    def _set(self, item: _Item) -> int | None:
        """The bytes that an item of exactly one byte can be; None for any other item."""
        kind, argument = str(item[0]), item[1]
        if kind == "ANY":
            return _ANY
        if kind == "LITERAL":
            return self._folded(1 << argument)
        if kind == "NOT_LITERAL":
            return _ANY & ~self._folded(1 << argument)
        if kind == "IN":
            members = [member for member in argument if str(member[0]) != "NEGATE"]
            found = self._folded(_members(members))
            return _ANY & ~found if len(members) < len(argument) else found
        return None

    def _folded(self, members: int) -> int:
        """With the other case of each ASCII letter, when (?i) is on."""
        if self._ignore_case:
            for upper in range(65, 91):
                both = 1 << upper | 1 << (upper + 32)
                if members & both:
                    members |= both
        return members

    # --- how much work it can be

    def work(self, items: Sequence[_Item], follow: int, rest: int) -> int:
        """Steps to try ``items`` and what is behind them, which takes ``rest`` steps and begins with ``follow``."""
        for position in range(len(items) - 1, -1, -1):
            before = self._set(items[position - 1]) if position else None
            rest = self._work_of(items[position], follow, rest, before)
            follow = self.first(items[position : position + 1], follow)
        return rest

    def _work_of(self, item: _Item, follow: int, rest: int, before: int | None) -> int:
        kind = str(item[0])
        if kind in _REPEATS:
            return self._repeat(item, follow, rest, before)
        bodies = _bodies(item)
        if not bodies:
            return rest + 1
        works = [self.work(body, follow, rest) for body in bodies]
        if self._decided(bodies, follow):
            return len(works) + max(works)
        self._choices += 1
        return len(works) + sum(works)

    def _repeat(self, item: _Item, follow: int, rest: int, before: int | None) -> int:
        low, high, body = item[1]
        high = min(int(high), MAX_VALUE)
        low = min(int(low), high)
        items = list(body)
        again = self.first(items, 0)
        one = self._set(items[0]) if len(items) == 1 else None
        if one is None and high > 1 and (self._ways(items, again | follow) > 1 or all(map(self._nullable, items))):
            raise _RefusedError(_NESTED)
        ambiguous = bool(again & follow) and high > low
        self._choices += ambiguous
        if one is None:
            inner = self.work(items, again | follow if high > 1 else follow, rest)
            return high + ((high - low + 1) * inner if ambiguous else rest + inner)
        if one == _ANY and high == MAX_VALUE and rest == 1:
            return rest + 1
        if ambiguous:
            return high + (high - low + 1) * rest
        if self._amortise and before is not None and not one & before:
            return rest + 1
        return high + rest

    def _ways(self, items: Sequence[_Item], follow: int) -> int:
        """In how many ways ``items`` can match at one place, with ``follow`` behind them; an upper bound."""
        found = 1
        for position in range(len(items) - 1, -1, -1):
            item = items[position]
            bodies = _bodies(item)
            if str(item[0]) in _REPEATS:
                low, high, body = item[1]
                again = self.first(list(body), 0)
                if high > 1 and self._ways(list(body), again | follow) > 1:
                    raise _RefusedError(_NESTED)
                if high <= 1:
                    found *= self._ways(list(body), follow)
                if again & follow and high > low:
                    found *= min(int(high), MAX_VALUE) - int(low) + 1
            elif bodies:
                ways = [self._ways(body, follow) for body in bodies]
                found *= max(ways) if self._decided(bodies, follow) else sum(ways)
            follow = self.first([item], follow)
        return found

    def _decided(self, bodies: Sequence[Sequence[_Item]], follow: int) -> bool:
        """Whether the next byte decides between branches."""
        seen = 0
        for body in bodies:
            first = self.first(body, follow)
            if seen & first:
                return False
            seen |= first
        # Two branches that can be empty at the end of the value begin with the same nothing.
        return sum(all(map(self._nullable, body)) for body in bodies) <= 1


def _members(members: Sequence[_Item]) -> int:
    """The bytes of what stands between brackets."""
    found = 0
    for kind, argument in members:
        if str(kind) == "LITERAL":
            found |= 1 << argument
        elif str(kind) == "RANGE":
            found |= (1 << (argument[1] + 1)) - (1 << argument[0])
        else:
            found |= _CATEGORIES[str(argument)]
    return found


def _bodies(item: _Item) -> list[list[_Item]]:
    """What stands inside of a group, the branches of an alternative, or what is repeated; [] for a simple item."""
    kind, argument = str(item[0]), item[1]
    if kind in _REPEATS:
        return [list(argument[2])]
    if kind == "BRANCH":
        return [list(branch) for branch in argument[1]]
    if kind == "ATOMIC_GROUP":
        return [list(argument)]
    if kind == "SUBPATTERN":
        if argument[1] or argument[2]:
            raise _RefusedError("flags are possible only at its beginning, as (?i)")
        return [list(argument[3])]
    if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
        return []
    raise _RefusedError("references back, look-ahead, look-behind and conditions are not possible")
