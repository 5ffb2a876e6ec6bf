"""Registry: services that register themselves, as instances with a lease.

Pure: the clock is given, nothing is sent anywhere. What a registration may contain is checked here and by the address
rules; what becomes of instances that fall silent is policy/lease_state's to say. A heartbeat is one dictionary lookup
and two stores (SECURITY.md F16: 5 000 a second); expiry is one scan of all instances per cleanup interval.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import attrs

from gogate_py.config.values import BadValue, Duration
from gogate_py.controlplane.json_values import whole_number
from gogate_py.controlplane.registry_rules import AddressForbidden, AddressRules, RegistrationError
from gogate_py.errors import GogateError
from gogate_py.policy.lease_state import CRITICAL, GONE, PASSING, SUSPECT, Lease, hold_after_stall, in_rotation, judge
from gogate_py.policy.lease_state import shown as shown_state

__all__ = ["AddressForbidden", "Registration", "RegistrationError", "Registry", "RegistryFull", "Sweep"]

_FIELDS: Final = ("id", "name", "address", "tags", "metadata", "weight", "ttl")
#: What an answer adds; a client that sends back what it got is not refused.
_READ_ONLY: Final = ("registered_at", "last_heartbeat", "state", "since")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_TAG: Final = re.compile(r"[^\s,]{1,64}\Z")
_METADATA_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}\Z")
_MAX_TAGS: Final = 32
_MAX_METADATA: Final = 32
_MAX_METADATA_CHARACTERS: Final = 4096
_MAX_ADDRESS: Final = 300
_MAX_WEIGHT: Final = 1000
_TTL: Final = Duration(1, 300)


class RegistryFull(GogateError):
    """As many instances as server.registry.maxServices are registered (answered with 503)."""


@attrs.define
class Registration:
    """One instance with its lease. Replaced as a whole by an update; only heartbeats and sweeps change it in place."""

    id: str
    name: str
    address: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    weight: int
    ttl: float  # seconds
    registered_at: str  # RFC 3339
    heard_at: float  # of the last heartbeat or registration: wall clock, for people
    expires_at: float  # monotonic seconds
    state: str = PASSING  # passing, suspect or critical, as it was judged last
    changed_at: float = 0.0  # when it came into that state: wall clock, for people

    @property
    def since(self) -> str:
        """When it came into its state, RFC 3339."""
        return _rfc3339(self.changed_at)

    @property
    def in_rotation(self) -> bool:
        """Whether it may get work."""
        return in_rotation(self.state)

    def shown_state(self, now: float) -> str:
        """Its state at a monotonic moment: passing, warning, suspect or critical."""
        return shown_state(Lease(self.expires_at, self.ttl, self.state), now)

    @property
    def last_heartbeat(self) -> str:
        """When it was last heard of, RFC 3339."""
        return _rfc3339(self.heard_at)

    def expires_in(self, now: float) -> float:
        """Seconds of the lease that are left at a monotonic moment; never negative."""
        return max(0.0, self.expires_at - now)

    def routes_like(self, other: Registration) -> bool:
        """Whether traffic would go the same way with either."""
        return (self.name, self.address, self.tags, self.weight) == (
            other.name, other.address, other.tags, other.weight)  # fmt: skip


@attrs.frozen
class Sweep:
    """What a sweep found: instances whose state changed, those that are forgotten, and services by name whose
    preservation began or ended."""

    changed: list[Registration] = attrs.field(factory=list)
    gone: list[Registration] = attrs.field(factory=list)
    preserved: list[str] = attrs.field(factory=list)
    released: list[str] = attrs.field(factory=list)


class Registry:
    """All instances, by id. ``clock`` gives monotonic seconds, ``wall`` seconds since 1970 (shown, never compared);
    ``on_return`` hears of an instance whose lease had ended and that is heard of again, ``on_forget`` of one that had
    to make room for another."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        default_ttl: float,
        max_services: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
        on_return: Callable[[Registration], None] = lambda instance: None,
        on_forget: Callable[[Registration], None] = lambda instance: None,
    ) -> None:
        self.rules = rules
        self.default_ttl = default_ttl
        self.max_services = max_services
        self._clock = clock
        self._wall = wall
        self._on_return = on_return
        self._on_forget = on_forget
        self._instances: dict[str, Registration] = {}
        # services by name: until when they are preserved at least, and those with instances that are kept: since when
        self._holds: dict[str, float] = {}
        self._preserved: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._instances)

    def register(self, body: dict[str, object]) -> tuple[Registration, bool]:
        """Take in an instance, or a new description of a known one (same id); → it, and whether it is new.

        Raises RegistrationError, AddressForbidden, RegistryFull; then nothing has changed.
        """
        _refuse_unknown(body)
        name = _text(body, "name", _NAME, "begin with a letter or digit, go on with A-Z a-z 0-9 . _ - (63 at most)")
        if not name:
            raise RegistrationError("name", "is required: the service this is an instance of")
        address_text = body.get("address")
        if not isinstance(address_text, str) or not address_text:
            raise RegistrationError("address", 'is required: where the instance is, as in "10.0.0.5:8080"')
        if len(address_text) > _MAX_ADDRESS:
            raise RegistrationError("address", "is too long")
        address = self.rules.check(address_text)
        given = _text(body, "id", _ID, "begin with a letter or digit, go on with A-Z a-z 0-9 . _ : @ - (128 at most)")
        old = self._instances.get(given) if given else None
        tags, metadata, weight = _tags(body), _metadata(body), _weight(body)
        ttl = self._ttl(body)
        if old is None and len(self._instances) >= self.max_services and not self._forget_critical():
            raise RegistryFull(f"{self.max_services} instances are registered; that is server.registry.maxServices")
        wall = self._wall()
        instance = Registration(
            id=given or self._new_id(name),
            name=name,
            address=address,
            tags=tags,
            metadata=metadata,
            weight=weight,
            ttl=ttl,
            registered_at=_rfc3339(wall) if old is None else old.registered_at,
            heard_at=wall,
            expires_at=self._clock() + ttl,
            changed_at=wall if old is None or old.state != PASSING else old.changed_at,
        )
        self._instances[instance.id] = instance
        return instance, old is None

    def heartbeat(self, instance_id: str) -> bool:
        """Renew a lease; False when there is no such instance. O(1)."""
        instance = self._instances.get(instance_id)
        if instance is None:
            return False
        instance.expires_at = self._clock() + instance.ttl
        instance.heard_at = self._wall()
        if instance.state != PASSING:
            instance.state = PASSING
            instance.changed_at = instance.heard_at
            self._on_return(instance)
        return True

    def deregister(self, instance_id: str) -> Registration | None:
        """Take an instance out; it, or None when there is none with this id."""
        return self._instances.pop(instance_id, None)

    def restore(self, instance_id: str, before: Registration | None) -> None:
        """Undo a registration that cannot be served: what was there before, or nothing."""
        if before is None:
            self._instances.pop(instance_id, None)
        else:
            self._instances[instance_id] = before

    def get(self, instance_id: str) -> Registration | None:
        """The instance with this id."""
        return self._instances.get(instance_id)

    def all(self, name: str | None = None, tag: str | None = None) -> list[Registration]:
        """Instances in the order in which they came, of this name and with this tag where given."""
        return [
            instance
            for instance in self._instances.values()
            if (name is None or instance.name == name) and (tag is None or tag in instance.tags)
        ]

    def in_rotation(self) -> list[Registration]:
        """Instances that may get work, in the order in which they came."""
        return [instance for instance in self._instances.values() if instance.in_rotation]

    def sweep(self, now: float, answers: Callable[[Registration], bool | None]) -> Sweep:
        """Judge every service in which a lease has ended. ``answers``: what active probes say of an instance."""
        found = Sweep()
        late = {instance.name for instance in self._instances.values() if instance.expires_at <= now}
        services: dict[str, list[Registration]] = {name: [] for name in late}
        for instance in self._instances.values() if late else ():
            if instance.name in late:
                services[instance.name].append(instance)
        kept: set[str] = set()
        for name, instances in services.items():
            leases = [
                Lease(one.expires_at, one.ttl, one.state, answers(one) if one.expires_at <= now else None)
                for one in instances
            ]
            verdict = judge(leases, self._holds.get(name, float("-inf")), now)
            self._holds[name] = verdict.hold_until
            for instance, state in zip(instances, verdict.states, strict=True):
                self._enter(instance, state, found)
            if SUSPECT in verdict.states:
                kept.add(name)
        self._holds = {name: until for name, until in self._holds.items() if until > now}
        found.preserved.extend(sorted(kept - self._preserved.keys()))
        found.released.extend(sorted(self._preserved.keys() - kept))
        self._preserved = {name: self._preserved.get(name, self._wall()) for name in sorted(kept)}
        return found

    def _enter(self, instance: Registration, state: str, found: Sweep) -> None:
        if state == GONE:
            del self._instances[instance.id]
            found.gone.append(instance)
        elif state != instance.state:
            instance.state = state
            instance.changed_at = self._wall()
            found.changed.append(instance)

    def preserved(self) -> dict[str, int]:
        """Services that were preserved at the last sweep, by name, and how many of their instances are kept so."""
        kept = dict.fromkeys(self._preserved, 0)
        for instance in self._instances.values() if kept else ():
            if instance.state == SUSPECT and instance.name in kept:
                kept[instance.name] += 1
        return {name: count for name, count in kept.items() if count}

    def names(self) -> set[str]:
        """Every service that has an instance."""
        return {instance.name for instance in self._instances.values()}

    def stalled(self, seconds: float) -> None:
        """The registry itself could not listen for so long: every lease is longer by that, and services whose
        heartbeats must have been missed are preserved (SECURITY.md F16)."""
        ttls: dict[str, set[float]] = {}
        for instance in self._instances.values():
            if instance.state == PASSING:
                instance.expires_at += seconds
            ttls.setdefault(instance.name, set()).add(instance.ttl)
        now = self._clock()
        for name, of_name in ttls.items():
            self._holds[name] = hold_after_stall(of_name, self._holds.get(name, float("-inf")), seconds, now)

    def take_back(
        self, body: dict[str, object], *, registered_at: str, heard_at: float, critical: bool
    ) -> Registration:
        """Register an instance that was saved: with a fresh lease, or as critical. Raises as :meth:`register`."""
        instance, _ = self.register(body)
        instance.registered_at = registered_at
        instance.heard_at = heard_at
        if critical:
            instance.state = CRITICAL
            instance.expires_at = self._clock()
        return instance

    def holds(self) -> dict[str, float]:
        """Services by name, and until when they are preserved at least (monotonic seconds)."""
        return dict(self._holds)

    def take_over(self, leases: Iterable[tuple[str, float, str, float]], holds: Mapping[str, float]) -> None:
        """What another gateway of this machine knows of instances that are known here, too: (id, end of the lease,
        state, since when for people)."""
        for identity, expires_at, state, changed_at in leases:
            instance = self._instances.get(identity)
            if instance is not None:
                instance.expires_at, instance.state, instance.changed_at = expires_at, state, changed_at
        self._holds.update(holds)

    def _forget_critical(self) -> bool:
        """Make room: forget the critical instance that was not heard of for longest; False when there is none."""
        critical = [instance for instance in self._instances.values() if instance.state == CRITICAL]
        if not critical:
            return False
        oldest = min(critical, key=lambda one: one.expires_at)
        del self._instances[oldest.id]
        self._on_forget(oldest)
        return True

    def _new_id(self, name: str) -> str:
        while True:
            made = f"{name}-{secrets.token_hex(6)}"
            if made not in self._instances:
                return made

    def _ttl(self, body: dict[str, object]) -> float:
        value = body.get("ttl")
        if value is None:
            return self.default_ttl
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise RegistrationError("ttl", 'is a duration ("30s", "1m30s") or a number of seconds')
        text = value if isinstance(value, str) else repr(value)
        if len(text) > 32:
            raise RegistrationError("ttl", "is not a duration from 1s to 300s")
        try:
            return _TTL.parse(text, False)
        except BadValue as error:
            raise RegistrationError("ttl", error.message) from None


