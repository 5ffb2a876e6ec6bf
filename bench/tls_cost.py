"""What TLS on a listener costs: CPU per kept-alive request and per message beside plain ones, in one run, and per
handshake: ``python bench/tls_cost.py [--rounds N]``.

One worker on core 0; load and backends on core 1; medians over the rounds, ratios within a round. Handshakes are full
ones (nothing is resumed), each with one request, beside a plain connection with one request.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from parts import Gogate, accepts, cpu_ns, free_port, gogate, markdown, on_core, raise_descriptor_limit, running
from parts import wait_until as until

CONNECTIONS = 64
HANDSHAKES = 300
PROXY_CORE, LOAD_CORE = 0, 1
HERE = Path(__file__).parent
_REQUEST = b"GET /bench HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def requests(one: Gogate, url: str, seconds: float) -> float:
    """CPU per request of wrk's load, µs."""
    before = cpu_ns(one.process.pid)
    with on_core(LOAD_CORE):
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", url]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = cpu_ns(one.process.pid) - before
    done = re.search(r"(\d+) requests in", text)
    if done is None or "errors:" in text or "Non-2xx" in text:
        raise SystemExit(f"wrk said: {text}")
    return cpu / 1000 / int(done[1])


def connections(one: Gogate, port: int, context: ssl.SSLContext | None) -> float:
    """CPU per connection with one request, µs."""
    before = cpu_ns(one.process.pid)
    with on_core(LOAD_CORE):
        for _ in range(HANDSHAKES):
            sock = socket.create_connection(("127.0.0.1", port))
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname="localhost")
            with sock:
                sock.sendall(_REQUEST)
                while sock.recv(4096):
                    pass
    return (cpu_ns(one.process.pid) - before) / 1000 / HANDSHAKES


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per row and round")
    options = parser.parse_args()
    raise_descriptor_limit()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt install wrk)")
    authority = trustme.CA()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    web = free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gogate-bench-tls-")))
        listeners: list[dict[str, Any]] = [{"name": "plain", "listenAddr": "127.0.0.1:0"}]
        for kind in (trustme.KeyType.ECDSA, trustme.KeyType.RSA):
            leaf = authority.issue_cert("localhost", key_type=kind)
            files = {"certFile": str(folder / f"{kind.name}.pem"), "keyFile": str(folder / f"{kind.name}.key")}
            Path(files["certFile"]).write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
            leaf.private_key_pem.write_to_path(files["keyFile"])
            Path(files["keyFile"]).chmod(0o600)
            tls = {"certificates": [files]}
            listeners.append({"name": kind.name.lower(), "listenAddr": "127.0.0.1:0", "tls": tls})
        stack.enter_context(running([sys.executable, str(HERE / "http_server.py"), str(web)], LOAD_CORE))
        until(lambda: accepts(web), "the backend")
        one = stack.enter_context(gogate({
            "server": {"workers": 1, "admin": {"listenAddr": "127.0.0.1:0"}},
            "listeners": listeners,
            "pools": {"web": {"backends": [f"127.0.0.1:{web}"]}},
            "routes": [{"name": "web", "pool": "web"}],
        }, PROXY_CORE))  # fmt: skip
        ports = {each["name"]: one.address(each["name"])[1] for each in listeners}
        rows: dict[str, Callable[[], float]] = {
            "request, plain": lambda: requests(one, f"http://127.0.0.1:{ports['plain']}/bench", options.seconds),
            "request, TLS": lambda: requests(one, f"https://127.0.0.1:{ports['ecdsa']}/bench", options.seconds),
            "connection and request, plain": lambda: connections(one, ports["plain"], None),
            "… TLS 1.3, ECDSA P-256": lambda: connections(one, ports["ecdsa"], trusting),
            "… TLS 1.3, RSA 2048": lambda: connections(one, ports["rsa"], trusting),
        }
        figures: dict[str, list[float]] = {name: [] for name in rows}
        for measure in rows.values():
            measure()  # warm up
        for _ in range(options.rounds):
            for name, measure in rows.items():
                figures[name].append(measure())
        table = [[name, f"{statistics.median(all_):.1f}"] for name, all_ in figures.items()]
        print(markdown(["CPU of the gateway", "µs"], table))


if __name__ == "__main__":
    main()
