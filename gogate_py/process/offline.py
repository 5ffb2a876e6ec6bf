"""Offline: a configuration as a gateway would serve it, without one running — for commands that foretell.

Every backend counts as up and reachable, every limit as untouched, every breaker as closed; no name is resolved and
nothing is bound.
"""

from __future__ import annotations

import secrets
from typing import Any

from gogate_py.arena import Arena
from gogate_py.clock import wall
from gogate_py.config.schema import Config
from gogate_py.controlplane.compiler import Member, compile_snapshot, members
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.rows import Key, LimitRows, Rows
from gogate_py.dataplane.explain import Explainer
from gogate_py.middleware.question import Question
from gogate_py.snapshot import BackendState, Snapshot


def offline_snapshot(config: Config) -> Snapshot:
    """The snapshot of a configuration with every backend of the file up."""
    found = members(config, ())
    rows = Rows[Key](lambda row: None).assign((one.key for pool in found.values() for one in pool), 1, 1)

    def endpoints(member: Member) -> tuple[tuple[str, int], ...]:
        address = member.address
        return ((address.path, 0),) if address.is_unix else ((address.host, address.port),)

    return compile_snapshot(
        config,
        found,
        rows,
        endpoints,
        lambda member, row: BackendState(row, True, False),
        1,
        1,
        Overrides(wall),
        LimitRows(),
        secrets.token_bytes(32),
    )


def explain_offline(config: Config, question: Question, listener: str = "") -> dict[str, Any]:
    """What would happen to a request under a configuration; ``listener``: the id of the one it comes in by."""
    return Explainer(offline_snapshot(config), Arena.create(), 1).explain(question, listener)
