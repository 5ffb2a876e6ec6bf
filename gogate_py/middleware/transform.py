"""Transform: what a route changes of a request before its backend gets it — the path, then header fields.

Runs behind every stage that may refuse, so that all of them see what the client sent. The path that is matched, limited
and logged stays the client's; only the backend sees the rewritten one.
"""

from __future__ import annotations

from collections.abc import Callable

from gogate_py.errors import WireError
from gogate_py.middleware.chain import Refusal, RequestView
from gogate_py.middleware.field_edits import RequestEdits
from gogate_py.middleware.rewriting import compile_rewrite
from gogate_py.policy.router import compile_captures
from gogate_py.snapshot import HttpRoute
from gogate_py.wire.head_check import RequestHead


class Transform:
    """The changes of one route."""

    __slots__ = ("edits", "rewrite")

    def __init__(self, rewrite: Callable[[bytes], bytes] | None, edits: RequestEdits | None) -> None:
        self.rewrite = rewrite
        self.edits = edits

    def __call__(self, request: RequestView, head: RequestHead) -> Refusal | None:
        """Change the head in place, or refuse what cannot be made of this request."""
        # Edits first: their variables are about the path as the client sent it.
        if self.edits is not None:
            refusal = self.edits(request, head)
            if refusal is not None:
                return refusal
        if self.rewrite is not None:
            path = self.path_of(request)
            if isinstance(path, Refusal):
                return path
            head.path = path
        return None

    def path_of(self, request: RequestView) -> bytes | Refusal:
        """The path that the backend gets, where it is rewritten."""
        assert self.rewrite is not None
        try:
            return self.rewrite(request.path)
        except WireError as error:
            return Refusal(error.failure, error.detail, counted="path")


def compile_transform(route: HttpRoute) -> Transform | None:
    """The changes of a route; None when there are none."""
    rewrite = compile_rewrite(route)
    edits = None
    if route.request_fields is not None:
        edits = RequestEdits(route.request_fields, compile_captures(route.path, route.path_prefix))
    return Transform(rewrite, edits) if rewrite is not None or edits is not None else None
