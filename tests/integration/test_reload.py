"""Reload of whole gateways: every way to ask for it, every kind of change, and what must live through it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend
from doubles.reloading import OFF, Reloading, Settings, Stream, reloading, upgrading_echo
from doubles.servers import accepts, free_port

ANY = "127.0.0.1:0"


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, HttpBackend]]:
    """Three backends: a, b, c."""
    with HttpBackend("a") as a, HttpBackend("b") as b, HttpBackend("c") as c:
        yield {"a": a, "b": b, "c": c}


def web(backends: dict[str, HttpBackend], **top: Any) -> Settings:
    """One HTTP listener, a pool for each backend, and a route /a, /b, /c to each."""
    return {
        "server": {"httpListenAddr": ANY},
        "pools": {name: {"backends": [one.address]} for name, one in backends.items()},
        "routes": [{"name": name, "match": {"pathPrefix": f"/{name}"}, "pool": name} for name in backends],
        **top,
    }


def who(gateway: Gateway, path: str = "/a", **headers: str) -> str:
    """Which backend answers a path; the status where none does."""
    status, fields, _ = gateway.get(path, **headers)
    return fields.get("x-backend", str(status))


def ask(address: str, path: str) -> int:
    """The status of a GET; 0 when nobody listens, or does so no longer."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


# --- the ways


class TestWays:
    """Every way to make gogate look at its file."""

    def served(self, gateway: Gateway, cause: str) -> None:
        """The last reload is served, and this was its cause."""
        wait_for(lambda: gateway.admin_json("GET", "/config/status")["history"][0]["cause"] == cause, what=cause)
        assert gateway.admin_json("GET", "/config/status")["history"][0]["result"] == "success"

    def test_file_rename_signal_and_api(self, backends: dict[str, HttpBackend]) -> None:
        """Written in place, replaced by rename, SIGHUP, POST /reload: each time the new backend answers."""
        settings = web(backends)
        with reloading(settings) as one:
            gateway = one.gateway
            route = one.settings["routes"][0]

            def pointing_to(pool: str) -> str:
                route["pool"] = pool
                return json.dumps(one.settings)

            assert who(gateway) == "a"
            gateway.config_path.write_text(pointing_to("b"))
            self.served(gateway, "file")
            wait_for(lambda: who(gateway) == "b")
            pointing_to("c")
            one.write()
            wait_for(lambda: who(gateway) == "c", what="the renamed file")
            before = gateway.admin_json("GET", "/stats")["generation"]
            gateway.config_path.touch()
            gateway.send_signal(signal.SIGHUP)
            wait_for(lambda: gateway.logged("configuration is unchanged"), what="SIGHUP")
            assert gateway.admin_json("GET", "/stats")["generation"] == before
            pointing_to("a")
            done = one.reload()
            assert (done["result"], done["cause"], done["generation"]) == ("success", "api", before + 1)
            assert who(gateway) == "a"
            assert gateway.metric("gogate_config_reloads_total", result="success") == 4
            assert one.reload()["result"] == "unchanged"

    def test_config_map(self, backends: dict[str, HttpBackend], tmp_path: Path) -> None:
        """A link ..data that is swapped under the file, as the kubelet does it, twice."""
        settings = web(backends)

        def version(number: int, pool: str) -> None:
            settings["routes"][0]["pool"] = pool
            folder = tmp_path / f"..v{number}"
            folder.mkdir()
            (folder / "config.yaml").write_text(json.dumps(settings))
            (tmp_path / "..data_tmp").symlink_to(folder.name)
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")

        with reloading(settings) as one:
            settings = one.settings
            version(1, "a")
            gateway = one.gateway
            gateway.config_path.unlink()
            gateway.config_path.symlink_to(tmp_path / "..data" / "config.yaml")
            for number, pool in ((2, "b"), (3, "c")):
                version(number, pool)
                wait_for(lambda pool=pool: who(gateway) == pool, what=f"version {number}")


# --- the kinds of change


