"""What the benchmark found, and the comparisons that may be made of it: only within one round of one run."""

from __future__ import annotations

import dataclasses
import json
import statistics

from loads import Run
from rows import Row


def worker_name(peer: str, workers: int) -> str:
    """What a proxy is called in the rows that compare numbers of workers."""
    return f"{peer}/{workers}"


@dataclasses.dataclass
class Results:
    """``runs``: row's key → proxy's name → one run a round. ``figures``: what is measured otherwise, key → name →
    value. ``notes`` say what is not there, and why."""

    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    runs: dict[str, dict[str, list[Run]]] = dataclasses.field(default_factory=dict)
    figures: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def errors(self, key: str, name: str) -> int:
        """Errors of all rounds."""
        return sum(run.errors for run in self.runs[key][name])

    def good(self, key: str, *names: str) -> bool:
        """Whether these were measured in this row, without an error."""
        return all(name in self.runs.get(key, {}) and not self.errors(key, name) for name in names)

    def cost(self, key: str, name: str, row: Row) -> float:
        """Median CPU per unit."""
        return statistics.median(run.cost(row) for run in self.runs[key][name])

    def rate(self, key: str, name: str, row: Row) -> float:
        """Median units per second."""
        return statistics.median(run.rate(row) for run in self.runs[key][name])

    def ratios(self, key: str, name: str, base: str, row: Row) -> list[float]:
        """CPU per unit of one over that of the other, round by round, sorted."""
        pairs = zip(self.runs[key][name], self.runs[key][base], strict=True)
        return sorted(one.cost(row) / max(1e-9, other.cost(row)) for one, other in pairs)

    def ratio(self, key: str, name: str, base: str, row: Row) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios(key, name, base, row))

    def rate_ratio(self, key: str, name: str, base: str, row: Row) -> float:
        """Median over the rounds of units per second of one over the other's."""
        pairs = zip(self.runs[key][name], self.runs[key][base], strict=True)
        return statistics.median(one.rate(row) / max(1e-9, other.rate(row)) for one, other in pairs)

    def p99_ratio(self, key: str, name: str, base: str) -> float:
        """Median over the rounds of the 99th percentile of one over the other's."""
        pairs = zip(self.runs[key][name], self.runs[key][base], strict=True)
        return statistics.median(one.p99_ms / max(1e-9, other.p99_ms) for one, other in pairs)

    def first_errors(self) -> list[str]:
        """What went wrong first, for each row and proxy that has errors."""
        return [
            f"{key}, {name}: {self.errors(key, name)} errors, the first: {next(r.error for r in runs if r.errors)}"
            for key, row in self.runs.items() for name, runs in row.items() if self.errors(key, name)
        ]  # fmt: skip

    def to_json(self) -> str:
        """Everything, for programs."""
        runs = {key: {name: [run._asdict() for run in all_] for name, all_ in row.items()}
                for key, row in self.runs.items()}  # fmt: skip
        return json.dumps({"versions": self.versions, "runs": runs, "figures": self.figures, "notes": self.notes})
