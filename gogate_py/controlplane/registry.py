"""Registry: services that register themselves, as instances with a lease.

Pure: the clock is given, nothing is sent anywhere. What a registration may contain is checked here and by the address
rules. A heartbeat is one dictionary lookup and two stores (SECURITY.md F16: 5 000 a second); expiry is one scan of all
instances per cleanup interval.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import attrs

from gogate_py.config.values import BadValue, Duration
from gogate_py.controlplane.registry_rules import AddressForbidden, AddressRules, RegistrationError
from gogate_py.errors import GogateError

__all__ = ["AddressForbidden", "Registration", "RegistrationError", "Registry", "RegistryFull"]

_FIELDS: Final = ("id", "name", "address", "tags", "metadata", "weight", "ttl")
#: What an answer adds; a client that sends back what it got is not refused.
_READ_ONLY: Final = ("registered_at", "last_heartbeat")
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
    """One instance with its lease. Replaced as a whole by an update; only a heartbeat changes it in place."""

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


class Registry:
    """All instances, by id. ``clock`` gives monotonic seconds, ``wall`` seconds since 1970 (shown, never compared)."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        default_ttl: float,
        max_services: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.rules = rules
        self.default_ttl = default_ttl
        self.max_services = max_services
        self._clock = clock
        self._wall = wall
        self._instances: dict[str, Registration] = {}

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
        if old is None and len(self._instances) >= self.max_services:
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

    def expire(self, now: float) -> list[Registration]:
        """Take out every instance whose lease has ended; those instances."""
        expired = [instance for instance in self._instances.values() if instance.expires_at <= now]
        for instance in expired:
            del self._instances[instance.id]
        return expired

    def extend(self, seconds: float) -> None:
        """Lengthen every lease: for a time in which the registry itself could not listen (SECURITY.md F16)."""
        for instance in self._instances.values():
            instance.expires_at += seconds

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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_WEIGHT:
        raise RegistrationError("weight", f"is a whole number from 0 to {_MAX_WEIGHT} (0 = listed, without traffic)")
    return value
