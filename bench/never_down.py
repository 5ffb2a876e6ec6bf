"""Whether anything is lost, whatever happens to a busy gogate. ``python bench/never_down.py`` (make bench-never-down).

gogate with two workers, under load of kept-alive and one-shot HTTP clients, requests that take long, WebSockets and TCP
streams, all in processes of their own at a bounded rate; then the same clients on nginx and on HAProxy over their
reloads and their end, where they are installed. A row for each kind of event, and what failed from the event until
every kind of client was served as before. Ends with 1 when anything failed with gogate that was not on a killed
worker's own connections.

    --reloads in each way, and with each kind of change
    --broken files                   refused; what is served stays
    --kills (kill -9 of a worker)    what fails on its own connections is its price
    --upgrades (SIGUSR2)             WebSockets and streams on the old gogate have its grace time, as they must
    SIGTERM                          requests that were sent and not answered; streams end with it, as they must

``--short`` is the form that make test runs; ``--json`` prints the counts for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from functools import partial
from typing import Any

import never_down_others
import psutil
from never_down_gateway import BROKEN, GRACE, KINDS, WAYS, Gateway, gateway
from never_down_load import Cost, Costs, Failure, Load, backend
from parts import markdown, wait_until

#: Workers that die younger than this are a crash loop, and come back later and later (process/workers.py), seconds.
YOUNG = 5.0
END = "SIGTERM"


def measure_gogate(args: argparse.Namespace) -> tuple[dict[str, Cost], list[str]]:
    """All of it with gogate; → rows, and what was wrong."""
    wrong: list[str] = []
    with backend() as (web, echo), gateway(web, echo) as (one, addresses), Load(addresses) as load:
        load.start()
        costs = Costs(load)
        _ways(one, costs, args.reloads)
        _kinds(one, costs, args.reloads, wrong)
        _broken(one, costs, args.broken, wrong)
        ports = {port for _, port in addresses.values()}
        _kills(one, costs, args.kills, ports)
        _upgrades(one, costs, args.upgrades, ports, wrong)
        _end(one, costs, wrong)
        wrong += [f"{what}: {dict(cost.failed)}" for what, cost in costs.rows.items() if cost.failed]
        wrong += sorted({f"{one.kind} {one.outcome}: {one.detail}" for one in load.failures})[:50] if wrong else []
        return costs.rows, wrong


def _ways(one: Gateway, costs: Costs, reloads: int) -> None:
    """Every way to reload, with a change that is seen in every request."""
    change = KINDS["route changed"]
    for number, way in enumerate(WAYS):
        for turn in range(reloads):
            with costs.of(f"reload: {way}"):
                change(one, number * reloads + turn + 1)
                one.reload(way)


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits for its parent to see it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _kinds(one: Gateway, costs: Costs, reloads: int, wrong: list[str]) -> None:
    """Every kind of change, each time in another way that is told at once."""
    for what, change in KINDS.items():
        for number in range(1, reloads + 1):
            with costs.of(what) as cost:
                change(one, 1000 + number)
                visitors = one.visitors
                failed, ok = visitors.failed, visitors.ok
                one.reload(("POST /reload", "SIGHUP")[number % 2])
                visitors.look()
                if not one.shows_certificate():
                    wrong.append(f"{what} {number}: another certificate than that of the files is shown")
                cost.ok += visitors.ok - ok
                if visitors.failed > failed:
                    cost.failed["tcp", "visitors lost"] += visitors.failed - failed


def _broken(one: Gateway, costs: Costs, count: int, wrong: list[str]) -> None:
    for number in range(count):
        with costs.of("broken file"):
            if not one.refuses(BROKEN[number % len(BROKEN)]):
                wrong.append(f"broken file {number} was served, or the good one not any more")


def _kills(one: Gateway, costs: Costs, count: int, ports: set[int]) -> None:
    """kill -9 of the workers in turn; what fails on connections that the killed one had accepted is its price."""
    owned: set[int] = set()

    def its_own(failure: Failure) -> bool:
        return failure.port in owned

    for number in range(count):
        pid = _grown_up(one, number % 2)
        owned.clear()
        with costs.of("kill -9 of a worker", its_own):
            os.kill(pid, signal.SIGSTOP)  # so that what it has can be listed exactly
            owned |= _clients_of(pid, ports)
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(_replaced, one, pid), "a new worker")


def _clients_of(pid: int, ports: set[int]) -> set[int]:
    """The clients' own ports of the connections that a worker has accepted."""
    return {
        each.raddr.port for each in psutil.Process(pid).net_connections("tcp")
        if each.status in (psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT) and each.laddr.port in ports
    }  # fmt: skip


