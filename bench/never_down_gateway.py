"""The gogate of never_down.py: its configuration, every way to reload it, and every kind of change."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trustme
from parts import ROOT, accepts, free_port, running, wait_until

Settings = dict[str, Any]
#: shutdown.gracePeriod, seconds: streams are cut after it.
GRACE = 2


class Gateway:
    """A gogate that is reloaded. Its file is laid out as a ConfigMap is: config.yaml → ..data/config.yaml, ..data → a
    folder with a version."""

    def __init__(self, folder: Path, settings: Settings, admin: int, tls: int) -> None:
        self.process: subprocess.Popen[bytes]
        self.pid = 0  # of the supervisor: after an upgrade another one than that of ``process``
        self.settings = settings
        self.visitors = Visitors(settings)
        self.path = folder / "config.yaml"
        self._folder = folder
        self._admin = admin
        self._tls = tls
        self._versions = 0
        self.new_certificate()
        self._new_version(json.dumps(settings))
        self.path.symlink_to(Path("..data", "config.yaml"))

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """One call of the admin API → status, decoded answer."""
        client = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=30)
        try:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            client.close()

    def workers(self) -> list[dict[str, Any]]:
        """The workers; [] while one of them does not serve."""
        workers: list[dict[str, Any]] = self.ask("GET", "/stats")[1]["workers"]
        return workers if all(one["state"] == "serving" for one in workers) else []

    def generation(self) -> int:
        """Of what is served."""
        return int(self.ask("GET", "/stats")[1]["generation"])

    def new_certificate(self) -> None:
        """Exchange the files of the TLS listener's certificate."""
        issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
        for name, blob in (("tls.crt", issued.cert_chain_pems[0]), ("tls.key", issued.private_key_pem)):
            new = self._folder / f"{name}.new"
            new.write_bytes(blob.bytes())
            new.chmod(0o600)
            new.rename(self._folder / name)

    def shows_certificate(self) -> bool:
        """Whether new TLS clients are shown the certificate in the files."""
        wanted = (self._folder / "tls.crt").read_text().strip()
        return all(ssl.get_server_certificate(("127.0.0.1", self._tls)).strip() == wanted for _ in range(4))

    def upgrade(self) -> list[int]:
        """Start the program anew, and wait until it serves; → the workers of the one before, that finish what runs."""
        before, workers = self.pid, [one["pid"] for one in self.workers()]
        os.kill(before, signal.SIGUSR2)

        def serves() -> bool:
            try:
                self.pid = self.ask("GET", "/stats")[1]["pid"]
            except OSError:
                return False
            return self.pid != before

        wait_until(serves, "an upgrade")
        return workers

    # --- ways to reload

    def reload(self, way: str = "POST /reload") -> None:
        """Have the settings as they are now served, in one of WAYS. Ends the program when they are not."""
        before = self.generation()
        WAYS[way](self, json.dumps(self.settings, indent=1))

        def served() -> bool:
            status = self.ask("GET", "/config/status")[1]
            if not status["in_sync"]:
                raise SystemExit(f"the settings are not served: {status}")
            return bool(status["history"][0]["generation"] > before)

        wait_until(served, f"a reload by {way}")

    def refuses(self, text: bytes) -> bool:
        """Offer a broken file; → whether it was refused and nothing changed. The good one is put back."""
        good, before = self.path.read_bytes(), self.generation()
        self._replace(text)
        status = self.ask("POST", "/reload")[0]
        untouched = self.generation() == before
        self._replace(good)
        return untouched and status == 400 and self.ask("POST", "/reload")[0] == 200

    def _replace(self, text: bytes) -> None:
        """Another file by rename, where the last link leads."""
        real = self.path.resolve()
        new = real.with_suffix(".new")
        new.write_bytes(text)
        new.rename(real)

    def _new_version(self, text: str) -> None:
        """As the kubelet does it: a folder more, and the link ..data swapped to it."""
        self._versions += 1
        version = self._folder / f"..v{self._versions}"
        version.mkdir()
        (version / "config.yaml").write_text(text)
        link = self._folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._folder / "..data")

    def written(self, text: str) -> None:
        """In place; the watch sees it."""
        self.path.write_text(text)

    def renamed(self, text: str) -> None:
        """By rename; the watch sees it."""
        self._replace(text.encode())

    def swapped(self, text: str) -> None:
        """By a swap of links; the watch sees it."""
        self._new_version(text)

    def signalled(self, text: str) -> None:
        """By SIGHUP, at once after the change."""
        self._replace(text.encode())
        os.kill(self.pid, signal.SIGHUP)

    def asked(self, text: str) -> None:
        """By the admin API."""
        self._replace(text.encode())
        self.ask("POST", "/reload")


