"""What traffic management promises over all workers, through whole gateways: who shares a rate limit, maxConnections,
breakers, outlier detection, retries — and all of it after kill -9 of a worker. (Limits over time: test_exactness.)"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException, HTTPMessage
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config, http_gateway, tcp_gateway
from doubles.gateway import Gateway, wait_for
from doubles.gateway_clients import Client, a_client_per_worker, clients_by_worker, field_of, kill_9, slot_of
from doubles.http_backend import HttpBackend
from doubles.load import Load, in_threads

WORKERS = pytest.mark.parametrize("workers", [1, 2, 4])
SEVERAL_WORKERS = pytest.mark.parametrize("workers", [2, 4])

Answer = tuple[int, HTTPMessage, bytes]


@pytest.fixture
def backend() -> Iterator[HttpBackend]:
    with HttpBackend() as backend:
        yield backend


@pytest.fixture
def three() -> Iterator[list[HttpBackend]]:
    with HttpBackend("a") as a, HttpBackend("b") as b, HttpBackend("c") as c:
        yield [a, b, c]


class Asking:
    """One request in a thread; its answer, or None when the connection broke."""

    def __init__(self, client: Client, method: str = "GET", body: bytes = b"", **fields: str) -> None:
        self.answer: Answer | None = None
        self.client = client
        self._thread = threading.Thread(target=self._ask, args=(client, method, body, fields))
        self._thread.start()

    def _ask(self, client: Client, method: str, body: bytes, fields: dict[str, str]) -> None:
        with contextlib.suppress(OSError, HTTPException):
            self.answer = client.ask(method, "/", body, **fields)

    @property
    def status(self) -> int:
        """The status once it is answered; 0 when the connection broke."""
        self._thread.join()
        return self.answer[0] if self.answer is not None else 0


def fresh(gateway: Gateway, path: str = "/", source: str = "127.0.0.1", **fields: str) -> int:
    """The status of a GET on a connection of its own, so in any worker."""
    with contextlib.closing(Client(gateway, source)) as client:
        return client.get(path, **fields)[0]


def statuses(times: int, ask: Callable[[], int]) -> Counter[int]:
    """How often each status came."""
    return Counter(ask() for _ in range(times))


def shown(gateway: Gateway, number: int = 0) -> dict[str, Any]:
    """One backend as the admin API shows it."""
    found: dict[str, Any] = gateway.admin_json("GET", "/backends")["backends"][number]
    return found


def by_address(gateway: Gateway, key: str) -> dict[str, Any]:
    """What the admin API shows of each backend under this key."""
    return {one["addr"]: one[key] for one in gateway.admin_json("GET", "/backends")["backends"]}


def until_shown(gateway: Gateway, key: str, value: object, number: int = 0) -> None:
    """Wait for a backend's state."""
    wait_for(lambda: shown(gateway, number)[key] == value, what=f"{key} {value}")


# --- rate limits: who shares one. Nothing comes back within a test: these count whole requests.


def limit(burst: int, **more: Any) -> dict[str, Any]:
    return {"enabled": True, "rate": 1, "per": "1h", "burst": burst, **more}


def routes_gateway(backend: HttpBackend, *routes: dict[str, Any], **server: Any) -> str:
    """A gateway with these routes to one pool."""
    return gateway_config(
        {"httpListenAddr": ANY, "health": {"enabled": False}, **server},
        pools={"web": {"backends": [backend.address]}},
        routes=[{"pool": "web", **route} for route in routes],
    )


@SEVERAL_WORKERS
def test_every_limit_counts_only_what_all_admit(backend: HttpBackend, workers: int) -> None:
    """A route's limit comes on top of the server's, and what it refuses costs nothing of the server's."""
    config = routes_gateway(
        backend,
        {"name": "rest"},
        {"name": "small", "match": {"path": "/small"}, "rateLimit": limit(5, name="small")},
        workers=workers, rateLimit=limit(20),
    )
    with Gateway(config) as gateway:
        assert statuses(15, partial(fresh, gateway, "/small")) == {200: 5, 429: 10}
        assert statuses(25, partial(fresh, gateway)) == {200: 15, 429: 10}
        assert backend.requests == 20
        wait_for(lambda: gateway.metric("gogate_rate_limit_rejected_total") == 20, what="the counts")
        assert gateway.metric("gogate_rate_limit_rejected_total", route="small", limit="small") == 10


