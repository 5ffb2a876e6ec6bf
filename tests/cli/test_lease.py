"""The loop that keeps a service registered, against an admin API that answers what it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from doubles.gateway import wait_for

from gogate_py.cli import lease as lease_module
from gogate_py.cli.lease import AdminClient, Lease, Refused, Service


class _Scripted:
    """An admin API that answers what it is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[tuple[int, bytes]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                script.asked.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = script.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def scripted() -> Iterator[_Scripted]:
    """An admin API that answers what it is told."""
    script = _Scripted()
    yield script
    script.server.shutdown()
    script.server.server_close()


REGISTERED = (201, b'{"id": "a b", "ttl": "0.03s", "pools": ["api"]}')


class TestLease:
    """The loop: when it asks what, and what it says."""

    def lease(self, scripted: _Scripted, said: list[str]) -> Lease:
        """A lease at the scripted API."""
        return Lease(AdminClient(scripted.url, ""), Service("api", ":9000"), said.append)

    def test_heartbeats_come_three_times_in_a_ttl(self, scripted: _Scripted) -> None:
        """And on the instance's own path, with its id encoded."""
        scripted.answers = [REGISTERED, *[(204, b"")] * 4]
        said: list[str] = []
        lease = self.lease(scripted, said)
        assert lease.try_register()
        lease.start()
        wait_for(lambda: len(scripted.asked) >= 3)
        lease._ttl = 300.0
        scripted.answers += [(204, b"")] * 2
        lease.leave()
        assert scripted.asked[:3] == ["POST /v1/services", *["PUT /v1/services/a%20b/heartbeat"] * 2]
        assert scripted.asked[-1] == "DELETE /v1/services/a%20b"

    def test_an_unknown_instance_registers_again_at_once(self, scripted: _Scripted) -> None:
        """404 to a heartbeat: the gateway was restarted."""
        scripted.answers = [REGISTERED, (404, b"{}"), REGISTERED]
        said: list[str] = []
        lease = self.lease(scripted, said)
        assert lease.try_register()
        assert lease._step()
        assert [line.partition(" ")[0] for line in scripted.asked] == ["POST", "PUT", "POST"]

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_what_may_pass_is_tried_again_and_said_once(self, scripted: _Scripted, status: int) -> None:
        """An overloaded gateway is not a reason to give up."""
        scripted.answers = [(status, b'{"detail": "busy"}')] * 3 + [REGISTERED]
        said: list[str] = []
        lease = self.lease(scripted, said)
        assert [lease.try_register() for _ in range(4)] == [False, False, False, True]
        assert len([line for line in said if "busy" in line]) == 1
        assert said[-1].endswith("answers again")

    @pytest.mark.parametrize(
        "answer", [(400, b'{"detail": "no"}'), (403, b""), (404, b"x"), (200, b"<html>"), (201, b"[]")]
    )
    def test_what_will_not_pass_is_refused(self, scripted: _Scripted, answer: tuple[int, bytes]) -> None:
        """A refusal, or something that is no gogate, ends the first attempt."""
        scripted.answers = [answer]
        with pytest.raises(Refused):
            self.lease(scripted, []).try_register()

    def test_a_later_refusal_is_said_and_reported(self, scripted: _Scripted) -> None:
        """While it runs, a refusal is told once and the loop goes on (the command must not die of it)."""
        scripted.answers = [REGISTERED, (401, b'{"detail": "token"}'), (401, b'{"detail": "token"}'), (204, b"")]
        said: list[str] = []
        refused: list[int] = []
        lease = self.lease(scripted, said)
        lease.on_refused = lambda: refused.append(1)
        lease.try_register()
        assert [lease._step() for _ in range(3)] == [False, False, True]
        assert len([line for line in said if "token" in line]) == 1
        assert len(refused) == 2

    def test_heartbeats_do_not_march_in_step(self, scripted: _Scripted) -> None:
        """The distance is a third of the TTL, less up to a tenth by chance, so that a fleet spreads."""
        scripted.answers = [REGISTERED]
        lease = self.lease(scripted, [])
        lease.try_register()
        lease._ttl = 30.0
        pauses = [lease._next_pause() for _ in range(200)]
        assert all(9.0 <= pause <= 10.0 for pause in pauses)
        assert max(pauses) - min(pauses) > 0.5

    def test_pauses_grow_and_end_at_a_bound(self, scripted: _Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        """0.25 s, doubling, at most 5 s, within a quarter more or less; never longer than a heartbeat's distance."""
        monkeypatch.setattr(lease_module.AdminClient, "call", _unreachable)
        lease = self.lease(scripted, [])
        lease.try_register()
        pauses = [lease._next_pause() for _ in range(8)]
        for pause, middle in zip(pauses, [0.25, 0.5, 1, 2, 4, 5, 5, 5], strict=True):
            assert 0.75 * middle <= pause <= 1.25 * middle

    def test_a_failed_goodbye_is_said(self, scripted: _Scripted) -> None:
        """When the gateway cannot be told, it is said when the instance will be gone."""
        scripted.answers = [REGISTERED, (500, b"")]
        said: list[str] = []
        lease = self.lease(scripted, said)
        lease.try_register()
        lease.leave()
        assert "could not deregister" in said[-1]


def _unreachable(self: AdminClient, *args: object) -> dict[str, Any]:
    raise lease_module.Unreachable("no")


@pytest.mark.parametrize(
    ("url", "port", "shown"),
    [
        ("http://127.0.0.1:9090", 9090, "http://127.0.0.1:9090"),
        ("localhost", 9090, "http://localhost:9090"),
        ("gw.example:99", 99, "http://gw.example:99"),
        ("http://gw.example/", 80, "http://gw.example:80"),
        ("https://gw.example", 443, "https://gw.example:443"),
        ("http://[::1]:9090", 9090, "http://[::1]:9090"),
    ],
)
def test_admin_urls(url: str, port: int, shown: str) -> None:
    """With and without scheme and port."""
    client = AdminClient(url, "")
    assert (client.port, client.url) == (port, shown)


def test_the_own_address() -> None:
    """At a gateway on this machine: 127.0.0.1."""
    assert AdminClient("http://localhost:1", "").own_host() == "127.0.0.1"
    assert AdminClient("http://127.0.0.1:1", "").own_host() == "127.0.0.1"
