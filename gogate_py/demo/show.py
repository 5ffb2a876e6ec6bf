"""What the demo prints: the addresses and four commands that work as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from gogate_py.demo.configuration import HOST, Ports, choose

#: The default of gogate register's --admin.
_DEFAULT_ADMIN_PORT = 9090


def welcome(ports: Ports, config_path: Path) -> str:
    """The text for a gateway on these ports. The commands are the lines that are indented by six spaces."""
    admin = f"http://{HOST}:{ports.admin}"
    (free,) = choose(9005)
    register = [*own_command(), "register", "--name", "web", "--address", f":{free}"]
    if ports.admin != _DEFAULT_ADMIN_PORT:
        register += ["--admin", admin]
    python = "python3" if shutil.which("python3") else sys.executable
    register += ["--", python, "-m", "http.server", "--bind", HOST, str(free)]
    return f"""
gogate is running with three backends that registered themselves. Ctrl-C ends everything.

  HTTP    {f"http://{HOST}:{ports.http}":24}pool web: web-1 and web-2
  TCP     {f"{HOST}:{ports.tcp}":24}pool echo: echo-1
  Admin   {admin:24}the dashboard, in a browser; /backends  /stats  /metrics  /v1/services
  Config  {config_path}

Try in another terminal:

  1. Ask the web pool, several times: its backends take turns. (Also: /headers, /slow?ms=500, /status/503, /events)
      curl http://{HOST}:{ports.http}/
  2. Send bytes through the TCP listener; the echo sends them back.
      echo hello | nc -w 1 {HOST} {ports.tcp}
  3. Register a backend of your own. It is in the pool while its command runs; its answer is a list of files.
      {shlex.join(register)}
  4. Drain web-1: it finishes what it has and gets nothing new. (/undrain brings it back)
      curl -X POST {admin}/backends/web-1/drain

The gateway's log:
"""


def own_command() -> list[str]:
    """How to call gogate from a shell in this directory: by its name where that finds this installation."""
    script = Path(sys.executable).parent / "gogate"
    if not script.exists():
        return [sys.executable, "-m", "gogate_py"]
    found = shutil.which("gogate")
    if found and os.path.samefile(found, script):
        return ["gogate"]
    here = Path.cwd()
    return [str(script.relative_to(here) if script.is_relative_to(here) else script)]
