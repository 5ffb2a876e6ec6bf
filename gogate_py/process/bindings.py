"""Bindings: the data plane's listening sockets over changes of configuration.

    a listener of the new configuration          its sockets
    has the name and address of a present one    are kept
    … but asks other things of clients           are the same ones again under an id of their own: who is there, and was
                                                 never asked, has to connect again
    has the address of one that goes             are the same ones again (duplicates): nobody who waits in their accept
                                                 queues is lost while it passes from one name to the other
    has another address                          are bound before anything changes, under an id of their own
    has the port of one that goes                likewise, beside it: both may listen until everybody has changed over
                                                 (``127.0.0.1:8080`` becomes ``:8080``)

What no listener needs any more begins no new handshakes first (``handshakes``); then it is closed here when the
workers are told, and there when they do it: they empty its accept queue first, and a copy here would go on filling it.
Addresses are compared as they are written.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from gogate_py.addresses import parse
from gogate_py.process import handshakes
from gogate_py.process.sockets import BoundListener, bind


class Change(NamedTuple):
    """What another configuration needs: listeners to add, and those that will not be needed any more."""

    added: list[BoundListener]
    removed: list[BoundListener]
    bound: dict[str, BoundListener]
    texts: dict[str, str]
    rules: dict[str, str]

    def listener_id(self, name: str, address: str) -> str:
        """The id of a listener's sockets once it is served."""
        return self.bound[name].id if name in self.bound else name


class Bindings:
    """The listeners of the data plane by name. ``slots``: one socket for each worker slot."""

    def __init__(self, slots: int, passed: dict[str, socket.socket] | None = None) -> None:
        """``passed``: listening sockets that systemd opened, by address."""
        self._slots = slots
        self._passed = passed if passed is not None else {}
        self._bound: dict[str, BoundListener] = {}
        self._texts: dict[str, str] = {}
        self._rules: dict[str, str] | None = {}
        self._coming: Change | None = None
        self._number = 0

    @property
    def listeners(self) -> list[BoundListener]:
        """Every bound listener."""
        return list(self._bound.values())

    def listener_id(self, name: str, address: str) -> str:
        """The id of a listener's sockets in the configuration that is served, whatever is being prepared: workers may
        be told anew of backends meanwhile."""
        return self._bound[name].id if name in self._bound else name

    def named(self) -> list[tuple[str, str, BoundListener]]:
        """Every listener with its name, and its address as the configuration has it."""
        return [(name, self._texts[name], listener) for name, listener in self._bound.items()]

    def adopt(self, bound: Mapping[str, BoundListener], texts: Mapping[str, str]) -> None:
        """Begin with the listeners of another gateway, as if they were of the configuration before."""
        self._bound, self._texts = dict(bound), dict(texts)
        self._rules = None  # nobody is here who came under others

    async def prepare(self, wanted: Mapping[str, str], rules: Mapping[str, str] = MappingProxyType({})) -> Change:
        """Bind what is new among these names and addresses. ``rules``: what is asked of those who connect, by name.
        Raises StartError; then nothing has changed."""
        before = rules if self._rules is None else self._rules
        bound = {
            name: self._bound[name] for name, text in wanted.items()
            if self._texts.get(name) == text and before.get(name) == rules.get(name)}
        going = {text: self._bound[name] for name, text in self._texts.items() if wanted.get(name) != text}
        ports = {(listener.address.port, listener.address.is_unix) for listener in going.values()}
        removed = [listener for name, listener in self._bound.items() if name not in bound]
        added: list[BoundListener] = []
        try:
            for name, text in wanted.items():
                if name in bound:
                    continue
                present = self._bound[name] if self._texts.get(name) == text else going.pop(text, None)
                if present is not None:
                    sockets = [sock.dup() for sock in present.sockets]
                    listener = BoundListener(self._new_id(name), present.address, sockets, ours=present.ours)
                else:
                    address = parse(text, allow_port_zero=True)
                    beside = (address.port, address.is_unix) in ports
                    listener = await bind(self._new_id(name), text, self._slots, probe=not beside, passed=self._passed)
                added.append(listener)
                bound[name] = listener
        except BaseException:
            self._close(added)
            raise
        self._coming = Change(added, removed, {name: bound[name] for name in wanted}, dict(wanted), dict(rules))
        return self._coming

    async def quiet(self) -> None:
        """Complete the handshakes, and begin no more, where nobody listens any more in the configuration that is being
        prepared."""
        change = self._coming
        assert change is not None
        here = {str(listener.address) for listener in change.bound.values()}
        going = (listener for listener in change.removed if str(listener.address) not in here)
        await handshakes.finish([sock for listener in going for sock in listener.handshaking()])

    async def quiet_all(self) -> None:
        """Likewise everywhere, when gogate ends and nobody goes on with its sockets."""
        await handshakes.finish([sock for listener in self.listeners for sock in listener.handshaking()])

    def _new_id(self, name: str) -> str:
        """An id that no socket of a worker has: the name, unless its listener is there with another address or rule."""
        if name not in self._bound:
            return name
        self._number += 1
        return f"{name}#{self._number}"

    def _close(self, listeners: Iterable[BoundListener], *, keep_paths: bool = False) -> None:
        """Close our copies; the path of a Unix socket stays while a listener that is served has it."""
        here = {str(listener.address) for listener in self._bound.values()}
        for listener in listeners:
            listener.close(keep_path=keep_paths or str(listener.address) in here)

    def abandon(self) -> None:
        """The configuration is not served after all: close what was bound for it; what was to go stays."""
        change, self._coming = self._coming, None
        if change is not None:
            for listener in change.removed:
                for sock in listener.handshaking():
                    handshakes.allow(sock)
            self._close(change.added)

    def commit(self) -> list[BoundListener]:
        """The configuration will be served; → what is to be closed when the workers are told."""
        change = self._coming
        assert change is not None
        self._coming = None
        self._bound, self._texts, self._rules = change.bound, change.texts, change.rules
        return change.removed

    def release(self, removed: list[BoundListener], *, keep_paths: bool = False) -> None:
        """Close our copies of what is not needed any more. ``keep_paths``: paths of Unix sockets are another's."""
        self._close(removed, keep_paths=keep_paths)

    def close(self, *, keep_paths: bool = False) -> None:
        """Close our copies of everything."""
        self.abandon()
        for listener in self._bound.values():
            listener.close(keep_path=keep_paths)