@SEVERAL_WORKERS
def test_several_limits_of_one_route(backend: HttpBackend, workers: int) -> None:
    """Of several limits of a route each counts for its own key, and the answer names the one that is full."""
    limits = [limit(8, name="all"), limit(5, name="each", keyBy="header:X-Tenant")]
    with Gateway(routes_gateway(backend, {"name": "web", "rateLimit": limits}, workers=workers)) as gateway:
        assert statuses(7, partial(fresh, gateway, X_Tenant="a")) == {200: 5, 429: 2}
        _, headers, _ = gateway.get(X_Tenant="a")
        assert headers["ratelimit-policy"].startswith('"each";')
        assert headers["ratelimit"].startswith('"each";r=0;t=')
        assert 0 < int(headers["retry-after"]) <= 3600
        assert statuses(5, partial(fresh, gateway, X_Tenant="b")) == {200: 3, 429: 2}
        _, headers, _ = gateway.get(X_Tenant="b")
        assert headers["ratelimit-policy"].startswith('"all";')


def test_a_route_without_limits_is_exempt(backend: HttpBackend) -> None:
    """``rateLimit: {enabled: false}`` frees a route of the server's limit, and costs the others nothing of it."""
    free = {"name": "free", "match": {"path": "/free"}, "rateLimit": {"enabled": False}}
    with Gateway(routes_gateway(backend, {"name": "rest"}, free, rateLimit=limit(5))) as gateway:
        assert statuses(30, partial(fresh, gateway, "/free")) == {200: 30}
        assert statuses(8, partial(fresh, gateway)) == {200: 5, 429: 3}
        assert statuses(30, partial(fresh, gateway, "/free")) == {200: 30}


def test_forwarded_for_of_strangers_changes_nothing(backend: HttpBackend) -> None:
    """keyBy ip: X-Forwarded-For from a peer that is no trusted proxy does not make a client somebody else (T26)."""
    with Gateway(http_gateway(backend.address, rateLimit=limit(4, keyBy="ip"))) as gateway:
        numbers = iter(range(100))

        def ask() -> int:
            return fresh(gateway, X_Forwarded_For=f"203.0.113.{next(numbers)}")

        assert statuses(10, ask) == {200: 4, 429: 6}
        assert statuses(6, partial(fresh, gateway, source="127.0.0.2")) == {200: 4, 429: 2}


def test_clients_behind_a_trusted_proxy_are_told_apart(backend: HttpBackend) -> None:
    """keyBy ip behind trustedProxies: the client is the last address that no trusted proxy has added, so that what the
    client itself writes before it changes nothing (T26)."""
    config = http_gateway(backend.address, rateLimit=limit(4, keyBy="ip"), trustedProxies=["127.0.0.1/32"])
    with Gateway(config) as gateway:
        numbers = iter(range(100))

        def ask(client: str) -> int:
            return fresh(gateway, X_Forwarded_For=f"198.51.100.{next(numbers)}, {client}")

        assert statuses(6, partial(ask, "203.0.113.1")) == {200: 4, 429: 2}
        assert statuses(6, partial(ask, "203.0.113.2")) == {200: 4, 429: 2}
        assert statuses(2, partial(ask, "203.0.113.1, 127.0.0.1")) == {429: 2}
        # one that is not trusted says nothing, whatever it claims
        assert statuses(6, partial(fresh, gateway, source="127.0.0.2", X_Forwarded_For="192.0.2.7")) == {200: 4, 429: 2}


