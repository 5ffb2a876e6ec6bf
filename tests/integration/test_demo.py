"""``gogate demo`` as a user has it: a child process, the commands that it prints, real signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from conftest import need_program
from doubles.gateway import ROOT, wait_for

pytestmark = pytest.mark.slow

ENVIRON = {**{key: value for key, value in os.environ.items() if not key.startswith("GOGATE_")},
           "PYTHONPATH": str(ROOT)}  # fmt: skip


class RunningDemo:
    """A demo that is ready; ``processes`` are all that it started."""

    def __init__(self, *options: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gogate_py", "demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**ENVIRON, **(env or {})},
            cwd=ROOT,
            text=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        wait_for(lambda: self.ended() or self.said("The gateway's log:"), 40, "the demo's welcome")
        assert not self.ended(), self.text()
        self.commands = [line.strip() for line in self.lines if line.startswith("      ")]
        self.http = self._port(r"HTTP +http://127\.0\.0\.1:(\d+)")
        self.tcp = self._port(r"TCP +127\.0\.0\.1:(\d+)")
        self.admin = self._port(r"Admin +http://127\.0\.0\.1:(\d+)")
        self.processes = psutil.Process(self.process.pid).children(recursive=True)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def _port(self, pattern: str) -> int:
        found = re.search(pattern, self.text())
        assert found, self.text()
        return int(found[1])

    def text(self) -> str:
        """All output so far."""
        return "\n".join(list(self.lines))

    def said(self, what: str) -> bool:
        """Whether it was printed."""
        return what in self.text()

    def ended(self) -> bool:
        """Whether the demo itself is gone."""
        return self.process.poll() is not None

    def request(self, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, bytes]:
        """One request → (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def page(self) -> str:
        """GET / through the gateway."""
        return self.request(self.http, "GET", "/")[2].decode()

    def ask_admin(self, path: str) -> Any:
        """A decoded answer of the admin API."""
        return json.loads(self.request(self.admin, "GET", path)[2])

    def backend(self, identity: str) -> dict[str, Any]:
        """One backend as /backends shows it."""
        return next(one for one in self.ask_admin("/backends")["backends"] if one["id"] == identity)

    def find(self, what: str) -> psutil.Process:
        """The first process with this in its command line."""
        return next(one for one in self.processes if what in " ".join(one.cmdline()))

    def all_gone(self) -> bool:
        """Whether nothing that the demo started is alive (a zombie that init has not yet collected is not)."""
        return not any(alive(one) for one in self.processes)

    def wait(self) -> int:
        """The exit code, with all output read."""
        code = self.process.wait(20)
        self.reader.join(10)
        return code


def alive(process: psutil.Process) -> bool:
    """Whether a process still does something."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def running(*options: str, env: dict[str, str] | None = None) -> Iterator[RunningDemo]:
    """A demo on free ports (unless the options say otherwise), ended in any case."""
    # A folder of our own for temporary files: a killed demo cannot remove its.
    with tempfile.TemporaryDirectory() as folder:
        demo = RunningDemo(
            *(options or ("--http-port", "0", "--tcp-port", "0", "--admin-port", "0")),
            env={"TMPDIR": folder, **(env or {})},
        )
        try:
            yield demo
        finally:
            demo.process.kill()
            demo.wait()
            for process in filter(alive, demo.processes):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            assert demo.process.stdout is not None
            demo.process.stdout.close()


def shell(command: str) -> str:
    """Run a printed command as it stands; its output."""
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=20, cwd=ROOT, env=ENVIRON)
    assert result.returncode == 0, result
    return result.stdout


def test_the_four_printed_commands_do_what_they_say() -> None:
    """Each printed command works as it stands: ask, echo, register a third backend, drain one; Ctrl-C ends all."""
    need_program("curl"), need_program("nc")
    with running() as demo:
        assert len(demo.commands) == 4
        curl, nc, register, drain = demo.commands

        answered = set()
        wait_for(lambda: answered.add(shell(curl).split()[2]) or answered == {"web-1", "web-2"}, what="both to answer")
        assert shell(nc) == "hello\n"

        own = subprocess.Popen(f"exec {register}", shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               cwd=ROOT, env=ENVIRON)  # fmt: skip
        try:
            wait_for(lambda: "Directory listing" in demo.page(), what="the third backend to answer")
            assert len(demo.ask_admin("/v1/services?name=web")["services"]) == 3
        finally:
            own.terminate()
            assert own.stderr is not None
            messages = own.stderr.read().decode()
            own.wait(10)
            own.stderr.close()
        assert "deregistered" in messages
        wait_for(lambda: len(demo.ask_admin("/v1/services?name=web")["services"]) == 2, what="it to leave the pool")

        shell(drain)
        assert demo.backend("web-1")["draining"]
        wait_for(lambda: all("web-2" in demo.page() for _ in range(8)), what="web-1 to get nothing new")

        wait_for(lambda: demo.said("request completed method=GET path=/"), what="access lines as text")
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0
        assert demo.all_gone()
        assert "Traceback" not in demo.text()


def test_the_demo_application_shows_what_reaches_a_backend() -> None:
    """Head, slow answers, statuses, streamed bodies and events come through the gateway as the application sends
    them."""
    with running() as demo:
        status, headers, body = demo.request(demo.http, "GET", "/headers?x=1")
        seen = json.loads(body)
        names = {name for name, _ in seen["headers"]}
        assert status == 200
        assert seen["instance"] == headers["x-instance"]
        assert {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"} <= names
        assert demo.request(demo.http, "GET", "/slow?ms=10")[2].endswith(b"took 10 ms\n")
        assert demo.request(demo.http, "GET", "/slow?ms=-1")[0] == 400
        assert demo.request(demo.http, "DELETE", "/status/503")[0] == 503
        assert demo.request(demo.http, "GET", "/status/204")[::2] == (204, b"")
        assert demo.request(demo.http, "GET", "/status/999")[0] == 400
        data = os.urandom(300_000)
        assert demo.request(demo.http, "POST", "/echo", data)[2] == data
        status, headers, body = demo.request(demo.http, "GET", "/events")
        assert headers["content-type"].startswith("text/event-stream")
        assert body.count(b"data: event") == 5
        assert demo.request(demo.http, "GET", "/healthz")[2] == b"ok\n"

        # The echo half-closes after its client, through the gateway.
        with socket.create_connection(("127.0.0.1", demo.tcp), timeout=10) as client:
            client.sendall(b"to and fro")
            client.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: client.recv(100), b"")) == b"to and fro"

        demo.process.send_signal(signal.SIGTERM)
        assert demo.wait() == 0
        assert demo.all_gone()


def test_taken_ports_and_a_users_variables_are_no_obstacle() -> None:
    """Ports that somebody has are replaced by free ones, and GOGATE_… variables do not reach the demo's gateway."""
    with contextlib.ExitStack() as stack:
        options = []
        taken = []
        for name in ("http", "tcp", "admin"):
            other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            taken.append(other.getsockname()[1])
            options += [f"--{name}-port", str(taken[-1])]
        env = {"GOGATE_SERVER_HTTP_LISTEN_ADDR": "192.0.2.1:1", "GOGATE_ADMIN": "http://192.0.2.1:1"}
        demo = stack.enter_context(running(*options, env=env))
        assert not {demo.http, demo.tcp, demo.admin} & set(taken)
        assert "hello from web-" in demo.page()
        demo.process.send_signal(signal.SIGHUP)
        assert demo.wait() == 0
        assert demo.all_gone()


def test_free_ports_that_were_asked_for_are_taken() -> None:
    """The ports of the options (as the defaults 8081, 8080, 9090) are used where they are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [one.getsockname()[1] for one in sockets]
    with running("--http-port", str(ports[0]), "--tcp-port", str(ports[1]), "--admin-port", str(ports[2])) as demo:
        assert [demo.http, demo.tcp, demo.admin] == ports


def test_a_killed_demo_leaves_nothing_behind() -> None:
    """SIGKILL for the demo ends the gateway, its workers, the registrations and the backends."""
    with running() as demo:
        assert len(demo.processes) >= 9  # gateway, zygote and two workers; three registrations with their backends
        demo.process.kill()
        wait_for(demo.all_gone, 15, "everything to end")


def test_a_gateway_that_dies_ends_the_demo() -> None:
    """When the gateway goes by itself, the demo says so, ends the backends and has exit code 1."""
    with running() as demo:
        demo.find("-config").kill()
        assert demo.wait() == 1
        assert demo.said("the gateway ended with code -9")
        assert demo.all_gone()


def test_a_backend_that_dies_is_said_and_nothing_else_ends() -> None:
    """A backend that goes by itself is reported; the gateway serves on with the others."""
    with running() as demo:
        demo.find("demo.http_backend --port").kill()  # the registration's command: it ends with it
        wait_for(lambda: demo.said("the gateway goes on without it"), what="the report")
        wait_for(lambda: len({demo.page() for _ in range(4)}) == 1, what="the other one to answer alone")


def test_a_second_signal_does_not_wait() -> None:
    """Ctrl-C twice kills what is still at work."""
    with running() as demo, socket.create_connection(("127.0.0.1", demo.tcp), timeout=10) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        demo.process.send_signal(signal.SIGINT)
        wait_for(lambda: demo.said("Ending the gateway"), what="the first to be heard")
        demo.process.send_signal(signal.SIGINT)
        assert demo.wait() == 0
        assert demo.all_gone()
