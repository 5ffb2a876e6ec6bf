"""The benchmark's loads find what is wrong, and its table says so: a proxy that answers badly must never look fast."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from doubles.gateway import ROOT

BENCH = ROOT / "bench"
BODY = bytes(range(128))
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n" + BODY


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """A server that gives this answer to whatever comes, and closes when it is empty; → its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve(sock: socket.socket) -> None:
            with sock, suppress(OSError):  # clients that have seen enough are gone
                while sock.recv(65536) and answer:
                    sock.sendall(answer)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def load(script: str, port: int, *options: str) -> dict[str, Any]:
    """One short run; the "proxy" whose CPU is read is this process."""
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *options, "--pid", str(os.getpid()), "--port", str(port),
         "--connections", "2", "--warm-up", "0.02", "--seconds", "0.05"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_good_answer_is_none() -> None:
    """What is answered well is counted, with its times and the CPU that it took."""
    with server(GOOD) as port:
        found = load("http_load.py", port)
    assert (found["errors"], found["error"]) == (0, "")
    assert found["units"] > 0
    assert found["cpu_ns"] > 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"]


@pytest.mark.parametrize(("answer", "options", "error"), [
    (GOOD.replace(b"200 OK", b"503 No"), (), "the answer was b'HTTP/1.1 503"),
    (GOOD.replace(b"\x05", b"\x06"), (), "other bytes"),
    (GOOD.replace(b"128", b"127"), (), "other bytes"),
    (GOOD + b"more", (), "more than one answer"),
    (GOOD, ("--close",), "does not say that the connection closes"),
    (GOOD.replace(b"Content-Length: 128", b"X: y"), (), "the answer was"),
    (b"", (), "the connection ended before the answer did"),
], ids=["status", "content", "length", "too much", "not closing", "no length", "cut"])  # fmt: skip
def test_a_bad_http_answer_is_an_error(answer: bytes, options: tuple[str, ...], error: str) -> None:
    """Each is counted, and the first is told."""
    with server(answer) as port:
        found = load("http_load.py", port, *options)
    assert found["errors"] > 0
    assert error in found["error"]


@pytest.mark.parametrize(("answer", "game", "error"), [
    (b"X" * 64, "echo", "the answer was"),
    (b"", "connect", "the connection ended before the answer did"),
    (b"X" * 2_000_000, "down", "more bytes than were asked for"),
    (b"U no", "up", "the answer was"),
])  # fmt: skip
def test_a_bad_tcp_answer_is_an_error(answer: bytes, game: str, error: str) -> None:
    """Likewise."""
    with server(answer) as port:
        found = load("tcp_load.py", port, game, "--piece", "1000000")
    assert found["errors"] > 0
    assert error in found["error"]


@pytest.fixture
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's own modules can be imported, as from its folder."""
    monkeypatch.syspath_prepend(str(BENCH))


def made_up(costs: dict[str, list[float]], errors: int = 0) -> Any:
    """Results of one row: µs per request of each proxy, round by round; gogate has errors."""
    from loads import Run
    from results import Results

    def run(name: str, cost: float) -> Any:
        return Run(1000, 1.0, int(cost * 1e6), errors if name == "gogate" else 0, "why", 1.0, 2.0, 3.0)

    runs = {name: [run(name, cost) for cost in each] for name, each in costs.items()}
    return Results(dict.fromkeys(costs, "1.0"), {"http-64": runs})


@pytest.mark.usefixtures("bench_modules")
def test_ratios_are_of_the_same_round() -> None:
    """A machine that became half as fast between two rounds changes no ratio; the target is judged by it."""
    from table import report

    costs = {"gogate": [20.0, 40.0, 60.0], "nginx": [10.0, 20.0, 30.0], "envoy": [40.0, 80.0, 120.0]}
    text = report(made_up(costs), "")
    assert "| GET, 64 clients | **2.00x** (2.00 to 2.00); 40.0 µs | 20.0 µs | 4.00x |" in text
    assert "| small GET, 64 clients | ≤ 1.9x nginx | 2.00x nginx | missed by 5% |" in text
    assert "| small GET, 64 clients | ≤ 1x envoy | 0.50x envoy | met |" in text
    assert "| small GET, 64 clients | ≤ 1x caddy | - | not measured |" in text


@pytest.mark.usefixtures("bench_modules")
def test_a_figure_with_errors_is_none() -> None:
    """The cell has the number of errors, the first is told below, and no target is judged by it."""
    from table import report

    text = report(made_up({"gogate": [5.0], "nginx": [10.0]}, errors=7), "")
    assert "| GET, 64 clients | 7 errors | 10.0 µs |" in text
    assert "- http-64, gogate: 7 errors, the first: why" in text
    assert "| small GET, 64 clients | ≤ 1.9x nginx | - | not measured |" in text


@pytest.mark.usefixtures("bench_modules")
def test_a_proxy_of_two_workers_leaves_no_process() -> None:
    """The aiohttp proxy's second process ends with the first: what stays would be in the way of all later runs."""
    import peers
    import psutil
    from parts import family

    (peer,), _ = peers.find(["aiohttp"])
    with peers.backends(None) as behind, peers.started(peer, behind, 2, None) as proxy:
        members = [psutil.Process(pid) for pid in family(proxy.pid)]
    assert len(members) == 2
    _, left = psutil.wait_procs(members, timeout=20)
    for process in left:
        process.kill()
    assert left == []


def test_a_proxy_never_shares_the_core_of_its_load() -> None:
    """Also where that is asked from a part of the benchmark that runs on the load's core."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("cores: there is only one")
    script = """if True:
        from loads import Cores
        from parts import on_core
        with on_core(Cores.of_machine(1).load):
            cores = Cores.of_machine(1)
            assert cores.proxy and cores.load and not cores.proxy & cores.load, cores
    """
    subprocess.run([sys.executable, "-c", script], cwd=BENCH, check=True)
