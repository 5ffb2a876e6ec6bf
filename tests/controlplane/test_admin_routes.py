"""The endpoints of the admin API, over a real control plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from admin_harness import CONFIG, AdminHarness, admin_api, connection
from doubles.gateway import wait_for

LONG_FORM = """
server:
  admin: {listenAddr: "127.0.0.1:0"}
  health: {enabled: false}
pools:
  api: {backends: ["127.0.0.1:9001"]}
  canary: {service: api, tags: [v2], backends: ["127.0.0.1:9001"]}
  db: {backends: ["unix:/run/db.sock"]}
routes:
  - {name: db, type: tcp, listenAddr: "127.0.0.1:0", pool: db}
  - {name: db2, type: tcp, listenAddr: "127.0.0.1:0", pool: api}
  - {name: db3, type: tcp, listenAddr: "127.0.0.1:0", pool: canary}
"""
GOOD: dict[str, Any] = {"id": "one", "name": "api", "address": "127.0.0.1:9100"}


@pytest.fixture
def api() -> Iterator[AdminHarness]:
    """The short form: pool default with two backends."""
    with admin_api() as harness:
        yield harness


@pytest.fixture
def pools() -> Iterator[AdminHarness]:
    """The long form: three pools, one address in two of them."""
    with admin_api(LONG_FORM) as harness:
        yield harness


class TestHealth:
    """Whether it lives, whether it takes traffic."""

    def test_alive(self, api: AdminHarness) -> None:
        """/health and /healthz are 200 as long as there is anybody to answer, also while draining."""
        api.control.draining = True
        assert [api.ask("GET", path).json for path in ("/health", "/healthz")] == [{"status": "ok"}] * 2
        assert api.ask("HEAD", "/health").body == b""

    def test_ready(self, api: AdminHarness) -> None:
        """/ready and /readyz are 503 with the reasons while starting or draining."""
        assert [api.ask("GET", path).status for path in ("/ready", "/readyz")] == [200, 200]
        api.control.draining = True
        answer = api.ask("GET", "/readyz")
        assert answer.status == 503
        assert any("draining" in reason for reason in answer.json["reasons"])


class TestBackends:
    """Listing, draining, undraining."""

    def test_listing(self, api: AdminHarness) -> None:
        """Each backend with what is known of it; live numbers come from the supervisor."""
        rows = [view.row for view in api.control.backends()]
        api.supervisor.breakers[rows[1]] = "half_open"
        first, second = api.ask("GET", "/backends").json["backends"]
        assert first == {
            "id": "127.0.0.1:9001", "addr": "127.0.0.1:9001", "pool": "default", "origin": "file", "weight": 1,
            "healthy": True, "last_error": "", "active_connections": 7, "breaker": "closed", "draining": False,
            "registrations": [], "backup": False, "ejected": False, "warming_up": False,
        }  # fmt: skip
        assert (second["addr"], second["breaker"]) == ("127.0.0.1:9002", "half_open")

    def test_drain_and_undrain_in_all_pools_or_one(self, pools: AdminHarness) -> None:
        """The id is the address here, percent-encoded or not; ?pool= means that pool only."""

        def draining() -> set[str]:
            return {b["pool"] for b in pools.ask("GET", "/backends").json["backends"] if b["draining"]}

        answer = pools.ask("POST", "/backends/127.0.0.1%3A9001/drain")
        assert (answer.status, {b["pool"] for b in answer.json["backends"]}) == (200, {"api", "canary"})
        assert all(b["draining"] for b in answer.json["backends"])
        assert draining() == {"api", "canary"}
        answer = pools.ask("POST", "/backends/127.0.0.1:9001/undrain?pool=canary")
        assert [(b["pool"], b["draining"]) for b in answer.json["backends"]] == [("canary", False)]
        assert draining() == {"api"}
        assert pools.ask("POST", "/backends/unix%3A%2Frun%2Fdb.sock/drain").status == 200
        assert draining() == {"api", "db"}

    @pytest.mark.parametrize(
        ("query", "body", "left"),
        [
            ("", None, None),
            ("", {}, None),
            ("", {"deadline": "1m30s"}, 90.0),
            ("", {"deadline": 45}, 45.0),
            ("?deadline=45s", None, 45.0),
            ("?deadline=0", None, 0.0),
        ],
    )
    def test_drain_deadlines(
        self, pools: AdminHarness, query: str, body: dict[str, object] | None, left: float | None
    ) -> None:
        """In the body or in the query; shown as seconds left."""
        (drained,) = pools.ask("POST", f"/backends/unix%3A%2Frun%2Fdb.sock/drain{query}", body).json["backends"]
        shown = drained.get("drain_ends_in_s")
        assert drained["draining"]
        assert (shown is None) == (left is None)
        assert left is None or left - 10 <= shown <= left
        (backend,) = pools.ask("POST", "/backends/unix%3A%2Frun%2Fdb.sock/undrain").json["backends"]
        assert "drain_ends_in_s" not in backend

    @pytest.mark.parametrize(
        ("query", "body"),
        [
            ("?deadline=soon", None),
            ("?deadline=", None),
            ("?deadline=8d", None),
            ("?deadline=169h", None),
            ("?deadline=1s", {"deadline": "1s"}),
            ("", {"deadline": -1}),
            ("", {"deadline": None}),
            ("", {"deadline": True}),
            ("", {"dead": "1s"}),
        ],
    )
    def test_bad_deadlines(self, pools: AdminHarness, query: str, body: dict[str, object] | None) -> None:
        """400 that names the field; nothing is drained."""
        answer = pools.ask("POST", f"/backends/unix%3A%2Frun%2Fdb.sock/drain{query}", body)
        assert (answer.status, answer.json["field"]) == (400, "deadline")
        assert not any(one["draining"] for one in pools.ask("GET", "/backends").json["backends"])

    def test_unknown_backends(self, pools: AdminHarness) -> None:
        """404 with the near one; a backend of another pool is unknown in this one."""
        answer = pools.ask("POST", "/backends/127.0.0.1:9002/drain")
        assert answer.status == 404
        assert "Did you mean 127.0.0.1:9001?" in answer.json["detail"]
        answer = pools.ask("POST", "/backends/127.0.0.1:9001/drain?pool=db")
        assert answer.status == 404
        assert "pool db" in answer.json["detail"]

    @pytest.mark.parametrize(("method", "path", "known"), [
        ("POST", "/backends/127.0.0.1:9001/drain?pol=api", "Did you mean pool? It takes pool, deadline."),
        ("POST", "/backends/127.0.0.1:9001/undrain?pol=api", "Did you mean pool? It takes pool."),
        ("DELETE", "/backends/127.0.0.1:9001/weight?pol=api", "Did you mean pool? It takes pool."),
        ("GET", "/connections?pol=api", "Did you mean pool?"),
        ("GET", "/v1/services?pol=api", "It takes name, tag, state, wait, index."),
    ])  # fmt: skip
    def test_a_misspelt_parameter_is_refused(self, pools: AdminHarness, method: str, path: str, known: str) -> None:
        """It would be another request without it: a drain in every pool. Nothing is done."""
        answer = pools.ask(method, path)
        assert (answer.status, answer.json["field"]) == (400, "pol")
        assert answer.json["detail"].startswith("There is no parameter pol here.")
        assert known in answer.json["detail"]
        assert not any(one["draining"] for one in pools.ask("GET", "/backends").json["backends"])

    def test_what_takes_no_parameter_does_not_look_at_them(self, pools: AdminHarness) -> None:
        """Probes and scrapers add some of their own."""
        assert [pools.ask("GET", f"{path}?x=1").status for path in ("/health", "/ready", "/metrics")] == [200] * 3

    def test_a_registration_is_drained_by_its_id(self, api: AdminHarness) -> None:
        """A registered backend's id is its registration's."""
        api.ask("POST", "/v1/services", GOOD)
        wait_for(lambda: len(api.ask("GET", "/backends").json["backends"]) == 3)
        (backend,) = api.ask("POST", "/backends/one/drain").json["backends"]
        assert (backend["id"], backend["addr"], backend["origin"]) == ("one", "127.0.0.1:9100", "registry")
        assert backend["registrations"] == ["one"]


class TestConnections:
    """Live L4 connections."""

    def test_listing_and_filters(self, api: AdminHarness) -> None:
        """All, of one pool, of one backend."""
        api.supervisor.live = [connection(1, "db", "10.0.0.1:1"), connection(2, "db", "10.0.0.2:1"),
                               connection(3, "web", "10.0.0.1:1")]  # fmt: skip

        def ids(query: str = "") -> list[str]:
            return [one["id"] for one in api.ask("GET", f"/connections{query}").json["connections"]]

        assert ids() == ["w0-1", "w0-2", "w0-3"]
        assert ids("?pool=db") == ["w0-1", "w0-2"]
        assert ids("?backend=10.0.0.1%3A1") == ["w0-1", "w0-3"]
        assert ids("?pool=db&backend=10.0.0.1:1") == ["w0-1"]
        assert ids("?pool=none") == []
        one = api.ask("GET", "/connections?pool=web").json["connections"][0]
        assert (one["client"], one["state"], one["bytes_in"], one["bytes_out"]) == ("127.0.0.1:5", "open", 1, 2)

    def test_cutting_one(self, api: AdminHarness) -> None:
        """204 when it was there, 404 when not."""
        api.supervisor.live = [connection(1, "db", "10.0.0.1:1")]
        assert api.ask("DELETE", "/connections/w0-1").status == 204
        assert api.ask("DELETE", "/connections/w0-1").status == 404


class TestServices:
    """The registry's API, as GoGate's users know it."""

    def test_register_show_list_renew_deregister(self, api: AdminHarness) -> None:
        """201 with id and place; listed by name and tag; 204 for a heartbeat and for the end."""
        body = {**GOOD, "tags": ["v2", "eu"], "metadata": {"zone": "a"}, "weight": 3, "ttl": "90s"}
        answer = api.ask("POST", "/v1/services", body)
        assert (answer.status, answer.headers["location"]) == (201, "/v1/services/one")
        shown = api.ask("GET", "/v1/services/one").json
        assert {**shown, **body} == shown
        assert shown["id"] == answer.json["id"] == "one"
        assert (shown["pools"], shown["unrouted"]) == (["default"], False)
        assert 80 < shown["expires_in_s"] <= 90
        for moment in ("registered_at", "last_heartbeat"):
            assert datetime.fromisoformat(shown[moment]).tzinfo is not None
        api.ask("POST", "/v1/services", {"id": "two", "name": "other", "address": "127.0.0.1:9101"})

        def ids(query: str = "") -> list[str]:
            return [one["id"] for one in api.ask("GET", f"/v1/services{query}").json["services"]]

        assert ids() == ["one", "two"]
        assert ids("?name=api") == ids("?tag=eu") == ids("?name=api&tag=v2") == ["one"]
        assert ids("?name=api&tag=v3") == []
        assert api.ask("PUT", "/v1/services/one/heartbeat").status == 204
        assert api.ask("DELETE", "/v1/services/one").status == 204
        assert ids() == ["two"]
        for method, path in (("GET", "one"), ("DELETE", "one"), ("PUT", "one/heartbeat"), ("PUT", "%6Fne/heartbeat")):
            answer = api.ask(method, f"/v1/services/{path}")
            assert (answer.status, "one" in answer.json["detail"]) == (404, True)

    def test_an_id_is_made_when_none_is_given(self, api: AdminHarness) -> None:
        """The answer says which."""
        made = api.ask("POST", "/v1/services", {"name": "api", "address": "127.0.0.1:9100"}).json["id"]
        assert api.ask("PUT", f"/v1/services/{made}/heartbeat").status == 204

    def test_the_same_id_again_updates(self, api: AdminHarness) -> None:
        """201 again, with the new values, and still one instance."""
        api.ask("POST", "/v1/services", GOOD)
        answer = api.ask("POST", "/v1/services", {**GOOD, "weight": 9})
        assert (answer.status, answer.json["weight"]) == (201, 9)
        assert len(api.ask("GET", "/v1/services").json["services"]) == 1

    def test_pools_by_name_and_tags(self, pools: AdminHarness) -> None:
        """An instance says which pools it joins; one that joins none is unrouted."""
        for tags, name, joined in (([], "api", ["api"]), (["v2"], "api", ["api", "canary"]), (["v2"], "x", [])):
            answer = pools.ask("POST", "/v1/services", {**GOOD, "name": name, "tags": tags}).json
            assert (answer["pools"], answer["unrouted"]) == (joined, not joined)
            (listed,) = pools.ask("GET", "/v1/services").json["services"]
            assert listed["pools"] == joined

    @pytest.mark.parametrize(
        ("change", "status", "field"),
        [
            ({"address": "nonsense"}, 400, "address"),
            ({"address": None}, 400, "address"),
            ({"address": "http://127.0.0.1:1/x"}, 400, "address"),
            ({"name": 7}, 400, "name"),
            ({"ttl": "a fortnight"}, 400, "ttl"),
            ({"ttl": "0.5s"}, 400, "ttl"),
            ({"ttl": 301}, 400, "ttl"),
            ({"weight": "3"}, 400, "weight"),
            ({"tags": "v2"}, 400, "tags"),
            ({"metadata": {"a": 1}}, 400, "metadata.a"),
            ({"adress": "typo"}, 400, "adress"),
            ({"address": "169.254.169.254:80"}, 403, "address"),
            ({"address": "8.8.8.8:53"}, 403, "address"),
        ],
    )
    def test_refusals_name_the_field(self, api: AdminHarness, change: dict[str, Any], status: int, field: str) -> None:
        """What is wrong with a registration is told by field and reason."""
        answer = api.ask("POST", "/v1/services", {**GOOD, **change})
        assert (answer.status, answer.json["field"]) == (status, field)
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json["detail"]) > len(field) + 2
        assert api.ask("GET", "/v1/services").json["services"] == []

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b'{"name": "api",}', "byte 15"),
            (b"", "missing"),
            (b"[]", "object"),
            (b'"text"', "object"),
            (b"\xff\xfe", "not JSON"),
            (b"[" * 100_000, "not JSON"),
        ],
    )
    def test_bad_json(self, api: AdminHarness, body: bytes, words: str) -> None:
        """A body that is not a JSON object is 400 and says where or why."""
        answer = api.ask("POST", "/v1/services", body, {"Content-Type": "application/json"})
        assert answer.status == 400
        assert words in answer.json["detail"]

    def test_a_full_registry(self) -> None:
        """registry.maxServices reached: 503 with Retry-After; known ids can still be updated."""
        config = CONFIG % "" + "  registry: {maxServices: 1}\n"
        with admin_api(config) as api:
            api.ask("POST", "/v1/services", GOOD)
            answer = api.ask("POST", "/v1/services", {**GOOD, "id": "two"})
            assert answer.status == 503
            assert "retry-after" in answer.headers
            assert api.ask("POST", "/v1/services", GOOD).status == 201

    def test_a_registry_that_is_off(self) -> None:
        """registry.enabled: false makes every path of it 404, naming the setting."""
        with admin_api(CONFIG % "" + "  registry: {enabled: false}\n") as api:
            for method, path, body in (
                ("POST", "/v1/services", GOOD), ("GET", "/v1/services", None), ("GET", "/v1/services/one", None),
                ("DELETE", "/v1/services/one", None), ("PUT", "/v1/services/one/heartbeat", None),
            ):  # fmt: skip
                answer = api.ask(method, path, body)
                assert (answer.status, "server.registry.enabled" in answer.json["detail"]) == (404, True)


class TestPaths:
    """What is where."""

    def test_the_index_lists_every_endpoint(self, api: AdminHarness) -> None:
        """GET / names the paths, their methods and what they do."""
        index = api.ask("GET", "/").json
        listed = {one["path"]: one["methods"] for one in index["endpoints"]}
        assert listed["/v1/services"] == ["GET", "POST"]
        assert listed["/backends/{id}/drain"] == ["POST"]
        assert all(one["does"] for one in index["endpoints"])

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("POST", "/health", {"GET", "HEAD"}),
            ("PUT", "/v1/services", {"GET", "HEAD", "POST"}),
            ("PATCH", "/v1/services/x", {"GET", "HEAD", "DELETE"}),
            ("GET", "/v1/services/x/heartbeat", {"PUT"}),
            ("GET", "/backends/x/drain", {"POST"}),
            ("OPTIONS", "/stats", {"GET", "HEAD"}),
            ("GET", "/connections/x", {"DELETE"}),
        ],
    )
    def test_wrong_methods(self, api: AdminHarness, method: str, path: str, allow: set[str]) -> None:
        """405 with Allow (RFC 9110 section 15.5.6)."""
        answer = api.ask(method, path)
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == allow

    @pytest.mark.parametrize(
        ("path", "hint"),
        [
            ("/backend", "/backends"), ("/helth", "/health"), ("/v1/service", "/v1/services"),
            ("/metric", "/metrics"), ("/v1/services/x/heartbeats", "/v1/services/{id}/heartbeat"),
        ],
    )  # fmt: skip
    def test_near_misses(self, api: AdminHarness, path: str, hint: str) -> None:
        """An unknown path is 404 and names the near one."""
        answer = api.ask("GET", path)
        assert (answer.status, answer.json["instance"]) == (404, path)
        assert f"Did you mean {hint}?" in answer.json["detail"]

    def test_unknown_paths(self, api: AdminHarness) -> None:
        """Without a near one there is no guess; a long path is not repeated whole; none is redirected."""
        assert "Did you mean" not in api.ask("GET", "/zzzzzzzzzzzz").json["detail"]
        answer = api.ask("GET", "/" + "q" * 5000)
        assert (answer.status, len(answer.body) < 500) == (404, True)
        assert api.ask("GET", "/backends/").status == 404

    def test_answers_are_not_cached(self, api: AdminHarness) -> None:
        """Cache-Control: no-store, and no sniffing."""
        headers = api.ask("GET", "/backends").headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert json.loads(api.ask("GET", "/backends").body)
