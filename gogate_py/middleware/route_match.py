"""Route match: the route of a request, with the one case that the router alone cannot know: a CORS preflight is about
the method that it asks for, so it belongs to the route of that method, if that route has CORS rules."""

from __future__ import annotations

from typing import Protocol, TypeVar

from gogate_py.middleware.chain import RequestView
from gogate_py.middleware.cors import requested_method
from gogate_py.policy.router import NotAllowed, Router
from gogate_py.snapshot import HttpRoute


class Routed(Protocol):
    """What a router finds: something compiled from a route."""

    @property
    def spec(self) -> HttpRoute: ...


R = TypeVar("R", bound=Routed)


def routed_method(router: Router[R], host: bytes, request: RequestView) -> bytes:
    """The method that a request is matched by: its own, or the one that a preflight (OPTIONS) asks for. ``host`` as
    routes are keyed. Raises WireError for a query that has to be read and cannot be."""
    asked = requested_method(request)
    if asked:
        found = router.match(host, request.path, asked, request)
        if found is not None and not isinstance(found, NotAllowed) and found.spec.cors is not None:
            return asked
    return request.method
