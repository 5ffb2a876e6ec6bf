"""``gogate register`` against a real admin API, with real child processes and real signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from doubles.gateway import ROOT, wait_for

sys.path.insert(0, str(Path(__file__).parent.parent / "controlplane"))
from admin_harness import CONFIG, TOKEN, AdminHarness, admin_api

from gogate_py.cli.register import register

WAIT = "import sys; sys.stdin.read(); sys.exit(7)"
#: Says which signal came, and goes on for as long as its standard input is open.
TELL = """
import signal, sys
def tell(number, frame):
    print("got", number, flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, tell)
signal.signal(signal.SIGINT, tell)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def api() -> Iterator[AdminHarness]:
    """A running admin API."""
    with admin_api() as harness:
        yield harness


class Registering:
    """One running ``gogate register``."""

    def __init__(self, *arguments: str, **env: str) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GOGATE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gogate_py", "register", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**environ, **env, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def has_said(self, words: str) -> bool:
        """Whether a line on standard error had these words."""
        return any(words in line for line in self.said)

    def end(self) -> int:
        """Close its standard input and wait; → exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(20)
        self._reader.join(5)
        return code


@contextmanager
def registering(*arguments: str, **env: str) -> Iterator[Registering]:
    """Run it, and leave nothing behind."""
    running = Registering(*arguments, **env)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
        running._reader.join(5)
        for stream in (running.process.stdin, running.process.stdout, running.process.stderr):
            if stream is not None:
                stream.close()


def ids(api: AdminHarness) -> list[str]:
    """Who is registered."""
    return [one.id for one in api.control.registrations()]


def test_a_command_is_registered_while_it_lives(api: AdminHarness) -> None:
    """Everything given arrives; the command's end deregisters; its exit code is ours."""
    with registering(
        "--name", "api", "--address", ":9100", "--id", "one", "--tags", "v2, eu", "--tag", "x", "--weight", "3",
        "--ttl", "20s", "--metadata", "zone=a", "--metadata", "url=a=b", "--admin", api.url,
        "--", sys.executable, "-c", WAIT,
    ) as running:  # fmt: skip
        wait_for(lambda: running.has_said("registered one at 127.0.0.1:9100"), 20.0)
        one = api.control.registration("one")
        assert one is not None
        assert (one.name, one.address, tuple(one.tags), one.weight, one.ttl) == (
            "api", "127.0.0.1:9100", ("v2", "eu", "x"), 3, 20.0)  # fmt: skip
        assert one.metadata == {"zone": "a", "url": "a=b"}
        assert running.end() == 7
        assert ids(api) == []
        assert running.has_said("deregistered one")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_deregisters_and_is_passed_on(api: AdminHarness, number: int) -> None:
    """The gateway is told before the command is: it sends nothing more to a service that is about to end."""
    with registering(
        "--name", "api", "--address", "127.0.0.1:9100", "--admin", api.url, "--", sys.executable, "-c", TELL
    ) as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "ready\n"
        wait_for(lambda: ids(api))
        running.process.send_signal(number)
        assert running.process.stdout.readline() == f"got {int(number)}\n"
        assert ids(api) == []
        assert running.process.wait(20) == 3


COUNT = """
import signal, sys
signal.signal(signal.SIGINT, lambda number, frame: print("got", number, flush=True))
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
print("ready", flush=True)
while True:
    signal.pause()
"""


def test_ctrl_c_in_a_terminal_reaches_the_command_once(api: AdminHarness) -> None:
    """A terminal sends SIGINT to the whole group; passing it on as well would be a second one."""
    control, terminal = os.openpty()

    take_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", take_terminal, sys.executable, "-m", "gogate_py", "register", "--name", "api",
         "--address", ":9100", "--admin", api.url, "--", sys.executable, "-c", COUNT],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert ids(api)
        os.write(control, b"\x03")
        assert process.stdout.readline() == "got 2\n"
        wait_for(lambda: not ids(api), what="the registration to go")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(20) == 3
    finally:
        process.kill()
        process.wait()
        os.close(control)
        os.close(terminal)
        if process.stdout is not None:
            process.stdout.close()


def test_a_command_that_a_signal_ends(api: AdminHarness) -> None:
    """128 + the signal's number, as in a shell."""
    arguments = ("--name", "api", "--address", ":9100", "--admin", api.url, "--", "sh", "-c", "kill -KILL $$")
    with registering(*arguments) as running:
        assert running.process.wait(20) == 137
    assert ids(api) == []


