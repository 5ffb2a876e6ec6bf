"""What must be exact over all workers of a machine: rate limits, breakers, least connections, sums of metrics."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config, http_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.gateway_clients import Client, a_client_per_worker, slot_of
from doubles.http_backend import HttpBackend
from doubles.load import in_threads

WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])
#: Seconds of load.
SECONDS = 10.0 if os.environ.get("GOGATE_SOAK") else 3.0
#: The same for windows of a second: not a whole number of them, so that it is clear how many there were.
WINDOWS = SECONDS + 0.4


class Offered:
    """Load from many connections, ten times the limit and more; counts what was admitted, and bounds it.

    The limit is asked all the time from the first answer to the last question, so it admits at least what it allows in
    that time, and at most what it allows from the first question to the last answer. Several can be added up.
    """

    def __init__(self, *lines: str, path: str = "/", seconds: float = SECONDS) -> None:
        """``lines``: further lines of the requests' heads."""
        head = [f"GET {path} HTTP/1.1", "Host: gogate.test", *lines, "", ""]
        self._request = "\r\n".join(head).encode()
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.admitted = 0
        self.refused = 0
        self.refusal = b""  # one of the 429 answers
        self.first_asked = float("inf")
        self.first_answer = float("inf")
        self.last_asked = 0.0
        self.last_answer = 0.0

    def _note(self, asked: float, answered: float, admitted: int, refused: int) -> None:
        with self._lock:
            self.admitted += admitted
            self.refused += refused
            self.first_asked = min(self.first_asked, asked)
            self.first_answer = min(self.first_answer, answered)
            self.last_asked = max(self.last_asked, asked)
            self.last_answer = max(self.last_answer, answered)

    def http(self, address: tuple[str, int], batch: int = 16) -> None:
        """Pipelined requests on one connection."""
        with socket.create_connection(address, timeout=20) as sock:
            while (asked := time.monotonic()) < self._until:
                sock.sendall(self._request * batch)
                answers = b""
                while answers.count(b"\r\n\r\n") < batch or not _complete(answers):
                    more = sock.recv(1 << 16)
                    assert more
                    answers += more
                admitted = answers.count(b"HTTP/1.1 200 ")
                assert admitted + answers.count(b"HTTP/1.1 429 ") == batch
                self._note(asked, time.monotonic(), admitted, batch - admitted)
                if admitted < batch:
                    self.refusal = answers[answers.index(b"HTTP/1.1 429 ") :]

    def tcp(self, address: tuple[str, int]) -> None:
        """Connections one after the other; one that echoes was admitted."""
        while (asked := time.monotonic()) < self._until:
            with socket.create_connection(address, timeout=20) as sock:
                answer = b""
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"ping")
                    answer = sock.recv(16)
            self._note(asked, time.monotonic(), bool(answer), not answer)

    def __add__(self, other: Offered) -> Offered:
        both = Offered()
        for one in (self, other):
            both._note(one.first_asked, one.first_answer, one.admitted, one.refused)
            both._note(one.last_asked, one.last_answer, 0, 0)
        return both

    def check(self, allowed: Callable[[float], float], gateway: Gateway, times: int = 10) -> None:
        """Admitted within 1 % (and 1) of what is allowed in the seconds that passed, and so many times that offered. A
        worker that finds the lock busy, because its holder has lost the CPU, decides alone and counts that: where the
        machine is overloaded each such decision may be one too many."""
        least = allowed(self.last_asked - self.first_answer)
        most = allowed(self.last_answer - self.first_asked)
        assert least * 0.99 - 1 <= self.admitted
        wait_for(
            lambda: self.admitted <= most * 1.01 + 1 + gateway.metric("gogate_arena_contention_total"),
            what=lambda: f"{self.admitted} admitted to be no more than {most}",
        )
        assert self.admitted + self.refused >= times * most


def bucket(rate: float, burst: int) -> Callable[[float], float]:
    """What a token bucket that was full at the start allows in some seconds."""
    return lambda seconds: burst + rate * seconds


