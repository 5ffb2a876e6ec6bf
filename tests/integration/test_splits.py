"""Splits, weights, slow start and panic through whole gateways with two workers, and what the admin API makes of
them."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.configs import ANY, gateway_config
from doubles.gateway import Gateway, wait_for
from doubles.gateway_clients import Client, kill_9
from doubles.http_backend import HttpBackend

pytestmark = pytest.mark.slow

OFF = {"enabled": False}
PROBES = {
    "checkType": "http", "httpPath": "/health", "interval": "50ms", "timeout": "2s", "unhealthyThreshold": 1,
    "healthyThreshold": 1,
}  # fmt: skip


@pytest.fixture
def two() -> Iterator[tuple[HttpBackend, HttpBackend]]:
    with HttpBackend("stable") as stable, HttpBackend("canary") as canary:
        yield stable, canary


def split_config(two: tuple[HttpBackend, HttpBackend], **route: Any) -> str:
    """Two arms, 90 to 10."""
    return gateway_config(
        {"httpListenAddr": ANY, "health": OFF},
        pools={"stable": {"backends": [two[0].address]}, "canary": {"backends": [two[1].address]}},
        routes=[
            {
                "name": "shop",
                "match": {"pathPrefix": "/"},
                "split": [{"pool": "stable", "weight": 90}, {"pool": "canary", "weight": 10}],
                **route,
            }
        ],
    )


def shares(gateway: Gateway, backends: tuple[HttpBackend, HttpBackend], each: int = 40) -> list[Counter[str]]:
    """Which backend answered, for so many requests through each worker."""
    found = []
    with a_client_of_each(gateway) as clients:
        for client in clients:
            found.append(Counter(client.get()[1]["X-Backend"] for _ in range(each)))
    return found


@contextlib.contextmanager
def a_client_of_each(gateway: Gateway) -> Iterator[list[Client]]:
    """A kept connection to each of the two workers, told apart by the slot in the request id."""
    made: list[Client] = []
    found: dict[str, Client] = {}

    def complete() -> bool:
        client = Client(gateway)
        made.append(client)
        found.setdefault(client.get()[1]["X-Request-ID"][:2], client)
        return len(found) == 2

    wait_for(complete, what="a connection to each worker")
    try:
        yield list(found.values())
    finally:
        for client in made:
            client.close()


def arms(gateway: Gateway) -> dict[str, dict[str, Any]]:
    shown = gateway.admin_json("GET", "/routes/shop/split")["split"]
    return {arm["pool"]: arm for arm in shown}


def wait_for_share(gateway: Gateway, backends: tuple[HttpBackend, HttpBackend], name: str) -> None:
    """Wait until both workers send everything to one backend."""
    wait_for(lambda: shares(gateway, backends, 20) == [Counter({name: 20})] * 2, what=f"everything at {name}")


def test_weights_at_run_time(two: tuple[HttpBackend, HttpBackend]) -> None:
    """PUT changes the shares in every worker without touching the file, is shown as an override beside the configured
    weights, survives a worker's death, and DELETE takes it back."""
    with Gateway(split_config(two)) as gateway:
        text = gateway.config_path.read_text()
        got = sum(shares(gateway, two, 200), Counter[str]())
        assert 10 <= got["canary"] <= 80
        assert "overridden_since" not in arms(gateway)["canary"]

        gateway.admin_json("PUT", "/routes/shop/split", {"weights": {"stable": 0, "canary": 5}})
        wait_for_share(gateway, two, "canary")
        shown = arms(gateway)
        assert {pool: (arm["weight"], arm["configured_weight"], arm["share"]) for pool, arm in shown.items()} == {
            "stable": (0, 90, 0.0),
            "canary": (5, 10, 1.0),
        }
        assert all(arm["overridden_since"] for arm in shown.values())
        (route,) = [one for one in gateway.admin_json("GET", "/routes")["routes"] if one["name"] == "shop"]
        assert route["split"] == list(shown.values())
        assert gateway.config_path.read_text() == text

        kill_9(gateway, 0)
        wait_for_share(gateway, two, "canary")

        gateway.admin_json("PUT", "/routes/shop/split", {"weights": {"stable": 1}})  # the other keeps its override
        assert {pool: arm["weight"] for pool, arm in arms(gateway).items()} == {"stable": 1, "canary": 5}

        gateway.admin_json("DELETE", "/routes/shop/split")
        assert {pool: arm["weight"] for pool, arm in arms(gateway).items()} == {"stable": 90, "canary": 10}
        assert not any("overridden_since" in arm for arm in arms(gateway).values())
        wait_for(lambda: sum(shares(gateway, two), Counter[str]())["stable"] >= 50, what="the configured shares")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/routes/shop/split", {"weights": {"canry": 1}}, 400),
        ("/routes/shop/split", {"weights": {"canary": -1}}, 400),
        ("/routes/shop/split", {"weights": {"canary": 1.5}}, 400),
        ("/routes/shop/split", {"weights": {"canary": True}}, 400),
        ("/routes/shop/split", {"weights": {"stable": 0, "canary": 0}}, 400),
        ("/routes/shop/split", {"weights": {}}, 400),
        ("/routes/shop/split", {"weight": {"canary": 1}}, 400),
        ("/routes/shp/split", {"weights": {"canary": 1}}, 404),
        ("/routes/plain/split", {"weights": {"canary": 1}}, 409),
        ("/backends/{id}/weight", {"weight": -1}, 400),
        ("/backends/{id}/weight", {"weight": 1001}, 400),
        ("/backends/{id}/weight", {"weight": "5"}, 400),
        ("/backends/{id}/weight", {}, 400),
        ("/backends/nobody/weight", {"weight": 1}, 404),
    ],
)
def test_bad_overrides(refusing: Gateway, path: str, body: dict[str, Any], status: int) -> None:
    """What cannot be a weight is refused, with the reason, and nothing changes."""
    before = gateway_weights(refusing)
    path = path.replace("{id}", refusing.admin_json("GET", "/backends")["backends"][0]["id"])
    got, _, data = refusing.admin_request("PUT", path, body)
    assert got == status, data
    assert gateway_weights(refusing) == before


