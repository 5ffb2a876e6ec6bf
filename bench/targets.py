"""What gogate is meant to reach beside its peers (CPU unless said otherwise), and whether a run of the benchmark shows
it: met, or missed by how much, or not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from results import Results, worker_name
from rows import BY_KEY, WORKERS

US = "gogate"


class Target(NamedTuple):
    """A figure and its bound: at most, or at least where ``least``."""

    what: str
    bound: float
    unit: str
    value: float | None
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value is not None and (self.value >= self.bound if self.least else self.value <= self.bound)

    def cells(self) -> list[str]:
        """What, target, measured, verdict."""
        bound = f"{'≥' if self.least else '≤'} {self.bound:g}{self.unit}"
        if self.value is None:
            return [self.what, bound, "-", "not measured"]
        missed = (self.bound / max(1e-9, self.value) if self.least else self.value / self.bound) - 1
        return [self.what, bound, f"{self.value:.2f}{self.unit}" if self.value < 10 else f"{self.value:.0f}{self.unit}",
                "met" if self.met else f"missed by {missed:.0%}"]  # fmt: skip


def targets(found: Results) -> Iterator[Target]:
    """All of them."""

    def cost(what: str, key: str, bounds: dict[str, float]) -> Iterator[Target]:
        for peer, bound in bounds.items():
            value = found.ratio(key, US, peer, BY_KEY[key]) if found.good(key, US, peer) else None
            yield Target(what, bound, f"x {peer}", value)

    def of_rounds(key: str, peer: str, of: Callable[[], float]) -> float | None:
        return of() if found.good(key, US, peer) else None

    yield from cost("small GET, 64 clients", "http-64", {"nginx": 1.9, "envoy": 1.0, "traefik": 1.0, "caddy": 1.0})
    row = BY_KEY["http-64"]
    for peer, bound in {"envoy": 1.5, "traefik": 2.0, "caddy": 3.0}.items():
        rate = of_rounds(row.key, peer, lambda peer=peer: found.rate_ratio(row.key, US, peer, row))  # type: ignore[misc]  # bound now
        yield Target("small GETs per second, one worker", bound, f"x {peer}", rate, least=True)
    for direction in ("down", "up"):
        yield from cost(f"10 MB bodies {direction}", f"http-10m-{direction}", {"nginx": 1.0})
    for key in ("tcp-down-1", "tcp-down-8", "tcp-up-1", "tcp-up-8"):
        yield from cost(BY_KEY[key].title, key, {"haproxy-splice": 1.0, "envoy": 0.4, "nginx": 0.4})
    yield from cost("TCP 64-byte message, 64 clients", "tcp-echo-64", {"haproxy": 1.15})
    yield from cost("TCP connect and close", "tcp-connect", {"haproxy": 1.4, "envoy": 1.0})
    p99 = of_rounds("http-256", "envoy", lambda: found.p99_ratio("http-256", US, "envoy"))
    yield Target("p99 of a small GET, 256 clients", 1.5, "x envoy", p99)

    def figure(what: str, key: str, bound: float, unit: str) -> Target:
        return Target(what, bound, unit, found.figures.get(key, {}).get(US))

    yield figure("a worker, resident", "memory-worker", 28, " MB")
    yield figure("all idle, 2 workers, PSS", "memory-idle", 75, " MB")
    yield figure("per idle TCP connection (1 000)", "memory-tcp-1000", 4, " KiB")
    yield figure("per idle HTTP client (1 000)", "memory-http-1000", 5, " KiB")
    yield figure("start to first proxied request", "start", 300, " ms")
    one, two = worker_name(US, 1), worker_name(US, 2)
    for key, base in WORKERS.items():
        value = found.ratio(key, two, one, base) if found.good(key, one, two) else None
        yield Target(f"two workers: {base.title}", 1.1, "x one", value)
