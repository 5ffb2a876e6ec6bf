"""``gogate top`` in a real terminal, before a real gateway."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from doubles.http_backend import HttpBackend
from doubles.reloading import Reloading, reloading
from doubles.servers import free_port
from doubles.terminal import DOWN, ENTER, ESCAPE, TAB, Terminal

pytestmark = pytest.mark.slow

ANY = "127.0.0.1:0"
TOKEN = "token-of-the-operators"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Reloading]:
    """Pools web and api, the second of which never answers; requests to both come all the time."""
    with HttpBackend("a") as one, HttpBackend("b") as other:
        settings = {
            "server": {"httpListenAddr": ANY, "admin": {"listenAddr": ANY, "token": TOKEN}},
            "pools": {"web": {"backends": [one.address, other.address]},
                      "api": {"backends": [f"127.0.0.1:{free_port()}"]}},
            "routes": [{"name": "web", "pool": "web"}, {"name": "api", "match": {"pathPrefix": "/api"}, "pool": "api"}],
        }  # fmt: skip
        with reloading(settings) as found, requests(found.gateway.address("http:default")):
            yield found


@contextmanager
def requests(address: tuple[str, int]) -> Iterator[None]:
    """Four requests to / for each one to /api, until the end."""
    ended = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(*address, timeout=10)
        while not ended.is_set():
            for path in ("/", "/", "/", "/", "/api"):
                connection.request("GET", path)
                connection.getresponse().read()
            ended.wait(0.01)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ended.set()
    thread.join()


def top(gateway: Reloading | str, *arguments: str, before: Sequence[str] = (), **options: object) -> Terminal:
    """gogate top with this gateway (or this address), looking five times a second. ``before``: what runs it."""
    url = gateway if isinstance(gateway, str) else f"http://{gateway.gateway.admin}"
    command = [*before, sys.executable, "-m", "gogate_py", "top", "--admin", url, "--interval", "200ms", *arguments]
    return Terminal(command, **options)  # type: ignore[arg-type]


def in_order(terminal: Terminal) -> bool:
    """Whether the terminal was left as it was found: its settings, the screen of before, a visible cursor."""
    shown = terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")
    cursor = terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")
    return terminal.settings_now() == terminal.settings and shown and cursor


def rows(terminal: Terminal) -> list[list[str]]:
    """The rows of the table that is shown."""
    lines = terminal.lines()
    headings = [at for at, line in enumerate(lines) if line.startswith(("BACKEND", "ROUTE", "REASON", "LISTENER"))]
    return [line.split() for line in lines[headings[0] + 1 : -1] if line] if headings else []


def percentiles(terminal: Terminal) -> list[float]:
    """p50, p95, p99 of the first route."""
    found = [text for row in rows(terminal)[:1] for text in row[4:7]]
    return [float(text) for text in found] if re.fullmatch(r"([0-9.]+ ?){3}", " ".join(found)) else [0.0]


def pools(terminal: Terminal) -> list[str]:
    """The second column of the rows: of backends, their pools."""
    return [row[1] for row in rows(terminal) if len(row) > 1]


def test_shows_traffic_sorts_filters_and_quits(gateway: Reloading) -> None:
    """Rates and percentiles of what runs; errors with their reason; tables; the terminal is left as it was."""
    with top(gateway) as terminal:
        terminal.wait("ready", "2 of 2 workers", "backends 3", "errors     ", "pool api ", " ms  2xx ")
        assert terminal.style("ready").fg == "green"
        terminal.until(lambda: pools(terminal) == ["web", "web", "api"], "the busiest first")
        terminal.type("r")
        terminal.wait("by requests reversed")
        terminal.until(lambda: pools(terminal) == ["api", "web", "web"], "the other way round")
        terminal.type("/" + "API" + ENTER)
        terminal.wait("filter: API")
        terminal.until(lambda: pools(terminal) == ["api"], "the filtered rows")
        terminal.type(ESCAPE)
        terminal.wait("BACKEND", without="filter:")
        terminal.until(lambda: len(rows(terminal)) == 3, "all rows")
        terminal.type(TAB)
        terminal.wait("ROUTE", "P99 MS")
        terminal.until(lambda: [row[0] for row in rows(terminal)] == ["web", "api"], "the routes")
        terminal.until(lambda: 0 < min(percentiles(terminal)) == percentiles(terminal)[0], "percentiles")
        terminal.type("3")
        terminal.wait("REASON", "failed at a backend")
        terminal.type("?")
        terminal.wait("any key: back")
        terminal.type("x4")
        terminal.wait("LISTENER", "http:default")
        terminal.type("q")
        assert terminal.end() == 0
        assert in_order(terminal)


def test_drains(gateway: Reloading) -> None:
    """d asks, n changes nothing, y drains the selected backend in its pool; u takes it back."""
    def draining() -> list[str]:
        return [each["addr"] for each in gateway.gateway.admin_json("GET", "/backends")["backends"] if each["draining"]]

    with top(gateway, "--sort", "addr", "--filter", "web", env={"GOGATE_TOKEN": TOKEN}) as terminal:
        terminal.wait("filter: web", "backends 3")
        terminal.until(lambda: pools(terminal) == ["web", "web"], "two rows")
        addresses = [row[0] for row in rows(terminal)]
        terminal.type(f"{DOWN}d")
        terminal.wait(f"drain {addresses[1]} in pool web? y/n")
        terminal.type("n")
        terminal.wait("nothing was changed")
        assert draining() == []
        terminal.type("dy")
        terminal.wait(f"drained {addresses[1]} in pool web")
        assert draining() == [addresses[1]]
        terminal.until(lambda: [row[2] for row in rows(terminal)] == ["up", "drained"], "the drained backend")
        terminal.type("uy")
        terminal.wait(f"undrained {addresses[1]} in pool web", without="  drained ")
        assert draining() == []
        terminal.type("q")
        assert terminal.end() == 0


def test_a_refused_drain_says_so(gateway: Reloading) -> None:
    """A backend that goes while it is asked about: what the admin API says. Ctrl-C quits as q does."""
    backends = gateway.settings["pools"]["api"]["backends"]
    backends.append(gone := f"127.0.0.1:{free_port()}")
    gateway.reload()
    with top(gateway, "--filter", gone) as terminal:
        terminal.wait("backends 4")
        terminal.type("d")
        terminal.wait(f"drain {gone} in pool api? y/n")
        backends.remove(gone)
        gateway.reload()
        terminal.type("y")
        terminal.wait(f"drain {gone}: 404: ", "backends 3")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert in_order(terminal)


def test_a_wrong_token_is_told_before_anything_is_drawn(gateway: Reloading) -> None:
    """As the other commands do: one line, exit code 1."""
    with top(gateway, env={"GOGATE_TOKEN": "wrong"}) as terminal:
        assert terminal.end() == 1
        assert terminal.raw == b"gogate: 401: The bearer token is wrong.\r\n"


def test_narrow_and_resized(gateway: Reloading) -> None:
    """A narrow terminal has the columns that matter; a wider one gets the rest as soon as it is wider."""
    with top(gateway, width=40, height=10) as terminal:
        terminal.wait("BACKEND", "STATE", "REQ/S", without="WEIGHT")
        terminal.resize(100, 20)
        terminal.wait("WEIGHT", "q quit")
        terminal.resize(9, 2)
        terminal.wait("gogate", without="BACKEND")
        terminal.resize(100, 20)
        terminal.wait("WEIGHT", "q quit")
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_leave_the_terminal_in_order(gateway: Reloading, number: int, code: int) -> None:
    """Whoever ends it from outside leaves a usable terminal as well."""
    with top(gateway) as terminal:
        terminal.wait("backends 3")
        terminal.process.send_signal(number)
        assert terminal.end() == code
        assert in_order(terminal)


def test_stopped_and_continued(gateway: Reloading) -> None:
    """Ctrl-Z gives the terminal back to the shell; fg draws again."""
    script = 'set -m; "$@"; echo is-suspended; read; fg >/dev/null; echo has-ended'
    with top(gateway, before=["bash", "--norc", "-c", script, "bash"]) as terminal:
        terminal.wait("backends 3")
        terminal.type("\x1a")
        terminal.wait("is-suspended")
        assert in_order(terminal)
        terminal.clear()
        terminal.type(ENTER)
        terminal.wait("backends 3")
        terminal.type("q")
        assert terminal.end() == 0
        assert b"has-ended" in terminal.raw
        assert in_order(terminal)


def test_a_gateway_that_goes_and_comes_back() -> None:
    """The last figures stay, with the reason why they are old; when it answers again, it goes on."""
    port = free_port()
    settings = {"server": {"httpListenAddr": ANY, "admin": {"listenAddr": f"127.0.0.1:{port}"},
                           "backends": [f"127.0.0.1:{free_port()}"]}}  # fmt: skip
    with reloading(settings) as first, top(first) as terminal:
        terminal.wait("backends 1", "default")
        first.gateway.stop(signal.SIGINT)
        terminal.wait(f"the admin API at http://127.0.0.1:{port} does not answer", "backends 1")
        with reloading(settings):
            terminal.wait("q quit", "backends 1", without="does not answer")
            terminal.type("q")
            assert terminal.end() == 0
        assert in_order(terminal)


def test_one_that_hangs_is_told_and_can_be_left(gateway: Reloading) -> None:
    """While an answer is awaited keys are heard, and the age of the figures is said."""
    with top(gateway) as terminal:
        terminal.wait("backends 3")
        os.kill(gateway.gateway.process.pid, signal.SIGSTOP)
        try:
            terminal.wait("has not answered for ")
            terminal.type("2")
            terminal.wait("ROUTE")
            terminal.type("q")
            assert terminal.end() == 0
        finally:
            os.kill(gateway.gateway.process.pid, signal.SIGCONT)
        assert in_order(terminal)


class TestWithoutTerminal:
    """--once, and what cannot be."""

    @staticmethod
    def run(gateway: Reloading | str, *arguments: str, **env: str) -> tuple[int, list[str]]:
        """→ exit code, lines."""
        with top(gateway, *arguments, width=200, height=60, env=env) as terminal:
            return terminal.end(), [line for line in terminal.raw.decode().splitlines() if line]

    def test_once(self, gateway: Reloading) -> None:
        """Plain text without a single order to the terminal."""
        code, lines = self.run(gateway, "--once", "--interval", "500ms", "--filter", "web", TERM="dumb")
        assert code == 0
        assert lines[0].startswith("gogate ")
        headings = [line.split()[0] for line in lines if line.split()[0].isupper()]
        assert headings == ["BACKEND", "ROUTE"]
        assert not any("\x1b" in line for line in lines)

    def test_once_as_json(self, gateway: Reloading) -> None:
        """Everything, or one table, with the same sorting and filter; rates of what happens."""
        code, lines = self.run(gateway, "--once", "--json", "--interval", "500ms")
        whole = json.loads("\n".join(lines))
        assert code == 0
        assert whole["totals"]["requests"] > 0
        assert whole["totals"]["p50_ms"] <= whole["totals"]["p95_ms"] <= whole["totals"]["p99_ms"]
        assert whole["gateway"]["ready"] is True
        assert [one["name"] for one in whole["routes"]] == ["web", "api"]
        assert whole["seconds"] >= 0.5
        code, lines = self.run(gateway, "--once", "--json", "--table", "backends", "--sort", "pool", "--filter", "127.")
        some = json.loads("\n".join(lines))
        assert [one["pool"] for one in some["backends"]] == ["api", "web", "web"]
        assert "routes" not in some

    @pytest.mark.parametrize(("arguments", "said"), [
        (["--json"], "--json is for --once"),
        (["--sort", "speed"], "'speed' is no column of backends: addr, pool, state"),
        (["--interval", "10ms"], "--interval"),
    ])  # fmt: skip
    def test_wrong_usage(self, gateway: Reloading, arguments: list[str], said: str) -> None:
        """Exit code 2 and what is wrong."""
        code, lines = self.run(gateway, *arguments)
        assert (code, said in " ".join(lines)) == (2, True)

    def test_an_unknown_terminal(self, gateway: Reloading) -> None:
        """One line that leads to --once, exit code 1."""
        code, lines = self.run(gateway, TERM="no-such-terminal")
        assert code == 1
        assert lines[-1].startswith("gogate: the terminal 'no-such-terminal' cannot be used")
        assert lines[-1].endswith("gogate top --once needs none")

    def test_nobody_there(self) -> None:
        """As the other commands: one line, exit code 1."""
        code, lines = self.run(f"http://127.0.0.1:{free_port()}")
        assert (code, len(lines), "does not answer" in lines[0]) == (1, 1, True)
