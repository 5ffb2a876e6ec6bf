"""gogate as a service of systemd: what it says when, and sockets that it did not open itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from doubles.gateway import wait_for
from doubles.http_backend import HttpBackend
from doubles.upgrading import gone

ROOT = Path(__file__).parent.parent.parent

CONFIG = """
server:
  workers: 2
  httpListenAddr: "127.0.0.1:{port}"
  admin: {{listenAddr: "unix:{folder}/admin.sock"}}
  backends: ["{backend}"]
"""


@pytest.mark.parametrize("activated", [False, True])
def test_the_life_of_a_service(activated: bool, tmp_path: Path) -> None:
    """READY when it serves, RELOADING and READY around a reload, MAINPID at an upgrade, STOPPING when it drains; the
    socket that systemd opened is served by both workers, and a client that came before the start is answered."""
    with (
        HttpBackend() as backend,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket() as listening,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        if activated:
            listening.listen()
            early = socket.create_connection(("127.0.0.1", port))
            early.sendall(b"GET /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        else:
            listening.close()
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(port=port, folder=tmp_path, backend=backend.address))
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        run = f'exec "{sys.executable}" -m gogate_py -config "{config}"'
        if activated:
            run = f"LISTEN_FDS=1; LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec 3<&{listening.fileno()}; {run}"
        process = subprocess.Popen(
            ["/bin/bash", "-c", run],
            pass_fds=[listening.fileno()] if activated else [],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        upgraded = 0
        try:
            assert manager.recv(1000) == b"READY=1\nMAINPID=%d" % process.pid
            if activated:
                listening.close()
                assert early.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
                early.close()
            for _ in range(8):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200
            process.send_signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\n")
            assert manager.recv(1000).startswith(b"READY=1\n")
            process.send_signal(signal.SIGUSR2)
            said = manager.recv(1000)
            assert said.startswith(b"MAINPID=")
            upgraded = int(said[8:])
            assert manager.recv(1000) == b"READY=1\nMAINPID=%d" % upgraded
            assert process.wait(20) == 0
            for _ in range(8):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    assert answer.status == 200
            os.kill(upgraded, signal.SIGTERM)
            assert manager.recv(1000) == b"STOPPING=1"
            wait_for(lambda: gone(upgraded), 20.0, "the end of the new one")
            upgraded = 0
        finally:
            process.kill()
            process.wait()
            if upgraded:
                os.kill(upgraded, signal.SIGKILL)
