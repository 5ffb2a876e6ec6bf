"""Resolver: names of backends → endpoints, all A and AAAA addresses, asked again and again, never on the event loop.

An IP literal or Unix path is its own answer. A name is asked for in the loop's thread pool, once however many backends
share it; a failure keeps the last good answer for keepLastGood seconds (SECURITY.md F5). A name that never resolved
is a backend that is down with that reason, never an error. Answers for registered backends are judged every time.

The system's resolver (getaddrinfo) knows hosts files, search domains and whatever else the machine has, but tells no
TTL. So every name is asked for once a ``refresh``, and at once when a connect to it failed, never twice within a
``floor``; a caching resolver on the machine answers from its cache until the TTL is over.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from attrs import frozen

from gogate_py.addresses import Address, is_ip
from gogate_py.clock import Random, monotonic, new_random

log = logging.getLogger("gogate.resolver")

#: Defaults of :class:`Periods`, seconds.
REFRESH: Final = 30.0
FLOOR: Final = 1.0
KEEP_LAST_GOOD: Final = 900.0
#: Seconds to the next question while failing (a shorter refresh and a longer floor win).
RETRY: Final = 5.0
LOOKUP_TIMEOUT: Final = 5.0

Endpoints = tuple[tuple[str, int], ...]
#: All addresses of a name. Raises OSError when there is none.
Lookup = Callable[[str], Awaitable[Sequence[str]]]
#: Why a registered backend may not be at this IP address and port; "" when it may.
Refusal = Callable[[str, int], str]
#: What is watched: an address, and whether it was registered.
Watched = tuple[Address, bool]


class Periods(NamedTuple):
    """How a name is asked for, seconds: from a good answer to the next question (jittered by 10 %), between two
    questions at least, and how long a good answer is used while newer questions fail."""

    refresh: float
    floor: float
    keep_last_good: float


@frozen
class Resolution:
    """What is known of one address. ``error``: why there are no endpoints, or why only older ones are known."""

    endpoints: Endpoints = ()
    error: str = ""


_NOT_YET: Final = Resolution(error="name is being looked up")


class _Name:
    """One name under watch. Lives as long as a backend has it."""

    def __init__(self, host: str, periods: Periods) -> None:
        self.host = host
        self.periods = periods
        self.ips: tuple[str, ...] = ()
        self.error = _NOT_YET.error
        self.good_at = 0.0
        self.asked_at = 0.0
        self.answered = asyncio.Event()
        self.hurry = asyncio.Event()
        # the question under way; it outlives its timeout, so that a dead name server does not fill the thread pool
        self.question: asyncio.Task[Sequence[str]] | None = None
        self.task: asyncio.Task[None] | None = None


class Resolver:
    """Keeps the endpoints of a set of addresses current; ``on_change`` hears when what is known of some is new."""

    def __init__(
        self,
        on_change: Callable[[], None],
        lookup: Lookup | None = None,
        now: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self._on_change = on_change
        self._lookup = lookup or system_lookup
        self._now = now
        self._random = random or new_random()
        self._refusal: Refusal = lambda host, port: ""
        self._known: dict[Watched, Resolution] = {}
        self._names: dict[str, _Name] = {}
        self._recalled: dict[str, tuple[tuple[str, ...], float]] = {}

    def known(self) -> dict[str, tuple[tuple[str, ...], float]]:
        """The names that have addresses: these, and when they were good."""
        return {host: (name.ips, name.good_at) for host, name in self._names.items() if name.ips}

    def recall(self, names: Mapping[str, tuple[tuple[str, ...], float]]) -> None:
        """What another gateway of this machine knows; before the first :meth:`watch`, which takes it over."""
        self._recalled = dict(names)

    def watch(
        self, addresses: Iterable[Watched], refusal: Refusal, periods: Mapping[str, Periods] | None = None
    ) -> None:
        """Watch exactly these addresses; ``refusal`` judges every answer for the registered ones, ``periods`` are those
        of host names (the defaults for names that are not in it)."""
        own = periods or {}
        usual = Periods(REFRESH, FLOOR, KEEP_LAST_GOOD)
        self._refusal = refusal
        wanted = set(addresses)
        hosts = {address.host for address, _ in wanted if not address.is_unix and not is_ip(address.host)}
        for host in [host for host in self._names if host not in hosts]:
            self._forget(self._names.pop(host))
        for host in hosts:
            if host in self._names:
                self._names[host].periods = own.get(host, usual)
            else:
                name = self._names[host] = _Name(host, own.get(host, usual))
                if host in self._recalled:
                    name.ips, name.good_at = self._recalled[host]
                    name.error = ""
                    name.answered.set()
                name.task = asyncio.get_running_loop().create_task(self._keep_asking(name))
        self._recalled = {}
        known = self._known
        self._known = {one: known.get(one) or self._resolution(one) for one in wanted}

    def get(self, address: Address, registered: bool) -> Resolution:
        """What is known of an address that is watched."""
        return self._known.get((address, registered), _NOT_YET)

    async def settle(self, limit: float) -> None:
        """Wait until every name was answered for once, at most ``limit`` seconds."""
        waits = [asyncio.create_task(name.answered.wait()) for name in self._names.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=limit)
            for wait in late:
                wait.cancel()

    def hurry(self, address: Address) -> None:
        """A connect to this address failed: ask for its name again, if the last question was not just now."""
        name = self._names.get(address.host)
        if name is not None and self._now() - name.asked_at >= name.periods.floor:
            name.hurry.set()

    def stale(self) -> dict[str, bool]:
        """Every name, and whether its last question failed and an older answer is used."""
        return {host: bool(name.error and name.ips) for host, name in self._names.items()}

    async def stop(self) -> None:
        """End all questions."""
        tasks: list[asyncio.Task[object]] = []
        for name in self._names.values():
            tasks += [task for task in (name.task, name.question) if task is not None]
            self._forget(name)
        self._names.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _forget(name: _Name) -> None:
        for task in (name.task, name.question):
            if task is not None:
                task.cancel()

    async def _keep_asking(self, name: _Name) -> None:
        while True:
            name.hurry.clear()
            name.asked_at = self._now()
            try:
                await self._ask(name)
            except Exception as error:  # the resolver must outlive whatever one name does
                log.error("internal error", exc_info=error, extra={"where": "resolver", "host": name.host})
            name.answered.set()
            refresh, floor, _ = name.periods
            pause = min(RETRY, refresh) if name.error else refresh
            period = max(floor, pause * (0.9 + 0.2 * self._random.random()))
            try:
                async with asyncio.timeout(period):
                    await name.hurry.wait()
            except TimeoutError:
                pass

    async def _ask(self, name: _Name) -> None:
        """Ask once, and take over what comes."""
        if name.question is None:
            name.question = asyncio.create_task(self._answer(name.host))
        done, _ = await asyncio.wait((name.question,), timeout=LOOKUP_TIMEOUT)
        before = (name.ips, name.error)
        now = self._now()
        try:
            if not done:
                raise TimeoutError("no answer in time")
            question, name.question = name.question, None
            found = question.result()
            if not found:
                raise OSError("it has no address")
        except (OSError, UnicodeError) as error:
            name.error = f"name does not resolve: {getattr(error, 'strerror', None) or error}"
            if now - name.good_at >= name.periods.keep_last_good:
                name.ips = ()
        else:
            # Name servers turn their answers round: what is known keeps its order, so that nothing seems to change.
            kept = [ip for ip in name.ips if ip in found]
            name.ips = tuple(dict.fromkeys([*kept, *found]))
            name.error = ""
            name.good_at = now
        if (name.ips, name.error) != before:
            self._tell(name)

    async def _answer(self, host: str) -> Sequence[str]:
        return await self._lookup(host)

    def _tell(self, name: _Name) -> None:
        if name.error:
            log.warning(
                "backend name does not resolve",
                extra={"host": name.host, "error": name.error, "kept": list(name.ips)},
            )
        else:
            log.info("backend name resolved", extra={"host": name.host, "addresses": list(name.ips)})
        changed = False
        for one, before in self._known.items():
            if one[0].host == name.host:
                after = self._known[one] = self._resolution(one)
                changed = changed or after != before
        if changed:
            self._on_change()

    def _resolution(self, watched: Watched) -> Resolution:
        address, registered = watched
        if address.is_unix:
            return Resolution(((address.path, 0),))
        if is_ip(address.host):
            ips: tuple[str, ...] = (address.host,)
            error = ""
        else:
            name = self._names[address.host]
            ips, error = name.ips, name.error
        if registered:
            refusals = {ip: self._refusal(ip, address.port) for ip in ips}
            ips = tuple(ip for ip in ips if not refusals[ip])
            error = error or "; ".join(why for why in refusals.values() if why)
        return Resolution(tuple((ip, address.port) for ip in ips), error)


async def system_lookup(host: str) -> list[str]:
    """All addresses of a name from the system's resolver, IPv6 and IPv4 in its order, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def is_local(host: str) -> bool:
    """Whether an IP address is one of this machine's: a datagram to it would leave from it. Nothing is sent.

    Binding to it would tell less: net.ipv4.ip_nonlocal_bind lets that succeed for any address.
    """
    ip = ipaddress.ip_address(host)
    if ip.is_loopback:
        return True
    try:
        with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 9))
            return ipaddress.ip_address(sock.getsockname()[0]) == ip
    except OSError:
        return False
