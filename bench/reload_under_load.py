"""What reloads, broken files, killed workers and the end cost clients. ``python bench/reload_under_load.py``.

gogate with two workers, under load of kept-alive and one-shot HTTP clients, WebSockets and TCP streams; then the same
HTTP load on nginx and on HAProxy over their reloads, where they are installed. Prints what every kind of event cost,
and ends with 1 when anything failed with gogate that was not on a killed worker's own connection.

    --reloads of each kind           requests and words that failed
    --broken files                   likewise; and what is served must stay
    --kills (kill -9 of a worker)    those on its own connections are its price, others are failures
    --leak reloads                   growth of descriptors, threads and memory of all processes
    SIGTERM                          requests that were sent and not answered; streams end with it, as they must

``--short`` is the form that make test runs; ``--json`` prints the counts for programs.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from parts import ROOT, accepts, family, free_port, markdown, running, wait_until
from reload_clients import Load

Settings = dict[str, Any]
#: Requests and words that must go well between two events, so that each meets a busy gateway.
BETWEEN = 40
GRACE = 2
#: Workers that die younger than this are a crash loop, and come back later and later (process/workers.py), seconds.
YOUNG = 5.0


class Gateway:
    """A gogate that is reloaded; its configuration file is ``path``."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, settings: Settings, admin: int) -> None:
        self.process = process
        self.path = path
        self.settings = settings
        self.admin = admin

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """One call of the admin API → status, decoded answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        try:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            client.close()

    def reload(self, text: str | None = None) -> int:
        """Write the settings (or this) and reload; → the status."""
        new = self.path.with_suffix(".new")
        new.write_text(text if text is not None else json.dumps(self.settings, indent=1))
        new.rename(self.path)
        return self.ask("POST", "/reload")[0]

    def workers(self) -> list[int]:
        """The pids of the workers that serve; [] while one is missing."""
        workers = self.ask("GET", "/stats")[1]["workers"]
        return [one["pid"] for one in workers] if all(one["state"] == "serving" for one in workers) else []


@contextlib.contextmanager
def backend() -> Iterator[tuple[int, int]]:
    """The backend's process; → its HTTP and its TCP port."""
    script = str(Path(__file__).parent / "reload_clients.py")
    with running([sys.executable, script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with process.stdout as out:
            http_port, tcp_port = json.loads(out.readline())
            yield http_port, tcp_port


@contextlib.contextmanager
def gateway(web: int, echo: int) -> Iterator[tuple[Gateway, int, int]]:
    """A gogate before the backend; → it, its HTTP and its TCP port."""
    http_port, tcp_port, admin = free_port(), free_port(), free_port()
    settings: Settings = {
        "server": {
            "workers": 2, "httpListenAddr": f"127.0.0.1:{http_port}", "admin": {"listenAddr": f"127.0.0.1:{admin}"},
            "health": {"enabled": False}, "shutdown": {"gracePeriod": f"{GRACE}s"},
            "limits": {"connectionsPerClient": 0},
        },
        "pools": {
            "web": {"backends": [f"127.0.0.1:{web}", f"localhost:{web}"]},
            "echo": {"backends": [f"127.0.0.1:{echo}"]},
        },
        "routes": [
            {"name": "web", "pool": "web"},
            {"name": "echo", "type": "tcp", "listenAddr": f"127.0.0.1:{tcp_port}", "pool": "echo"},
        ],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gogate-bench-") as folder:
        path = Path(folder, "config.yaml")
        path.write_text(json.dumps(settings))
        with Path(folder, "log").open("wb") as log, running(
            [sys.executable, "-m", "gogate_py", "-config", str(path)], stdout=subprocess.DEVNULL, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            one = Gateway(process, path, settings, admin)
            wait_until(lambda: accepts(admin) and len(one.workers()) == 2, "gogate to be ready")
            yield one, http_port, tcp_port


# --- kinds of reload: each changes the settings for its n-th time


def _route(s: Settings, n: int) -> None:
    s["routes"][2:] = [{"name": f"more-{n}", "match": {"path": f"/{n}"}, "pool": "web"}] if n % 2 else []


def _changed_route(s: Settings, n: int) -> None:
    s["routes"][0]["requestHeaders"] = {"set": {"X-Number": str(n)}}


def _backends(s: Settings, n: int) -> None:
    first, *_ = s["pools"]["web"]["backends"]
    port = (first["addr"] if isinstance(first, dict) else first).rpartition(":")[2]
    s["pools"]["web"]["backends"] = [{"addr": f"127.0.0.1:{port}", "weight": 1 + n % 3}] + (
        [f"localhost:{port}"] if n % 2 else []
    )


def _balancer(s: Settings, n: int) -> None:
    s["pools"]["web"]["loadBalancer"] = ("round_robin", "p2c", "least_connections", "weighted_round_robin")[n % 4]


def _protection(s: Settings, n: int) -> None:
    s["pools"]["web"]["circuitBreaker"] = {"enabled": bool(n % 2), "failureThreshold": 5 + n}
    s["routes"][0]["rateLimit"] = {"rate": 1_000_000 + n, "per": "1s", "burst": 1_000_000}
    s["server"]["timeouts"] = {"responseHeader": f"{10 + n}s"}


def _listener(s: Settings, n: int) -> None:
    extra = {"name": f"extra-{n % 3}", "type": "tcp", "listenAddr": "127.0.0.1:0", "pool": "echo"}
    s["routes"][2:] = [extra] if n % 4 else []


def _renamed_listener(s: Settings, n: int) -> None:
    s["routes"][1]["name"] = f"echo-{n}"


def _moved_listener(s: Settings, n: int) -> None:
    port = s["server"]["httpListenAddr"].rpartition(":")[2]
    s["server"]["httpListenAddr"] = f":{port}" if n % 2 else f"127.0.0.1:{port}"


def _operators(s: Settings, n: int) -> None:
    s["server"]["admin"]["token"] = f"token-of-the-bench-{n}"
    s["logging"] = {"level": ("info", "warn")[n % 2], "access": {"enabled": bool(n % 2)}}


KINDS: dict[str, Callable[[Settings, int], None]] = {
    "route added, removed": _route,
    "route changed": _changed_route,
    "backend added, removed, weight": _backends,
    "balancer": _balancer,
    "breaker, limits, timeouts": _protection,
    "listener added, renamed, removed": _listener,
    "listener renamed, with streams on it": _renamed_listener,
    "listener moved (127.0.0.1:p, :p)": _moved_listener,
    "admin token, logging": _operators,
}
BROKEN = (
    "server: [\n", "server:\n  httpListenAdr: ':1'\n", "", "- a\n", "server: {workers: 3}\n", "\xff",
    "server: {httpListenAddr: ':99999'}\n", "pools: {a: {backends: [nowhere]}}\n", "a: &a [*a]\n",
    "server: {httpListenAddr: '192.0.2.1:80'}\n",
)  # fmt: skip


class Costs:
    """What each kind of event cost: how many events, what went well meanwhile, what failed."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.rows: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def of(self, what: str, events: int) -> Iterator[None]:
        """Everything that fails in this block is the cost of these events."""
        ok, first = self.load.ok(), len(self.load.failures)
        yield
        self.settle()
        self.add(what, events, self.load.ok() - ok, Counter(f"{one.kind} {one.outcome}" for one in
                                                           self.load.failures[first:]))  # fmt: skip

    def add(self, what: str, events: int, ok: int, failed: Counter[str], **more: Any) -> None:
        """One row."""
        self.rows[what] = {"events": events, "ok": ok, "failed": dict(failed), **more}

    def settle(self) -> None:
        """Until every client has been busy for a while."""
        goal = self.load.ok() + BETWEEN
        wait_until(lambda: self.load.ok() >= goal, "clients that are served")


def measure_gogate(args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """All of it with gogate; → rows, and what was wrong."""
    wrong: list[str] = []
    with backend() as (web, echo), gateway(web, echo) as (one, http_port, tcp_port):
        load = Load(("127.0.0.1", http_port), ("127.0.0.1", tcp_port))
        with load:
            costs = Costs(load)
            costs.settle()
            for what, change in KINDS.items():
                with costs.of(what, args.reloads):
                    for number in range(1, args.reloads + 1):
                        change(one.settings, number)
                        if one.reload() != 200:
                            wrong.append(f"{what} {number} is not served: {one.ask('GET', '/config/status')[1]}")
                        costs.settle()
            with costs.of("broken file", args.broken):
                served = one.ask("GET", "/stats")[1]["generation"]
                for number in range(args.broken):
                    if one.reload(BROKEN[number % len(BROKEN)]) != 400:
                        wrong.append(f"broken file {number} was served")
                    costs.settle()
                if one.ask("GET", "/stats")[1]["generation"] != served:
                    wrong.append("a broken file changed what is served")
            if one.reload() != 200:
                wrong.append("the good file is not served any more")
            _kills(one, costs, args.kills, {http_port, tcp_port})
            growth = _leak(one, args.leak, costs)
            _end(one, load, costs, wrong)
    rows = {**costs.rows, "growth": growth}
    wrong += [f"{what}: {row['failed']}" for what, row in costs.rows.items() if row["failed"]]
    wrong += [f"growth of {name}: {found}" for name, found in growth.items() if found[1] > found[0] * 1.05 + found[2]]
    return rows, wrong


def _kills(one: Gateway, costs: Costs, count: int, ports: set[int]) -> None:
    """kill -9 of the workers in turn; what fails on connections that the killed one had accepted is its price."""
    load = costs.load
    ok, failed, price = load.ok(), Counter[str](), 0
    for number in range(count):
        first, pid = len(load.failures), _grown_up(one, number % 2)
        os.kill(pid, signal.SIGSTOP)  # so that what it has can be listed exactly
        owned = {
            each.raddr.port for each in psutil.Process(pid).net_connections("tcp")
            if each.status == psutil.CONN_ESTABLISHED and each.laddr.port in ports
        }  # fmt: skip
        os.kill(pid, signal.SIGKILL)
        while pid in (serving := one.workers()) or not serving:
            time.sleep(0.02)
        costs.settle()
        for failure in load.failures[first:]:
            if failure.port in owned:
                price += 1
            else:
                failed[f"{failure.kind} {failure.outcome}"] += 1
    costs.add("kill -9 of a worker", count, load.ok() - ok, failed, on_its_own_connections=price)


def _grown_up(one: Gateway, slot: int) -> int:
    """The pid of the worker in a slot, when it is old enough to be replaced at once."""
    while True:
        worker = one.ask("GET", "/stats")[1]["workers"][slot]
        if worker["state"] == "serving" and worker["started_s"] > YOUNG:
            return int(worker["pid"])
        time.sleep(0.05)


def _leak(one: Gateway, count: int, costs: Costs) -> dict[str, tuple[int, int, int]]:
    """What the processes have before and after so many reloads: (before, after, what may come and go)."""
    changes = list(KINDS.values())

    def reloads(first: int, last: int) -> None:
        for number in range(first, last):
            changes[number % len(changes)](one.settings, number)
            one.reload()

    def look() -> tuple[int, int, int]:
        costs.settle()
        processes = [psutil.Process(pid) for pid in family(one.process.pid)]
        return (
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
            sum(process.memory_full_info().uss for process in processes) >> 10,
        )

    with costs.of("any kind, in turn", count):
        period = 12 * len(changes)  # the same settings again after so many
        reloads(0, min(count, period))
        before = look()
        reloads(min(count, period), min(count, period) + count)
        after = look()
    # Descriptors come and go with connections to the backend; memory in steps of arenas of the allocator.
    return {
        name: (b, a, slack)
        for name, b, a, slack in zip(
            ("descriptors", "threads", "memory KiB"), before, after, (16, 1, 1024), strict=True
        )
    }


def _end(one: Gateway, load: Load, costs: Costs, wrong: list[str]) -> None:
    """SIGTERM: what was sent is answered; refused ones were promised nothing, streams are cut after the grace time."""
    ok, first = load.ok(), len(load.failures)
    one.process.send_signal(signal.SIGTERM)
    try:
        code = one.process.wait(GRACE + 10)
    except subprocess.TimeoutExpired:
        code = -1
    if code:
        wrong.append(f"exit code {code} after SIGTERM")
    failed = Counter(
        f"{each.kind} {each.outcome}" for each in load.failures[first:]
        if each.kind in ("kept", "fresh") and each.outcome != "refused"
    )  # fmt: skip
    costs.add("SIGTERM", 1, load.ok() - ok, failed)


# --- for comparison


NGINX = """daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $conn {{ default upgrade; '' ''; }}
  upstream web {{ server 127.0.0.1:{web} weight={weight}; keepalive 32; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $conn; }} }} }}