def gateway_weights(gateway: Gateway) -> Any:
    return [one["weight"] for one in gateway.admin_json("GET", "/backends")["backends"]], arms(gateway)


@pytest.fixture(scope="module")
def refusing() -> Iterator[Gateway]:
    with HttpBackend("stable") as stable, HttpBackend("canary") as canary:
        plain = {"name": "plain", "match": {"path": "/plain"}, "pool": "stable"}
        text = split_config((stable, canary))
        config = json.loads(text)
        config["routes"].append(plain)
        with Gateway(json.dumps(config)) as gateway:
            yield gateway


def test_weight_of_a_backend_at_run_time(two: tuple[HttpBackend, HttpBackend]) -> None:
    """PUT /backends/{id}/weight changes who gets the work in every worker, shows in view and metric beside the
    configured weight, and DELETE takes it back."""
    config = gateway_config(
        {
            "httpListenAddr": ANY,
            "health": OFF,
            "loadBalancer": "weighted_round_robin",
            "backends": [backend.address for backend in two],
        }
    )
    with Gateway(config) as gateway:
        ids = {one["addr"]: one["id"] for one in gateway.admin_json("GET", "/backends")["backends"]}
        stable = ids[two[0].address]
        gateway.admin_json("PUT", f"/backends/{stable}/weight", {"weight": 0})
        wait_for_share(gateway, two, "canary")
        gateway.admin_json("PUT", f"/backends/{stable}/weight", {"weight": 3})
        wait_for(
            lambda: shares(gateway, two) == [Counter({"stable": 30, "canary": 10})] * 2, what="three to one, everywhere"
        )
        (shown,) = [one for one in gateway.admin_json("GET", "/backends")["backends"] if one["id"] == stable]
        assert (shown["weight"], shown["configured_weight"]) == (3, 1)
        assert shown["overridden_since"]
        assert gateway.metric("gogate_backend_weight", backend=two[0].address) == 3.0
        gateway.admin_json("DELETE", f"/backends/{stable}/weight")
        (shown,) = [one for one in gateway.admin_json("GET", "/backends")["backends"] if one["id"] == stable]
        assert shown["weight"] == 1
        assert "configured_weight" not in shown
        wait_for(lambda: shares(gateway, two) == [Counter({"stable": 20, "canary": 20})] * 2, what="equal shares")


