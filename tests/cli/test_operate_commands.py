"""``gogate reload``, ``status``, ``drain``, ``services`` against a running gateway."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from doubles.gateway import wait_for
from doubles.http_backend import HttpBackend
from doubles.reloading import Reloading, reloading
from doubles.servers import free_port

from gogate_py.cli import main

ANY = "127.0.0.1:0"
TOKEN = "token-of-the-operators"


@pytest.fixture(scope="module")
def backend() -> Iterator[HttpBackend]:
    with HttpBackend("a") as one:
        yield one


@pytest.fixture(scope="module")
def one(backend: HttpBackend) -> Iterator[Reloading]:
    """A gateway with two pools over one backend, the second of which takes registrations; a third waits for some."""
    settings = {
        "server": {"httpListenAddr": ANY, "admin": {"listenAddr": ANY, "token": TOKEN}},
        "pools": {"web": {"backends": [{"addr": backend.address, "weight": 3}]},
                  "api": {"backends": [backend.address], "service": "api"}, "later": {"service": "later"}},
        "routes": [{"name": "web", "pool": "web"}, {"name": "api", "match": {"pathPrefix": "/api"}, "pool": "api"},
                   {"name": "later", "match": {"pathPrefix": "/later"}, "pool": "later"}],
    }  # fmt: skip
    with reloading(settings) as found:
        yield found


def run(one: Reloading, *arguments: str, env: dict[str, str] | None = None) -> Result:
    """One command; the address of the admin API comes by the environment."""
    environ = {"GOGATE_ADMIN": f"http://{one.gateway.admin}", "GOGATE_TOKEN": "", **(env or {})}
    return CliRunner(env=environ).invoke(main, list(arguments))


def done(one: Reloading, *arguments: str) -> str:
    """What a command printed that succeeded."""
    result = run(one, *arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def _drains(one: Reloading) -> bool:
    return all(each["draining"] for each in one.gateway.admin_json("GET", "/backends")["backends"])


class TestReload:
    """gogate reload: returns when it is served, or says why not."""

    def test_served_and_unchanged(self, one: Reloading) -> None:
        """What is served, and that nothing changed."""
        one.settings["server"]["timeouts"] = {"idle": "51s"}
        one.write()
        assert done(one, "reload").startswith("the configuration is ")
        again = json.loads(done(one, "reload", "--json"))
        assert again["result"] == "unchanged"
        assert done(one, "reload") == f"the configuration is unchanged: generation {again['generation']}\n"

    def test_what_operators_said_is_not_beaten_silently(self, one: Reloading, backend: HttpBackend) -> None:
        """A file that disagrees with an override is served, and it is said that the override stays: plan and reload."""
        path = f"/backends/{backend.address}/weight?pool=web"
        one.gateway.admin_json("PUT", path, {"weight": 9})
        one.settings["pools"]["web"]["backends"][0]["weight"] = 5
        said = f"overridden: weight of {backend.address} in pool web stays 9, not 5"
        planned = one.gateway.admin_json("POST", "/plan", {"config": json.dumps(one.settings)})
        assert said in planned["text"]
        one.write()
        done(one, "reload")
        (last, *_) = one.gateway.admin_json("GET", "/config/status")["history"]
        assert said in last["changes"]
        one.gateway.admin_json("DELETE", path)
        one.settings["pools"]["web"]["backends"][0]["weight"] = 3
        one.write()
        done(one, "reload")

    def test_problems(self, one: Reloading) -> None:
        """Each in a line with its place, on standard error; exit code 1; --json prints the problem."""
        good = one.gateway.config_path.read_text()
        one.gateway.config_path.write_text("server:\n  backend: [1]\n")
        try:
            result = run(one, "reload")
            assert (result.exit_code, result.stdout) == (1, "")
            assert f"{one.gateway.config_path}:2:3: " in result.stderr
            assert result.stderr.endswith("gogate: the configuration is not served; the old one goes on\n")
            result = run(one, "reload", "--json")
            assert result.exit_code == 1
            assert json.loads(result.stdout)["problems"]
            shown = done(one, "status")
            assert "NOT SERVED as it is since" in shown
            assert f"{one.gateway.config_path}:2:3: " in shown
        finally:
            one.gateway.config_path.write_text(good)
            done(one, "reload")


class TestDrain:
    """gogate drain: by address or registration, in one pool or all."""

    def test_and_undrain(self, one: Reloading, backend: HttpBackend) -> None:
        """What it is now, a line for each pool; --undrain takes it back."""
        assert done(one, "drain", backend.address, "--pool", "web") == (
            f"pool web: {backend.address}: up, draining, weight 3, 0 active\n")  # fmt: skip
        assert f"\noverride  {backend.address} in pool web is drained since 20" in done(one, "status")
        found = json.loads(done(one, "drain", backend.address, "--json"))["backends"]
        assert [(each["pool"], each["draining"]) for each in found] == [("web", True), ("api", True)]
        assert done(one, "drain", backend.address, "--undrain").count("draining") == 0

    def test_deadline(self, one: Reloading, backend: HttpBackend) -> None:
        """The time that is left is shown; a drain without one takes it back; a bad one is refused."""
        drain = ("drain", backend.address, "--pool", "web")
        for shown in (done(one, *drain, "--deadline", "2h"), done(one, "status")):
            assert re.search(f" {backend.address}: up, draining, (1h59m|2h0m) left, weight 3, 0 active\n", shown)
        assert done(one, *drain) == f"pool web: {backend.address}: up, draining, weight 3, 0 active\n"
        result = run(one, *drain, "--deadline", "soon")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "deadline: 'soon' is not a duration" in result.stderr
        assert run(one, *drain, "--undrain", "--wait").exit_code == 2
        done(one, *drain, "--undrain")

    def test_wait(self, one: Reloading, backend: HttpBackend) -> None:
        """Returns when nothing runs there: at once, when it has ended, when the deadline cut it."""
        drain = ("drain", backend.address, "--pool", "web", "--wait")
        assert done(one, *drain) == f"pool web: {backend.address}: up, draining, weight 3, 0 active\n"
        done(one, "drain", backend.address, "--undrain")
        outcomes: list[int] = []
        backend.hold()
        asking = threading.Thread(target=lambda: outcomes.append(one.gateway.get()[0]))
        asking.start()
        wait_for(lambda: backend.in_flight == 1, what="the request to be held")
        result = run(one, *drain, "--deadline", "400ms")
        assert (result.exit_code, result.stderr) == (0, "1 active\n")
        assert result.stdout == f"pool web: {backend.address}: up, drained, weight 3, 0 active\n"
        asking.join(10)
        assert outcomes == [502]
        backend.release()
        done(one, "drain", backend.address, "--undrain")

    def test_wait_in_vain(self, one: Reloading, backend: HttpBackend) -> None:
        """Somebody gives it work again meanwhile: exit code 1."""
        backend.hold()
        asking = threading.Thread(target=one.gateway.get)
        asking.start()
        wait_for(lambda: backend.in_flight == 1, what="the request to be held")
        path = f"/backends/{backend.address}/undrain"
        again = threading.Thread(target=lambda: (wait_for(lambda: _drains(one)), one.gateway.admin_json("POST", path)))
        again.start()
        result = run(one, "drain", backend.address, "--wait")
        assert result.exit_code == 1
        assert result.stderr.endswith("gogate: somebody gave it work again\n")
        backend.release()
        asking.join(10)
        again.join(10)

    def test_unknown(self, one: Reloading) -> None:
        """A backend that is not there: exit code 1, and what was meant perhaps."""
        result = run(one, "drain", "127.0.0.1:1")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "No backend has the id or address 127.0.0.1:1" in result.stderr
        assert "GET /backends lists them" in run(one, "drain", "web-1").stderr


class TestStatus:
    """gogate status: at a glance."""

    def test_text(self, one: Reloading, backend: HttpBackend) -> None:
        """Readiness, configuration, workers, pools with their backends, overrides."""
        one.gateway.admin_json("PUT", f"/backends/{backend.address}/weight?pool=web", {"weight": 9})
        lines = done(one, "status").splitlines()
        assert lines[0].startswith("gogate ")
        assert " is ready, pid " in lines[0]
        assert lines[1].startswith(f"config    {one.gateway.config_path}, generation ")
        assert lines[1].endswith(", is served")
        assert lines[2].startswith("workers   0 serving (pid ")
        assert "pool      web: 1 of 1 backends take work" in lines
        assert f"          {backend.address}: up, weight 9 instead of 3, 0 active" in lines
        assert "pool      later: no backend is known" in lines
        assert any(line.startswith(f"override  weight of {backend.address} in pool web is 9 since") for line in lines)
        one.gateway.admin_json("DELETE", f"/backends/{backend.address}/weight?pool=web")

    def test_why_it_is_not_ready(self, one: Reloading, backend: HttpBackend) -> None:
        """The reasons, and exit code 1."""
        done(one, "drain", backend.address)
        result = run(one, "status")
        done(one, "drain", backend.address, "--undrain")
        assert result.exit_code == 1
        assert " is not ready, pid " in result.stdout
        assert "\nnot ready pool web has no usable backend\n" in result.stdout

    def test_json(self, one: Reloading) -> None:
        """What the admin API answers."""
        found = json.loads(done(one, "status", "--json"))
        assert (found["stats"]["ready"], found["config"]["in_sync"], len(found["backends"])) == (True, True, 2)


class TestServices:
    """gogate services: who is registered."""

    def test_table(self, one: Reloading) -> None:
        """A line for each, columns aligned; by name and tag; none."""
        assert done(one, "services") == "no service is registered\n"
        one.gateway.admin_json(
            "POST", "/v1/services", {"id": "api-1", "name": "api", "address": "127.0.0.1:1", "tags": ["v1", "eu"]}
        )
        one.gateway.admin_json("POST", "/v1/services", {"id": "other", "name": "none", "address": "127.0.0.1:2"})
        head, *rows = done(one, "services").splitlines()
        assert head.split() == ["ID", "NAME", "ADDRESS", "TAGS", "STATE", "EXPIRES", "POOLS"]
        assert [row.split()[:5] for row in rows] == [
            ["api-1", "api", "127.0.0.1:1", "v1,eu", "passing"], ["other", "none", "127.0.0.1:2", "-", "passing"]]
        assert rows[1].endswith("no pool")
        assert [row.split()[0] for row in done(one, "services", "--tag", "eu").splitlines()[1:]] == ["api-1"]
        assert done(one, "services", "--tag", "us") == "no service is registered with this name or tag\n"
        found = json.loads(done(one, "services", "--name", "none", "--json"))
        assert [each["id"] for each in found["services"]] == ["other"]
        for identity in ("api-1", "other"):
            one.gateway.admin_json("DELETE", f"/v1/services/{identity}")


class TestAccess:
    """Where the gateway is, and the token."""

    @pytest.mark.parametrize("command", [["reload"], ["status"], ["drain", "x"], ["services"]])
    def test_nobody_there(self, one: Reloading, command: list[str]) -> None:
        """One line, exit code 1."""
        result = run(one, *command, "--admin", f"http://127.0.0.1:{free_port()}")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        assert "does not answer: Connection refused; another address: --admin URL or GOGATE_ADMIN" in result.stderr

    def test_tokens(self, one: Reloading, tmp_path: Path) -> None:
        """By variable, option or file; a wrong one is refused, although this machine would need none."""
        file = tmp_path / "token"
        file.write_text(f"{TOKEN}\n")
        assert run(one, "reload", "--token-file", str(file)).exit_code == 0
        assert run(one, "reload", env={"GOGATE_TOKEN": TOKEN}).exit_code == 0
        result = run(one, "reload", "--token", "wrong")
        assert result.exit_code == 1
        assert "401" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--token", "x", "--token-file", "y"], "exclude each other"),
            (["--token", "ä"], "visible ASCII"),
            (["--admin", "ftp://x"], "not the address of an admin API"),
        ],
    )
    def test_wrong_usage(self, one: Reloading, arguments: list[str], said: str) -> None:
        """Exit code 2, and what is wrong."""
        result = run(one, "status", *arguments)
        assert result.exit_code == 2
        assert said in result.stderr

    def test_a_token_file_that_is_not_there(self, one: Reloading) -> None:
        """Exit code 1, and its name."""
        result = run(one, "status", "--token-file", "/nonexistent/token")
        assert result.exit_code == 1
        assert "cannot read the token file /nonexistent/token" in result.stderr


class TestPlan:
    """``gogate plan``."""

    def test_what_another_file_would_do(self, one: Reloading, tmp_path: Path) -> None:
        """Told as lines and as JSON, and nothing of it is done."""
        before = one.gateway.admin_json("GET", "/config/status")["generation"]
        other = tmp_path / "new.yaml"
        text = one.gateway.config_path.read_text()
        other.write_text(text.replace("/api", "/other"))
        told = done(one, "plan", "-config", str(other)).splitlines()
        assert "~ route api" in told
        assert "    match.pathPrefix: /api → /other" in told
        assert any(line.startswith("keeps state: ") for line in told)
        found = json.loads(done(one, "plan", "-config", str(other), "--json"))
        assert [thing["name"] for thing in found["changed"]] == ["api"]
        other.write_text(text)
        assert done(one, "plan", "-config", str(other)) == "nothing changes\n"
        assert one.gateway.admin_json("GET", "/config/status")["generation"] == before

    def test_a_file_with_problems(self, one: Reloading, tmp_path: Path) -> None:
        """They are printed, and the exit code is 1."""
        other = tmp_path / "new.yaml"
        other.write_text("server: {httpListenAdr: ':1'}")
        result = run(one, "plan", "-config", str(other))
        assert result.exit_code == 1
        assert "httpListenAdr" in result.output


class TestHealth:
    """gogate health: alive, or with --ready taking traffic, by the exit code."""

    def test_alive_and_ready(self, one: Reloading) -> None:
        """One word and exit code 0."""
        assert done(one, "health") == "ok\n"
        assert done(one, "health", "--ready") == "ready\n"

    def test_not_ready(self) -> None:
        """A gateway whose backends are all down lives, and is not ready; the reason is told."""
        settings = {
            "server": {"httpListenAddr": ANY, "admin": {"listenAddr": ANY}, "health": {"interval": "50ms"},
                       "backends": [f"127.0.0.1:{free_port()}"]},
        }  # fmt: skip
        with reloading(settings) as alone:
            wait_for(lambda: run(alone, "health", "--ready").exit_code == 1, what="the backend to be down")
            result = run(alone, "health", "--ready")
            assert (result.stdout, "503" in result.stderr) == ("", True)
            assert done(alone, "health") == "ok\n"

    def test_nobody_answers(self, one: Reloading) -> None:
        """Exit code 1 and a line that names the address; 2 for what is no address."""
        nobody = f"http://127.0.0.1:{free_port()}"
        result = run(one, "health", env={"GOGATE_ADMIN": nobody})
        assert (result.exit_code, result.stdout) == (1, "")
        assert nobody in result.stderr
        assert run(one, "health", "--admin", "ftp://x").exit_code == 2