class TestChanges:
    """What another configuration changes, it changes for every worker, at once."""

    def test_routes(self, backends: dict[str, HttpBackend]) -> None:
        """Added, changed, removed; prefixes, fields, redirects."""
        with reloading(web(backends)) as one:
            gateway, routes = one.gateway, one.settings["routes"]
            routes.append({"name": "new", "match": {"path": "/new"}, "pool": "b"})
            routes[0]["match"] = {"pathPrefix": "/a", "headers": {"X-Want": "1"}}
            del routes[1]
            one.reload()
            assert [who(gateway, path) for path in ("/new", "/a", "/b", "/c")] == ["b", "404", "404", "c"]
            assert who(gateway, "/a", X_Want="1") == "a"
            routes[:] = [{"name": "all", "redirect": {"to": "/there"}}]
            one.settings["pools"] = {}
            one.reload()
            assert gateway.get("/a")[1]["location"] == "/there"

    def test_backends_weights_and_balancers(self, backends: dict[str, HttpBackend]) -> None:
        """A backend more, other weights, one less, another way to choose."""
        a, b, c = (backends[name].address for name in "abc")
        with reloading({"server": {"httpListenAddr": ANY, "backends": [a]}}) as one:
            gateway, server = one.gateway, one.settings["server"]

            def shares(count: int) -> Counter[str]:
                return Counter(who(gateway) for _ in range(count))

            assert shares(4) == {"a": 4}
            server["backends"] = [a, b, c]
            one.reload()
            assert set(shares(12)) == {"a", "b", "c"}
            server["loadBalancer"] = "weighted_round_robin"
            server["backends"] = [{"addr": a, "weight": 0}, {"addr": b, "weight": 9}, {"addr": c, "weight": 1}]
            one.reload()
            found = shares(40)
            assert found["a"] == 0
            assert found["b"] > 3 * found["c"] > 0
            server["backends"] = [a, b]
            server["loadBalancer"] = {"type": "consistent_hash", "key": "header:X-Key"}
            one.reload()
            assert len({who(gateway, "/", X_Key="k") for _ in range(8)}) == 1
            assert {who(gateway, "/", X_Key=str(n)) for n in range(40)} == {"a", "b"}

    def test_settings_of_routes(self, backends: dict[str, HttpBackend]) -> None:
        """Timeouts, limits of body and rate, authentication: on, other, and off again."""
        a = backends["a"]
        with reloading(web({"a": a})) as one:
            gateway, server, route = one.gateway, one.settings["server"], one.settings["routes"][0]
            server["timeouts"] = {"responseHeader": "30ms"}
            server["retry"] = {"attempts": 1}
            server["limits"] = {"requestLine": 300}
            one.reload()
            a.delay = 0.5
            try:
                assert gateway.get("/a")[0] == 504
            finally:
                a.delay = 0.0
            assert gateway.get("/a" + "x" * 400)[0] == 414
            key = "gg_" + "k" * 40
            route["auth"] = {"type": "api_key", "keys": {"ci": hashlib.sha256(key.encode()).hexdigest()}}
            one.reload()
            assert gateway.get("/a")[0] == 401
            assert gateway.get("/a", X_API_Key=key)[0] == 200
            route["auth"] = {"type": "jwt", "secret": "k" * 32, "algorithms": ["HS256"], "issuer": "i",
                             "audience": "a"}  # fmt: skip
            one.reload()
            assert gateway.get("/a", Authorization=f"Bearer {_jwt('k' * 32)}")[0] == 200
            route["auth"]["secret"] = "l" * 32
            one.reload()
            assert gateway.get("/a", Authorization=f"Bearer {_jwt('k' * 32)}")[0] == 401
            assert gateway.get("/a", Authorization=f"Bearer {_jwt('l' * 32)}")[0] == 200
            del route["auth"]
            one.reload()
            assert gateway.get("/a")[0] == 200
            server["limits"] = {}
            one.reload()
            assert gateway.get("/a" + "x" * 400)[0] != 414

    def test_operators_side(self, backends: dict[str, HttpBackend], tmp_path: Path) -> None:
        """The admin token, allowed hosts, the path of metrics, the log's level and format, where access lines go."""
        with reloading(web(backends)) as one:
            gateway, server = one.gateway, one.settings["server"]
            server["admin"] |= {"token": "new-token-0123456789"}
            server["metrics"] = {"path": "/numbers"}
            access = tmp_path / "access.log"
            one.settings["logging"] = {"access": {"path": str(access)}, "level": "warn"}
            one.reload()
            remote = {"X-Forwarded-For": "192.0.2.1"}
            assert gateway.admin_request("POST", "/reload", headers=remote)[0] == 401
            token = {**remote, "Authorization": "Bearer new-token-0123456789"}
            assert gateway.admin_request("POST", "/reload", headers=token)[0] == 200
            assert b"gogate_uptime_seconds" in gateway.admin_request("GET", "/numbers")[2]
            assert gateway.get("/b/logged")[0] == 200
            wait_for(lambda: access.exists() and "/b/logged" in access.read_text(), what="the access line")
            assert not any(line.get("path") == "/b/logged" for line in gateway.access)
            lines = len(gateway.log)
            one.settings["logging"] = {"access": OFF, "level": "warn"}
            one.reload()
            assert len(gateway.log) == lines  # "configuration reloaded" is below warn
            assert gateway.get("/b/silent")[0] == 200
            one.settings["logging"] = {"format": "text"}
            one.reload()
            assert gateway.get("/b/text")[0] == 200
            wait_for(lambda: any("/b/text" in line for line in gateway.broken), what="a line of text")
            assert "/b/silent" not in access.read_text()
            one.settings["logging"] = {}
            one.reload()
            assert gateway.get("/b/json")[0] == 200
            wait_for(lambda: any(line.get("path") == "/b/json" for line in gateway.access), what="a line of JSON")
            assert [line for line in gateway.broken if "/b/text" in line or " INFO " in line] == gateway.broken
            gateway.broken.clear()

    def test_listeners_come_move_and_go(self, backends: dict[str, HttpBackend]) -> None:
        """A TCP route more; its port changed; its name changed, with a stream on it; gone again."""
        with echo_server() as (host, port), reloading(web(backends)) as one:
            routes = one.settings["routes"]
            one.settings["pools"]["echo"] = {"backends": [f"{host}:{port}"]}
            first, second = free_port(), free_port()
            route = {"name": "one", "type": "tcp", "listenAddr": f"127.0.0.1:{first}", "pool": "echo"}
            routes.append(route)
            one.reload()
            with Stream(("127.0.0.1", first)) as stream:
                assert stream.says()
                route["listenAddr"] = f"127.0.0.1:{second}"
                one.reload()
                assert stream.says()
                assert not accepts(first)
                with Stream(("127.0.0.1", second)) as other:
                    route["name"] = "renamed"
                    one.reload()
                    assert other.says()
                    assert all(_talks(second) for _ in range(8))
                    routes.remove(route)
                    one.reload()
                    assert other.says()
                    assert stream.says()
                    assert not accepts(second)
                    assert {c["route"] for c in one.gateway.admin_json("GET", "/connections")["connections"]} == {"one"}
            wait_for(lambda: one.gateway.metric("gogate_connections_total", listener="renamed") == 8)
            wait_for(lambda: one.gateway.metric("gogate_connections_active", listener="renamed") == 0)

    def test_two_listeners_swap(self) -> None:
        """Two TCP routes change ports with each other; from then on each port leads to the other pool."""
        with echo_server() as (host, port), HttpBackend("web") as backend:
            ports = [free_port(), free_port()]
            settings = {
                "pools": {"echo": {"backends": [f"{host}:{port}"]}, "web": {"backends": [backend.address]}},
                "routes": [
                    {"name": name, "type": "tcp", "listenAddr": f"127.0.0.1:{port}", "pool": name}
                    for name, port in zip(("echo", "web"), ports, strict=True)
                ],
            }
            with reloading(settings) as one:
                assert _talks(ports[0])
                first, second = one.settings["routes"]
                first["listenAddr"], second["listenAddr"] = second["listenAddr"], first["listenAddr"]
                one.reload()
                assert all(_talks(ports[1]) for _ in range(6))
                for _ in range(6):
                    with socket.create_connection(("127.0.0.1", ports[0]), 5) as sock:
                        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        assert sock.recv(100).startswith(b"HTTP/1.1 200")

    def test_from_one_address_to_all(self, backends: dict[str, HttpBackend]) -> None:
        """127.0.0.1:port becomes :port; kept clients are answered, and told to come back."""
        port = free_port()
        settings = web(backends)
        settings["server"]["httpListenAddr"] = f"127.0.0.1:{port}"
        with reloading(settings) as one:
            kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            assert _kept(kept) == ""
            one.settings["server"]["httpListenAddr"] = f":{port}"
            one.reload()
            assert _kept(kept) == "close"
            assert _kept(kept) == ""  # http.client connects anew
            kept.close()


