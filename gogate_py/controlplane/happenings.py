"""Happenings: what changed at the gateway from one look to the next, in words, for those who watch.

    backend      came, went, is down (why), is up, drains, takes work again, another weight, its breaker, ejected
    worker       was replaced, is not serving, serves
    reload       how it ended
    service      registered, went silent, expired, deregistered …

Found by comparing, once a beat: what is over within one is not seen here (metrics count it). The last LATEST are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from gogate_py.controlplane.reloads import Reload
from gogate_py.controlplane.service_watch import ServiceWatch

LATEST: Final = 500
#: Backends of which single news are told in one look; beyond it only how many there are.
MOST: Final = 50


class BackendNow(NamedTuple):
    """What is compared of a backend."""

    up: bool
    error: str
    draining: bool
    weight: int
    breaker: str
    ejected: bool


class WorkerNow(NamedTuple):
    """What is compared of a worker."""

    pid: int
    state: str
    restarts: int


class Happenings:
    """The list, and what the last look saw."""

    def __init__(self, watch: ServiceWatch) -> None:
        self._watch = watch
        self._index = watch.index
        self._backends: dict[tuple[str, str], BackendNow] | None = None
        self._workers: dict[int, WorkerNow] = {}
        self._reload: Reload | None = None
        self._number = 0
        self.latest: deque[dict[str, Any]] = deque(maxlen=LATEST)

    def look(
        self,
        wall: float,
        backends: dict[tuple[str, str], BackendNow],
        workers: dict[int, WorkerNow],
        reloads: Sequence[Reload],
    ) -> list[dict[str, Any]]:
        """Compare with the last look, which the first one has not; → what is new, oldest first."""
        found: list[tuple[str, str, str, str]] = []
        if self._backends is not None:
            if backends is not self._backends:
                found += _limited(list(_of_backends(self._backends, backends)))
            found += _of_workers(self._workers, workers)
            found += _of_reloads(self._reload, reloads)
            found += _limited([
                ("service", event.kind, event.instance.name, f"{event.instance.id} at {event.instance.address}")
                for event in self._watch.since(self._index) or ()
            ])
        self._index = self._watch.index
        self._backends, self._workers = backends, workers
        self._reload = reloads[0] if reloads else None
        news = []
        for kind, what, name, detail in found:
            self._number += 1
            time = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
            told = {"number": self._number, "time": time, "kind": kind, "what": what, "name": name, "detail": detail}
            news.append(told)
        self.latest.extend(news)
        return news


def _limited(found: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    if len(found) <= MOST:
        return found
    return [*found[:MOST], (found[0][0], "more", "", f"and {len(found) - MOST} others at the same time")]


def _of_backends(
    before: dict[tuple[str, str], BackendNow], now: dict[tuple[str, str], BackendNow]
) -> Iterable[tuple[str, str, str, str]]:
    for key, one in now.items():
        name = "/".join(key)
        old = before.get(key)
        if old is None:
            yield "backend", "added", name, ""
            continue
        if old is one or old == one:
            continue
        if one.up != old.up:
            yield "backend", "up" if one.up else "down", name, "" if one.up else one.error
        if one.draining != old.draining:
            yield "backend", "draining" if one.draining else "takes work again", name, ""
        if one.weight != old.weight:
            yield "backend", "weight", name, f"{old.weight} → {one.weight}"
        if one.breaker != old.breaker:
            yield "backend", f"breaker {one.breaker.replace('_', '-')}", name, ""
        if one.ejected != old.ejected:
            yield "backend", "ejected" if one.ejected else "no longer ejected", name, ""
    for key in before.keys() - now.keys():
        yield "backend", "removed", "/".join(key), ""


def _of_workers(before: dict[int, WorkerNow], now: dict[int, WorkerNow]) -> Iterable[tuple[str, str, str, str]]:
    for slot, one in now.items():
        old = before.get(slot)
        name = f"worker {slot}"
        if old is None:
            yield "worker", "added", name, ""
        elif one.restarts != old.restarts:
            yield "worker", "replaced", name, f"process {old.pid} → {one.pid or 'not yet'}"
        elif one.state != old.state:
            yield "worker", one.state, name, ""
    for slot in before.keys() - now.keys():
        yield "worker", "removed", f"worker {slot}", ""


def _of_reloads(last: Reload | None, reloads: Sequence[Reload]) -> Iterable[tuple[str, str, str, str]]:
    new = []
    for one in reloads:
        if one is last:
            break
        new.append(one)
    for one in reversed(new):
        detail = "; ".join(one.problems if one.result == "failure" else one.changes)
        yield "reload", one.result, f"generation {one.generation}", detail[:1000]