def _rfc3339(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse_unknown(body: dict[str, object]) -> None:
    for field in body:
        if field not in _FIELDS and field not in _READ_ONLY:
            raise RegistrationError(field[:64], f"is not a field of a registration; these are: {', '.join(_FIELDS)}")


def _text(body: dict[str, object], field: str, pattern: re.Pattern[str], rule: str) -> str:
    """A text field, "" when it is missing, null or empty."""
    value = body.get(field)
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise RegistrationError(field, "is text")
    if not pattern.match(value):
        raise RegistrationError(field, rule)
    return value


def _tags(body: dict[str, object]) -> tuple[str, ...]:
    value = body.get("tags")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RegistrationError("tags", 'is a list of texts, as in ["v2", "canary"]')
    if len(value) > _MAX_TAGS:
        raise RegistrationError("tags", f"has {len(value)} tags; {_MAX_TAGS} are possible")
    for tag in value:
        if not isinstance(tag, str) or not _TAG.match(tag) or not tag.isprintable():
            raise RegistrationError("tags", "a tag is text without spaces and commas, 64 characters at most")
    return tuple(dict.fromkeys(value))


def _metadata(body: dict[str, object]) -> dict[str, str]:
    value = body.get("metadata")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RegistrationError("metadata", 'is an object of texts, as in {"zone": "a"}')
    if len(value) > _MAX_METADATA:
        raise RegistrationError("metadata", f"has {len(value)} entries; {_MAX_METADATA} are possible")
    for key, text in value.items():
        if not isinstance(key, str) or not _METADATA_KEY.match(key):
            raise RegistrationError("metadata", "a key is 1 to 64 of A-Z a-z 0-9 . _ / -, a letter or digit first")
        if not isinstance(text, str):
            raise RegistrationError(f"metadata.{key}", "is text")
    if sum(len(key) + len(text) for key, text in value.items()) > _MAX_METADATA_CHARACTERS:
        raise RegistrationError("metadata", f"is longer than {_MAX_METADATA_CHARACTERS} characters in all")
    return dict(value)


def _weight(body: dict[str, object]) -> int:
    value = body.get("weight")
    if value is None:
        return 1
    weight = whole_number(value, _MAX_WEIGHT)
    if weight is None:
        raise RegistrationError("weight", f"is a whole number from 0 to {_MAX_WEIGHT} (0 = listed, without traffic)")
    return weight
