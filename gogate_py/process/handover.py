"""Handover: what two gogates say to each other while the program is upgraded, over a Unix socketpair that the old one
makes and the new one inherits (framed as by process/channel.py).

    new → old   Hello                      before it reads its configuration: which program it is
    old → new   Offered …, AllOffered      every listening socket, with what it is called
    new → old   Prepared                   what it will listen on is bound; it needs the state now
    old → new   State, Member …            from here on the old one's admin listener answers nothing
    new → old   Member …                   its workers
    new → old   Serving                    its workers serve, its admin listener answers
    old → new   Released                   the old one does nothing any more but finish what runs
    old → new   Counted …                  what its workers still count, until the end of the connection

``Failed`` ends it at any moment. The two may be of different versions: messages only ever get more fields, with
defaults, and another PROTOCOL refuses the upgrade.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

import msgspec
from msgspec import Struct

from gogate_py import messages
from gogate_py.controlplane.handed_state import HandedState
from gogate_py.messages import Counts
from gogate_py.process.channel import frame

PROTOCOL: Final = 1
#: The descriptor of the new one's end.
VARIABLE: Final = "GOGATE_UPGRADE_FD"
#: What the service manager said to the old one alone.
_NOT_INHERITED: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")


class Hello(Struct, frozen=True, tag="hello"):
    """The new gogate is there. ``layout``: of its arena."""

    protocol: int
    version: str
    layout: int


class Offered(Struct, frozen=True, tag="offered"):
    """A listener with its sockets (descriptors come along). ``admin``: one of the supervisor's own; ``text``: its
    address as the configuration has it; ``host``, ``port``, ``path``: as it is; ``ours``: see BoundListener."""

    admin: bool
    name: str
    id: str
    text: str
    host: str
    port: int
    path: str
    ours: bool


class AllOffered(Struct, frozen=True, tag="all_offered"):
    """There are no more listeners."""


class Prepared(Struct, frozen=True, tag="prepared"):
    """The new one can start as soon as it has the state. ``workers``: how many it will have."""

    workers: int


class State(Struct, frozen=True, tag="state"):
    """Everything that the old one knows. With the arena's descriptor, if the new one can have it: ``first`` is its
    first column there, ``columns``: how many are in use then."""

    control: HandedState
    counts: Counts
    incarnation: int
    restarts: tuple[int, ...]
    first: int
    columns: int


class Member(Struct, frozen=True, tag="member"):
    """A worker of the sender, its pidfd comes along, and its column of the arena."""

    column: int


class Serving(Struct, frozen=True, tag="serving"):
    """The new one serves."""


class Released(Struct, frozen=True, tag="released"):
    """The new one is the only one."""


class Counted(Struct, frozen=True, tag="counted"):
    """A report of a worker of the old one."""

    slot: int
    counts: Counts


class Failed(Struct, frozen=True, tag="failed"):
    """The new one cannot start."""

    reason: str


ToOld = Hello | Prepared | Member | Serving | Failed
ToNew = Offered | AllOffered | State | Member | Released | Counted
decode_to_old = msgspec.msgpack.Decoder(ToOld).decode
decode_to_new = msgspec.msgpack.Decoder(ToNew).decode


def environment(fd: int, environ: MutableMapping[str, str]) -> dict[str, str]:
    """What the new gogate's environment is, given ours."""
    return {**{key: value for key, value in environ.items() if key not in _NOT_INHERITED}, VARIABLE: str(fd)}


def inherited(environ: MutableMapping[str, str]) -> socket.socket | None:
    """Our end, if this gogate is to take over from another one; once, and nobody inherits it from us."""
    text = environ.pop(VARIABLE, "")
    if not text.isascii() or not text.isdigit():
        return None
    try:
        os.set_inheritable(int(text), False)
        return socket.socket(fileno=int(text))
    except OSError:  # the variable is left over from somewhere
        return None


def say_failed(sock: socket.socket, reason: str) -> None:
    """Tell the old one why it is to go on alone; when there is no loop yet, or none any more."""
    try:
        sock.send(frame(messages.encode(Failed(reason)), 0), socket.MSG_DONTWAIT)
    except OSError:
        pass  # it is gone, or will see that we are
