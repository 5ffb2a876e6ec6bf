"""Storms of the registry (SECURITY.md F16): ``python bench/registry_storm.py``.

Requests through two workers, paced and timed from the moment each was due, first beside a calm registry, then beside
5 000 heartbeats a second, then beside instances that come and go all the time. Then 1 000 instances at once: those
whose leases end together, and 1 000 changes as fast as the admin API takes them; how many snapshots that made, and
when every worker served the last one. gogate has one core, clients and backend the other. Prints markdown tables;
ends with 1 when a request failed, or a churn took a second or more to be served.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from heartbeats import CALM, INSTANCES, SECONDS, STORM, Load
from parts import accepts, free_port, gogate, markdown, on_core, raise_descriptor_limit, running, wait_until

ANY = "127.0.0.1:0"
#: Requests a second, over so many kept-alive connections.
RATE, CONNECTIONS = 400, 8
#: Seconds of them, within those of a storm.
PROBED = 2.5
#: Of instances whose leases end together: two a service, so that nothing is preserved.
TTL, SWEEP = 3.0, 0.5
#: Within this many seconds of its cause every worker serves a churn.
LIMIT = 1.0


def asked(port: int) -> tuple[list[float], int]:
    """Ask at the given pace → sorted latencies in ms, from when each request was due, and failures."""
    times: list[float] = []
    failures = 0
    pool = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    for number in range(int(RATE * PROBED)):
        due = begun + number / RATE
        if (pause := due - time.perf_counter()) > 0:
            time.sleep(pause)
        connection = pool[number % CONNECTIONS]
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            failures += answer.status != 200
        except (OSError, http.client.HTTPException):
            failures += 1
            connection.close()
        times.append((time.perf_counter() - due) * 1000)
    return sorted(times), failures


class Admin:
    """Calls of the admin API on one kept connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call → the decoded answer."""
        data = None if body is None else json.dumps(body)
        try:
            answer = self._ask(method, path, data)
        except http.client.RemoteDisconnected:  # idle for too long
            answer = self._ask(method, path, data)
        text = answer.read()
        assert answer.status < 300, (answer.status, text)
        return json.loads(text) if text else None

    def _ask(self, method: str, path: str, data: str | None) -> http.client.HTTPResponse:
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        return self._connection.getresponse()

    def register(self, number: int, ttl: float = 300) -> None:
        """One instance; two of each service."""
        address = f"10.{number // 60000}.{number // 250 % 240}.{1 + number % 250}:80"
        self.call("POST", "/v1/services", {
            "id": f"i{number}", "name": f"s{number // 2}", "ttl": ttl, "address": address, "weight": 0})

    def generations(self) -> tuple[int, int]:
        """That of the last snapshot, and the oldest that a worker serves."""
        status = self.call("GET", "/config/status")
        return status["generation"], status["applied"]

    def served(self) -> int:
        """Wait until every worker serves the last snapshot; → its number."""
        wait_until(lambda: len(set(self.generations())) == 1, "every worker to serve the last snapshot")
        return self.generations()[0]


def storm(kind: str, port: int) -> None:
    """One kind of storm, for SECONDS. A process of its own, and a nice one: requests are not to wait for it on the
    clients' core."""
    os.nice(10)
    if kind == "churn":
        admin, number, over = Admin(port), INSTANCES, time.perf_counter() + SECONDS
        while time.perf_counter() < over:
            admin.register(number)
            admin.call("DELETE", f"/v1/services/i{number}")
            number += 1
        print(f"{(number - INSTANCES) * 2 / SECONDS:.0f} changes/s")
    else:
        rate, _, wrong = uvloop.run(Load(("127.0.0.1", port), int(kind)).run())
        assert not wrong, wrong
        print(f"{rate:.0f} heartbeats/s")


def requests_beside(admin_port: int, port: int) -> tuple[list[list[str]], bool]:
    """The table of latencies beside each kind of storm, and whether no request failed."""
    rows, good = [], True
    for kind in (str(CALM), str(STORM), "churn"):
        with subprocess.Popen([sys.executable, __file__, kind, str(admin_port)], stdout=subprocess.PIPE) as process:
            time.sleep(SECONDS - PROBED - 0.5)  # until it is under way
            times, failures = asked(port)
            said = process.communicate()[0].decode().strip()
        good = good and not failures and not process.returncode
        rows.append([said, *(f"{times[int(len(times) * share)]:.2f}" for share in (0.5, 0.99)), str(failures)])
    return rows, good


def expiry(admin: Admin) -> tuple[int, float]:
    """Leases of all instances end together → snapshots that made, and seconds from the first of them until every
    worker served the last."""
    for number in range(INSTANCES):
        admin.register(number, TTL)
    before = admin.served()
    # All leases of one length, renewed at once: they end within the fraction of a second that renewing took.
    uvloop.run(Load(("127.0.0.1", admin.port), STORM).run())
    wait_until(lambda: admin.generations()[0] > before, "the leases to end")
    begun = time.perf_counter()
    last = admin.served()
    took = time.perf_counter() - begun
    time.sleep(2 * SWEEP)  # what is late would come now
    end = admin.served()
    return end - before, took if end == last else time.perf_counter() - begun


def changes(admin_port: int) -> tuple[int, float, float]:
    """500 instances leave and 500 others come → snapshots, seconds that the API took, seconds after its last answer
    until every worker served them."""
    admin = Admin(admin_port)
    for number in range(INSTANCES // 2):
        admin.register(number)
    before = admin.served()
    begun = time.perf_counter()
    for number in range(INSTANCES // 2):
        admin.call("DELETE", f"/v1/services/i{number}")
        admin.register(number + INSTANCES // 2)
    answered = time.perf_counter()
    last = admin.served()
    return last - before, answered - begun, time.perf_counter() - answered


def main() -> int:
    """Measure and print; → exit code."""
    raise_descriptor_limit()
    backend_port, admin_port = free_port(), free_port()
    config = {"server": {
        "workers": 2, "httpListenAddr": ANY, "backends": [f"127.0.0.1:{backend_port}"], "health": {"enabled": False},
        "admin": {"listenAddr": f"127.0.0.1:{admin_port}"}, "registry": {"cleanupInterval": f"{SWEEP:g}s"},
        "limits": {"connectionsPerClient": 0},
    }}  # fmt: skip
    server = [sys.executable, str(Path(__file__).parent / "http_server.py"), str(backend_port)]
    with running(server, 1), gogate(config, 0) as gateway, on_core(1):
        wait_until(lambda: accepts(backend_port), "the backend")
        admin = Admin(admin_port)
        for number in range(INSTANCES):
            admin.register(number)
        rows, good = requests_beside(admin_port, gateway.address("http:default")[1])
        print(markdown(["beside", "p50 ms", "p99 ms", "failed"], rows))
        for number in range(INSTANCES):
            admin.call("DELETE", f"/v1/services/i{number}")
        snapshots, took = expiry(admin)
        made, answered, behind = changes(admin_port)
    print(markdown(["churn of 1 000", "snapshots", "the API took s", "served by all workers after s"], [
        ["leases that end together", str(snapshots), "-", f"{took:.3f}"],
        ["500 leave, 500 come", str(made), f"{answered:.2f}", f"{behind:.3f}"],
    ]))
    return 0 if good and took < LIMIT and behind < LIMIT else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        storm(sys.argv[1], int(sys.argv[2]))
    else:
        sys.exit(main())
