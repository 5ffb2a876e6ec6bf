"""Reloads: how configurations came to be served, as the supervisor tells and the admin API shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import frozen


@frozen
class Reload:
    """One reload: how it ended and why it was. ``problems`` are lines as ``gogate check`` prints them; those of a
    success say what happened to workers. ``at`` is seconds since 1970."""

    at: float
    cause: str  # start | file | SIGHUP | api
    result: str  # success | unchanged | failure
    generation: int
    duration_s: float
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()  # what it did, as ``gogate plan`` prints it


def reload_object(reload: Reload) -> dict[str, Any]:
    """One reload for the admin API."""
    return {
        "time": datetime.fromtimestamp(reload.at, UTC).isoformat(timespec="milliseconds"),
        "cause": reload.cause,
        "result": reload.result,
        "generation": reload.generation,
        "duration_s": reload.duration_s,
        "problems": list(reload.problems),
        "changes": list(reload.changes),
    }