def test_variants_of_a_path_share_a_key_and_a_route(backend: HttpBackend) -> None:
    """Other spellings of a path, and other queries, are no way around a limit by path or of a route."""
    login = {"name": "login", "match": {"path": "/log/in"}, "rateLimit": limit(3)}
    config = routes_gateway(backend, login, {"name": "rest"}, rateLimit=limit(6, keyBy="path"))
    spellings = ["", "?a", "?a=1&b"]
    with Gateway(config) as gateway:
        for first, path in (("/log", "/in"), ("/a", "/b")):
            variants = [f"{first}{path}{query}" for query in spellings]
            variants += [f"{first}/{path}", f"{first}/.{path}", f"/x/..{first}{path}", f"//{first}{path}"]
            variants += [first + path.replace("i", "%69").replace("b", "%62")]
            found = Counter(fresh(gateway, variant) for variant in variants)
            assert found == ({200: 3, 429: 5} if first == "/log" else {200: 6, 429: 2})
        assert fresh(gateway, "/a/c") == 200


def test_a_limit_survives_its_workers(backend: HttpBackend) -> None:
    """kill -9 of workers gives nobody a new bucket, shared or by key."""
    limits = [limit(12), limit(8, keyBy="header:X-Tenant")]
    with Gateway(http_gateway(backend.address, rateLimit=limits)) as gateway:
        assert statuses(6, partial(fresh, gateway, X_Tenant="a")) == {200: 6}
        kill_9(gateway, 0)
        kill_9(gateway, 1)
        assert statuses(6, partial(fresh, gateway, X_Tenant="a")) == {200: 2, 429: 4}
        assert statuses(8, partial(fresh, gateway, X_Tenant="b")) == {200: 4, 429: 4}


def test_limits_of_a_tcp_route_by_address() -> None:
    """keyBy ip on a TCP route: each address has its own number of connections, over all workers."""
    with CountingEcho() as echo:
        config = gateway_config(
            {"health": {"enabled": False}},
            pools={"echo": {"backends": [echo.address]}},
            routes=[{"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo",
                     "rateLimit": limit(5, keyBy="ip")}],
        )
        with Gateway(config) as gateway:
            def ask(source: str) -> int:
                return ping_once(gateway.address("tcp:echo"), source)

            assert statuses(12, partial(ask, "127.0.0.1")) == {True: 5, False: 7}
            assert statuses(12, partial(ask, "127.0.0.2")) == {True: 5, False: 7}
            assert echo.connections == 10


# --- maxConnections


class CountingEcho:
    """A TCP echo that counts its connections: a client's EOF ends one, before the client is told."""

    def __init__(self) -> None:
        self.connections = 0
        self.active = 0
        self.most_active = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.address = ""

    def __enter__(self) -> CountingEcho:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10.0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Echo(self), "127.0.0.1", 0, backlog=1024)

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        wait_for(lambda: not self.active, what="the last connection to end")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()


class _Echo(asyncio.Protocol):
    def __init__(self, owner: CountingEcho) -> None:
        self._owner = owner
        self._over = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        owner, self._transport = self._owner, transport
        owner.connections += 1
        owner.active += 1
        owner.most_active = max(owner.most_active, owner.active)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def eof_received(self) -> bool:
        self._end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._owner.active -= 1


def ping_once(address: tuple[str, int], source: str = "127.0.0.1") -> bool:
    """Whether a connection is served: a ping is echoed, and everything ends well."""
    with socket.create_connection(address, timeout=20, source_address=(source, 0)) as sock:
        try:
            sock.sendall(b"ping")
            if sock.recv(16) != b"ping":
                return False
            sock.shutdown(socket.SHUT_WR)
            return sock.recv(16) == b""
        except ConnectionError:
            return False


@SEVERAL_WORKERS
def test_max_connections_is_exact_over_all_workers(backend: HttpBackend, workers: int) -> None:
    """maxConnections 5: a slow backend never has more than 5 requests, and all of 40 clients are answered in turn."""
    backend.delay = 0.01
    config = http_gateway(backend.address, workers=workers, maxConnections=5, queueTimeout="30s")
    with Gateway(config) as gateway:
        def work(_: int) -> None:
            with contextlib.closing(Client(gateway)) as client:
                for _ in range(5):
                    assert client.get()[0] == 200

        in_threads(40, work)
        assert backend.requests == 200
        assert backend.most_in_flight == 5
        wait_for(lambda: shown(gateway)["active_connections"] == 0, what="the count to fall")


