"""Scalar kinds: what is accepted, what it means, what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.config.names import BALANCER
from gogate_py.config.values import (
    BadValue,
    Boolean,
    Choice,
    Duration,
    Fraction,
    Integer,
    Kind,
    Number,
    Size,
    Text,
    Workers,
    closest,
    format_duration,
    quote,
)
from gogate_py.policy.balancers import BALANCERS

ANY_DURATION = Duration(0, 1e9)

ACCEPTED: list[tuple[Kind, str, object]] = [
    (ANY_DURATION, "250ms", 0.25),
    (ANY_DURATION, "30s", 30.0),
    (ANY_DURATION, "1h30m", 5400.0),
    (ANY_DURATION, "1m0.5s", 60.5),
    (ANY_DURATION, "1.5h", 5400.0),
    (ANY_DURATION, ".5s", 0.5),
    (ANY_DURATION, "100us", 0.0001),
    (ANY_DURATION, "100µs", 0.0001),
    (ANY_DURATION, "7ns", 7e-9),
    (ANY_DURATION, "30", 30.0),
    (ANY_DURATION, "0.25", 0.25),
    (ANY_DURATION, "+5s", 5.0),
    (ANY_DURATION, "0", 0.0),
    (ANY_DURATION, "-0s", 0.0),
    (Size(0, 1 << 40), "0", 0),
    (Size(0, 1 << 40), "8192", 8192),
    (Size(0, 1 << 40), "8KiB", 8192),
    (Size(0, 1 << 40), "8 kib", 8192),
    (Size(0, 1 << 40), "1.5MiB", 1572864),
    (Size(0, 1 << 40), "2GB", 2_000_000_000),
    (Size(0, 1 << 40), "12B", 12),
    (Integer(0, 10**7), "0", 0),
    (Integer(0, 10**7), "1_000_000", 1_000_000),
    (Integer(-5, 5), "-5", -5),
    (Number(0, 1e9), "1e3", 1000.0),
    (Number(0, 1e9), "0.5", 0.5),
    (Fraction(), "0.1", 0.1),
    (Fraction(), "10%", 0.1),
    (Fraction(), "1", 1.0),
    (Boolean(), "true", True),
    (Boolean(), "False", False),
    (Workers(64), "auto", None),
    (Workers(64), "64", 64),
    (Text(r"[a-z]+", "letters"), "abc", "abc"),
    (Text(r"[a-z]+", "letters"), "", ""),
]

REFUSED: list[tuple[Kind, str, str]] = [
    (ANY_DURATION, "", "is not a duration"),
    (ANY_DURATION, "5 minutes", "is not a duration"),
    (ANY_DURATION, "1d", "is not a duration"),
    (ANY_DURATION, "s", "is not a duration"),
    (ANY_DURATION, "1h-5m", "is not a duration"),
    (ANY_DURATION, "1s ", "is not a duration"),
    (ANY_DURATION, "1e400", "not a finite number"),
    (ANY_DURATION, "nan", "is not a duration"),
    (ANY_DURATION, "-5s", "cannot be negative"),
    (ANY_DURATION, "-5", "cannot be negative"),
    (Duration(1, 60), "500ms", "the least is 1s"),
    (Duration(1, 60), "2m", "the most is 60s"),
    (Size(0, 1 << 40), "8K", "is not a size"),
    (Size(0, 1 << 40), "-1", "is not a size"),
    (Size(0, 1 << 40), "1.0001KiB", "whole number of bytes"),
    (Size(64, 65536), "1MiB", "the most is 64KiB"),
    (Size(64, 65536), "1", "the least is 64"),
    (Integer(1, 10), "1.5", "not a whole number"),
    (Integer(1, 10), "0x5", "not a whole number"),
    (Integer(1, 10), "010", "not a whole number"),
    (Integer(1, 10), "٣", "not a whole number"),
    (Integer(1, 10), "11", "the most is 10"),
    (Integer(1, 10), "0", "the least is 1"),
    (Integer(1, 10), "-" + "9" * 5000, "the least is 1"),
    (Integer(1, 10), "9" * 5000, "the most is 10"),
    (Number(0, 1e9), "inf", "is not a number"),
    (Number(1, 10), "0.5", "the least is 1"),
    (Fraction(), "1.5", "not between 0 and 1"),
    (Fraction(), "101%", "not between 0 and 1"),
    (Fraction(), "%", "is not a number"),
    (Workers(64), "many", "neither auto nor a number"),
    (Workers(64), "0", "the least is 1"),
    (Workers(64), "65", "the most is 64"),
    (Text(r"[a-z]+", "letters"), "ab c", "expected letters"),
]


@pytest.mark.parametrize(("kind", "text", "value"), ACCEPTED)
def test_accepted_values(kind: Kind, text: str, value: object) -> None:
    """Each way to write a value means one value."""
    parsed = kind.parse(text, False)
    assert parsed == pytest.approx(value) if isinstance(value, float) else parsed == value


@pytest.mark.parametrize(("kind", "text", "message"), REFUSED)
def test_refused_values(kind: Kind, text: str, message: str) -> None:
    """A value that is refused is refused with what is wrong."""
    with pytest.raises(BadValue) as caught:
        kind.parse(text, False)
    assert message in caught.value.message


@given(st.floats(min_value=0, max_value=1e6, allow_nan=False))
def test_a_duration_shown_is_the_duration_read(seconds: float) -> None:
    """What a duration is written as reads as that duration."""
    shown = format_duration(seconds)
    assert ANY_DURATION.parse(shown, False) == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.25, "250ms"), (90, "90s"), (120, "2m"), (3600, "1h"), (5400, "90m"), (1.5,
    "1500ms")]
)
def test_durations_are_shown_short(seconds: float, text: str) -> None:
    """A duration is shown in the largest unit that is whole, and a minute and a half in seconds."""
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=1 << 40))
def test_a_size_shown_is_the_size_read(size: int) -> None:
    """What a size is written as reads as that size."""
    kind = Size(0, 1 << 40)
    assert kind.parse(kind.show(size), False) == size


@pytest.mark.parametrize(
    ("text", "quoted", "suggestion"),
    [("yes", False, "true"), ("on", False, "true"), ("1", False, "true"), ("No", False, "false"),
     ("off", False, "false"),
     ("true", True, "true"), ("False", True, "false"), ("perhaps", False, "")])
def test_booleans_are_only_true_and_false(text: str, quoted: bool, suggestion: str) -> None:
    """What merely looks like a boolean is refused, with what was probably meant."""
    with pytest.raises(BadValue) as caught:
        Boolean().parse(text, quoted)
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("round_robin", "round_robin"), ("round-robin", "round_robin"), ("RoundRobin", "round_robin"),
     ("rr", "round_robin"),
     ("weighted", "weighted_round_robin"), ("weighted_rr", "weighted_round_robin"), ("wrr", "weighted_round_robin"),
     ("weighted-round-robin", "weighted_round_robin"), ("least_conn", "least_connections"),
     ("least-connections", "least_connections"), ("leastconn", "least_connections"), ("random", "random"),
     ("p2c", "p2c"), ("power_of_two", "p2c"), ("ip-hash", "ip_hash"), ("source", "ip_hash"), ("EWMA", "ewma"),
     ("peak-ewma", "ewma"), ("consistentHash", "consistent_hash"), ("ring_hash", "consistent_hash")])
def test_balancers_have_the_spellings_of_other_programs(spelling: str, name: str) -> None:
    """Every spelling of the programs that users come from names a balancer that exists."""
    assert BALANCER.parse(spelling, False) == name
    assert name in BALANCERS


def test_an_unknown_balancer_lists_what_there_is() -> None:
    """A name that no balancer has is refused with all that exist; every one of them can be written."""
    with pytest.raises(BadValue, match="not a known value") as caught:
        BALANCER.parse("fastest", False)
    assert caught.value.allowed == tuple(BALANCERS)
    assert [BALANCER.parse(name, False) for name in BALANCERS] == list(BALANCERS)


def test_a_choice_that_comes_later_is_known() -> None:
    """A value that is not built yet is called that, with what there is."""
    with pytest.raises(BadValue, match="not supported yet") as caught:
        Choice(("memory",), later=("redis",)).parse("Redis", False)
    assert caught.value.allowed == ("memory",)


def test_a_choice_suggests_the_canonical_word() -> None:
    """A misspelled alias suggests the word it stands for."""
    with pytest.raises(BadValue) as caught:
        Choice(("warn", "info"), aliases={"warning": "warn"}).parse("warnnig", False)
    assert caught.value.suggestion == "warn"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("listenaddr", "listenAddr"), ("listen_adr", "listenAddr"), ("httpListen", "httpListenAddr"), ("xyzzy", "")])
def test_the_closest_word(word: str, meant: str) -> None:
    """Suggestions compare without case and separators, and there is none where nothing is near."""
    assert closest(word, ("listenAddr", "httpListenAddr", "workers")) == meant


@pytest.mark.parametrize(
    ("text", "written"),
    [("json", "json"), ("true", '"true"'), ("No", '"No"'), ("", '""'), (":80", '":80"'), ('a"\\b', '"a\\"\\\\b"'),
     ("a: b", '"a: b"')])
def test_text_is_quoted_where_yaml_could_misread_it(text: str, written: str) -> None:
    """Text is shown plain only where YAML reads it as that text."""
    assert quote(text) == written
