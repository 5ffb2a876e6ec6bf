"""A whole gogate as a user starts it: ``python -m gogate_py -config FILE``, real processes, ports that the kernel
chose.

    with Gateway(config_text) as gateway:
        gateway.http, gateway.tcp["postgres"], gateway.admin   # "127.0.0.1:port"

Configurations use port 0 (``127.0.0.1:0``); the real addresses are read from the "gogate is ready" line.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def wait_for(condition: Callable[[], Any], timeout: float = 10.0, what: str | Callable[[], str] = "") -> Any:
    """Poll a condition until it is true; its value. Fails after ``timeout`` seconds with what was waited for; a
    function of it is asked then."""
    give_up = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {timeout} s in vain for {(what() if callable(what) else what) or condition}")
        threading.Event().wait(0.01)


class Gateway:
    """One running gateway. ``log`` holds its own lines (stderr), ``access`` its access lines (stdout), parsed."""

    def __init__(
        self,
        config: str,
        *,
        env: dict[str, str] | None = None,
        wait: bool = True,
        stdout: int | None = None,
        descriptors: int = 0,
        prepare: Callable[[Path], None] | None = None,
    ) -> None:
        """``stdout``: a descriptor for standard output, which is then not read here. ``descriptors``: ulimit -n.
        ``prepare``: puts files beside the configuration."""
        self._folder = tempfile.TemporaryDirectory(prefix="gogate-test-")
        self.config_path = Path(self._folder.name, "config.yaml")
        self.config_path.write_text(config)
        if prepare is not None:
            prepare(self.config_path.parent)
        self.log: list[dict[str, Any]] = []
        self.access: list[dict[str, Any]] = []
        self.broken: list[str] = []  # lines that are not JSON objects
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GOGATE_")}
        environ.update(env or {})
        environ.setdefault("PYTHONPATH", "")
        if not (env or {}).get("PYTHONPATH"):
            environ["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "gogate_py", "-config", str(self.config_path)]
        if descriptors:
            command = ["/bin/sh", "-c", 'ulimit -n "$0"; exec "$@"', str(descriptors), *command]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd=self._folder.name,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into), daemon=True)
            for stream, into in ((self.process.stdout, self.access), (self.process.stderr, self.log))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()
        self.listeners: dict[str, str] = {}
        self.admin = ""
        self.metrics_address = ""
        if wait:
            self.wait_ready()

    def _read(self, stream: Any, into: list[dict[str, Any]]) -> None:
        for raw in stream:
            try:
                into.append(json.loads(raw))
            except ValueError:
                self.broken.append(raw.decode(errors="replace"))

    def wait_ready(self) -> None:
        """Wait for the ready line and take the addresses from it (done by the constructor unless ``wait`` is False)."""

        def ready() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"gogate ended with {self.process.returncode}: {self.broken} {self.log}")
            return next((line for line in self.log if line["msg"] == "gogate is ready"), None)

        line = wait_for(ready, 20.0, "the ready line")
        self.listeners = {name: self._local(address) for name, address in line["listeners"].items()}
        self.admin = self._local(line["admin"].get("admin", ""))
        self.metrics_address = self._local(line["admin"].get("metrics", ""))

    @staticmethod
    def _local(address: str) -> str:
        return f"127.0.0.1{address}" if address.startswith(":") else address

    @property
    def http(self) -> str:
        """Address of the HTTP listener."""
        return self.listeners["http:default"]

    @property
    def tcp(self) -> str:
        """Address of the short form's TCP listener."""
        return self.listeners["tcp:default-tcp"]

    def address(self, listener: str) -> tuple[str, int]:
        """Host and port of a listener id."""
        host, _, port = self.listeners[listener].rpartition(":")
        return host, int(port)

    def logged(self, message: str) -> list[dict[str, Any]]:
        """The program's own lines with this ``msg``."""
        return [line for line in self.log if line["msg"] == message]

    def pids(self) -> list[int]:
        """The worker processes."""
        return [worker["pid"] for worker in self.admin_json("GET", "/stats")["workers"]]

    def admin_request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request to the admin API → (status, headers, body)."""
        host, _, port = self.admin.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            data = None if body is None else json.dumps(body)
            send = dict(headers or {})
            if data is not None:
                send.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, send)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def admin_json(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer of a request that must succeed."""
        status, _, data = self.admin_request(method, path, body)
        assert status < 400, (status, data)
        return json.loads(data) if data else None

    def get(self, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One GET through the HTTP listener."""
        host, port = self.address("http:default")
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """All samples: 'name{labels}' → value."""
        _, _, body = self.admin_request("GET", "/metrics")
        samples = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 when there is none."""
        total = 0.0
        for sample, value in self.metrics().items():
            found, _, rest = sample.partition("{")
            if found == name and labels.items() <= dict(_LABEL.findall(rest)).items():
                total += value
        return total

    def send_signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """End it and wait; → exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("gogate did not end") from None
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        internal = [line for line in self.log if line["msg"] == "internal error"]
        with contextlib.suppress(AssertionError):
            self.stop(signal.SIGINT, 10.0)
        if self.process.poll() is None:
            self.process.kill()
        self._folder.cleanup()
        if exc[0] is None:
            assert not internal, internal
            assert not self.broken, self.broken


@contextlib.contextmanager
def echo_server() -> Iterator[tuple[str, int]]:
    """A TCP echo server on a free port, one thread a connection; half-closes after the client did."""
    import socket
    import socketserver

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(65536):
                self.request.sendall(data)
            with contextlib.suppress(OSError):
                self.request.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that resets is part of the tests."""

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server.server_address[0], server.server_address[1]
        server.shutdown()
