"""Prober: active health checks of every backend, TCP or real HTTP, over TLS where traffic is, from the supervisor.

A target (address and settings) is probed once, however many pools share it. The first probe comes at once (spread over
up to a second when there are hundreds), from then on one every interval, jittered by 10 %, so that probes of many
backends do not march in step. A probe never overlaps the one before. A target that stays keeps its state when the set
changes.

A backend is up while one of its name's addresses is: the workers try them all, too.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import frozen

from gogate_py import backend_tls
from gogate_py.addresses import Address
from gogate_py.clock import Random, new_random
from gogate_py.config.names import status_ranges
from gogate_py.config.schema import Health
from gogate_py.policy.health_state import HealthState

log = logging.getLogger("gogate.prober")

#: Probes under way at once.
MAX_AT_ONCE: Final = 64
#: Targets beyond which the first round takes a whole second.
_SPREAD_OVER: Final = 256
#: A probe out of turn (see :meth:`Prober.hurry`) comes this many seconds after the last one at the earliest.
_HURRY_AFTER: Final = 1.0
_MAX_ANSWER: Final = 64 * 1024
#: Our own shortage, which says nothing about a backend.
_OWN_FAULTS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Endpoint = tuple[str, int]


class OwnFault(Exception):
    """A probe that could not be made, for a reason that is not the backend's."""


@frozen
class ProbeSettings:
    """How a backend is probed; the ``health`` mapping of its pool. ``expect`` are inclusive status ranges."""

    http: bool
    path: str
    expect: tuple[tuple[int, int], ...]
    interval: float
    timeout: float
    unhealthy_threshold: int
    healthy_threshold: int
    initially_up: bool

    @classmethod
    def of(cls, health: Health) -> ProbeSettings:
        """The settings that a pool's ``health`` mapping stands for."""
        http = health.check_type == "http"
        return cls(
            http=http,
            # What a TCP probe does not use must not make two targets of one.
            path=health.http_path if http else "",
            expect=status_ranges(health.expect_status) if http else (),
            interval=health.interval,
            timeout=health.timeout,
            unhealthy_threshold=health.unhealthy_threshold,
            healthy_threshold=health.healthy_threshold,
            initially_up=health.initial_state == "up",
        )


@frozen(cache_hash=True)  # watches are looked up by it, for every backend
class Target:
    """What is probed: an address as configured, and how. Where it is (its endpoints) may change while it lives."""

    address: Address
    registered: bool
    settings: ProbeSettings
    tls: backend_tls.TlsClient | None = None


