"""The life of a demo: gateway, three backends, what to try, the log, the end.

Everything runs as real processes: the gateway as a user starts it, each backend under ``gogate register``, which keeps
its registration and ends with it. The demo itself has one thread and only watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from gogate_py.demo.child import Child
from gogate_py.demo.configuration import GRACE, HOST, Ports, choose, configuration, is_free
from gogate_py.demo.show import welcome
from gogate_py.errors import StartError

#: Everything starts within this many seconds, or something is wrong.
START_TIMEOUT: Final = 30.0
#: How often the start is given new ports because somebody took one between choosing and binding.
_ATTEMPTS: Final = 3
_ASK_EVERY: Final = 0.05
#: A registration that is not renewed for so long is gone.
_TTL: Final = "6s"
_GOGATE: Final = [sys.executable, "-m", "gogate_py"]


class Demo:
    """One run; ``run`` is its life. What the children say is shown once
    everything runs; before that only when something fails."""

    def __init__(self, wanted: Ports) -> None:
        self._wanted = wanted
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()
        self._children: list[Child] = []
        self._held: list[str] | None = []
        self._quiet = False

    async def run(self) -> int:
        """Run until SIGINT, SIGTERM or SIGHUP (→ 0) or until the gateway ends by itself (→ 1)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        with tempfile.TemporaryDirectory(prefix="gogate-demo-") as folder:
            try:
                return await self._run(Path(folder, "config.yaml"))
            except (StartError, OSError) as error:
                reason = str(error) or f"not everything was ready within {START_TIMEOUT:.0f} s"
                self._complain("\n".join([*(self._held or []), f"gogate demo: {reason}"]))
                return 1
            finally:
                self._quiet = True
                await self._end()

    async def _run(self, config_path: Path) -> int:
        async with asyncio.timeout(START_TIMEOUT):
            gateway, ports = await self._start_gateway(config_path)
            backends = [] if self._stop.is_set() else await self._start_backends(ports)
        if not self._stop.is_set():
            self._held = None  # how everything started is of no interest once it did
            self._say(welcome(ports, config_path))
            watchers = [asyncio.create_task(self._watch(backend)) for backend in backends]
            await self._first(self._stop.wait(), gateway.ended.wait())
            for watcher in watchers:
                watcher.cancel()
        if self._stop.is_set():
            self._say("\nEnding the gateway and its backends.")
            return 0
        await gateway.stop(0.0)
        self._complain(f"gogate demo: the gateway ended with code {gateway.code}; its last words are above")
        return 1

    # --- start

    async def _start_gateway(self, config_path: Path) -> tuple[Child, Ports]:
        for _ in range(_ATTEMPTS):
            ports = Ports(*choose(*self._wanted))
            config_path.write_text(configuration(ports))
            gateway = self._start("", [*_GOGATE, "-config", str(config_path)])
            while not (gateway.ended.is_set() or self._stop.is_set()):
                stats = await ask(ports.admin, "/stats")
                if isinstance(stats, dict) and stats.get("pid") == gateway.pid:
                    return gateway, ports
                await asyncio.sleep(_ASK_EVERY)
            if self._stop.is_set():
                return gateway, ports
            await gateway.stop(0.0)
            if all(is_free(port) for port in ports):
                break  # it was not about a port: to try again would be in vain
            self._children.remove(gateway)
            self._held = []
        raise StartError("the gateway did not start; its reason is above")

    async def _start_backends(self, ports: Ports) -> list[Child]:
        """Start all three; → when the gateway sends traffic to each of them."""
        services = {"echo-1": "echo", "web-1": "web", "web-2": "web"}
        programs = {"echo": "gogate_py.demo.echo_backend", "web": "gogate_py.demo.http_backend"}
        backends = []
        for (name, service), port in zip(services.items(), choose(0, 0, 0), strict=True):
            program = [sys.executable, "-m", programs[service], "--port", str(port)]
            if service == "web":
                program += ["--name", name]
            register = ["register", "--id", name, "--name", service, "--address", f"{HOST}:{port}", "--ttl", _TTL]
            admin = f"http://{HOST}:{ports.admin}"
            backends.append(self._start(name, [*_GOGATE, *register, "--admin", admin, "--", *program]))
        while not self._stop.is_set():
            for child in self._children:
                if child.ended.is_set():
                    raise StartError(f"{child.name or 'the gateway'} ended with code {child.code} while starting")
            known = await ask(ports.admin, "/backends") or {"backends": []}
            if {one["id"] for one in known["backends"] if one["healthy"]} >= services.keys():
                break
            await asyncio.sleep(_ASK_EVERY)
        return backends

    def _start(self, name: str, command: list[str]) -> Child:
        child = Child(name, command, self._show)
        self._children.append(child)
        return child

    async def _watch(self, backend: Child) -> None:
        """Say it when a backend ends before it is asked to."""
        await backend.ended.wait()
        self._say(f"{backend.name} ended with code {backend.code}; the gateway goes on without it")

    # --- end

    async def _end(self) -> None:
        """Backends first, so that they can deregister; then the gateway. Impatience kills what is left."""

        async def in_order() -> None:
            await asyncio.gather(*(child.stop(3.0) for child in self._children if child.name))
            await asyncio.gather(*(child.stop(GRACE + 4.0) for child in self._children if not child.name))

        await self._first(in_order(), self._impatient.wait())
        for child in self._children:
            child.kill()
            await child.stop(0.0)

    @staticmethod
    async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
        """Wait for the first of them and call off the rest."""
        tasks = [asyncio.create_task(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._impatient.set()
        self._stop.set()

    # --- what is printed

    def _show(self, name: str, line: str) -> None:
        """One line of a child's output; the gateway's own lines come without a name."""
        text = f"[{name}] {line}" if name else line
        if self._held is not None:
            self._held.append(text)
        elif not self._quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:
            # Whoever looked at us is gone (a closed pipe or terminal). Only the end is left to do, silently: stdout
            # is replaced so that the interpreter's own flush at exit does not complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            self._stop.set()

    @staticmethod
    def _complain(text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


async def ask(port: int, path: str) -> Any:
    """The decoded JSON that the admin API answers, or None when it does not answer well.

    HTTP/1.0 on purpose: the answer ends with its connection and is never chunked (RFC 9112 section 6.1).
    """
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return json.loads(body) if b" 200 " in head.partition(b"\r\n")[0] else None
    except (OSError, TimeoutError, ValueError):
        return None
