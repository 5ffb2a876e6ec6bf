"""What changed from one look to the next, in words."""

from __future__ import annotations

from typing import Any

from gogate_py.controlplane.happenings import LATEST, MOST, BackendNow, Happenings, WorkerNow
from gogate_py.controlplane.reloads import Reload
from gogate_py.controlplane.service_watch import ServiceWatch

UP = BackendNow(True, "", False, 1, "closed", False)
STARTED = Reload(0.0, "start", "success", 1, 0.0)
WORKER = WorkerNow(100, "serving", 0)


def told(news: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [(one["kind"], one["what"], one["name"], one["detail"]) for one in news]


def looked(first: dict[tuple[str, str], BackendNow]) -> Happenings:
    happenings = Happenings(ServiceWatch(lambda: 1.0))
    assert happenings.look(1.0, first, {0: WORKER}, [STARTED]) == []
    return happenings


def test_every_change_of_a_backend_is_told() -> None:
    """Down with its reason, drain, weight, breaker, ejection, and back; who comes and goes."""
    key = ("web", "10.0.0.1:80")
    happenings = looked({key: UP})
    worse = BackendNow(False, "connection refused", True, 5, "open", True)
    assert told(happenings.look(2.0, {key: worse, ("web", "new"): UP}, {0: WORKER}, [STARTED])) == [
        ("backend", "down", "web/10.0.0.1:80", "connection refused"),
        ("backend", "draining", "web/10.0.0.1:80", ""),
        ("backend", "weight", "web/10.0.0.1:80", "1 → 5"),
        ("backend", "breaker open", "web/10.0.0.1:80", ""),
        ("backend", "ejected", "web/10.0.0.1:80", ""),
        ("backend", "added", "web/new", ""),
    ]
    assert told(happenings.look(3.0, {key: UP}, {0: WORKER}, [STARTED])) == [
        ("backend", "up", "web/10.0.0.1:80", ""),
        ("backend", "takes work again", "web/10.0.0.1:80", ""),
        ("backend", "weight", "web/10.0.0.1:80", "5 → 1"),
        ("backend", "breaker closed", "web/10.0.0.1:80", ""),
        ("backend", "no longer ejected", "web/10.0.0.1:80", ""),
        ("backend", "removed", "web/new", ""),
    ]
    assert happenings.look(4.0, {key: UP}, {0: WORKER}, [STARTED]) == []


def test_workers_and_reloads() -> None:
    """A worker that was replaced, and every reload since the last look, oldest first."""
    happenings = looked({})
    good = Reload(5.0, "file", "success", 2, 0.1, (), ("route x added",))
    bad = Reload(6.0, "SIGHUP", "failure", 2, 0.1, ("config.yaml:1:1: no",))
    news = told(happenings.look(7.0, {}, {0: WorkerNow(200, "starting", 1), 1: WORKER}, [bad, good, STARTED]))
    assert news == [
        ("worker", "replaced", "worker 0", "process 100 → 200"),
        ("worker", "added", "worker 1", ""),
        ("reload", "success", "generation 2", "route x added"),
        ("reload", "failure", "generation 2", "config.yaml:1:1: no"),
    ]
    assert told(happenings.look(8.0, {}, {0: WorkerNow(200, "serving", 1)}, [bad, good, STARTED])) == [
        ("worker", "serving", "worker 0", ""), ("worker", "removed", "worker 1", "")]


def test_a_flood_is_told_in_one_line_and_the_list_is_bounded() -> None:
    """A thousand backends that go down at once are not a thousand lines."""
    backends = {("web", str(number)): UP for number in range(1000)}
    happenings = looked(backends)
    down = {key: UP._replace(up=False, error="gone") for key in backends}
    news = told(happenings.look(2.0, down, {0: WORKER}, [STARTED]))
    assert len(news) == MOST + 1
    assert news[-1] == ("backend", "more", "", "and 950 others at the same time")
    for second in range(40):
        happenings.look(float(second), backends if second % 2 else down, {0: WORKER}, [STARTED])
    assert len(happenings.latest) == LATEST
    assert happenings.latest[-1]["number"] > LATEST