def _refusals(gateway: Gateway) -> list[dict[str, Any]]:
    return gateway.logged("configuration cannot be served; the old one goes on")


def _kept(client: http.client.HTTPConnection) -> str:
    """One request on a kept connection; → the answer's Connection field."""
    client.request("GET", "/a")
    answer = client.getresponse()
    assert answer.status == 200
    answer.read()
    return answer.getheader("Connection", "")


def _talks(port: int) -> bool:
    with Stream(("127.0.0.1", port)) as stream:
        return stream.says()


def _jwt(secret: str) -> str:
    """A token that does not expire."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(b'{"sub":"ann","iss":"i","aud":"a","exp":4102444800}')
    return (signed + b"." + part(hmac.digest(secret.encode(), signed, "sha256"))).decode()


# --- what is refused


class TestRefused:
    """A configuration that cannot be served changes nothing, and is told with what is wrong."""

    def test_broken_files(self, backends: dict[str, HttpBackend]) -> None:
        """Syntax, unknown keys, unknown pools, a taken port, an empty file: the log, the status and the metric say
        what and where; a good file ends it."""
        with reloading(web(backends)) as one, socket.create_server(("127.0.0.1", 0)) as taken:
            gateway = one.gateway
            good = gateway.config_path.read_text()
            generation = gateway.admin_json("GET", "/stats")["generation"]
            file = gateway.config_path
            for broken, where in (
                ("server:\n  httpListenAddr: [\n", f"{file}:3:1: "),
                ("server:\n  httpListenAdr: ':1'\n", f"{file}:2:3: "),
                (good.replace('"pool": "c"', '"pool": "nowhere"'), f"{file}:"),
                ("", f"{file}:1:1: "),
                (good.replace(ANY, f"127.0.0.1:{taken.getsockname()[1]}", 1), "cannot listen on 127.0.0.1:"),
            ):
                before = len(_refusals(gateway))
                file.write_text(broken)
                status, _, body = gateway.admin_request("POST", "/reload")
                problem = json.loads(body)
                assert status == 400
                assert any(line.startswith(where) for line in problem["problems"]), problem["problems"]
                shown = gateway.admin_json("GET", "/config/status")
                assert (shown["in_sync"], shown["failing"]["problems"]) == (False, problem["problems"])
                wait_for(lambda before=before: len(_refusals(gateway)) > before, what="the log line")
                assert problem["problems"][0] in [line["problem"] for line in _refusals(gateway)[before:]]
                assert gateway.metric("gogate_config_last_reload_success") == 0
                assert [who(gateway, f"/{name}") for name in "abc"] == ["a", "b", "c"]
                assert gateway.admin_json("GET", "/stats")["generation"] == generation
            file.write_text(good)
            assert gateway.admin_json("POST", "/reload")["result"] == "unchanged"
            assert gateway.metric("gogate_config_last_reload_success") == 1
            assert gateway.admin_json("GET", "/config/status")["in_sync"]
            assert gateway.metric("gogate_config_reloads_total", result="failure") >= 5

    def test_the_admin_listeners(self, backends: dict[str, HttpBackend]) -> None:
        """The reload that moves the listener it came by is answered; a listener for metrics comes and goes; one whose
        address is taken changes nothing; a client of a listener that stays is not disturbed."""
        with reloading(web(backends)) as one:
            server, gateway = one.settings["server"], one.gateway
            server["registry"] = {"listenAddr": f"127.0.0.1:{free_port()}"}
            server["metrics"] = {"listenAddr": f"127.0.0.1:{free_port()}"}
            one.reload()
            assert ask(server["metrics"]["listenAddr"], "/metrics") == 200
            before = gateway.admin
            kept = http.client.HTTPConnection(server["registry"]["listenAddr"], timeout=10)
            kept.request("GET", "/v1/services")
            assert kept.getresponse().read()
            server["admin"] = {"listenAddr": f"127.0.0.1:{free_port()}"}
            del server["metrics"]
            one.reload()
            gateway.admin = server["admin"]["listenAddr"]
            # the file is watched, too: whoever came first made the change
            history = gateway.admin_json("GET", "/config/status")["history"]
            changes = [line for reload in history for line in reload["changes"]]
            assert f"~ server.admin.listenAddr: {ANY} → {server['admin']['listenAddr']}" in changes
            assert gateway.admin_request("GET", "/ready")[0] == 200
            wait_for(lambda: ask(before, "/ready") == 0, what="the old listener to be gone")
            port = kept.sock.getsockname()
            kept.request("GET", "/v1/services")
            assert kept.getresponse().status == 200
            assert kept.sock.getsockname() == port
            kept.close()
            good = gateway.config_path.read_text()
            with socket.create_server(("127.0.0.1", 0)) as taken:
                server["admin"] = {"listenAddr": f"127.0.0.1:{taken.getsockname()[1]}"}
                (problem,) = one.refused()
                assert "the address is already in use" in problem
            one.settings["server"]["admin"] = {"enabled": False}
            one.reload()
            wait_for(lambda: ask(gateway.admin, "/ready") == 0, what="the admin API to be gone")
            gateway.config_path.write_text(good)  # the file is watched
            wait_for(lambda: ask(gateway.admin, "/ready") == 200, what="the admin API to be back")
            assert who(gateway) == "a"

    def test_what_needs_a_restart(self, backends: dict[str, HttpBackend]) -> None:
        """It is named, all of it at once; and nothing else of that file is served either."""
        with reloading(web(backends)) as one:
            one.settings["server"]["workers"] = 3
            one.settings["server"]["registry"] = {"store": "file:///tmp/x"}
            one.settings["routes"][0]["pool"] = "b"
            assert [line.partition(";")[0] for line in one.refused()] == [
                f"{key} cannot be changed by a reload" for key in ("server.workers", "server.registry.store")
            ]
            assert who(one.gateway) == "a"


# --- what lives on


class TestLivesOn:
    """What is the same in both configurations does not notice; what runs ends as it began."""

    def test_streams(self, backends: dict[str, HttpBackend]) -> None:
        """WebSockets and TCP streams on unchanged, changed and removed routes, whose backends go, too."""
        with upgrading_echo() as chat, echo_server() as (host, port):
            settings = web(backends)
            settings["pools"] |= {"chat": {"backends": [chat]}, "echo": {"backends": [f"{host}:{port}"]}}
            names = ("kept", "changed", "removed")
            settings["routes"] += [
                {"name": f"ws-{name}", "match": {"pathPrefix": f"/{name}"}, "pool": "chat"} for name in names
            ]
            settings["routes"] += [
                {"name": f"tcp-{name}", "type": "tcp", "listenAddr": ANY, "pool": "echo"} for name in names
            ]
            with reloading(settings) as one:
                gateway = one.gateway
                streams = [Stream(gateway.address("http:default"), f"/{name}") for name in names for _ in range(3)]
                streams += [Stream(gateway.address(f"tcp:tcp-{name}")) for name in names for _ in range(3)]
                assert all(stream.says() for stream in streams)
                active = gateway.metric("gogate_backend_connections_active")
                assert active == 18
                routes = one.settings["routes"] = [
                    route for route in one.settings["routes"] if not route["name"].endswith("removed")
                ]
                for route in routes:
                    if route["name"].endswith("changed"):
                        route["pool"] = "a"
                one.reload()
                assert all(stream.says() for stream in streams)
                del one.settings["pools"]["chat"]
                del one.settings["pools"]["echo"]
                one.settings["routes"] = [
                    route for route in routes if not route["name"].endswith("kept")
                ]
                one.reload()
                assert all(stream.says() for stream in streams)
                assert len(gateway.admin_json("GET", "/connections")["connections"]) == 9
                for stream in streams:
                    stream.close()
                wait_for(lambda: not gateway.admin_json("GET", "/connections")["connections"])

    def test_clients_of_a_listener_that_goes(self, backends: dict[str, HttpBackend]) -> None:
        """Kept-alive clients of both workers are answered once more, with Connection: close; the port is free then."""
        with reloading(web(backends, routes=[
            {"name": "a", "pool": "a"},
            {"name": "tcp", "type": "tcp", "listenAddr": ANY, "pool": "b"},
        ])) as one:  # fmt: skip
            host, port = one.gateway.address("http:default")
            clients = [http.client.HTTPConnection(host, port, timeout=10) for _ in range(12)]
            assert {_kept(client) for client in clients} == {""}
            del one.settings["server"]["httpListenAddr"]
            del one.settings["routes"][0]
            one.reload()
            for client in clients:
                client.auto_open = False
                client.request("GET", "/a")
                answer = client.getresponse()
                answer.read()
                assert (answer.status, answer.getheader("Connection")) == (404, "close")  # its route went with it
                client.close()
            assert not accepts(port)

    def test_a_request_ends_on_the_route_it_began_on(self, backends: dict[str, HttpBackend]) -> None:
        """A request that waits for its backend is answered by it, although the route leads elsewhere now."""
        a = backends["a"]
        with reloading(web(backends)) as one:
            a.hold()
            client = http.client.HTTPConnection(*one.gateway.address("http:default"), timeout=10)
            before = a.in_flight
            client.request("GET", "/a")
            wait_for(lambda: a.in_flight == before + 1)
            one.settings["routes"] = [{"name": "other", "pool": "b"}]
            del one.settings["pools"]["a"]
            one.reload()
            assert who(one.gateway) == "b"
            a.release()
            assert client.getresponse().getheader("X-Backend") == "a"
            client.close()

    def test_counts_and_limits(self, backends: dict[str, HttpBackend]) -> None:
        """A token bucket that is empty, an open breaker, counters of routes and backends: all as they were, on another
        route's change, and on another rate."""
        with HttpBackend("broken") as broken:
            settings = web(backends)
            settings["pools"]["broken"] = {
                "backends": [broken.address], "circuitBreaker": {"enabled": True, "failureThreshold": 3,
                                                                 "timeout": "60s"}}  # fmt: skip
            settings["routes"] += [{"name": "broken", "match": {"pathPrefix": "/broken"}, "pool": "broken"}]
            limit = settings["routes"][0]["rateLimit"] = {"rate": 1, "per": "1h", "burst": 3}
            with reloading(settings) as one:
                gateway = one.gateway
                assert [gateway.get("/a")[0] for _ in range(4)] == [200, 200, 200, 429]
                broken.status = 500
                for _ in range(3):
                    gateway.get("/broken")
                wait_for(lambda: gateway.metric("gogate_circuit_breaker_state", pool="broken") == 1)
                wait_for(lambda: gateway.metric("gogate_route_requests_total", route="a", code="200") == 3)
                before = gateway.metrics()
                route = one.settings["routes"][0]
                for change in ({"pathPrefix": "/a", "methods": ["GET"]}, {"pathPrefix": "/a"}):
                    route["match"] = change
                    route["rateLimit"] = {**limit, "burst": 4} if "methods" in change else limit
                    one.settings["routes"].append({"name": f"more-{len(change)}", "match": {"path": "/more"},
                                                   "pool": "b"})  # fmt: skip
                    one.reload()
                    one.settings["routes"].pop()
                    assert gateway.metric("gogate_circuit_breaker_state", pool="broken") == 1
                    assert gateway.get("/broken")[0] == 503
                assert gateway.get("/a")[0] == 429
                after = gateway.metrics()
                counters = [name for name in before if name.partition("{")[0].endswith("_total")]
                assert counters
                assert [name for name in counters if after[name] < before[name]] == []

    def test_health_and_active_counts(self, backends: dict[str, HttpBackend]) -> None:
        """A backend that is down stays down without a request trying it; least connections still sees what runs."""
        a, b = backends["a"], backends["b"]
        with HttpBackend("dead") as dead:
            dead.stop_listening()
            probes = {"interval": "100ms", "timeout": "100ms", "unhealthyThreshold": 1, "healthyThreshold": 1}
            settings = {"server": {"httpListenAddr": ANY, "backends": [a.address, b.address, dead.address],
                                   "health": probes, "loadBalancer": "least_connections"}}  # fmt: skip
            with reloading(settings) as one:
                gateway = one.gateway
                wait_for(lambda: gateway.metric("gogate_backend_healthy", backend=dead.address) == 0)
                a.hold()
                held = [http.client.HTTPConnection(*gateway.address("http:default"), timeout=10) for _ in range(6)]
                for client in held:
                    client.request("GET", "/")
                wait_for(lambda: a.in_flight > 0 and gateway.metric("gogate_backend_connections_active") == a.in_flight)
                transitions = gateway.metric("gogate_health_transitions_total")
                waiting = a.in_flight
                one.settings["server"]["backends"] = [{"addr": dead.address, "weight": 3}, a.address, b.address]
                one.settings["server"]["timeouts"] = {"idle": "50s"}
                one.reload()
                assert gateway.metric("gogate_backend_connections_active", backend=a.address) == waiting
                assert {who(gateway) for _ in range(10)} == {"b"}
                assert gateway.metric("gogate_backend_healthy", backend=dead.address) == 0
                assert gateway.metric("gogate_health_transitions_total") == transitions
                a.release()
                for client in held:
                    client.getresponse().read()
                    client.close()

    def test_overrides_and_registrations(self, backends: dict[str, HttpBackend]) -> None:
        """Weight, split and drain by hand beat the new file and are listed as such; registered instances stay."""
        settings = web(backends)
        settings["pools"]["a"]["service"] = "api"
        settings["routes"].append({"name": "ab", "match": {"pathPrefix": "/ab"},
                                   "split": [{"pool": "b", "weight": 1}, {"pool": "c", "weight": 1}]})  # fmt: skip
        with reloading(settings) as one:
            gateway = one.gateway
            c, b = backends["c"].address, backends["b"].address
            gateway.admin_json("POST", "/v1/services", {"id": "x", "name": "api", "address": c})
            gateway.admin_json("PUT", "/routes/ab/split", {"weights": {"b": 0, "c": 5}})
            gateway.admin_json("PUT", f"/backends/{c}/weight?pool=c", {"weight": 7})
            gateway.admin_json("POST", f"/backends/{b}/drain?pool=b")
            one.settings["pools"]["c"]["backends"] = [{"addr": c, "weight": 3}]
            one.settings["routes"][-1]["split"][0]["weight"] = 100
            one.reload()
            assert {who(gateway, "/ab") for _ in range(10)} == {"c"}
            assert gateway.get("/b")[0] == 503
            overrides = gateway.admin_json("GET", "/config/status")["overrides"]
            assert [(one["backend"], one["value"]) for one in overrides["weights"]] == [(c, 7)]
            assert {(one["pool"], one["value"]) for one in overrides["splits"]} == {("b", 0), ("c", 5)}
            assert [(one["pool"], one["backend"]) for one in overrides["drained"]] == [("b", b)]
            assert overrides["drained"][0]["overridden_since"].startswith("20")
            shown = {(one["pool"], one["addr"]): one for one in gateway.admin_json("GET", "/backends")["backends"]}
            assert (shown["c", c]["weight"], shown["c", c]["configured_weight"]) == (7, 3)
            assert shown["a", c]["origin"] == "registry"
            assert [one["id"] for one in gateway.admin_json("GET", "/v1/services")["services"]] == ["x"]
            gateway.admin_json("DELETE", "/routes/ab/split")
            gateway.admin_json("POST", f"/backends/{b}/undrain")
            assert "b" in {who(gateway, "/ab") for _ in range(20)}

    def test_a_worker_that_is_replaced_serves_the_new_one(self, backends: dict[str, HttpBackend]) -> None:
        """Its successor gets the sockets and the snapshot of today, not those of the start."""
        with echo_server() as (host, port), reloading(web(backends)) as one:
            listen = free_port()
            one.settings["pools"]["echo"] = {"backends": [f"{host}:{port}"]}
            one.settings["routes"].append(
                {"name": "echo", "type": "tcp", "listenAddr": f"127.0.0.1:{listen}", "pool": "echo"}
            )
            one.settings["routes"][0]["pool"] = "b"
            one.reload()
            _kill_workers(one)
            assert {who(one.gateway) for _ in range(8)} == {"b"}
            assert all(_talks(listen) for _ in range(8))


def _kill_workers(one: Reloading) -> None:
    """SIGKILL both workers, and wait for their successors."""
    before = one.gateway.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: all(
            worker["state"] == "serving" and worker["pid"] not in before
            for worker in one.gateway.admin_json("GET", "/stats")["workers"]
        ),
        what="two new workers",
    )