class _Watch:
    """One target under watch."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.state = HealthState(
            settings.unhealthy_threshold, settings.healthy_threshold, up=settings.initially_up
        )
        self.hurry = asyncio.Event()
        self.probed_at = float("-inf")
        self.waits_for_endpoints = False
        # the endpoint that answered last is asked first
        self.answered: Endpoint | None = None
        self.task: asyncio.Task[None] | None = None


class Prober:
    """Probes a set of targets. ``endpoints`` says where a target is now; ``on_change`` hears of every change of health,
    ``on_result`` of every probe: (target, whether it was good)."""

    def __init__(
        self,
        endpoints: Callable[[Target], tuple[Endpoint, ...]],
        on_change: Callable[[Target], None],
        on_result: Callable[[Target, bool], None],
        random: Random | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._on_change = on_change
        self._on_result = on_result
        self._random = random or new_random()
        self._watches: dict[Target, _Watch] = {}
        self._gate = asyncio.Semaphore(MAX_AT_ONCE)

    def watch(self, targets: Iterable[Target]) -> None:
        """Probe exactly these targets; those that are watched already keep their state."""
        wanted = dict.fromkeys(targets)
        for target in [target for target in self._watches if target not in wanted]:
            gone = self._watches.pop(target)
            if gone.task is not None:
                gone.task.cancel()
        new = [target for target in wanted if target not in self._watches]
        spread = min(1.0, len(new) / _SPREAD_OVER)
        for target in new:
            watch = self._watches[target] = _Watch(target.settings)
            delay = self._random.random() * spread * min(1.0, target.settings.interval)
            watch.task = asyncio.get_running_loop().create_task(self._keep_probing(target, watch, delay))

    def state(self, target: Target) -> HealthState | None:
        """The health of a target that is watched."""
        watch = self._watches.get(target)
        return watch.state if watch is not None else None

    def recall(self, target: Target, error: str) -> None:
        """A target that is new here was down before, for this reason, or ("") up: it is until its probes say
        otherwise."""
        watch = self._watches.get(target)
        if watch is not None and watch.probed_at == float("-inf"):
            if error:
                watch.state.recall_down(error)
            else:
                watch.state.recall_up()

    def hurry(self, target: Target) -> None:
        """Probe out of turn: a connect failed.

        Only while all is thought to be well and the last probe is not just past: it is the first failure that is found
        sooner; the others come at the interval, so that a short restart does not use up the threshold.
        """
        watch = self._watches.get(target)
        if watch is None or watch.state.failures:
            return
        if asyncio.get_running_loop().time() - watch.probed_at >= min(_HURRY_AFTER, target.settings.interval):
            watch.hurry.set()

    def arrived(self, target: Target) -> None:
        """A target that could not be probed, because its name did not resolve, can be now: at once."""
        watch = self._watches.get(target)
        if watch is not None and watch.waits_for_endpoints:
            watch.hurry.set()

    async def _keep_probing(self, target: Target, watch: _Watch, delay: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(delay)
        while True:
            watch.hurry.clear()
            begun = loop.time()
            endpoints = self._endpoints(target)
            watch.waits_for_endpoints = not endpoints
            if endpoints:  # one that does not resolve is down for that reason, and there is nothing to probe
                try:
                    await self._probe_once(target, watch, endpoints)
                except Exception as error:  # the prober must outlive whatever one backend does
                    where = f"probe of {target.address}"
                    log.error("internal error", exc_info=error, extra={"where": where})
            pause = target.settings.interval * (0.9 + 0.2 * self._random.random()) - (loop.time() - begun)
            try:
                async with asyncio.timeout(max(0.0, pause)):
                    await watch.hurry.wait()
            except TimeoutError:
                pass

    async def _probe_once(self, target: Target, watch: _Watch, endpoints: tuple[Endpoint, ...]) -> None:
        if watch.answered in endpoints:
            endpoints = (watch.answered, *(one for one in endpoints if one != watch.answered))
        try:
            async with self._gate:
                watch.probed_at = asyncio.get_running_loop().time()
                watch.answered, error = await probe(target, endpoints)
        except OwnFault as fault:
            log.warning("cannot probe", extra={"backend": str(target.address), "error": str(fault)})
            return
        self._on_result(target, not error)
        if watch.state.record(not error, error):
            self._on_change(target)

    async def stop(self) -> None:
        """End all probes."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def probe(target: Target, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint | None, str]:
    """Probe the endpoints in turn until one is fine; → (that one, ""), or (None, why none is).

    Together they have the timeout; each gets its share of what is left. Raises OwnFault.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + target.settings.timeout
    errors = {}
    for position, endpoint in enumerate(endpoints):
        share = max(0.0, give_up - loop.time()) / (len(endpoints) - position)
        error = await _probe_endpoint(target, endpoint, share)
        if not error:
            return endpoint, ""
        errors[endpoint[0]] = error
    if len(set(errors.values())) == 1:
        return None, next(iter(errors.values()))
    return None, "; ".join(f"{host}: {error}" for host, error in errors.items())


async def _probe_endpoint(target: Target, endpoint: Endpoint, seconds: float) -> str:
    """→ "" when it is fine, else why not."""
    try:
        async with asyncio.timeout(seconds):
            secure = _secure(target)
            if target.address.is_unix:
                reader, writer = await asyncio.open_unix_connection(endpoint[0], limit=_MAX_ANSWER, **secure)
            else:
                reader, writer = await asyncio.open_connection(*endpoint, limit=_MAX_ANSWER, **secure)
            try:
                return await _ask(target, reader, writer) if target.settings.http else ""
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {seconds:.3g} s"
    except ConnectionRefusedError:
        return "connection refused"
    except ConnectionResetError:
        return "connection reset"
    except ssl.SSLError as error:
        return backend_tls.explain(error)
    except OSError as error:
        if error.errno in _OWN_FAULTS:
            raise OwnFault(error.strerror or str(error)) from error
        return error.strerror or str(error) or type(error).__name__


def _secure(target: Target) -> dict[str, Any]:
    """What asyncio needs to know to speak TLS with a target; nothing where it does not."""
    tls = target.tls
    if tls is None:
        return {}
    return {
        "ssl": tls.context(backend_tls.HTTP if target.settings.http else ()),
        "server_hostname": tls.server_name,
        "ssl_shutdown_timeout": backend_tls.CLOSE_TIME,
    }


async def _ask(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """One GET; the status decides, the body is not waited for."""
    import h11  # 10 ms: not before somebody is asked

    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER)
    host = "localhost" if target.address.is_unix else str(target.address)
    request = h11.Request(
        method="GET",
        target=target.settings.path,
        headers=[("Host", host), ("User-Agent", "gogate-health"), ("Accept", "*/*"), ("Connection", "close")],
    )
    try:
        writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(_MAX_ANSWER)
                if not data:
                    return "closed the connection without an answer"
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                if any(low <= event.status_code <= high for low, high in target.settings.expect):
                    return ""
                return f"status {event.status_code} on {target.settings.path}"
    except h11.RemoteProtocolError as error:
        return f"its answer is not HTTP: {error}"
