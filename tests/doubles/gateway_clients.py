"""Clients of a whole gateway in plain blocking calls, and one kept connection to each of its workers."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator

from doubles.gateway import Gateway, wait_for
from doubles.http_backend import HttpBackend


class Client:
    """One kept connection."""

    def __init__(self, gateway: Gateway, source: str = "127.0.0.1") -> None:
        """``source``: the address that it comes from, any of 127.0.0.0/8."""
        address = gateway.address("http:default")
        self._connection = http.client.HTTPConnection(*address, timeout=20, source_address=(source, 0))

    def get(self, path: str = "/", **fields: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One GET → (status, headers, body). ``fields``: header fields, with _ for -."""
        return self.ask("GET", path, b"", **fields)

    def ask(self, method: str, path: str, body: bytes, **fields: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request → (status, headers, body)."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self._connection.request(method, path, body or None, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def slot_of(backend: HttpBackend) -> int:
    """The worker that sent the backend its last request: request ids begin with the slot."""
    return int(field_of(backend.heads[-1], b"x-request-id")[:2], 16)


def field_of(head: bytes, name: bytes) -> bytes:
    """The value of a field that a request carried to a backend; b"" when it is not there."""
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return next((value for key, value in fields.items() if key.lower() == name), b"")


@contextlib.contextmanager
def clients_by_worker(
    gateway: Gateway, backend: HttpBackend, workers: int, each: int = 1
) -> Iterator[list[list[Client]]]:
    """``each`` kept connections to each worker, in the order of their slots (the kernel spreads connections by hash, so
    some more are made). All must lead to this backend, which answers 200."""
    found: dict[int, list[Client]] = {slot: [] for slot in range(workers)}
    made: list[Client] = []

    def complete() -> bool:
        made.append(Client(gateway))
        assert made[-1].get()[0] == 200
        found[slot_of(backend)].append(made[-1])
        return all(len(clients) >= each for clients in found.values())

    wait_for(complete, what="connections to every worker")
    try:
        yield [clients[:each] for clients in found.values()]
    finally:
        for client in made:
            client.close()


@contextlib.contextmanager
def a_client_per_worker(gateway: Gateway, backend: HttpBackend, workers: int) -> Iterator[list[Client]]:
    """One kept connection to each worker."""
    with clients_by_worker(gateway, backend, workers) as clients:
        yield [client for (client,) in clients]


def kill_9(gateway: Gateway, slot: int) -> None:
    """Kill a worker of the gateway, and wait until a new one serves in its place."""
    before = gateway.pids()
    os.kill(before[slot], signal.SIGKILL)

    def replaced() -> bool:
        worker = gateway.admin_json("GET", "/stats")["workers"][slot]
        return bool(worker["pid"] != before[slot] and worker["state"] == "serving")

    wait_for(replaced, what="a new worker")