def _upgrades(one: Gateway, costs: Costs, count: int, ports: set[int], wrong: list[str]) -> None:
    """SIGUSR2: nothing fails; WebSockets and streams of the old gogate are there for as long as its grace time, and no
    longer."""
    owned: set[int] = set()

    def promised_no_more(failure: Failure) -> bool:
        return failure.port in owned and (
            failure.kind == "tcp" or (failure.kind == "ws" and failure.outcome == "goodbye")
        )

    for _ in range(count):
        owned.clear()
        old = one.pid
        with costs.of("SIGUSR2: another program", promised_no_more):
            with costs.of("… until it serves"):
                workers = one.upgrade()
            for pid in workers:
                owned |= _clients_of(pid, ports)
            wait_until(lambda old=old: ended(old), "the end of the old gogate", 30.0)  # type: ignore[misc]
        if not owned:
            wrong.append("no connection was left on the old gogate: nothing was tried")
    if one.process.wait(10):
        wrong.append(f"exit code {one.process.returncode} of the first gogate after its upgrade")


def _replaced(one: Gateway, pid: int) -> bool:
    workers = one.workers()
    return bool(workers) and all(worker["pid"] != pid for worker in workers)


def _grown_up(one: Gateway, slot: int) -> int:
    """The pid of the worker in a slot, when it is old enough to be replaced at once."""
    while True:
        worker = one.ask("GET", "/stats")[1]["workers"][slot]
        if worker["state"] == "serving" and worker["started_s"] > YOUNG:
            return int(worker["pid"])
        time.sleep(0.05)


def _end(one: Gateway, costs: Costs, wrong: list[str]) -> None:
    """SIGTERM: what was sent is answered; refused ones were promised nothing; at the end of the grace time streams are
    cut and WebSockets are told."""
    with costs.of(END, settled=False):
        os.kill(one.pid, signal.SIGTERM)
        wait_until(lambda: ended(one.pid), "the end of gogate", GRACE + 10.0)
    failed = costs.rows[END].failed
    if not failed.pop(("ws", "goodbye"), 0):
        wrong.append("no WebSocket was told of the end")
    for kind, outcome in list(failed):
        if outcome == "refused" or kind == "tcp":
            del failed[kind, outcome]


def _row(what: str, cost: Cost) -> tuple[str, ...]:
    streams = str(cost.of("streams"))
    if cost.excused:
        streams += f" (besides {cost.excused})"
    return (what, str(cost.events), str(cost.ok), str(cost.of("fresh")), str(cost.of("kept")), streams,
            str(cost.of("unsent")), f"{cost.worst[0] * 1000:.0f} ({cost.worst[1]})")  # fmt: skip


def main() -> int:
    """Measure and print; → exit code."""
    parser = argparse.ArgumentParser(description="What reloads and failures cost clients.")
    for name, default in (("reloads", 20), ("broken", 30), ("kills", 20), ("upgrades", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--short", action="store_true", help="a few of each event")
    parser.add_argument("--alone", action="store_true", help="without nginx and HAProxy")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.short:
        args.reloads, args.broken, args.kills, args.upgrades, args.alone = 2, len(BROKEN), 2, 1, True
    rows, wrong = measure_gogate(args)
    for name in () if args.alone else never_down_others.OTHERS:
        if never_down_others.program(name):
            rows |= never_down_others.measure(name, args.reloads)
        else:
            print(f"{name} is not installed", file=sys.stderr)
    if args.json:
        found: dict[str, Any] = {"rows": {what: cost.as_dict() for what, cost in rows.items()}, "wrong": wrong}
        print(json.dumps(found))
    else:
        print(markdown(
            ("event", "times", "ok", "fresh failed", "kept failed", "streams failed", "closed unasked", "worst, ms"),
            [_row(what, cost) for what, cost in rows.items()],
        ))  # fmt: skip
        print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing failed with gogate")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
