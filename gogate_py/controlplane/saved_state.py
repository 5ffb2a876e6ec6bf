"""Saved state: what a gateway must not forget over a restart, as one value, and its way to bytes and back.

Registered instances, overrides of operators (weights, splits), drained backends, and which backends probes had found
down. Leases are not in it: those who come back get a fresh one (SECURITY.md F13: no lease is measured on the wall
clock). Moments in it are for people.

The bytes are one JSON object: format, version, the SHA-256 of the state, the state. Everything in it is checked; what
is wrong is a :class:`BadState` that says what.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from gogate_py.errors import GogateError

FORMAT: Final = "gogate-state"
#: Raised with every change that an older gogate would misread.
VERSION: Final = 1


class BadState(GogateError):
    """Bytes that are not a state of this version: the message says why."""


class SavedInstance(msgspec.Struct, frozen=True):
    """A registered instance. ``ttl`` is seconds, ``registered_at`` RFC 3339, ``heard_at`` seconds since 1970."""

    id: str
    name: str
    address: str
    tags: tuple[str, ...]
    metadata: dict[str, str]
    weight: int
    ttl: float
    registered_at: str
    heard_at: float
    critical: bool = False


class SavedOverride(msgspec.Struct, frozen=True):
    """A value in force instead of the configured one, since a moment (seconds since 1970)."""

    value: int
    since: float


class SavedWeight(msgspec.Struct, frozen=True):
    """The overridden weight of a backend."""

    pool: str
    address: str
    override: SavedOverride


class SavedBackend(msgspec.Struct, frozen=True):
    """A backend of a pool that is drained (since a moment, seconds since 1970), or that probes found down (for the
    reason ``down``)."""

    pool: str
    address: str
    drained: bool = False
    down: str = ""
    drained_since: float = 0.0


class SavedState(msgspec.Struct, frozen=True):
    """All of it."""

    instances: tuple[SavedInstance, ...] = ()
    weights: tuple[SavedWeight, ...] = ()
    splits: dict[str, dict[str, SavedOverride]] = {}
    backends: tuple[SavedBackend, ...] = ()


class _Envelope(msgspec.Struct):
    format: str
    version: int
    checksum: str = ""
    state: msgspec.Raw = msgspec.Raw()


def to_bytes(state: SavedState) -> bytes:
    """The state as it is written."""
    body = msgspec.json.encode(state)
    envelope = _Envelope(FORMAT, VERSION, _checksum(body), msgspec.Raw(body))
    return msgspec.json.encode(envelope) + b"\n"


def from_bytes(data: bytes) -> SavedState:
    """The state that was written. Raises BadState."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadState(f"it is torn or not a state file: {error}") from None
    if envelope.format != FORMAT:
        raise BadState("it is not a state file of gogate")
    if envelope.version != VERSION:
        raise BadState(f"it has version {envelope.version}, and this gogate reads version {VERSION}")
    body = bytes(envelope.state)
    if envelope.checksum != _checksum(body):
        raise BadState("its checksum does not fit: it was changed or damaged")
    try:
        return msgspec.json.decode(body, type=SavedState)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadState(f"its content is not understood: {error}") from None


def _checksum(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