def test_without_a_command_until_a_signal(api: AdminHarness) -> None:
    """It holds the registration alone, and ends with 0."""
    with registering("--name", "api", "--address", ":9100", GOGATE_ADMIN=api.url) as running:
        wait_for(lambda: ids(api), 20.0)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    assert ids(api) == []


def test_a_command_that_cannot_be_run(api: AdminHarness, tmp_path: Path) -> None:
    """127 when it is not there, 126 when it may not be run; the registration is taken back."""
    no_program = tmp_path / "data"
    no_program.write_text("x")
    for command, code in (("/no/such/program", 127), (str(no_program), 126)):
        arguments = ("--name", "api", "--address", ":9100", "--admin", api.url, "--", command)
        with registering(*arguments) as running:
            assert running.end() == code
            assert running.has_said("cannot run")
    assert ids(api) == []


def test_what_the_gateway_refuses_ends_before_the_command_starts(api: AdminHarness, tmp_path: Path) -> None:
    """A forbidden address: the reason, exit code 1, and the command never ran."""
    ran = tmp_path / "ran"
    arguments = ("--name", "api", "--address", "8.8.8.8:53", "--admin", api.url, "--", "touch", str(ran))
    with registering(*arguments) as running:
        assert running.end() == 1
        assert running.has_said("403")
        assert running.has_said("8.8.8.8")
    assert not ran.exists()


def test_the_token_comes_from_a_file_or_the_environment(api: AdminHarness, tmp_path: Path) -> None:
    """It is sent with every call; a wrong one is refused, and says so."""
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN}\n")
    # A client on this machine that shows a token is held to it.
    common = ("--name", "api", "--address", ":9100", "--admin", api.url)
    with registering(*common, "--token-file", str(token_file), "--", "true") as running:
        assert running.process.wait(20) == 0
    with registering(*common, "--", "true", GOGATE_TOKEN=TOKEN) as running:
        assert running.process.wait(20) == 0
    with registering(*common, "--", "true", GOGATE_TOKEN="guess") as running:
        assert running.end() == 1
        assert running.has_said("401")


def test_a_gateway_that_comes_later() -> None:
    """The command runs at once; the registration follows when the admin API is there; trouble is told once."""
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    config = (CONFIG % TOKEN)
    arguments = ("--name", "api", "--address", ":9100", "--id", "late", "--ttl", "2s", "--admin", f"127.0.0.1:{port}")
    with registering(*arguments, "--", sys.executable, "-c", TELL) as running:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "ready\n"
        wait_for(lambda: running.has_said("cannot reach the admin API"), 20.0)
        with admin_api(config, port=port) as api:
            wait_for(lambda: ids(api) == ["late"], 20.0)
            wait_for(lambda: running.has_said("answers again"))
            # A restarted gateway knows nobody: the next heartbeat registers again.
            api.ask("DELETE", "/v1/services/late")
            wait_for(lambda: ids(api) == ["late"], 20.0)
            wait_for(lambda: running.has_said("registering again"))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(20) == 3
        assert len([line for line in running.said if "cannot reach" in line]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", ":1"], "--name"),
        (["--name", "a"], "--address"),
        (["--name", "a", "--address", "nonsense"], "port"),
        (["--name", "a", "--address", ":1", "--ttl", "1h"], "duration"),
        (["--name", "a", "--address", ":1", "--ttl", "soon"], "duration"),
        (["--name", "a", "--address", ":1", "--weight", "-1"], "weight"),
        (["--name", "a", "--address", ":1", "--metadata", "x"], "KEY=VALUE"),
        (["--name", "a", "--address", ":1", "--admin", "ftp://x"], "admin"),
        (["--name", "a", "--address", ":1", "--admin", "http://x/path"], "admin"),
        (["--name", "a", "--address", ":1", "--token", "a", "--token-file", "b"], "exclude"),
        (["--name", "a", "--address", ":1", "--token", "a b"], "visible"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    """Exit code 2 and what is wrong, before anything is asked of anybody."""
    result = CliRunner().invoke(register, arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_a_missing_token_file(tmp_path: Path) -> None:
    """Exit code 1 and its name."""
    missing = str(tmp_path / "none")
    result = CliRunner().invoke(register, ["--name", "a", "--address", ":1", "--token-file", missing])
    assert result.exit_code == 1
    assert missing in result.output
