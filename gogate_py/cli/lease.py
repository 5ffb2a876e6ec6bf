"""Lease: keeps one service registered with a gateway: registers, renews, registers again, deregisters.

A loop in a thread of its own, so that the command line stays free for signals and its child. Everything it says goes to
``say``, once per change of state. What is refused for good (a bad address, a wrong token) is :class:`Refused`; what may
pass (no connection, 429, 5xx) is tried again with growing pauses.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit

from attrs import field, frozen

from gogate_py.clock import Random, new_random
from gogate_py.config.values import DAY, BadValue, Duration
from gogate_py.errors import GogateError

#: Heartbeats per TTL: two may get lost.
BEATS_PER_TTL: Final = 3
#: The share of a heartbeat's distance that chance takes off it.
BEAT_JITTER: Final = 0.1
#: Seconds one call of the admin API may take.
CALL_TIMEOUT: Final = 3.0
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0

_DEFAULT_TTL: Final = 30.0
_ANY_TTL: Final = Duration(0.001, DAY)


class Unreachable(GogateError):
    """The admin API did not answer, or cannot at the moment."""


class Refused(GogateError):
    """The admin API refused; trying the same again would not help. ``answer``: its problem, where it sent one."""

    def __init__(self, reason: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.answer = answer or {}


class UnknownInstance(GogateError):
    """The gateway does not know the instance (it was restarted, or the lease ran out)."""


@frozen
class Service:
    """What is registered. Empty ``id``: the gateway chooses. An address without host is completed when it is sent."""

    name: str
    address: str
    id: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(factory=dict)
    weight: int | None = None
    ttl: str = ""


class AdminClient:
    """Calls of one gateway's admin API; a connection each, because a heartbeat every ten seconds keeps none open."""

    def __init__(self, url: str, token: str, timeout: float = CALL_TIMEOUT) -> None:
        """``timeout``: seconds that one call may take. Raises ValueError with what is wrong with the URL."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ValueError(f"{url!r} is not the address of an admin API; expected something like http://127.0.0.1:9090")
        self.host = parts.hostname
        usual = 9090 if "://" not in url else 443 if parts.scheme == "https" else 80
        self.port = parts.port or usual
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{parts.scheme}://{shown}:{self.port}"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._token = token
        self._timeout = timeout

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request → the decoded answer. Raises Unreachable, Refused or UnknownInstance."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=self._timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=self._timeout)
        try:
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from None
        finally:
            connection.close()
        return _judge(answer.status, data, method)

    def own_host(self) -> str:
        """The address of this machine as the gateway sees it. Raises Unreachable when its name does not resolve."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)[0]
            if ipaddress.ip_address(str(address[0])).is_loopback:
                return "127.0.0.1"
            with socket.socket(family, kind) as sock:
                sock.connect(address)  # chooses the route and sends nothing
                host = str(sock.getsockname()[0])
        except OSError as error:
            raise Unreachable(str(error)) from None
        return f"[{host}]" if ":" in host else host


def _judge(status: int, data: bytes, method: str) -> dict[str, Any]:
    try:
        decoded = json.loads(data) if data else {}
    except ValueError:
        decoded = {}
    value: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    if status < 300:
        return value
    reason = f"{status}: {value.get('detail') or data[:200].decode(errors='replace') or 'no reason given'}"
    if status == 429 or status >= 500:
        raise Unreachable(reason)
    if status == 404 and method != "POST":
        raise UnknownInstance(reason)
    raise Refused(reason, value)


class Lease:
    """One service's registration while this process lives."""

    def __init__(
        self, client: AdminClient, service: Service, say: Callable[[str], None], random: Random | None = None
    ) -> None:
        self._client = client
        self._service = service
        self._say = say
        self._random = random or new_random()
        self._id = service.id
        self._ttl = _DEFAULT_TTL
        self._registered = False
        self._trouble = ""
        self._pause = FIRST_PAUSE
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None
        #: Called (in the thread) when the gateway refused for good after the start.
        self.on_refused: Callable[[], None] = lambda: None

    def try_register(self) -> bool:
        """Register now; False when the gateway cannot be reached (the loop goes on trying). Raises Refused."""
        return self._step(first=True)

    def start(self) -> None:
        """Keep the lease from now on, in a thread."""
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop renewing and deregister; says so when the gateway could not be told."""
        self._leaving.set()
        if self._thread is not None:
            self._thread.join(2 * CALL_TIMEOUT)
            self._thread = None
        if not self._registered:
            return
        self._registered = False
        try:
            self._client.call("DELETE", self._path())
        except UnknownInstance:
            return
        except GogateError as error:
            self._say(f"could not deregister {self._id} ({error}); it leaves when its ttl of {self._ttl:g} s is over")
        else:
            self._say(f"deregistered {self._id}")

    # --- the loop

    def _keep(self) -> None:
        while not self._leaving.wait(self._next_pause()):
            self._step()

    def _next_pause(self) -> float:
        """Seconds until the next call: a heartbeat's distance, or while there is trouble a growing pause; jittered."""
        beat = self._ttl / BEATS_PER_TTL
        if not self._trouble:
            # A fleet that was started together does not beat together for long.
            return beat * (1.0 - BEAT_JITTER * self._random.random()) if self._registered else 0.0
        pause = min(self._pause, beat)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return pause * (0.75 + self._random.random() / 2)

    def _step(self, first: bool = False) -> bool:
        """One heartbeat, or one registration; True when the gateway took it."""
        try:
            if self._registered:
                self._client.call("PUT", f"{self._path()}/heartbeat")
            else:
                self._register()
        except Unreachable as error:
            self._troubled(f"cannot reach the admin API at {self._client.url} ({error}); trying again")
            return False
        except UnknownInstance:
            self._registered = False
            self._say(f"the gateway does not know {self._id} any more (was it restarted?); registering again")
            return self._step()
        except Refused as error:
            if first:
                raise
            self._troubled(f"the admin API at {self._client.url} refused: {error}; trying again")
            self.on_refused()
            return False
        if self._trouble:
            self._say(f"the admin API at {self._client.url} answers again")
        self._trouble = ""
        self._pause = FIRST_PAUSE
        return True

    def _register(self) -> None:
        service = self._service
        address = service.address
        if address.startswith(":"):
            address = f"{self._client.own_host()}{address}"
        body: dict[str, Any] = {"name": service.name, "address": address}
        optional = {"id": self._id, "tags": list(service.tags), "metadata": service.metadata, "ttl": service.ttl}
        body.update({key: value for key, value in optional.items() if value})
        if service.weight is not None:
            body["weight"] = service.weight
        answer = self._client.call("POST", "/v1/services", body)
        if not isinstance(answer.get("id"), str):
            raise Refused("the answer is not one of a gogate registry")
        self._id = answer["id"]
        self._ttl = _seconds(answer.get("ttl"))
        self._registered = True
        where = ", ".join(answer.get("pools") or ()) or "no pool: nothing routes to it yet"
        self._say(f"registered {self._id} at {address} with {self._client.url} (ttl {self._ttl:g} s, {where})")

    def _troubled(self, message: str) -> None:
        """Say it once until it changes."""
        if message != self._trouble:
            self._trouble = message
            self._say(message)

    def _path(self) -> str:
        return f"/v1/services/{quote(self._id, safe='')}"


def _seconds(text: object) -> float:
    try:
        return _ANY_TTL.parse(str(text), False)
    except BadValue:
        return _DEFAULT_TTL