def test_sticky_cookie_over_workers(two: tuple[HttpBackend, HttpBackend]) -> None:
    """A cookie that one worker has set is honoured by the other, and by one that was started later."""
    with Gateway(split_config(two, sticky={"by": "cookie"})) as gateway, a_client_of_each(gateway) as clients:
        gateway.admin_json("PUT", "/routes/shop/split", {"weights": {"stable": 0}})
        wait_for_share(gateway, two, "canary")
        cookie = clients[0].get()[1]["Set-Cookie"].partition(";")[0]
        gateway.admin_json("DELETE", "/routes/shop/split")
        gateway.admin_json("PUT", "/routes/shop/split", {"weights": {"canary": 0}})
        wait_for_share(gateway, two, "stable")
        for client in clients:
            assert client.get(Cookie=cookie)[1]["X-Backend"] == "canary"
        kill_9(gateway, 0)
        with a_client_of_each(gateway) as fresh:
            for client in fresh:
                _, fields, _ = client.get(Cookie=cookie)
                assert (fields["X-Backend"], fields["Set-Cookie"]) == ("canary", None)


def test_shares_and_fallbacks_are_counted(two: tuple[HttpBackend, HttpBackend]) -> None:
    """Views and metrics tell where requests went over all workers, and which arm could not serve."""
    with Gateway(split_config(two)) as gateway:
        (canary,) = [one for one in gateway.admin_json("GET", "/backends")["backends"] if one["pool"] == "canary"]
        gateway.admin_json("POST", f"/backends/{canary['id']}/drain")
        with a_client_of_each(gateway) as clients:

            def falls_back() -> bool:
                return all(client.get(X_Canary="always")[1]["X-Backend"] == "stable" for client in clients)

            wait_for(falls_back, what="the drain in both workers")
            before = gateway.metric("gogate_split_fallbacks_total", route="shop", pool="canary")
            for client in clients:
                for _ in range(5):
                    assert client.get(X_Canary="always")[1]["X-Backend"] == "stable"
        wait_for(
            lambda: gateway.metric("gogate_split_fallbacks_total", route="shop", pool="canary") >= before + 10,
            what="the count",
        )
        asked = two[0].requests + two[1].requests
        wait_for(lambda: gateway.metric("gogate_split_requests_total", route="shop") == asked, what="every request")
        route = gateway.admin_json("GET", "/routes/shop")
        assert sum(route["split_requests"].values()) == asked
        assert route["split_fallbacks"]["canary"] >= 10


def test_panic(two: tuple[HttpBackend, HttpBackend]) -> None:
    """Below panicThreshold every worker ignores health; the metric and explain say so, and it ends with the backends'
    return."""
    config = gateway_config(
        {"httpListenAddr": ANY, "health": PROBES, "backends": [b.address for b in two], "panicThreshold": 60}
    )
    with Gateway(config) as gateway:
        wait_for(lambda: gateway.admin_request("GET", "/ready")[0] == 200, what="readiness")
        wait_for(lambda: gateway.metric("gogate_pool_panic", pool="default") == 0.0, what="no panic")
        two[1].health_status = 500
        wait_for(lambda: gateway.metric("gogate_pool_panic", pool="default") == 1.0, what="the panic")
        wait_for(
            lambda: all({"stable", "canary"} == set(one) for one in shares(gateway, two, 10)), what="both backends"
        )
        facts = gateway.admin_json("GET", "/explain?method=GET&url=/")
        assert facts["pools"][0]["panic"]
        assert [one["takes"] for one in facts["pools"][0]["backends"]] == [True, True]
        two[1].health_status = 200
        wait_for(lambda: gateway.metric("gogate_pool_panic", pool="default") == 0.0, what="the end of the panic")


def test_slow_start(two: tuple[HttpBackend, HttpBackend]) -> None:
    """A backend that comes back warms up in every worker: it is shown as warming up and gets a small share first."""
    config = gateway_config(
        {"httpListenAddr": ANY, "health": PROBES, "backends": [b.address for b in two], "slowStart": "1h"}
    )

    with Gateway(config) as gateway:

        def canary(key: str) -> Any:
            return {one["addr"]: one[key] for one in gateway.admin_json("GET", "/backends")["backends"]}[two[1].address]

        wait_for(lambda: gateway.admin_request("GET", "/ready")[0] == 200, what="readiness")
        two[1].health_status = 500
        wait_for(lambda: not canary("healthy"), what="a backend that is down")
        two[1].health_status = 200
        wait_for(lambda: canary("healthy"), what="its return")
        assert canary("warming_up")
        wait_for(lambda: all("canary" in one for one in shares(gateway, two, 60)), what="a share for it")
        for one in shares(gateway, two, 100):
            assert one["canary"] < 35
        facts = gateway.admin_json("GET", "/explain?method=GET&url=/")
        assert {one["address"]: one.get("warming_up", False) for one in facts["pools"][0]["backends"]}[two[1].address]
