"""Real servers for tests, on free ports and gone with their block: PostgreSQL, Redis, nginx, uvicorn, Prometheus.

Data lives in a temporary folder of its own; nothing of the machine's own installation is touched.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from conftest import need_program
from doubles.gateway import wait_for

DOUBLES = Path(__file__).parent


def free_port() -> int:
    """A TCP port that nobody has right now, on any address of the machine; not one of those that the kernel gives to
    connections, which would take it between here and its use, nor one that tests beside this one are given."""
    runners = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.randrange(10_000 + mine, 32_000, runners)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("", port))
            return port


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int, path: str) -> bool:
    """Whether this path of an HTTP server is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], *, user: str = "", end: int = signal.SIGTERM, **popen: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ready as ``ready`` says, until the end of the block; it is quoted when it does not start."""
    with tempfile.TemporaryFile() as output:
        process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]  # options pass through
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=user or None,
            extra_groups=[] if user else None, **popen,
        )

        def is_ready() -> bool:
            if process.poll() is not None:
                output.seek(0)
                raise AssertionError(f"{command[0]} ended with {process.returncode}: {output.read().decode()}")
            return ready()

        try:
            wait_for(is_ready, 30.0, f"{command[0]} to be ready")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(end)
                try:
                    process.wait(10.0)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """A PostgreSQL with a superuser ``postgres`` without password; → its port. fsync is off: no test is about it."""
    initdb, server = need_program("initdb"), need_program("postgres")
    need_program("psql")
    user = "postgres" if os.geteuid() == 0 else ""  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="gogate-pg-") as folder:
        data = Path(folder, "data")
        data.mkdir(mode=0o700)
        if user:
            account = pwd.getpwnam(user)
            for path in (folder, data):
                os.chown(path, account.pw_uid, account.pw_gid)
        command = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            command, check=True, capture_output=True, cwd=folder, user=user or None, extra_groups=[] if user else None
        )
        port = free_port()
        options = {"fsync": "off", "unix_socket_directories": folder, "listen_addresses": "127.0.0.1",
                   "port": str(port), "max_wal_size": "2GB", "autovacuum": "off", "shared_buffers": "64MB"}
        arguments = [server, "-D", str(data), *(f"--{key}={value}" for key, value in options.items())]
        probe = [need_program("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "select 1"]
        with running(
            arguments, lambda: subprocess.run(probe, capture_output=True).returncode == 0,
            user=user, cwd=folder, end=signal.SIGINT,  # fast shutdown: open sessions are ended
        ):
            yield port


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """A Redis without persistence; → its port."""
    server = need_program("redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-redis-") as folder:
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with running(command, lambda: accepts(port)):
            yield port


_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    types {{ text/html html; text/plain txt; }}
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location = /health {{ return 200 "ok\\n"; }}
        location = /who {{ default_type text/plain; return 200 "$host|$http_x_forwarded_for|$http_x_request_id\\n"; }}
        location /files/ {{ alias {root}/; }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(files: dict[str, bytes]) -> Iterator[int]:
    """An nginx that serves these files under /files/ and at /; → its port. ``/who`` tells what it was asked with."""
    program = need_program("nginx")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-nginx-") as folder:
        os.chmod(folder, 0o755)
        root = Path(folder, "root")
        root.mkdir()
        for name, content in files.items():
            Path(root, name).write_bytes(content)
        config = Path(folder, "nginx.conf")
        config.write_text(_NGINX.format(folder=folder, root=root, port=port))
        command = [program, "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"]
        with running(command, lambda: accepts(port)):
            yield port


@contextlib.contextmanager
def prometheus(config: Path) -> Iterator[int]:
    """A Prometheus with this configuration; → its port."""
    program = need_program("prometheus")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gogate-prometheus-") as folder:
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with running(command, lambda: answers(port, "/-/ready"), cwd=folder):
            yield port


@contextlib.contextmanager
def uvicorn_app(path: str = "") -> Iterator[int]:
    """doubles/asgi_app.py under uvicorn, on a free port (→ it) or on the Unix socket ``path`` (→ 0)."""
    port = 0 if path else free_port()
    where = ["--uds", path] if path else ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "uvicorn", "asgi_app:app", *where, "--log-level", "warning", "--no-access-log",
               "--timeout-graceful-shutdown", "1"]
    with running(command, lambda: Path(path).is_socket() if path else accepts(port), cwd=DOUBLES):
        yield port
