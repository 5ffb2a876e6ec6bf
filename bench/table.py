"""The benchmark's results as markdown."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

from parts import markdown
from results import Results, worker_name
from rows import BY_KEY, ROWS, SCALES, WORKERS, Row
from targets import targets

#: Whose cost is 1 in a row: the first of these that has one.
BASES = ("nginx", "haproxy", "gogate")
NOTHING = "-"


def report(found: Results, about: str) -> str:
    """Everything that was found. ``about`` says how it was measured."""
    parts = [_machine(found), about, *(table for table in (
        _costs(found), _rates(found), _latencies(found), _workers(found), _scaling(found), _figures(found),
        _targets(found),
    ) if table)]  # fmt: skip
    errors = found.first_errors()
    if errors or found.notes:
        parts.append("\n".join(f"- {line}" for line in [*found.notes, *errors]))
    return "\n\n".join(parts)


def _machine(found: Results) -> str:
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    today = datetime.datetime.now(datetime.UTC).date()
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return (f"{today:%d %B %Y}; {os.cpu_count()} cores of {model}, Linux {platform.release()}, "
            f"{platform.python_implementation()} {platform.python_version()}; {versions}.")  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _measured(found: Results) -> list[Row]:
    return [row for row in ROWS if row.key in found.runs]


def _by_row(found: Results, cell: Callable[[Row, str], str]) -> list[list[str]]:
    """A row of cells for every row that was measured; a cell with errors says so instead."""
    lines = []
    for row in _measured(found):
        line = [row.title]
        for name in found.versions:
            runs = found.runs[row.key].get(name)
            errors = found.errors(row.key, name) if runs else 0
            line.append(NOTHING if not runs else f"{errors} errors" if errors else cell(row, name))
        lines.append(line)
    return lines


def _costs(found: Results) -> str:
    def cell(row: Row, name: str) -> str:
        base = next(base for base in BASES if found.good(row.key, base))
        own = f"{_number(found.cost(row.key, name, row))} {'s/GB' if row.size else 'µs'}"
        if name == base:
            return own
        ratios = found.ratios(row.key, name, base, row)
        if name != "gogate":
            return f"{statistics.median(ratios):.2f}x"
        return f"**{statistics.median(ratios):.2f}x** ({ratios[0]:.2f} to {ratios[-1]:.2f}); {own}"

    lines = _by_row(found, cell)
    if not lines:
        return ""
    return ("### CPU of the proxy per request, message, connection or GB\n\n"
            "The first of nginx and haproxy that has the row is 1x and shows its figure. For gogate also the range "
            "over the rounds, and its figure.\n\n"
            + markdown(["", *found.versions], lines))  # fmt: skip


def _rates(found: Results) -> str:
    def cell(row: Row, name: str) -> str:
        rate = found.rate(row.key, name, row)
        return f"{rate:,.0f} MB" if row.size else f"{rate:,.0f}"

    lines = _by_row(found, cell)
    return "### Per second\n\n" + markdown(["", *found.versions], lines) if lines else ""


def _latencies(found: Results) -> str:
    key = "http-256"
    if key not in found.runs:
        return ""
    lines = []
    for name in found.versions:
        runs = found.runs[key].get(name)
        if runs:
            each = ([run.p50_ms for run in runs], [run.p99_ms for run in runs], [run.p999_ms for run in runs])
            lines.append([name, *(f"{statistics.median(values):.1f}" for values in each)])
    return f"### Latency, {BY_KEY[key].title}, ms\n\n" + markdown(["", "p50", "p99", "p99.9"], lines)


def _workers(found: Results) -> str:
    lines = []
    for key, row in WORKERS.items():
        for name in found.versions:
            one, two = worker_name(name, 1), worker_name(name, 2)
            if not found.good(key, one, two):
                continue
            costs = [_number(found.cost(key, each, row)) for each in (one, two)]
            rates = [f"{found.rate(key, each, row):,.0f}" for each in (one, two)]
            lines.append([f"{row.title}: {name}", *costs, f"{found.ratio(key, two, one, row):.2f}x", *rates])
    if not lines:
        return ""
    head = ["", "CPU µs, 1 worker", "2 workers", "ratio", "per second, 1", "2"]
    return "### Two workers\n\n" + markdown(head, lines)


def _scaling(found: Results) -> str:
    lines = []
    for scale in SCALES:
        if scale.key not in found.runs:
            continue
        title = f"{scale.many:,} {scale.title}"
        if found.good(scale.key, "one", "many"):
            row = BY_KEY["http-64"]
            costs = [_number(found.cost(scale.key, each, row)) for each in ("one", "many")]
            lines.append([title, *costs, f"{found.ratio(scale.key, 'many', 'one', row):.2f}x"])
        else:
            lines.append([title, "errors", "errors", NOTHING])
    return "### gogate with many\n\n" + markdown(["", "CPU µs, with 1", "with many", "ratio"], lines) if lines else ""


def _figures(found: Results) -> str:
    titles = {
        "start": "start to first proxied request, ms",
        "start-cpu": "… CPU of these, ms",
        "memory-idle": "idle, 2 workers, all processes, MB (PSS)",
        "memory-http-1000": "per idle HTTP client of 1 000, KiB", "memory-http-9000": "… of 9 000",
        "memory-tcp-1000": "per idle TCP connection of 1 000, KiB", "memory-tcp-9000": "… of 9 000",
    }  # fmt: skip
    lines = [
        [title, *(_number(found.figures[key][name]) if name in found.figures[key] else NOTHING
                  for name in found.versions)]
        for key, title in titles.items() if key in found.figures
    ]  # fmt: skip
    return "### Start and memory\n\n" + markdown(["", *found.versions], lines) if lines else ""


def _targets(found: Results) -> str:
    lines = [target.cells() for target in targets(found)]
    return "### Targets\n\n" + markdown(["", "target", "measured", ""], lines)