"""
HAPROXY = """global
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
"""


def measure_other(name: str, template: str, reloads: int) -> dict[str, Any]:
    """What as many reloads of another server cost the same HTTP clients, and its WebSockets."""
    with tempfile.TemporaryDirectory(prefix="gogate-bench-") as folder, backend() as (web, _):
        os.chmod(folder, 0o755)
        port, path = free_port(), Path(folder, "conf")

        def write(weight: int) -> None:
            path.write_text(template.format(folder=folder, port=port, web=web, weight=weight))

        write(1)
        command = (
            ["nginx", "-c", str(path), "-p", folder, "-e", f"{folder}/error.log"] if name == "nginx"
            else ["haproxy", "-W", "-f", str(path)]
        )  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with running(command, **quiet) as process:
            wait_until(lambda: accepts(port), f"{name} to be ready")
            with Load(("127.0.0.1", port), None) as load:
                costs = Costs(load)
                costs.settle()
                with costs.of(name, reloads):
                    for number in range(reloads):
                        write(2 + number % 5)
                        process.send_signal(signal.SIGHUP if name == "nginx" else signal.SIGUSR2)
                        time.sleep(0.2)  # they do not say when they are done
                        costs.settle()
        return costs.rows[name]


def main() -> int:
    """Measure and print; → exit code."""
    parser = argparse.ArgumentParser(description="What reloads and failures cost clients.")
    for name, default in (("reloads", 20), ("broken", 30), ("kills", 20), ("leak", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--short", action="store_true", help="2 reloads of each kind, 10 broken files, 2 kills")
    parser.add_argument("--alone", action="store_true", help="without nginx and HAProxy")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.short:
        args.reloads, args.broken, args.kills, args.leak, args.alone = 2, 10, 2, 0, True
    rows, wrong = measure_gogate(copy.copy(args))
    others = {}
    if not args.alone:
        for name, template in (("nginx", NGINX), ("haproxy", HAPROXY)):
            if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
                others[name] = measure_other(name, template, args.reloads)
            else:
                print(f"{name} is not installed", file=sys.stderr)
    if args.json:
        print(json.dumps({"gogate": rows, "others": others, "wrong": wrong}))
    else:
        growth = rows.pop("growth")
        print(markdown(("event", "times", "ok", "failed"), [
            (what, str(row["events"]), str(row["ok"]), _failed(row)) for what, row in {**rows, **others}.items()
        ]))  # fmt: skip
        for name, (before, after, _) in growth.items():
            print(f"{name}: {before} before, {after} after {args.leak} reloads")
        print("\n".join(f"WRONG: {line}" for line in wrong) or "nothing failed with gogate")
    return bool(wrong)


def _failed(row: dict[str, Any]) -> str:
    text = ", ".join(f"{n} {what}" for what, n in row["failed"].items()) or "0"
    own = row.get("on_its_own_connections")
    return text if own is None else f"{text} (besides {own} on its own connections)"


if __name__ == "__main__":
    sys.exit(main())