@SEVERAL_WORKERS
def test_who_waits_too_long_for_room_is_told_so(backend: HttpBackend, workers: int) -> None:
    """With a short queueTimeout those beyond maxConnections get 503 queue_timeout with Retry-After; the 5 are served.
    """
    backend.hold()
    config = http_gateway(backend.address, workers=workers, maxConnections=5, queueTimeout="300ms")
    with Gateway(config) as gateway, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(Client(gateway))) for _ in range(40)]
        asking = [Asking(client) for client in clients]
        wait_for(lambda: sum(one.answer is not None for one in asking) == 35, what="35 refusals")
        assert backend.requests == backend.in_flight == 5
        backend.release()
        assert Counter(one.status for one in asking) == {200: 5, 503: 35}
        for one in asking:
            assert one.answer is not None
            if one.status == 503:
                assert b"queue_timeout" in one.answer[2]
                assert int(one.answer[1]["Retry-After"]) >= 1
        wait_for(lambda: gateway.metric("gogate_pool_wait_timeouts_total") == 35, what="the counts")
        assert gateway.metric("gogate_local_responses_total", reason="queue_timeout") == 35


@SEVERAL_WORKERS
def test_max_connections_of_a_tcp_pool_is_exact(workers: int) -> None:
    """maxConnections 5 of a TCP route: the backend never has more than 5 connections, and all of 40 clients are served.
    """
    with (
        CountingEcho() as echo,
        Gateway(tcp_gateway("echo", echo.address, workers=workers, maxConnections=5, queueTimeout="30s")) as gateway,
    ):
        def work(_: int) -> None:
            for _ in range(3):
                assert ping_once(gateway.address("tcp:echo"))

        in_threads(40, work)
        assert echo.connections == 120
        assert echo.most_active == 5


@SEVERAL_WORKERS
def test_a_tcp_connection_that_waits_too_long_is_closed(workers: int) -> None:
    """With a short queueTimeout TCP connections beyond maxConnections are closed and counted; the 5 go on."""
    config = {"workers": workers, "maxConnections": 5, "queueTimeout": "300ms"}
    with (
        CountingEcho() as echo,
        Gateway(tcp_gateway("echo", echo.address, **config)) as gateway,
        contextlib.ExitStack() as stack,
    ):
        address = gateway.address("tcp:echo")
        served = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(5)]
        for sock in served:
            sock.sendall(b"ping")
            assert sock.recv(16) == b"ping"
        results: list[bool] = []
        in_threads(15, lambda _: results.append(ping_once(address)))
        assert results == [False] * 15
        assert echo.connections == 5
        refused = {"listener": "echo", "reason": "queue_timeout"}
        wait_for(lambda: gateway.metric("gogate_connections_refused_total", **refused) == 15, what="the counts")
        served.pop().close()
        wait_for(lambda: ping_once(address), what="room")


def test_room_of_a_killed_worker_comes_back(backend: HttpBackend) -> None:
    """kill -9 of a worker: what it had at a backend does not count any more, its room goes to those who wait, and
    maxConnections is exact as before."""
    with Gateway(http_gateway(backend.address, maxConnections=6, queueTimeout="30s")) as gateway:
        with clients_by_worker(gateway, backend, 2, each=5) as (doomed, others):
            before = backend.requests
            backend.hold()
            # Three of each worker have room, the others wait.
            asking = [Asking(client) for client in (*doomed[:3], *others[:3])]
            wait_for(lambda: backend.in_flight == 6, what="six requests")
            waiting = [Asking(client) for client in others[3:]]
            wait_for(lambda: gateway.metric("gogate_pool_waiting") == 2, what="two that wait")
            kill_9(gateway, 0)
            assert [one.status for one in asking[:3]] == [0, 0, 0]
            wait_for(lambda: backend.requests == before + 8, what="the two to have room")
            until_shown(gateway, "active_connections", 5)
            backend.release()
            assert [one.status for one in (*asking[3:], *waiting)] == [200] * 5
        until_shown(gateway, "active_connections", 0)
        backend.most_in_flight = 0
        backend.delay = 0.01

        def work(_: int) -> None:
            with contextlib.closing(Client(gateway)) as client:
                for _ in range(4):
                    assert client.get()[0] == 200

        in_threads(24, work)
        assert backend.most_in_flight == 6


