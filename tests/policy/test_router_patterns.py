"""Which regular expressions may be matched against values from clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.policy.pattern_check import MAX_PATTERN, check_pattern, compile_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "", "2", "v[0-9]+", r"[0-9]+\.[0-9]+\.[0-9]+", ".*", ".+", "(.*)", ".*some words.*", ".*(Android|iPhone).*",
        "(?i).*bot.*", "(foo|bar)+", "([a-z]{2},)*", "[A-Za-z0-9-]{1,64}", ".*-[0-9]+", "(a|b|)", "x?y?z?",
        r"\d{4}-\d{2}-\d{2}", "en(-[A-Z]{2})?(,.*)?", r"Bearer\s+\S+", "https?://[^/]+/.*", "[^/]*/[^/]*", "a*?b",
        "(?>ab)+", "a++b", "(?P<name>a)", "^a$", r"\bword\b", "[^a]b", "(" * 90 + ")" * 90, "a" * MAX_PATTERN,
        r"\xc3\xa9",
    ],
)
def test_accepted(pattern: str) -> None:
    """Patterns in which the next byte decides, or which have one repetition that it does not end, are accepted."""
    assert check_pattern(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        # a repetition of a repetition, or of branches that begin alike
        ("(a+)+", "a repetition of"), ("(a*)*", "a repetition of"), ("([a-z]+)*x", "a repetition of"),
        ("(a|a)*", "a repetition of"), ("(a?)+", "a repetition of"), ("(x+x+)+y", "a repetition of"),
        ("(.*a){20}", "a repetition of"), ("((a|b)?)+", "a repetition of"), ("(?:(?:a?){50}){50}", "a repetition of"),
        ("(a?b?)*", "a repetition of"), ("(?:.{0,5})+?", "a repetition of"), ("(?:(?:.{0,5})+?)?(?:a|b)", "a repet"),
        (r"(\w+\s?)*", "a repetition of"), ("(^)*a", "a repet"), ("(?i)(ab|AB)*", "a repetition of"),
        # a product of choices
        (".*.*x", "too long"), (".*foo.*bar.*", "too long"), (".*f[a-z]*", "too long"), (r"\d*\d*\d*x", "too long"),
        ("a?" * 30 + "a" * 30, "too long"), ("(a|a)" * 40, "too long"), ("(a|a)" * 12 + "-[0-9]*x", "too long"),
        # what the bound cannot be computed for
        (r"(a)\1", "references back"), ("(?=a)b", "references back"), ("(?<!a)b", "references back"),
        ("(a)?(?(1)b|c)", "references back"), ("(?m)a", "only (?i)"), ("(?i:a)", "at its beginning"),
        # what is no pattern at all
        ("(", "not a regular expression"), ("a**", "not a regular expression"), ("[[a]", "not a regular expression"),
        ("a{1,99999999999}", "not a regular expression"), ("a" * (MAX_PATTERN + 1), "longer than 256"),
        ("é", "outside of ASCII"),
    ],
)
def test_refused(pattern: str, why: str) -> None:
    """Patterns that a client's value could keep busy for long are refused, with the reason in words."""
    assert why in check_pattern(pattern)


def test_any_byte() -> None:
    """A dot is any byte, line ends included: a value with %0A in it is no way around a pattern."""
    assert compile_pattern("a.*").fullmatch(b"a\n\xffb") is not None


ATOM = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", "ab", "-"])
PATTERN = st.recursive(
    ATOM,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:%s|%s)".__mod__),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{0,3}", "{2}"])).map("(?:%s)%s".__mod__),
    ),
    max_leaves=6,
)


class Steps:
    """The plainest backtracking matcher, which counts its steps; what pattern_check bounds."""

    def __init__(self, tree: object, value: bytes, limit: int) -> None:
        self.tree, self.value, self.left = tree, value, limit

    def run(self) -> bool:
        """Whether the whole value matches; RuntimeError beyond the limit."""
        return self.items(list(self.tree), 0, 0, lambda at: at == len(self.value))

    def items(self, items: list, number: int, at: int, then: object) -> bool:
        """Match items from a number on, then what is behind them."""
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("too many steps")
        if number == len(items):
            return then(at)
        kind, argument = str(items[number][0]), items[number][1]
        on = lambda end: self.items(items, number + 1, end, then)  # noqa: E731 — the continuation of this step
        if kind == "SUBPATTERN":
            return self.items(list(argument[3]), 0, at, on)
        if kind == "BRANCH":
            return any(self.items(list(branch), 0, at, on) for branch in argument[1])
        if kind == "MAX_REPEAT":
            return self.repeat(list(argument[2]), argument[0], argument[1], at, on)
        return at < len(self.value) and self.one(kind, argument, self.value[at]) and on(at + 1)

    def repeat(self, body: list, low: int, high: int, at: int, then: object) -> bool:
        """Greedy: once more if possible, else what is behind."""
        again = high > 0 and self.items(
            body, 0, at, lambda end: (end > at or low > 0) and self.repeat(body, max(low - 1, 0), high - 1, end, then))
        return again or (low == 0 and then(at))

    @staticmethod
    def one(kind: str, argument: object, octet: int) -> bool:
        """Whether one byte is what an item of one byte asks for."""
        if kind == "ANY":
            return True
        if kind in ("LITERAL", "NOT_LITERAL"):
            return (octet == argument) is (kind == "LITERAL")
        negated = str(argument[0][0]) == "NEGATE"
        members = {value for name, value in argument if str(name) == "LITERAL"}
        for name, value in argument:
            if str(name) == "RANGE":
                members |= set(range(value[0], value[1] + 1))
        return (octet in members) is not negated


@settings(max_examples=300, deadline=None)
@given(PATTERN, st.sampled_from([b"a", b"b", b"ab", b"-", b"aab", b"-a"]), st.sampled_from([b"", b"x", b"b", b"-"]))
def test_accepted_patterns_take_few_steps(pattern: str, unit: bytes, end: bytes) -> None:
    """The plainest of backtracking matchers, on values made to be hard, is done with an accepted pattern within a small
    multiple of value length squared, and agrees with re about the result."""
    if check_pattern(pattern):
        return
    value = (unit * 30)[:30] + end
    tree = re._parser.parse(pattern.encode(), re.DOTALL)
    assert Steps(tree, value, 60 * len(value) ** 2).run() is bool(compile_pattern(pattern).fullmatch(value))