def _complete(answers: bytes) -> bool:
    """Whether the last answer is whole (each here has Content-Length)."""
    head, _, body = answers[answers.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return len(body) == int(fields[b"content-length"])


LIMIT = {"enabled": True, "rate": 100, "burst": 50}


@WORKERS
def test_rate_limit_is_exact_over_all_workers(workers: int) -> None:
    """A limit of 100/s with a burst of 50 admits just that with 1, 2 and 4 workers, however much is offered; the answer
    to the others says when to come again and which limit it was."""
    with HttpBackend() as backend, Gateway(http_gateway(backend.address, workers=workers, rateLimit=LIMIT)) as gateway:
        offered = Offered()
        in_threads(6, lambda _: offered.http(gateway.address("http:default")))
        offered.check(bucket(100, 50), gateway)
        assert backend.requests == offered.admitted
        wait_for(lambda: gateway.metric("gogate_rate_limit_rejected_total") == offered.refused, what="the counts")
        assert re.search(rb"\r\nRetry-After: 1\r\n", offered.refusal)
        assert re.search(rb'\r\nRateLimit-Policy: "token_bucket";q=100;w=1\r\n', offered.refusal)
        assert re.search(rb'\r\nRateLimit: "token_bucket";r=0;t=1\r\n', offered.refusal)
        assert b"rate_limited" in offered.refusal


@WORKERS
def test_each_key_has_an_exact_limit_of_its_own(workers: int) -> None:
    """keyBy header: each value of the header is admitted rate x t + burst over all workers, whatever the others ask."""
    limit = {"enabled": True, "rate": 30, "burst": 15, "keyBy": "header:X-Tenant"}
    with HttpBackend() as backend, Gateway(http_gateway(backend.address, workers=workers, rateLimit=limit)) as gateway:
        tenants = [Offered(f"X-Tenant: {name}") for name in ("a", "b", "c")]
        in_threads(6, lambda number: tenants[number % 3].http(gateway.address("http:default")))
        for offered in tenants:
            offered.check(bucket(30, 15), gateway)
        assert backend.requests == sum(offered.admitted for offered in tenants)


@WORKERS
def test_sliding_window_is_exact_over_all_workers(workers: int) -> None:
    """A sliding window of 100 per second admits 100 at once, and then no more than 100 a second, evenly."""
    limit = {"enabled": True, "algorithm": "sliding_window", "rate": 100}
    with HttpBackend() as backend, Gateway(http_gateway(backend.address, workers=workers, rateLimit=limit)) as gateway:
        offered = Offered(seconds=WINDOWS)
        in_threads(6, lambda _: offered.http(gateway.address("http:default")))
        offered.check(lambda seconds: 100 * max(1.0, seconds), gateway)
        assert backend.requests == offered.admitted


@WORKERS
def test_fixed_window_is_exact_over_all_workers(workers: int) -> None:
    """A fixed window of 100 per second admits 100 in each of the windows that have begun, over all workers."""
    limit = {"enabled": True, "algorithm": "fixed_window", "rate": 100}
    with HttpBackend() as backend, Gateway(http_gateway(backend.address, workers=workers, rateLimit=limit)) as gateway:
        offered = Offered(seconds=WINDOWS)
        in_threads(6, lambda _: offered.http(gateway.address("http:default")))
        offered.check(lambda seconds: 100 * math.ceil(seconds), gateway, times=8)
        assert backend.requests == offered.admitted


@WORKERS
def test_limit_of_a_tcp_route_is_exact_over_all_workers(workers: int) -> None:
    """A rate limit of a TCP route admits rate x t + burst connections, whichever worker accepts them; the others are
    closed at once and counted."""
    limit = {"enabled": True, "rate": 20, "burst": 10, "keyBy": "ip"}
    with echo_server() as (host, port):
        config = gateway_config(
            {"workers": workers, "health": {"enabled": False}},
            pools={"echo": {"backends": [f"{host}:{port}"]}},
            routes=[{"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo", "rateLimit": limit}],
        )
        with Gateway(config) as gateway:
            offered = Offered()
            in_threads(6, lambda _: offered.tcp(gateway.address("tcp:echo")))
            offered.check(bucket(20, 10), gateway)
            refused = {"listener": "echo", "reason": "rate_limited"}
            wait_for(lambda: gateway.metric("gogate_connections_refused_total", **refused) == offered.refused)


@WORKERS
def test_limit_of_a_route_comes_on_top_of_the_servers(workers: int) -> None:
    """A route with a limit of its own gets no more than that, and all routes together no more than the server's."""
    with HttpBackend() as backend:
        config = gateway_config(
            {"workers": workers, "httpListenAddr": ANY, "health": {"enabled": False}, "rateLimit": LIMIT},
            pools={"web": {"backends": [backend.address]}},
            routes=[{"name": "rest", "pool": "web"},
                    {"name": "small", "pool": "web", "match": {"path": "/small"},
                     "rateLimit": {"enabled": True, "name": "small", "rate": 20, "burst": 10}}],
        )
        with Gateway(config) as gateway:
            small, rest = Offered(path="/small"), Offered()
            in_threads(6, lambda number: (small, rest)[number % 2].http(gateway.address("http:default")))
            assert small.admitted <= 1 + 1.01 * (10 + 20 * (small.last_answer - small.first_asked))
            (small + rest).check(bucket(100, 50), gateway)
            assert backend.requests == small.admitted + rest.admitted


@WORKERS
def test_both_layers_share_the_bucket(workers: int) -> None:
    """Requests at L7 and connections at L4 take their tokens from one bucket."""
    with HttpBackend() as backend, echo_server() as (host, port):
        config = gateway_config(
            {"workers": workers, "httpListenAddr": ANY, "health": {"enabled": False},
             "rateLimit": {"enabled": True, "rate": 60, "burst": 30}},
            pools={"web": {"backends": [backend.address]}, "echo": {"backends": [f"{host}:{port}"]}},
            routes=[{"name": "web", "pool": "web"}, {"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo"}],
        )
        with Gateway(config) as gateway:
            offered = Offered()

            def ask(number: int) -> None:
                if number % 2:
                    offered.tcp(gateway.address("tcp:echo"))
                else:
                    offered.http(gateway.address("http:default"))

            in_threads(6, ask)
            offered.check(bucket(60, 30), gateway)
            assert 0 < backend.requests < offered.admitted
            wait_for(lambda: gateway.metric("gogate_rate_limit_rejected_total") == offered.refused, what="the counts")


def _breaker(gateway: Gateway) -> str:
    state: str = gateway.admin_json("GET", "/backends")["backends"][0]["breaker"]
    return state


@WORKERS
def test_breaker_opens_after_five_failures_in_total(workers: int) -> None:
    """failureThreshold 5: the breaker opens after five failures in all, not five for each worker."""
    breaker = {"enabled": True, "failureThreshold": 5, "timeout": "1h"}
    with (
        HttpBackend() as backend,
        Gateway(http_gateway(backend.address, workers=workers, circuitBreaker=breaker)) as gateway,
        a_client_per_worker(gateway, backend, workers) as clients,
    ):
        backend.status = 500
        before = backend.requests
        slots = set()
        for number in range(5):
            assert clients[number % workers].get()[0] == 500
            slots.add(slot_of(backend))
        assert slots == set(range(workers))
        assert _breaker(gateway) == "open"
        for client in clients:
            status, headers, body = client.get()
            assert status == 503
            assert int(headers["Retry-After"]) > 0
            assert b"breaker_open" in body
        assert backend.requests == before + 5
        assert _breaker(gateway) == "open"
        wait_for(lambda: gateway.metric("gogate_circuit_breaker_opened_total") == 1, what="the opening counted")
        assert gateway.metric("gogate_circuit_breaker_state") == 1


def test_failures_must_be_consecutive() -> None:
    """A success in another worker starts the count of failures again."""
    breaker = {"enabled": True, "failureThreshold": 5, "timeout": "1h"}
    with (
        HttpBackend() as backend,
        Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway,
        a_client_per_worker(gateway, backend, 2) as (one, other),
    ):
        for _ in range(3):
            backend.status = 500
            assert [one.get()[0] for _ in range(4)] == [500] * 4
            backend.status = 200
            assert other.get()[0] == 200
        assert _breaker(gateway) == "closed"


def test_half_open_lets_one_request_through() -> None:
    """After its timeout an open breaker lets one trial through over all workers; its success closes it for all."""
    breaker = {"enabled": True, "failureThreshold": 5, "timeout": "300ms", "halfOpenRequests": 1}
    with (
        HttpBackend() as backend,
        Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway,
        a_client_per_worker(gateway, backend, 2) as clients,
        a_client_per_worker(gateway, backend, 2) as others,
    ):
        backend.status = 500
        for _ in range(5):
            assert clients[0].get()[0] == 500
        backend.status = 200
        backend.hold()
        before = backend.requests
        trial: list[int] = []

        def ask_until_let_through() -> None:
            trial.append(wait_for(lambda: (status := others[0].get()[0]) != 503 and status, what="the trial"))

        thread = threading.Thread(target=ask_until_let_through)
        thread.start()
        wait_for(lambda: backend.requests == before + 1, what="the trial to reach the backend")
        assert _breaker(gateway) == "half_open"
        for _ in range(5):
            assert [client.get()[0] for client in clients] == [503, 503]
        assert backend.requests == before + 1
        backend.release()
        thread.join()
        assert trial == [200]
        assert [client.get()[0] for client in clients] == [200, 200]
        assert _breaker(gateway) == "closed"


def test_a_failed_trial_opens_the_breaker_again() -> None:
    """A trial that fails opens the breaker for another timeout, in every worker."""
    breaker = {"enabled": True, "failureThreshold": 2, "timeout": "1s"}
    with (
        HttpBackend() as backend,
        Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway,
        a_client_per_worker(gateway, backend, 2) as clients,
    ):
        backend.status = 500
        assert [client.get()[0] for client in clients] == [500, 500]
        assert _breaker(gateway) == "open"
        wait_for(lambda: clients[0].get()[0] == 500, what="the trial")
        assert clients[1].get()[0] == 503
        wait_for(lambda: gateway.metric("gogate_circuit_breaker_opened_total") >= 2, what="the count")


@WORKERS
def test_least_connections_counts_all_workers(workers: int) -> None:
    """Requests that begin one after the other are spread evenly over two backends, although workers share them."""
    with HttpBackend("a") as a, HttpBackend("b") as b:
        config = http_gateway(a.address, b.address, workers=workers, loadBalancer="least_connections")
        with Gateway(config) as gateway:
            def arrived(number: int) -> bool:
                return a.in_flight + b.in_flight == number

            a.hold()
            b.hold()
            clients = [Client(gateway) for _ in range(40)]
            threads = []
            for number, client in enumerate(clients):
                threads.append(threading.Thread(target=client.get))
                threads[-1].start()
                wait_for(partial(arrived, number + 1), what="the request to arrive")
                assert abs(a.in_flight - b.in_flight) <= 1
            active = {x["addr"]: x["active_connections"] for x in gateway.admin_json("GET", "/backends")["backends"]}
            assert active == {a.address: 20, b.address: 20}
            assert gateway.metric("gogate_backend_connections_active") == 40
            wait_for(lambda: gateway.metric("gogate_http_requests_in_flight") == 40, what="the workers to have told")
            a.release()
            b.release()
            for thread, client in zip(threads, clients, strict=True):
                thread.join()
                client.close()
            wait_for(lambda: gateway.metric("gogate_backend_connections_active") == 0, what="the counts to fall")


@WORKERS
def test_sums_of_metrics_are_exact(workers: int) -> None:
    """After a quiet second every counter is what happened: requests, answers, connections, histogram and bytes."""
    clients, each, size = 16, 40, 3000
    with HttpBackend(body=b"x" * 500) as backend, echo_server() as (host, port):
        config = gateway_config(
            {"workers": workers, "httpListenAddr": ANY, "health": {"enabled": False}},
            pools={"web": {"backends": [backend.address]}, "echo": {"backends": [f"{host}:{port}"]}},
            routes=[{"name": "web", "pool": "web", "match": {"path": "/"}},
                    {"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo"}],
        )
        with Gateway(config) as gateway:
            def work(number: int) -> None:
                client = Client(gateway)
                for _ in range(each):
                    assert client.get()[2] == b"x" * 500
                client.close()
                assert gateway.get("/nowhere")[0] == 404
                with socket.create_connection(gateway.address("tcp:echo"), timeout=20) as sock:
                    sock.sendall(b"y" * size)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass

            in_threads(clients, work)
            asked = clients * each
            sent = sum(len(head) + 4 for head in backend.heads)
            answer = len(f"HTTP/1.1 200 X\r\nContent-Length: 500\r\nX-Backend: {backend.name}\r\n\r\n") + 500
            expected: list[tuple[str, dict[str, str], float]] = [
                ("gogate_requests_total", {"backend": backend.address, "status": "success"}, asked),
                ("gogate_requests_total", {"status": "failure"}, 0),
                ("gogate_route_requests_total", {"route": "web", "code": "200"}, asked),
                ("gogate_route_requests_total", {"route": "", "code": "404"}, clients),
                ("gogate_local_responses_total", {"reason": "no_route"}, clients),
                ("gogate_request_duration_seconds_count", {}, asked + clients),
                ("gogate_request_duration_seconds_bucket", {"le": "+Inf"}, asked + clients),
                ("gogate_connections_total", {"listener": "http:default"}, 2 * clients),
                ("gogate_connections_total", {"listener": "echo"}, clients),
                ("gogate_connections_active", {}, 0),
                ("gogate_http_requests_in_flight", {}, 0),
                ("gogate_backend_bytes_sent_total", {"pool": "web"}, sent),
                ("gogate_backend_bytes_received_total", {"pool": "web"}, asked * answer),
                ("gogate_backend_bytes_sent_total", {"pool": "echo"}, clients * size),
                ("gogate_backend_bytes_received_total", {"pool": "echo"}, clients * size),
                ("gogate_tcp_connections_total", {"route": "echo", "result": "ok"}, clients),
                ("gogate_connection_duration_seconds_count", {}, clients),
                ("gogate_internal_errors_total", {}, 0),
                ("gogate_log_lines_dropped_total", {}, 0),
                ("gogate_workers", {}, workers),
            ]

            def differences() -> list[Any]:
                return [
                    (name, labels, found, wanted)
                    for name, labels, wanted in expected
                    if (found := gateway.metric(name, **labels)) != wanted
                ]

            with contextlib.suppress(AssertionError):
                wait_for(lambda: not differences(), 3.0)
            assert differences() == []
            # and it stays so: a second later nothing was counted twice
            later = gateway.metric("gogate_uptime_seconds") + 1.0
            wait_for(lambda: gateway.metric("gogate_uptime_seconds") >= later, what="a quiet second")
            assert differences() == []
            wait_for(lambda: len(gateway.access) == asked + 2 * clients, what="a line for every request and connection")