def test_least_connections_after_a_killed_worker() -> None:
    """kill -9 of a worker in the middle of its requests: least_connections goes on with what the others have."""
    with (
        HttpBackend("a") as a,
        HttpBackend("b") as b,
        Gateway(http_gateway(a.address, b.address, loadBalancer="least_connections")) as gateway,
        contextlib.ExitStack() as stack,
    ):
        def arrived(number: int) -> bool:
            return a.in_flight + b.in_flight == number

        def ask(number: int) -> list[Asking]:
            begun = a.in_flight + b.in_flight
            made = []
            for more in range(number):
                client = stack.enter_context(contextlib.closing(Client(gateway)))
                made.append(Asking(client))
                wait_for(partial(arrived, begun + more + 1), what="the request to arrive")
            return made

        a.hold()
        b.hold()
        first = ask(20)
        assert a.in_flight == b.in_flight == 10
        kill_9(gateway, 0)
        left: dict[str, int] = by_address(gateway, "active_connections")
        assert 0 < sum(left.values()) < 20
        # What comes now fills up the one that has less: as many as the dead worker had, both have ten again.
        second = ask(20 - sum(left.values()))
        assert by_address(gateway, "active_connections") == {a.address: 10, b.address: 10}
        a.release()
        b.release()
        answered = Counter(one.status for one in first + second)
        assert answered == {200: 20, 0: len(second)}
        wait_for(lambda: set(by_address(gateway, "active_connections").values()) == {0}, what="the counts to fall")


# --- circuit breaker


def test_a_ratio_is_of_the_outcomes_of_all_workers(backend: HttpBackend) -> None:
    """failureThreshold "50%" with minRequests 20: the twentieth outcome in all workers together opens the breaker when
    half of them are failures, and none before it does."""
    breaker = {"enabled": True, "failureThreshold": "50%", "minRequests": 20, "window": "10m", "timeout": "1h"}
    with (
        Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(contextlib.closing(Client(gateway))) for _ in range(19)]
        slots = set()
        for number, client in enumerate(clients):
            backend.status = 200 if number < 10 else 500
            assert client.get()[0] == backend.status
            slots.add(slot_of(backend))
        assert slots == {0, 1}
        assert shown(gateway)["breaker"] == "closed"
        assert clients[0].get()[0] == 500
        until_shown(gateway, "breaker", "open")
        assert Counter(client.get()[0] for client in clients) == {503: 19}
        assert backend.requests == 20


@SEVERAL_WORKERS
def test_half_open_lets_just_so_many_through(backend: HttpBackend, workers: int) -> None:
    """halfOpenRequests 3: three trials at once over all workers, the others are refused; three successes close it."""
    breaker = {"enabled": True, "failureThreshold": 3, "timeout": "200ms", "maxTimeout": "200ms",
               "halfOpenRequests": 3, "successThreshold": 3}
    with (
        Gateway(http_gateway(backend.address, workers=workers, circuitBreaker=breaker)) as gateway,
        clients_by_worker(gateway, backend, workers, each=6) as by_worker,
    ):
        clients = [client for group in by_worker for client in group]
        backend.status = 500
        for client in clients[:3]:
            assert client.get()[0] == 500
        backend.status = 200
        backend.hold()
        before = backend.requests
        first: list[int] = []

        def ask_until_let_through() -> None:
            first.append(wait_for(lambda: (status := clients[0].get()[0]) != 503 and status, what="the trial"))

        thread = threading.Thread(target=ask_until_let_through)
        thread.start()
        wait_for(lambda: backend.requests == before + 1, what="the first trial")
        asking = [Asking(client) for client in clients[1:]]

        def all_trials_run() -> bool:
            """Who finds the breaker's lock busy is refused as well: then somebody has to ask again."""
            under_way = [one.client for one in asking if one.answer is None]
            if len(under_way) < 2:
                asking.append(Asking(next(client for client in clients[1:] if client not in under_way)))
            return len(under_way) == 2 and backend.requests == before + 3

        wait_for(all_trials_run, what="the refusals")
        assert shown(gateway)["breaker"] == "half_open"
        backend.release()
        thread.join()
        assert first == [200]
        assert Counter(one.status for one in asking) == {200: 2, 503: len(asking) - 2}
        until_shown(gateway, "breaker", "closed")
        assert [client.get()[0] for client in clients] == [200] * len(clients)


