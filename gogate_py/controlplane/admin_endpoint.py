"""One path of the admin API: which method does what there, and how what cannot be done is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gogate_py.controlplane.admin_problems import MAX_SHOWN, ApiError, did_you_mean, problem

Handler = Callable[[Request], Awaitable[Response]]


@frozen
class Endpoint:
    """One path with what each method does there. ``on``: the listeners that serve it."""

    path: str
    verbs: Mapping[str, Handler]
    does: str
    on: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = self.verbs.get(method)
        answer: Response
        if handler is None:
            allow = ", ".join(f"{verb}, HEAD" if verb == "GET" else verb for verb in self.verbs)
            answer = problem(405, f"This path takes {allow}.", path, headers=[("Allow", allow)])
        else:
            try:
                if scope["query_string"]:
                    self._check_parameters(method, request)
                answer = await handler(request)
                await answer(scope, receive, send)
                return
            except ApiError as error:
                answer = problem(
                    error.status,
                    error.detail,
                    path,
                    field=error.field,
                    headers=error.headers.items(),
                    more=error.more,
                )
        await answer(scope, receive, send)

    def _check_parameters(self, method: str, request: Request) -> None:
        """Refuse a parameter that an operation with parameters does not have: a misspelt ``?pool=`` of a drain would
        drain the backend everywhere. What takes none (health, metrics) does not look at them."""
        from gogate_py.controlplane.openapi_operations import OPERATIONS  # not needed to start

        operation = OPERATIONS.get((method, self.path.replace(":path", "")))
        known = [one.name for one in operation.parameters] if operation is not None else []
        for name in request.query_params if known else ():
            if name not in known:
                detail = f"There is no parameter {name[:MAX_SHOWN]} here.{did_you_mean(name, known)}"
                raise ApiError(400, f"{detail} It takes {', '.join(known)}.", field=name[:MAX_SHOWN])
