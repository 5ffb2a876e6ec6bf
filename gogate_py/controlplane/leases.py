"""Leases: sweeps the registry once a cleanup interval, and tells of what became of whom: log, counters, watchers.

What becomes of silent instances is policy/lease_state's to decide; who gets work, the compiler's. An instance that is
out of rotation (critical) stays known for a while and is back with its next heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gogate_py.controlplane.registry import Registration, Registry
from gogate_py.controlplane.service_watch import ServiceWatch

log = logging.getLogger("gogate.registry")

#: A sweep that comes this late, seconds, says that the process did not run: heartbeats could not be heard meanwhile.
STALL: Final = 0.2
#: From this many seconds on that is worth a line.
_WORTH_SAYING: Final = 1.0

#: Counts one event: metric, labels.
Count = Callable[[str, tuple[str, ...]], None]


class Leases:
    """``answers``: what active probes say of an instance; ``changed``: who is in rotation changed; ``forgotten``: an
    instance is not known any more."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        watch: ServiceWatch,
        *,
        answers: Callable[[Registration], bool | None],
        changed: Callable[[], None],
        count: Count,
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._watch = watch
        self._answers = answers
        self._changed = changed
        self._count = count
        self._now = now

    async def keep_sweeping(self, interval: Callable[[], float]) -> None:
        """Sweep for ever, once an interval (seconds)."""
        loop = asyncio.get_running_loop()
        while True:
            pause = interval()
            due = loop.time() + pause
            await asyncio.sleep(pause)
            late = loop.time() - due
            try:
                if late > STALL:
                    if late >= _WORTH_SAYING:
                        log.warning(
                            "the control plane did not run; leases are extended", extra={"late_s": round(late, 3)})
                    self._registry().stalled(late)
                self.sweep()
            except Exception as error:  # the sweeper must survive
                log.error("internal error", exc_info=error, extra={"where": "registry cleanup"})

    def sweep(self) -> None:
        """Judge every lease that has ended, now."""
        registry = self._registry()
        swept = registry.sweep(self._now(), self._answers)
        for name in swept.preserved:
            log.warning(
                "most of a service is silent; its instances are kept",
                extra={"service": name, "kept": registry.preserved().get(name, 0)})
        for name in swept.released:
            log.info("service is not preserved any more", extra={"service": name})
        for one in swept.changed:
            level = logging.WARNING if one.state == "critical" else logging.DEBUG
            self.tell(one.state, one, level)
        for one in swept.gone:
            self.tell("expired", one, logging.WARNING)
        if swept.changed or swept.gone:
            self._changed()

    def returned(self, instance: Registration) -> None:
        """An instance whose lease had ended is heard of again."""
        self.tell("passing", instance)
        self._changed()

    def forgotten(self, instance: Registration) -> None:
        """A critical instance made room for another."""
        self.tell("expired", instance)

    def tell(self, kind: str, instance: Registration, level: int = logging.INFO) -> None:
        """Something happened to an instance: log, count, and tell who watches."""
        about = {"id": instance.id, "service": instance.name, "address": instance.address}
        log.log(level, f"instance {kind}" if kind not in ("critical", "suspect", "passing") else f"instance is {kind}",
                extra=about)
        self._count("gogate_registry_events_total", (kind,))
        self._watch.note(kind, instance)
