"""Services: what the stages of all routes of a worker share — limiters, keys, passwords, clients of other services.

They outlive snapshots: a limit that is still there goes on with what it counted, kept connections stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gogate_py.dataplane.forward_auth import ForwardAuthStage
from gogate_py.dataplane.shared_limits import LimiterTable
from gogate_py.messages import UnknownKey
from gogate_py.middleware.auth_basic import Passwords
from gogate_py.middleware.chain import Stage
from gogate_py.middleware.jwt_keys import KeySets
from gogate_py.middleware.rate_limit import Limiter
from gogate_py.snapshot import ForwardAuth, RateLimit, Snapshot

if TYPE_CHECKING:
    from gogate_py.dataplane.plane import Plane


class Services:
    """The services of one worker (middleware.pipeline.Services)."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.key_sets = KeySets(lambda url: plane.outbox.send(UnknownKey(url)))
        self._passwords: Passwords | None = None
        self.limiters = LimiterTable(plane.arena, plane.columns)
        self._forward_auths: dict[ForwardAuth, ForwardAuthStage] = {}

    @property
    def passwords(self) -> Passwords:
        """Compares passwords; made, and bcrypt loaded, when a route first needs it."""
        if self._passwords is None:
            self._passwords = Passwords()
        return self._passwords

    def limiter(self, limit: RateLimit, route: str) -> Limiter:
        """What counts for a limit."""
        return self.limiters.limiter(limit, route)

    def forward_auth(self, settings: ForwardAuth) -> Stage:
        """The stage that asks an external service, with its kept connections."""
        stage = self._forward_auths.get(settings)
        if stage is None:
            stage = self._forward_auths[settings] = ForwardAuthStage(settings)
        return stage

    def forget_unused(self, snapshot: Snapshot) -> None:
        """Let go of what the snapshot does not name (after the routes were compiled)."""
        self.limiters.drop_unused()
        asked = {route.forward_auth for route in snapshot.http_routes}
        for settings in [settings for settings in self._forward_auths if settings not in asked]:
            self._forward_auths.pop(settings).close()

    def close(self) -> None:
        """The worker ends."""
        if self._passwords is not None:
            self._passwords.close()
        for stage in self._forward_auths.values():
            stage.close()