WAYS: dict[str, Callable[[Gateway, str], None]] = {
    "file written": Gateway.written,
    "file renamed": Gateway.renamed,
    "symlink swapped": Gateway.swapped,
    "SIGHUP": Gateway.signalled,
    "POST /reload": Gateway.asked,
}


class Visitors:
    """Streams on a listener that comes, moves and goes: whoever is there stays until it leaves."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._streams: list[socket.socket] = []
        self._port = 0
        self.failed = 0
        self.ok = 0

    def next_step(self) -> None:
        """The settings with the listener added, moved to another port, or removed: in turn."""
        self._settings["routes"] = [route for route in self._settings["routes"] if route["name"] != "visitors"]
        if len(self._streams) < 8:  # none yet: added; four: moved
            self._port = free_port()
            address = f"127.0.0.1:{self._port}"
            self._settings["routes"].append(
                {"name": "visitors", "type": "tcp", "listenAddr": address, "pool": "echo"}
            )
        else:
            self._port = 0

    def look(self) -> None:
        """After the reload: new streams where the listener is now; all streams, those of listeners that are gone as
        well, get back what they send; then, when it is removed, they leave."""
        for _ in range(4 if self._port else 0):
            try:
                self._streams.append(socket.create_connection(("127.0.0.1", self._port), 10))
            except OSError:
                self.failed += 1
        for stream in self._streams:
            good = _comes_back(stream)
            self.ok += good
            self.failed += not good
        if not self._port:
            self.leave()

    def leave(self) -> None:
        """Close all streams."""
        for stream in self._streams:
            stream.close()
        self._streams = []


def _comes_back(stream: socket.socket) -> bool:
    word, back = os.urandom(4096), b""
    try:
        stream.sendall(word)
        while len(back) < len(word) and (data := stream.recv(len(word))):
            back += data
    except OSError:
        return False
    return back == word


# --- kinds of change: each changes the settings for its n-th time


def _route(one: Gateway, n: int) -> None:
    routes = one.settings["routes"]
    routes[:] = [route for route in routes if not route["name"].startswith("more-")]
    if n % 2:
        routes.append({"name": f"more-{n}", "match": {"path": f"/{n}"}, "pool": "web"})


def _changed_route(one: Gateway, n: int) -> None:
    one.settings["routes"][0]["requestHeaders"] = {"set": {"X-Number": str(n)}}


def _pool(one: Gateway, n: int) -> None:
    pools, routes = one.settings["pools"], one.settings["routes"]
    for name in [name for name in pools if name.startswith("pool-")]:
        del pools[name]
    new = f"pool-{n % 3}" if n % 2 else "web"
    pools.setdefault(new, {"backends": list(pools["web"]["backends"])})
    routes[0]["pool"] = new


def _weights(one: Gateway, n: int) -> None:
    first, *_ = one.settings["pools"]["web"]["backends"]
    port = (first["addr"] if isinstance(first, dict) else first).rpartition(":")[2]
    one.settings["pools"]["web"]["backends"] = [{"addr": f"127.0.0.1:{port}", "weight": 1 + n % 3}] + (
        [f"localhost:{port}"] if n % 2 else []
    )


def _balancer(one: Gateway, n: int) -> None:
    names = ("round_robin", "p2c", "least_connections", "weighted_round_robin")
    one.settings["pools"]["web"]["loadBalancer"] = names[n % 4]


def _protection(one: Gateway, n: int) -> None:
    one.settings["pools"]["web"]["circuitBreaker"] = {"enabled": bool(n % 2), "failureThreshold": 5 + n}
    one.settings["routes"][0]["rateLimit"] = {"rate": 1_000_000 + n, "per": "1s", "burst": 1_000_000}
    one.settings["server"]["timeouts"] = {"responseHeader": f"{10 + n}s"}


def _visitors(one: Gateway, n: int) -> None:
    one.visitors.next_step()


def _renamed_listener(one: Gateway, n: int) -> None:
    one.settings["routes"][1]["name"] = f"echo-{n}"


def _moved_listener(one: Gateway, n: int) -> None:
    port = one.settings["server"]["httpListenAddr"].rpartition(":")[2]
    one.settings["server"]["httpListenAddr"] = f":{port}" if n % 2 else f"127.0.0.1:{port}"


def _certificate(one: Gateway, n: int) -> None:
    one.new_certificate()


def _operators(one: Gateway, n: int) -> None:
    one.settings["server"]["admin"]["token"] = f"token-of-the-bench-{n}"
    one.settings["logging"] = {"level": ("info", "warn")[n % 2], "access": {"enabled": bool(n % 2)}}


KINDS: dict[str, Callable[[Gateway, int], None]] = {
    "route added, removed": _route,
    "route changed": _changed_route,
    "pool added, removed, under a route": _pool,
    "backend added, removed, weight": _weights,
    "balancer": _balancer,
    "breaker, limits, timeouts": _protection,
    "listener added, moved, removed": _visitors,
    "listener renamed, with streams on it": _renamed_listener,
    "listener moved (127.0.0.1:p, :p)": _moved_listener,
    "certificate exchanged": _certificate,
    "admin token, logging": _operators,
}
BROKEN = (
    b"server: [\n", b"server:\n  httpListenAdr: ':1'\n", b"", b"- a\n", b"server: {workers: no}\n", b"\xff",
    b"server: {httpListenAddr: ':99999'}\n", b"pools: {a: {backends: [nowhere]}}\n", b"a: &a [*a]\n",
    b"server: {httpListenAddr: '192.0.2.1:80'}\n",
)  # fmt: skip


@contextlib.contextmanager
def gateway(web: int, echo: int) -> Iterator[tuple[Gateway, dict[str, tuple[str, int]]]]:
    """A gogate with two workers before the backend; → it, and its addresses for clients."""
    ports = {name: free_port() for name in ("http", "tcp", "tls")}
    admin = free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-bench-") as name:
        settings: Settings = {
            "server": {
                "workers": 2, "httpListenAddr": f"127.0.0.1:{ports['http']}",
                "admin": {"listenAddr": f"127.0.0.1:{admin}"},
                "health": {"enabled": False}, "shutdown": {"gracePeriod": f"{GRACE}s"},
                "limits": {"connectionsPerClient": 0},
            },
            "listeners": [{
                "name": "secure", "type": "http", "listenAddr": f"127.0.0.1:{ports['tls']}",
                "tls": {"certificates": [{"certFile": f"{name}/tls.crt", "keyFile": f"{name}/tls.key"}]},
            }],
            "pools": {
                "web": {"backends": [f"127.0.0.1:{web}", f"localhost:{web}"]},
                "echo": {"backends": [f"127.0.0.1:{echo}"]},
            },
            "routes": [
                {"name": "web", "pool": "web"},
                {"name": "echo", "type": "tcp", "listenAddr": f"127.0.0.1:{ports['tcp']}", "pool": "echo"},
            ],
        }  # fmt: skip
        one = Gateway(Path(name), settings, admin, ports["tls"])
        log_path = Path(name, "log")
        with log_path.open("wb") as log, running(
            [sys.executable, "-m", "gogate_py", "-config", str(one.path)], stdout=subprocess.DEVNULL, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            one.process, one.pid = process, process.pid

            def ready() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"gogate ended: {log_path.read_text()}")
                return accepts(admin) and len(one.workers()) == 2

            wait_until(ready, "gogate to be ready")
            try:
                yield one, {name: ("127.0.0.1", port) for name, port in ports.items()}
            finally:
                one.visitors.leave()
                with contextlib.suppress(ProcessLookupError):
                    if one.pid != process.pid:
                        os.kill(one.pid, signal.SIGKILL)