@SEVERAL_WORKERS
def test_an_open_breaker_sends_requests_to_the_others(workers: int) -> None:
    """The backend behind an open breaker gets nothing and nobody notices; 503 breaker_open with Retry-After comes only
    when no other backend is left."""
    breaker = {"enabled": True, "failureThreshold": 4, "timeout": "90s"}
    with HttpBackend("a") as a, HttpBackend("b") as b:
        config = http_gateway(a.address, b.address, workers=workers, circuitBreaker=breaker)
        with Gateway(config) as gateway:
            a.status = 500
            wait_for(lambda: fresh(gateway) and by_address(gateway, "breaker")[a.address] == "open", what="it to open")
            assert a.requests == 4
            assert statuses(30, partial(fresh, gateway)) == {200: 30}
            assert a.requests == 4
            b.status = 500
            wait_for(lambda: fresh(gateway) and by_address(gateway, "breaker")[b.address] == "open", what="it to open")
            seen = a.requests + b.requests
            for _ in range(8):
                status, headers, body = gateway.get()
                assert (status, b"breaker_open" in body) == (503, True)
                assert 0 < int(headers["retry-after"]) <= 90
            assert a.requests + b.requests == seen


def test_each_opening_in_a_row_is_twice_as_long(backend: HttpBackend) -> None:
    """A breaker whose trial fails opens for twice the time, up to maxTimeout, in every worker."""
    breaker = {"enabled": True, "failureThreshold": 2, "timeout": "1s", "maxTimeout": "3s"}
    with (
        Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway,
        a_client_per_worker(gateway, backend, 2) as clients,
    ):
        def tried(client: Client) -> bool:
            return client.get()[0] == 500

        backend.status = 500
        assert [client.get()[0] for client in clients] == [500, 500]
        for opened in (1, 2, 3):
            until_shown(gateway, "breaker", "open")
            # in whole seconds, rounded up
            assert [client.get()[1]["Retry-After"] for client in clients] == [str(opened)] * 2
            if opened < 3:
                wait_for(partial(tried, clients[opened % 2]), what="the trial")
        wait_for(lambda: gateway.metric("gogate_circuit_breaker_opened_total") == 3, what="the count")


def test_a_breaker_survives_its_workers(backend: HttpBackend) -> None:
    """kill -9: failures that were counted still count, a breaker that is open stays so, and the trial of a dead worker
    does not keep others from theirs."""
    breaker = {"enabled": True, "failureThreshold": 4, "timeout": "300ms", "maxTimeout": "300ms"}
    with Gateway(http_gateway(backend.address, circuitBreaker=breaker)) as gateway:
        with a_client_per_worker(gateway, backend, 2) as clients:
            backend.status = 500
            assert [clients[n % 2].get()[0] for n in range(3)] == [500] * 3
        kill_9(gateway, 0)
        assert shown(gateway)["breaker"] == "closed"
        assert fresh(gateway) == 500
        until_shown(gateway, "breaker", "open")
        kill_9(gateway, 1)
        assert shown(gateway)["breaker"] == "open"
        backend.hold()
        before = backend.requests
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(Client(gateway))) for _ in range(20)]
            for _ in range(2):  # the trial of each worker, whichever comes first
                trial = wait_for(partial(_trial, clients, backend, before), what="a trial")
                slot = slot_of(backend)
                before = backend.requests
                assert shown(gateway)["breaker"] == "half_open"
                kill_9(gateway, slot)
                assert trial.status == 0
        backend.status = 200
        backend.release()
        wait_for(lambda: fresh(gateway) == 200, what="a trial that succeeds")
        until_shown(gateway, "breaker", "closed")


