"""``gogate explain``: from a file and from a running gateway, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doubles.configs import http_gateway
from doubles.gateway import Gateway
from doubles.http_backend import HttpBackend

from gogate_py.cli import main
from gogate_py.cli.explain import explain

CONFIG: dict[str, Any] = {
    "server": {"httpListenAddr": ":8081", "retry": {"attempts": 3}},
    "pools": {
        "stable": {"backends": ["10.0.0.1:80", {"addr": "10.0.0.2:80", "backup": True}]},
        "canary": {"backends": ["10.0.0.3:80"], "maxConnections": 5},
        "tenants": {"backends": ["10.0.1.1:80", "10.0.1.2:80"], "loadBalancer": {"type": "consistent_hash",
                    "key": "header:X-Tenant"}},
    },
    "routes": [
        {"name": "shop", "match": {"pathPrefix": "/shop"}, "stripPrefix": "/shop",
         "split": [{"pool": "stable", "weight": 90}, {"pool": "canary", "weight": 10, "canary": True}]},
        {"name": "tenants", "match": {"pathPrefix": "/t", "methods": ["GET"]}, "pool": "tenants",
         "rateLimit": [{"rate": 10, "per": "1s", "burst": 7, "keyBy": "ip", "name": "each"}]},
        {"name": "old", "match": {"path": "/old"}, "redirect": {"to": "/new"}},
    ],
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(CONFIG))
    return str(file)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(explain, list(arguments))


def facts(*arguments: str) -> dict[str, Any]:
    result = ask(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    decoded: dict[str, Any] = json.loads(result.stdout)
    return decoded


# --- from a file


def test_text(path: str) -> None:
    """Request, routes, arms, pools, timeouts, retries and the outcome, a line each."""
    result = ask("GET", "http://a.test/shop/cart?x=1", "-H", "X-Canary: always", "-c", path)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "GET a.test/shop/cart?x=1 from 127.0.0.1"
    assert any(line.startswith("route     ✓ shop: ") for line in lines)
    assert "forwarded as a.test/cart" in lines
    split = "split     canary: the override header asks for it (stable 90.0%, canary 10.0%)"
    assert split in lines
    assert "        → 10.0.0.3:80: takes work (weight 1, 0 active)" in lines
    assert any(line.startswith("timeouts  response_header 15s, body_idle 60s") for line in lines)
    assert any(line.startswith("retry     3 tries in all, after connect, reset") for line in lines)
    assert lines[-1] == "outcome   goes to 10.0.0.3:80 of pool canary"


def test_text_of_what_chance_decides(path: str) -> None:
    """What cannot be foretold is said to be so."""
    lines = ask("GET", "/shop", "--config", path).stdout.splitlines()
    assert "split     one of them: chance (stable 90.0%, canary 10.0%)" in lines
    assert "          10.0.0.2:80: a backup, and others are usable (weight 1, 0 active)" in lines
    assert lines[-1] == "outcome   goes to a backend of stable or canary"


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (("GET", "/old"), "308 from the gateway (redirect, stage redirect)"),
        (("DELETE", "/t"), "405 method_not_allowed: "),
        (("GET", "/nowhere"), "404 no_route: "),
        (("BREW", "/t"), "501 unknown_method: "),
        (("GET", "/%zz"), "400 bad_target: "),
    ],
)
def test_outcome(path: str, arguments: tuple[str, str], outcome: str) -> None:
    """Explaining succeeds whatever would become of the request: exit code 0, and the last line says what."""
    result = ask(*arguments, "-c", path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith(f"outcome   {outcome}")


def test_json(path: str) -> None:
    """--json has the facts: route, limits with tokens left, hash key and backend."""
    found = facts("GET", "/t/1", "-H", "X-Tenant: a", "--client-ip", "192.0.2.9", "-c", path)
    assert (found["route"], found["request"]["client"]) == ("tenants", "192.0.2.9")
    (limit,) = found["stages"][0]["limits"]
    assert (limit["name"], limit["key"], limit["left"], limit["most"]) == ("each", "ip", 7, 7)
    assert found["pools"][0]["key"] == {"by": "header:X-Tenant", "found": True}
    assert found["outcome"]["backend"] in ("10.0.1.1:80", "10.0.1.2:80")
    again = facts("GET", "/t/2", "-H", "X-Tenant: a", "-c", path)
    assert again["outcome"] == found["outcome"]


def test_default_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config and --admin it is ./config.yaml."""
    monkeypatch.chdir(Path(path).parent)
    assert ask("GET", "/old").exit_code == 0


def test_it_is_a_command_of_gogate(path: str) -> None:
    """``gogate explain`` is there, with help."""
    assert CliRunner().invoke(main, ["explain", "GET", "/old", "-config", path]).exit_code == 0
    shown = CliRunner().invoke(main, ["explain", "--help"])
    assert shown.exit_code == 0
    assert "METHOD URL" in shown.stdout


