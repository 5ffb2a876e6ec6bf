"""Configurations for tests, from dictionaries (JSON is YAML): two workers, an admin API, ports the kernel chooses."""

from __future__ import annotations

import json
from typing import Any

ANY = "127.0.0.1:0"


def gateway_config(server: dict[str, Any] | None = None, **top: Any) -> str:
    """The text of a configuration: ``server`` over two workers and an admin listener, and further top-level keys."""
    return json.dumps({"server": {"workers": 2, "admin": {"listenAddr": ANY}, **(server or {})}, **top}, indent=1)


def http_gateway(*backends: str, **server: Any) -> str:
    """One HTTP listener before these backends, without probes unless ``health`` is given."""
    return gateway_config(
        {"httpListenAddr": ANY, "backends": list(backends), "health": {"enabled": False}, **server}
    )


def tcp_gateway(name: str, *backends: str, **server: Any) -> str:
    """One TCP route before these backends, without probes unless ``health`` is given."""
    return gateway_config(
        {"health": {"enabled": False}, **server},
        pools={f"{name}-pool": {"backends": list(backends)}},
        routes=[{"name": name, "type": "tcp", "listenAddr": ANY, "pool": f"{name}-pool"}],
    )
