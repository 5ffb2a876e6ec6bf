"""How a problem is shown, and where it is placed."""

from __future__ import annotations

import pytest
from config_loading import problems, server

from gogate_py.config.problems import Findings, Place, Problem, show_path


def test_a_problem_shows_place_line_caret_and_what_was_meant() -> None:
    """The rendering has everything that is needed to mend the file."""
    (problem,) = problems("server:\n  listenAddr: ':1'\n  loadBalancer: round_robbin  # ours\n")
    assert problem.render().splitlines() == [
        "test.yaml:3:17: server.loadBalancer: 'round_robbin' is not a known value",
        "      loadBalancer: round_robbin  # ours",
        "                    ^",
        "    allowed: round_robin, weighted_round_robin, least_connections, random, p2c, ewma, ip_hash, "
        "consistent_hash",
        "    did you mean round_robin?"]


def test_the_caret_stands_below_the_character() -> None:
    """Tabs and characters beyond ASCII do not move the caret."""
    (problem,) = problems('server: {listenAddr: ":1", admin: {allowedHosts: ["ä"], token:\t"ö ö"}}')[1:]
    _, line, caret = problem.render().splitlines()
    assert line[caret.index("^") :].startswith('"ö ö"')
    assert caret[: caret.index("^")].count("\t") == 1


def test_a_long_line_is_cut_around_the_caret() -> None:
    """Of a line that is too long for a screen, the part around the problem is shown."""
    methods = ", ".join(["GET"] * 200)
    last = problems(server(f"limits: {{methods: [{methods}, NOPE, {methods}]}}"))
    (problem,) = [problem for problem in last if "NOPE" in problem.message]
    _, line, caret, *_ = problem.render().splitlines()
    assert len(line) <= 160
    assert line[len(caret) - 1 :].startswith("NOPE")


def test_nothing_of_the_file_reaches_the_terminal_raw() -> None:
    """Control characters of the source line are shown as a replacement."""
    (problem,) = problems("server: {listenAddr: ':1', x: '\x1b[31m'}")
    assert "\x1b" not in problem.render()


def test_the_file_alone_is_the_place_of_a_problem_without_key() -> None:
    """A problem of the whole file has no key."""
    assert str(problems("")[0]).startswith("test.yaml:1:1: the file is empty")


@pytest.mark.parametrize(
    ("path", "shown"),
    [((), ""), (("server",), "server"), (("pools", "a.b", "backends", 0, "addr"), "pools.a.b.backends[0].addr"),
     (("routes", 2), "routes[2]")])
def test_paths_are_shown_as_they_are_spoken_of(path: tuple[str | int, ...], shown: str) -> None:
    """Keys are joined by dots, places in lists stand in brackets."""
    assert show_path(path) == shown


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_lines_are_counted_as_yaml_counts_them(line_break: str) -> None:
    """Every line break of YAML is one, so that the line shown is the line meant."""
    (problem,) = problems(line_break.join(["server:", "  listenAddr: ':1'", "  wrokers: 1"]))
    assert (problem.line, problem.source_line) == (3, "  wrokers: 1")


def test_a_problem_of_something_unwritten_is_placed_at_what_surrounds_it() -> None:
    """A key that is missing is told at the nearest part of its path that is there."""
    findings = Findings("f", "a:\n  b:\n")
    findings.place(("a",), Place(2, 3, 1, 1))
    findings.add(("a", "b", "c"), "is missing")
    findings.add(("a", "x"), "is wrong", at="key")
    assert [(p.line, p.column, p.key) for p in findings.sorted_problems()] == [(1, 1, "a.x"), (2, 3, "a.b.c")]


def test_soundness() -> None:
    """A spoiled value is unread with all it contains, and what contains it is not sound, but read."""
    findings = Findings("f", "")
    findings.spoil(("a", "b"))
    assert [findings.was_read(path) for path in [(), ("a",), ("a", "b"), ("a", "b", "c"), ("a", "c")]] == [
        True, True, False, False, True]
    assert [findings.is_sound(path) for path in [(), ("a",), ("a", "b"), ("a", "c")]] == [False, False, False, True]


def test_problems_are_equal_by_value() -> None:
    """Two loads of one text have equal problems."""
    assert problems(server("x: 1")) == problems(server("x: 1"))
    assert isinstance(problems(server("x: 1"))[0], Problem)
