"""Reloads that add and remove things, many times over, leave nothing behind: no descriptor, no thread, no memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from typing import Any

import psutil
import pytest
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend
from doubles.reloading import Reloading, reloading
from doubles.servers import free_port

#: Configurations that follow each other, again and again.
PERIOD = 5
#: The most threads of asyncio's executor, which makes one more whenever all it has are busy, and keeps them.
EXECUTOR = min(32, (os.cpu_count() or 1) + 4)
#: GOGATE_SOAK=1: the long form.
RELOADS = 20 * PERIOD if os.environ.get("GOGATE_SOAK") else 5 * PERIOD
#: As much as this may memory grow: a share of what there was, and steps of the allocator.
SHARE, STEP = 0.05, 128 << 10
KEY = "gg_" + "k" * 40


def variant(base: dict[str, Any], number: int, ports: list[int]) -> dict[str, Any]:
    """One of the configurations: each has listeners, pools, routes and every kind of stage that the next one lacks."""
    web, echo = base["pools"]["web"]["backends"], base["pools"]["echo"]["backends"]
    settings: dict[str, Any] = {
        "server": {**base["server"], "timeouts": {"responseHeader": f"{10 + number}s"}},
        "pools": {"web": {"backends": list(web)}, "echo": {"backends": list(echo)}},
        "routes": [{"name": "web", "pool": "web"}],
    }
    pools, routes = settings["pools"], settings["routes"]
    for extra in range(number + 1):
        name = f"{number}-{extra}"
        pools[name] = {"backends": list(web), "loadBalancer": ("p2c", "ewma", "consistent_hash", "ip_hash")[extra % 4],
                       "circuitBreaker": {"enabled": True}, "maxConnections": 50 + extra}  # fmt: skip
        routes.append({"name": name, "match": {"pathPrefix": f"/{name}"}, "pool": name})
    routes[1]["rateLimit"] = [{"rate": 1000 + number, "per": "1s", "burst": 1000, "keyBy": "ip"}]
    if number == 0:
        routes.append({"name": "tcp", "type": "tcp", "listenAddr": f"127.0.0.1:{ports[0]}", "pool": "echo"})
    elif number == 1:  # the listener of the last one, moved
        routes.append({"name": "tcp", "type": "tcp", "listenAddr": f"127.0.0.1:{ports[1]}", "pool": "echo"})
        routes[1]["cache"] = {"enabled": True}
    elif number == 2:
        routes[1]["auth"] = {"type": "api_key", "keys": {"ci": hashlib.sha256(KEY.encode()).hexdigest()}}
        routes[1]["cors"] = {"allowOrigins": ["https://a.test"]}
    elif number == 3:
        del routes[1]["pool"]
        routes[1]["split"] = [{"pool": "web", "weight": 1}, {"pool": "3-0", "weight": 3}]
        settings["logging"] = {"level": "warn"}
    return settings


class Growing:
    """One gateway, its configurations in turn, and what its processes have."""

    def __init__(self, one: Reloading, ports: list[int], backends: set[int]) -> None:
        """``ports``: of its own TCP listener; ``backends``: where those listen."""
        self._one = one
        self._ports = ports
        self._backends = backends
        self._base = dict(one.settings)
        self._number = 0
        self.refused = 0

    def reload(self, times: int) -> None:
        """So many reloads, each with some traffic through what is there."""
        one = self._one
        for _ in range(times):
            number = self._number % PERIOD
            self._number += 1
            one.settings = variant(self._base, number, self._ports)
            one.reload()
            self._traffic(one.gateway, number)
            if number == PERIOD - 1:  # a file that is refused costs nothing, either
                one.settings["routes"].append({"name": "more", "type": "tcp", "listenAddr": f":{self._ports[0]}",
                                               "pool": "nowhere"})  # fmt: skip
                self.refused += len(one.refused())

    def _traffic(self, gateway: Gateway, number: int) -> None:
        for path in ("/", f"/{number}-0", f"/{number}-{number}"):
            assert gateway.get(path, X_API_Key=KEY)[0] == 200
        if number < 2:
            with socket.create_connection(("127.0.0.1", self._ports[number]), 10) as sock:
                sock.sendall(b"ping")
                assert sock.recv(10) == b"ping"

    def processes(self) -> dict[str, psutil.Process]:
        """By what they are."""
        pids = self._one.gateway.pids()
        supervisor = psutil.Process(self._one.gateway.process.pid)
        named = {"supervisor": supervisor, **{f"worker {slot}": psutil.Process(pid) for slot, pid in enumerate(pids)}}
        (zygote,) = (child for child in supervisor.children() if child.pid not in pids)
        return {**named, "zygote": zygote}

    def counts(self) -> dict[str, int]:
        """Descriptors and threads of each process. Which worker keeps how many connections to backends is the kernel's
        choice, as it gives it requests: they are told apart."""
        found = {}
        for name, process in self.processes().items():
            kept = sum(bool(c.raddr) and c.raddr.port in self._backends for c in process.net_connections("tcp"))
            assert kept <= 2 * len(self._one.settings["pools"])
            found[f"descriptors of {name}"] = process.num_fds() - kept
            found[f"threads of {name}"] = process.num_threads()
        return found

    def memory(self) -> dict[str, int]:
        """Bytes that each process has for itself."""
        return {name: process.memory_full_info().uss for name, process in self.processes().items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reloads_leave_nothing_behind() -> None:
    """After so many reloads the same configuration has the same descriptors and threads, and about the same memory."""
    ports = [free_port(), free_port()]
    with echo_server() as (host, port), HttpBackend("a") as a, HttpBackend("b") as b:
        settings = {
            "server": {"httpListenAddr": "127.0.0.1:0"},
            "pools": {"web": {"backends": [a.address, b.address]}, "echo": {"backends": [f"{host}:{port}"]}},
            "routes": [{"name": "web", "pool": "web"}],
        }
        with reloading(settings) as one:
            growing = Growing(one, ports, {a.port, b.port, port})
            growing.reload(3 * PERIOD)  # caches, pools of the allocator, connections to backends are filled
            before, memory = growing.counts(), growing.memory()
            growing.reload(RELOADS)

            def more() -> dict[str, tuple[int, int]]:
                """What there is more of than before: (before, now)."""
                return {
                    name: (before[name], n)
                    for name, n in growing.counts().items()
                    if n > before[name] + (EXECUTOR if name == "threads of supervisor" else 0)
                }

            with contextlib.suppress(AssertionError):  # connections to backends and clients that go are closed in time
                wait_for(lambda: not more())
            assert more() == {}
            grown = {name: (memory[name], n) for name, n in growing.memory().items()
                     if n > memory[name] * (1 + SHARE) + STEP}  # fmt: skip
            assert grown == {}
            assert growing.refused == 3 + RELOADS // PERIOD
            assert one.gateway.metric("gogate_internal_errors_total") == 0
            assert one.gateway.stop() == 0