def _trial(clients: list[Client], backend: HttpBackend, before: int) -> Asking | None:
    """Ask until one of the clients is let through and held; the request."""
    client = clients.pop()
    asking = Asking(client)
    wait_for(lambda: asking.answer is not None or backend.requests > before, what="an answer, or the trial")
    if backend.requests > before:
        return asking
    clients.insert(0, client)
    return None


# --- outlier detection


@SEVERAL_WORKERS
def test_a_backend_that_answers_500_is_ejected(three: list[HttpBackend], workers: int) -> None:
    """consecutive5xx 5, over all workers: the fifth 500 in a row takes the backend out, and the others serve."""
    bad, *others = three
    addresses = [one.address for one in three]
    outlier = {"enabled": True, "consecutive5xx": 5, "baseEjection": "10m"}
    with Gateway(http_gateway(*addresses, workers=workers, outlier=outlier)) as gateway:
        bad.status = 500
        wait_for(lambda: fresh(gateway) and by_address(gateway, "ejected")[bad.address], what="it to be ejected")
        assert bad.requests == 5
        assert statuses(30, partial(fresh, gateway)) == {200: 30}
        assert bad.requests == 5
        assert all(one.requests > 5 for one in others)
        assert gateway.metric("gogate_backend_ejected") == 1
        assert by_address(gateway, "ejected") == {bad.address: True, others[0].address: False, others[1].address: False}
        wait_for(lambda: gateway.metric("gogate_outlier_ejections_total") == 1, what="the count")


@SEVERAL_WORKERS
def test_the_last_backend_is_never_ejected(three: list[HttpBackend], workers: int) -> None:
    """When all backends answer 500, all but one are ejected, whatever the percentage: clients get its answers (F4)."""
    outlier = {"enabled": True, "consecutive5xx": 3, "baseEjection": "10m", "maxEjectionPercent": 100}
    addresses = [one.address for one in three]
    with Gateway(http_gateway(*addresses, workers=workers, outlier=outlier)) as gateway:
        for one in three:
            one.status = 500
        answers: list[int] = []
        in_threads(8, lambda _: answers.extend(fresh(gateway) for _ in range(15)))
        assert answers == [500] * 120
        assert sorted(by_address(gateway, "ejected").values()) == [False, True, True]


def test_an_ejected_backend_comes_back(three: list[HttpBackend]) -> None:
    """After baseEjection the backend is asked again by every worker."""
    outlier = {"enabled": True, "consecutive5xx": 3, "baseEjection": "500ms"}
    addresses = [one.address for one in three]
    with Gateway(http_gateway(*addresses, outlier=outlier)) as gateway:
        three[1].status = 500
        wait_for(lambda: fresh(gateway) and by_address(gateway, "ejected")[three[1].address], what="it to be ejected")
        three[1].status = 200
        slots = set()

        def asked_by_both() -> bool:
            before = three[1].requests
            assert fresh(gateway) == 200
            if three[1].requests > before:
                slots.add(slot_of(three[1]))
            return slots == {0, 1}

        wait_for(asked_by_both, what="requests of both workers")
        assert not any(by_address(gateway, "ejected").values())


# --- retries


@WORKERS
def test_a_killed_backend_costs_no_get(three: list[HttpBackend], workers: int) -> None:
    """One of three backends dies under load, with requests in flight: no GET fails, none is lost (F1). Retries bridge
    the time until probes, hurried by what fails, have taken it out."""
    for one in three:
        one.delay = 0.01
    config = http_gateway(*(one.address for one in three), workers=workers, health={"interval": "200ms"})
    with (
        Gateway(config) as gateway,
        Load(gateway.address("http:default"), kept=4, fresh=2, pause=0.03) as load,
    ):
        load.wait_ok(300)
        three[0].hold()
        wait_for(lambda: three[0].in_flight >= 2, what="requests in flight")
        three[0].stop_listening()
        wait_for(lambda: not by_address(gateway, "healthy")[three[0].address], what="it to be taken out")
        load.wait_ok(100)
        three[0].release()
        three[0].listen()
        wait_for(lambda: by_address(gateway, "healthy")[three[0].address], what="it to be back")
        load.wait_ok(50)
        load.stop()
        assert set(load.outcomes) == {"ok"}
        wait_for(lambda: gateway.metric("gogate_request_retries_total") >= 2, what="the retries to be counted")


