"""nginx and HAProxy in never_down.py: the same clients over their reloads and their graceful end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from never_down_load import Cost, Costs, Load, backend
from parts import accepts, free_port, running, wait_until


class Other(NamedTuple):
    """How another server is configured and run. ``streams``: it relays TCP, too."""

    config: str
    command: tuple[str, ...]
    reload: int
    end: int
    streams: bool


OTHERS = {
    "nginx": Other(
        """daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $conn {{ default upgrade; '' ''; }}
  upstream web {{ server 127.0.0.1:{web} weight={weight}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://web; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $conn; }} }} }}
""",
        ("nginx", "-c", "{folder}/conf", "-p", "{folder}", "-e", "{folder}/error.log"),
        signal.SIGHUP, signal.SIGQUIT, False,
    ),
    "haproxy": Other(
        """global
  nbthread 2
  stats socket {folder}/admin level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{web} weight {weight}
listen t
  mode tcp
  bind 127.0.0.1:{tcp}
  server e 127.0.0.1:{echo} weight {weight}
""",
        ("haproxy", "-W", "-f", "{folder}/conf"),
        signal.SIGUSR2, signal.SIGUSR1, True,
    ),
}  # fmt: skip


def program(name: str) -> str | None:
    """Its path, if it is installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def measure(name: str, reloads: int) -> dict[str, Cost]:
    """What so many reloads, and the end, of another server cost."""
    other = OTHERS[name]
    with tempfile.TemporaryDirectory(prefix="gogate-bench-") as folder, backend() as (web, echo):
        os.chmod(folder, 0o755)
        port, tcp, path = free_port(), free_port(), Path(folder, "conf")

        def write(weight: int) -> None:
            path.write_text(other.config.format(folder=folder, port=port, tcp=tcp, web=web, echo=echo, weight=weight))

        write(1)
        _, *arguments = other.command
        command = [program(name) or name, *(argument.format(folder=folder) for argument in arguments)]
        addresses = {"http": ("127.0.0.1", port)}
        if other.streams:
            addresses["tcp"] = ("127.0.0.1", tcp)
        with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: accepts(port), f"{name} to be ready")
            with Load(addresses) as load:
                load.start()
                costs = Costs(load)
                for number in range(reloads):
                    with costs.of(f"{name}: reload"):
                        write(2 + number % 5)
                        process.send_signal(other.reload)
                        time.sleep(0.2)  # they do not say when they are done
                with costs.of(f"{name}: end", settled=False):
                    process.send_signal(other.end)
                    time.sleep(2.0)  # they wait for WebSockets and streams without end
                end = costs.rows[f"{name}: end"]
                for kind, outcome in list(end.failed):
                    if outcome == "refused":  # nobody promised anything
                        del end.failed[kind, outcome]
        return costs.rows
