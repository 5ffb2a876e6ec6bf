"""``gogate check --probe``: every backend of the file is asked once, as the health probes of a running gogate would.

At most LIMIT seconds for a backend, name lookup and answer each, AT_ONCE of them at a time. A look-up that takes longer
is left to its thread, which does not keep the command from ending.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Final

import attrs

from gogate_py.addresses import Address, is_ip
from gogate_py.backend_tls import TlsClient
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config, Pool
from gogate_py.controlplane.compiler import Member, backend_tls, members
from gogate_py.controlplane.prober import OwnFault, ProbeSettings, Target, probe

LIMIT: Final = 2.0
AT_ONCE: Final = 64


def probe_backends(config: Config, findings: Findings) -> None:
    """Add a warning for every backend that would not be up (GG022) or cannot be reached (GG023)."""
    asyncio.run(_probe_all(config, findings))


async def _probe_all(config: Config, findings: Findings) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    asked = [
        ((*_place(config, name), number), pool, member)
        for (name, pool), found in zip(config.effective_pools().items(), members(config, ()).values(), strict=True)
        if pool.health.enabled
        for number, member in enumerate(found)]
    answers = await asyncio.gather(*(_ask(pool, member, gate) for _, pool, member in asked))
    for (path, pool, member), (code, error) in zip(asked, answers, strict=True):
        if error:
            fix = (
                f"look at health.httpPath ({pool.health.http_path}) and expectStatus of the pool {pool.name}"
                if code == "GG022" else "start it, or look at the address")
            findings.advise(path, code, f"{member.text}: {error}", fix)


def _place(config: Config, name: str) -> Path:
    return ("pools", name, "backends") if name in config.pools else ("server", "backends")


async def _ask(pool: Pool, member: Member, gate: asyncio.Semaphore) -> tuple[str, str]:
    """→ (code, why it would not be up), "" for one that would."""
    settings = ProbeSettings.of(pool.health)
    settings = attrs.evolve(settings, timeout=min(settings.timeout, LIMIT))
    tls = TlsClient(backend_tls(pool.backend_tls), member.tls_name) if member.tls_name else None
    async with gate:
        try:
            endpoints = await _endpoints(member.address)
            _, error = await probe(Target(member.address, False, settings, tls), endpoints)
        except (OSError, UnicodeError, TimeoutError) as failed:
            late = isinstance(failed, TimeoutError)
            why = "no answer in time" if late else getattr(failed, "strerror", None) or str(failed)
            return "GG023", f"name does not resolve: {why}"
        except OwnFault as fault:
            return "GG023", f"could not be asked: {fault}"
    return "GG022" if error.startswith("status ") else "GG023", error


async def _endpoints(address: Address) -> tuple[tuple[str, int], ...]:
    if address.is_unix:
        return ((address.path, 0),)
    if is_ip(address.host):
        return ((address.host, address.port),)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(ips: list[str], error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(ips)

    def look_up() -> None:
        ips: list[str] = []
        failed: Exception | None = None
        try:
            found = socket.getaddrinfo(address.host, 0, type=socket.SOCK_STREAM)
            ips = list(dict.fromkeys(str(info[4][0]) for info in found))
        except (OSError, UnicodeError) as error:
            failed = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, ips, failed)

    # A thread of the loop's pool would keep the command alive until the resolver gives up.
    threading.Thread(target=look_up, daemon=True).start()
    async with asyncio.timeout(LIMIT):
        return tuple((ip, address.port) for ip in await answer)