@SEVERAL_WORKERS
def test_a_post_is_never_sent_twice_without_a_key(three: list[HttpBackend], workers: int) -> None:
    """A backend dies with POSTs in flight. None of them is sent again: their clients get 502; with methods [POST] those
    that carry an Idempotency-Key are sent to another backend, and answered."""
    retry = {"methods": ["POST"], "attempts": 3, "budgetPercent": 0}
    config = http_gateway(*(one.address for one in three), workers=workers, retry=retry)
    with Gateway(config) as gateway, contextlib.ExitStack() as stack:
        victim = three[0]
        victim.hold()
        asking = {}
        for number in range(36):
            client = stack.enter_context(contextlib.closing(Client(gateway)))
            fields = {"X_Id": str(number), **({"Idempotency_Key": f"key-{number}"} if number % 2 else {})}
            asking[str(number)] = Asking(client, "POST", b"order", **fields)

        def sent() -> Counter[str]:
            return Counter(field_of(head, b"x-id").decode() for one in three for head in one.heads)

        wait_for(lambda: len(sent()) == 36, what="all to have been sent")
        held = {field_of(head, b"x-id").decode() for head in victim.heads}
        keyed = {number for number in held if int(number) % 2}
        assert keyed
        assert held - keyed
        victim.stop_listening()
        statuses = {number: one.status for number, one in asking.items()}
        assert {number for number, status in statuses.items() if status != 200} == held - keyed
        assert {statuses[number] for number in held - keyed} == {502}
        assert {number for number, times in sent().items() if times > 1} == keyed
        assert set(sent().values()) == {1, 2}


def test_a_post_with_a_key_is_not_sent_twice_by_default(three: list[HttpBackend]) -> None:
    """methods: idempotent does not repeat a POST, whatever it carries; one that reached nobody may go elsewhere."""
    with Gateway(http_gateway(*(one.address for one in three))) as gateway, contextlib.ExitStack() as stack:
        for one in three:
            one.hold()
        clients = [stack.enter_context(contextlib.closing(Client(gateway))) for _ in range(9)]
        asking = [Asking(client, "POST", b"order", Idempotency_Key="1") for client in clients]
        wait_for(lambda: sum(one.in_flight for one in three) == 9, what="all to have been sent")
        lost = three[0].in_flight
        three[0].stop_listening()
        wait_for(lambda: sum(one.answer is not None for one in asking) == lost, what="the 502s")
        for one in three[1:]:
            one.release()
        assert Counter(one.status for one in asking) == {502: lost, 200: 9 - lost}
        assert sum(one.requests for one in three) == 9
        # Nobody listens there any more, so no byte of these can have reached it.
        assert {client.ask("POST", "/", b"order")[0] for client in clients} == {200}


@SEVERAL_WORKERS
def test_retries_of_a_total_failure_stay_within_their_budget(three: list[HttpBackend], workers: int) -> None:
    """When every backend answers 503, they see no more than 1.2 tries per request, and a small reserve per worker."""
    for one in three:
        one.status = 503
    retry = {"attempts": 3, "budgetPercent": 20, "backoff": 0}
    config = http_gateway(*(one.address for one in three), workers=workers, retry=retry)
    with Gateway(config) as gateway:
        clients, each = 8, 75
        answers: Counter[int] = Counter()

        def work(_: int) -> None:
            with contextlib.closing(Client(gateway)) as client:
                got = statuses(each, lambda: client.get()[0])
            answers.update(got)

        in_threads(clients, work)
        asked = clients * each
        assert answers == {503: asked}
        tries = sum(one.requests for one in three)
        assert 1.1 * asked < tries <= 1.2 * asked + 10 * workers
        retries = "gogate_request_retries_total"
        wait_for(lambda: gateway.metric(retries, reason="503") == tries - asked, what="the counts")
        assert gateway.metric("gogate_retries_denied_total") > 0