# --- what cannot be explained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("GET", "ftp://a/"), "The URL must be"),
        (("GET", "/x y"), "The URL has blanks"),
        (("GET", "/", "-H", "nonsense"), "is not a header field"),
        (("GET", "/", "--client-ip", "here"), "is not an IP address"),
        (("G T", "/"), "The method"),
    ],
)
def test_bad_request(path: str, arguments: tuple[str, ...], message: str) -> None:
    """What is no request: one line on standard error that says which part, exit code 1."""
    result = ask(*arguments, "-c", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("gogate: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_bad_file(tmp_path: Path) -> None:
    """A file with problems, or none at all: one line that names it, exit code 1."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("server: {httpListenAddr: ':8081', backends: ['a:1'], wrokers: 1}\n")
    result = ask("GET", "/", "-c", str(bad))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{bad} has 1 problem(s); see: gogate check -config {bad}" in result.stderr
    missing = ask("GET", "/", "-c", str(tmp_path / "none.yaml"))
    assert missing.exit_code == 1
    assert "none.yaml" in missing.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("GET",), ("GET", "/", "extra"), ("GET", "/", "--nonsense"), ("GET", "/", "-c", "f", "--admin", "u")],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    """Missing, surplus and contradicting arguments: exit code 2 with the usage."""
    result = ask(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://"])
def test_no_gateway_there(url: str) -> None:
    """A gateway that does not answer, or a URL that is none: one line, exit code 1."""
    result = ask("GET", "/", "--admin", url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


# --- from a running gateway


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    limit = {"rate": 1, "per": "1h", "burst": 5, "keyBy": "ip", "name": "few"}
    with HttpBackend("a") as backend, Gateway(http_gateway(backend.address, rateLimit=[limit])) as gateway:
        yield gateway


@pytest.mark.slow
def test_live(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running gateway tells of this moment, over all its workers: tokens left, and a backend that drains."""
    admin = f"http://{gateway.admin}"
    found = facts("GET", "/x", "--admin", admin)
    assert found["stages"][0]["limits"][0]["left"] == 5
    for _ in range(3):
        assert gateway.get("/x")[0] == 200
    for _ in range(2):
        assert facts("GET", "/x", "--admin", admin)["stages"][0]["limits"][0]["left"] == 2
    assert facts("GET", "/x", "--client-ip", "192.0.2.1", "--admin", admin)["stages"][0]["limits"][0]["left"] == 5
    (backend,) = gateway.admin_json("GET", "/backends")["backends"]
    monkeypatch.setenv("GOGATE_ADMIN", admin)
    gateway.admin_json("POST", f"/backends/{backend['id']}/drain")
    text = ask("GET", "/x").stdout
    assert f"{backend['addr']}: draining" in text
    assert "outcome   503 no_backend" in text
    gateway.admin_json("POST", f"/backends/{backend['id']}/undrain")
    assert ask("GET", "/x").stdout.splitlines()[-1] == f"outcome   goes to {backend['addr']} of pool default"


@pytest.mark.slow
def test_live_refusals(gateway: Gateway) -> None:
    """What the gateway refuses to explain is one line, exit code 1; --config asks the file although GOGATE_ADMIN is
    set."""
    result = ask("GET", "nonsense", "--admin", f"http://{gateway.admin}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The URL must be" in result.stderr
    offline = CliRunner().invoke(
        explain, ["GET", "/x", "-c", str(gateway.config_path)], env={"GOGATE_ADMIN": "http://127.0.0.1:1"}
    )
    assert offline.exit_code == 0


LISTENERS = {
    **CONFIG, "listeners": [{"name": "inner", "listenAddr": ":8082"}],
    "routes": [*CONFIG["routes"],
               {"name": "admin", "match": {"pathPrefix": "/shop/admin"}, "listener": "inner", "pool": "tenants"}]}


def test_by_listener(tmp_path: Path) -> None:
    """A route that is on one listener only is met only there; without a name all are looked at."""
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(LISTENERS))
    for listener, route in (("inner", "admin"), ("default", "shop"), ("http:default", "shop"), ("", "admin")):
        found = facts("GET", "http://a.test/shop/admin", "--listener", listener, "-c", str(file))
        assert found["route"] == route, listener
    result = ask("GET", "http://a.test/", "--listener", "outer", "-c", str(file))
    assert result.exit_code == 1
    assert "there is no listener 'outer' of type http; there are: default, inner" in result.stderr


def test_by_listener_of_a_running_gateway() -> None:
    """The same, asked over the admin API."""
    with HttpBackend() as backend:
        text = json.loads(http_gateway(backend.address))
        text["listeners"] = [{"name": "inner", "listenAddr": "127.0.0.1:0"}]
        text["routes"] = [{"name": "admin", "match": {"path": "/x"}, "listener": "inner", "pool": "default"}]
        with Gateway(json.dumps(text)) as gateway:
            admin = ("--admin", f"http://{gateway.admin}")
            assert facts("GET", "http://a.test/x", "--listener", "inner", *admin)["route"] == "admin"
            assert facts("GET", "http://a.test/x", "--listener", "default", *admin)["route"] == "default-http"
            result = ask("GET", "http://a.test/x", "--listener", "outer", *admin)
            assert (result.exit_code, "there is no listener 'outer'" in result.stderr) == (1, True)
