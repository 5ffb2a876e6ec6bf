"""What an event on one side of an L4 relay means for the other side: a table, and nothing else.

A relay has a client side and a backend side. Each direction ends by itself (EOF), is passed on as EOF, and the relay is
over when both have ended. A reset of one side is a reset of the other. An EOF from the client while the backend is
still being connected is kept and passed on behind the early bytes. Bytes do not pass through here: they are written
straight to the other side.

    state               event            becomes            commands
    CONNECTING          CONNECTED        OPEN
    CONNECTING          CLIENT_EOF       CONNECTING_EOF
    CONNECTING(_EOF)    CONNECT_FAILED   CLOSED             close the client
    CONNECTING(_EOF)    CLIENT_RESET     CLOSED             abandon the connect
    CONNECTING_EOF      CONNECTED        CLIENT_DONE        EOF to the backend
    OPEN                CLIENT_EOF       CLIENT_DONE        EOF to the backend
    OPEN                BACKEND_EOF      BACKEND_DONE       EOF to the client
    CLIENT_DONE         BACKEND_EOF      CLOSED             close both, after what was written
    BACKEND_DONE        CLIENT_EOF       CLOSED             close both, after what was written
    OPEN, *_DONE        BACKEND_CLOSED   CLOSED             close both, after what was written
    OPEN, *_DONE        CLIENT_RESET     CLOSED             reset the backend
    OPEN, *_DONE        BACKEND_RESET    CLOSED             reset the client
    all but CLOSED      CUT              CLOSED             abort both
    CLOSED              anything         CLOSED

BACKEND_CLOSED is an end in order of both directions at once: TLS knows no other.

Anything else cannot happen and is refused loudly.
"""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import Final


class State(StrEnum):
    """Where a relay is. The value is what the admin API shows. (A str: its hash is C, and the table is asked often.)"""

    CONNECTING = "connecting"
    CONNECTING_EOF = "connecting_client_closed"
    OPEN = "open"
    CLIENT_DONE = "client_closed"
    BACKEND_DONE = "backend_closed"
    CLOSED = "closing"


class Event(IntEnum):
    """What happened."""

    CONNECTED = 1
    CONNECT_FAILED = 2
    CLIENT_EOF = 3
    BACKEND_EOF = 4
    CLIENT_RESET = 5
    BACKEND_RESET = 6
    CUT = 7
    BACKEND_CLOSED = 8


class Command(Enum):
    """What the driver does about it."""

    EOF_TO_BACKEND = 1
    EOF_TO_CLIENT = 2
    CLOSE_CLIENT = 3
    CLOSE_BOTH = 4
    RESET_BACKEND = 5
    RESET_CLIENT = 6
    ABANDON_CONNECT = 7
    ABORT_BOTH = 8


_S, _E, _C = State, Event, Command

TABLE: Final[dict[tuple[State, Event], tuple[State, Command | None]]] = {
    (_S.CONNECTING, _E.CONNECTED): (_S.OPEN, None),
    (_S.CONNECTING, _E.CLIENT_EOF): (_S.CONNECTING_EOF, None),
    (_S.CONNECTING, _E.CONNECT_FAILED): (_S.CLOSED, _C.CLOSE_CLIENT),
    (_S.CONNECTING, _E.CLIENT_RESET): (_S.CLOSED, _C.ABANDON_CONNECT),
    (_S.CONNECTING, _E.CUT): (_S.CLOSED, _C.ABORT_BOTH),
    (_S.CONNECTING_EOF, _E.CONNECTED): (_S.CLIENT_DONE, _C.EOF_TO_BACKEND),
    (_S.CONNECTING_EOF, _E.CONNECT_FAILED): (_S.CLOSED, _C.CLOSE_CLIENT),
    (_S.CONNECTING_EOF, _E.CLIENT_RESET): (_S.CLOSED, _C.ABANDON_CONNECT),
    (_S.CONNECTING_EOF, _E.CUT): (_S.CLOSED, _C.ABORT_BOTH),
    (_S.OPEN, _E.CLIENT_EOF): (_S.CLIENT_DONE, _C.EOF_TO_BACKEND),
    (_S.OPEN, _E.BACKEND_EOF): (_S.BACKEND_DONE, _C.EOF_TO_CLIENT),
    (_S.CLIENT_DONE, _E.BACKEND_EOF): (_S.CLOSED, _C.CLOSE_BOTH),
    (_S.BACKEND_DONE, _E.CLIENT_EOF): (_S.CLOSED, _C.CLOSE_BOTH),
}
for _state in (_S.OPEN, _S.CLIENT_DONE, _S.BACKEND_DONE):
    TABLE[_state, _E.CLIENT_RESET] = (_S.CLOSED, _C.RESET_BACKEND)
    TABLE[_state, _E.BACKEND_RESET] = (_S.CLOSED, _C.RESET_CLIENT)
    TABLE[_state, _E.BACKEND_CLOSED] = (_S.CLOSED, _C.CLOSE_BOTH)
    TABLE[_state, _E.CUT] = (_S.CLOSED, _C.ABORT_BOTH)
for _event in Event:
    TABLE[_S.CLOSED, _event] = (_S.CLOSED, None)


def advance(state: State, event: Event) -> tuple[State, Command | None]:
    """The next state and what to do. A pair that cannot happen raises KeyError: a broken invariant of the driver."""
    return TABLE[state, event]
