"""Looks at a gateway for tests of gogate top: what the admin API would say, with counters that tests set."""

from __future__ import annotations

from typing import Any

from gogate_py.cli.top.figures import Look

BOUNDS = [1.0, 10.0, 100.0]


def backend(addr: str, pool: str = "web", **said: Any) -> dict[str, Any]:
    """One backend of GET /backends."""
    return {
        "id": addr, "addr": addr, "pool": pool, "weight": 1, "healthy": True, "last_error": "", "active_connections": 0,
        "breaker": "closed", "ejected": False, "warming_up": False, "draining": False, **said,
    }  # fmt: skip


def counts(success: int = 0, failure: int = 0, tcp: int = 0, sent: int = 0, received: int = 0) -> dict[str, Any]:
    """The counters of one backend in GET /stats."""
    return {"requests": {"success": success, "failure": failure}, "tcp_connections": tcp, "bytes_sent": sent,
            "bytes_received": received}  # fmt: skip


def look(
    at: float,
    *,
    routes: dict[str, dict[str, Any]] | None = None,
    backends: list[dict[str, Any]] | None = None,
    counted: dict[str, dict[str, Any]] | None = None,
    local: dict[str, int] | None = None,
    listeners: dict[str, dict[str, int]] | None = None,
    by_limit: dict[str, dict[str, int]] | None = None,
    **said: Any,
) -> Look:
    """A look at second ``at``. ``counted``: address → counts(), all in the pool web."""
    whole = {name: {"by_code": {}, "tcp": {}, "buckets": [], **one} for name, one in (routes or {}).items()}
    by_status = {f"{digit}xx": 0 for digit in "12345"}
    tcp: dict[str, int] = {}
    for one in whole.values():
        for code, n in one["by_code"].items():
            by_status[f"{code[0]}xx"] += n
        for result, n in one["tcp"].items():
            tcp[result] = tcp.get(result, 0) + n
    of_listeners = (listeners or {}).values()
    stats = {
        "version": "1.2.3", "pid": 1, "uptime_s": 90.0, "generation": 7, "ready": True, "draining": False,
        "reasons": [], "warnings": [], "workers": [{"slot": 0, "pid": 2, "state": "serving", "restarts": 0}],
        "registry": {"services": 0}, "bucket_bounds_ms": BOUNDS, "routes": whole,
        "requests": {"total": sum(by_status.values()), "in_flight": 3, "by_status": by_status, "local": local or {}},
        "connections": {
            "total": sum(one["total"] for one in of_listeners), "active": sum(one["active"] for one in of_listeners),
            "refused": sum(one["refused"] for one in of_listeners), "refused_by_reason": {},
            "listeners": listeners or {},
        },
        "tcp_by_result": tcp, "auth_failures": {}, "rate_limit": {"by_limit": by_limit or {}},
        "retries": {"by_reason": {}, "denied_by_budget": 0},
        "pools": {"web": {"by_backend": counted or {}}}, **said,
    }  # fmt: skip
    return Look(at, stats, backends or [])
