"""What a route asks of a request's fields and query besides host, path and method.

    present   the field or parameter is there, with whatever value
    exact     its value is this, by case
    regex     the whole of its value matches (pattern_check; values over MAX_VALUE bytes match no pattern)

A field on several lines has one value, the lines joined with ", ". A parameter that occurs more than once has no value
and meets no condition, "present" included: which one the backend would read is a guess (wire/query.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gogate_py.policy.pattern_check import MAX_VALUE, compile_pattern
from gogate_py.snapshot import ValueMatch
from gogate_py.wire.query import single_values

Test = Callable[[bytes], bool]
#: name → value of the fields of one request that were searched for
KnownFields = dict[bytes, bytes | None]


class ConditionedRequest(Protocol):
    """What conditions look at; middleware.chain.RequestView has it."""

    @property
    def query(self) -> bytes: ...

    def field(self, name: bytes) -> bytes | None:
        """The value of a header field (name in lower case), None without any."""
        ...


class Conditions:
    """The header and query conditions of one route; all must hold."""

    __slots__ = ("_fields", "_parameters", "_shown")

    def __init__(self, headers: Sequence[ValueMatch], query: Sequence[ValueMatch]) -> None:
        self._fields = tuple((rule.name.lower().encode(), _test(rule)) for rule in headers)
        self._parameters = tuple((rule.name.encode(), _test(rule)) for rule in query)
        self._shown = (tuple(headers), tuple(query))

    def hold(self, request: ConditionedRequest | None, known: KnownFields) -> bool:
        """Whether all hold; a request that is None has no fields and no query. ``known`` keeps the fields that were
        searched for, between the routes of one request. Raises WireError(BAD_QUERY) when the query has to be read and
        cannot be; fields are looked at first."""
        if request is None:
            return False
        for name, test in self._fields:
            value = known[name] if name in known else known.setdefault(name, request.field(name))
            if value is None or (test is not None and not test(value)):
                return False
        if self._parameters:
            values = single_values(request.query)
            for name, test in self._parameters:
                value = values.get(name)
                if value is None or (test is not None and not test(value)):
                    return False
        return True

    def unmet(self, request: ConditionedRequest | None) -> list[str]:
        """What does not hold, in words, without the request's values (they may be secrets). Raises as :meth:`hold`."""
        headers, query = self._shown
        why = []
        for rule, (name, test) in zip(headers, self._fields, strict=True):
            value = request.field(name) if request is not None else None
            if value is None:
                why.append(f"header {rule.name} is absent")
            elif test is not None and not test(value):
                why.append(f"header {rule.name} {_expected(rule)}")
        if query:
            values = single_values(request.query) if request is not None else {}
            for rule, (name, test) in zip(query, self._parameters, strict=True):
                value = values.get(name)
                if value is None:
                    missing = "occurs more than once" if name in values else "is absent"
                    why.append(f"query parameter {rule.name} {missing}")
                elif test is not None and not test(value):
                    why.append(f"query parameter {rule.name} {_expected(rule)}")
        return why


def _expected(rule: ValueMatch) -> str:
    """What a value that was found is not."""
    return f"is not {rule.value}" if rule.kind == "exact" else f"does not match {rule.value}"


def implied(condition: ValueMatch, by: ValueMatch) -> bool:
    """Whether ``condition`` holds whenever ``by``, on the same field or parameter, holds. False when that is unknown
    (of two patterns)."""
    if condition.kind == "present" or (condition.kind, condition.value) == (by.kind, by.value):
        return True
    test = _test(condition)
    return by.kind == "exact" and test is not None and test(by.value.encode())


def compatible(one: ValueMatch, other: ValueMatch) -> bool:
    """Whether two conditions on the same field or parameter can hold together. True when that is unknown (of two
    patterns)."""
    if one.kind == "exact":
        return implied(other, one)
    return implied(one, other) if other.kind == "exact" else True


def _test(rule: ValueMatch) -> Test | None:
    """How a value is tested; None when any will do."""
    if rule.kind == "present":
        return None
    if rule.kind == "exact":
        return rule.value.encode().__eq__
    fullmatch = compile_pattern(rule.value).fullmatch
    return lambda value: len(value) <= MAX_VALUE and fullmatch(value) is not None
