"""Dashboard: the page that browsers get at the admin listener, and its parts.

Plain files beside this package (gogate_py/dashboard), read once; nothing is built, nothing comes from elsewhere: the
policy that goes with the page (CSP) forbids it. What it shows it asks for itself (live_stream.py, the admin API).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Final

from starlette.responses import Response

from gogate_py.controlplane.admin_problems import MAX_SHOWN, ApiError

_TYPES: Final = {
    ".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml"}
_PAGE: Final = "index.html"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def wants_page(accept: str) -> bool:
    """Whether a request for / comes from a browser; curl and scripts get the list of paths."""
    return "text/html" in accept


def page(name: str = _PAGE) -> Response:
    """The page; or another one."""
    return _answer(name)


def asset(name: str) -> Response:
    """A part of it. Raises ApiError."""
    if name not in _files():
        raise ApiError(404, f"The dashboard has no file {name[:MAX_SHOWN]}.")
    return _answer(name)


def _answer(name: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
    return Response(_files()[name], 200, headers, _TYPES["." + name.rpartition(".")[2]])


@lru_cache(maxsize=1)
def _files() -> dict[str, bytes]:
    """Every file that may be asked for; read when the first page is."""
    folder = files("gogate_py") / "dashboard"
    return {
        one.name: one.read_bytes() for one in folder.iterdir() if one.name.endswith(tuple(_TYPES)) and one.is_file()}
