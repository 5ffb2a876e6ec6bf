"""The L4 relay's table: what an event on one side means for the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.wire import relay_state
from gogate_py.wire.relay_state import TABLE, Command, Event, State, advance

#: The documented table; "-" = no command.
ROWS = """
    connecting              CONNECTED       open                    -
    connecting              CLIENT_EOF      connecting_client_closed -
    connecting              CONNECT_FAILED  closing                 CLOSE_CLIENT
    connecting              CLIENT_RESET    closing                 ABANDON_CONNECT
    connecting              CUT             closing                 ABORT_BOTH
    connecting_client_closed CONNECTED      client_closed           EOF_TO_BACKEND
    connecting_client_closed CONNECT_FAILED closing                 CLOSE_CLIENT
    connecting_client_closed CLIENT_RESET   closing                 ABANDON_CONNECT
    connecting_client_closed CUT            closing                 ABORT_BOTH
    open                    CLIENT_EOF      client_closed           EOF_TO_BACKEND
    open                    BACKEND_EOF     backend_closed          EOF_TO_CLIENT
    open                    CLIENT_RESET    closing                 RESET_BACKEND
    open                    BACKEND_RESET   closing                 RESET_CLIENT
    open                    CUT             closing                 ABORT_BOTH
    open                    BACKEND_CLOSED  closing                 CLOSE_BOTH
    client_closed           BACKEND_CLOSED  closing                 CLOSE_BOTH
    backend_closed          BACKEND_CLOSED  closing                 CLOSE_BOTH
    client_closed           BACKEND_EOF     closing                 CLOSE_BOTH
    client_closed           CLIENT_RESET    closing                 RESET_BACKEND
    client_closed           BACKEND_RESET   closing                 RESET_CLIENT
    client_closed           CUT             closing                 ABORT_BOTH
    backend_closed          CLIENT_EOF      closing                 CLOSE_BOTH
    backend_closed          CLIENT_RESET    closing                 RESET_BACKEND
    backend_closed          BACKEND_RESET   closing                 RESET_CLIENT
    backend_closed          CUT             closing                 ABORT_BOTH
"""


def _rows() -> dict[tuple[State, Event], tuple[State, Command | None]]:
    rows = {}
    for line in ROWS.strip().splitlines():
        state, event, becomes, command = line.split()
        rows[State(state), Event[event]] = (State(becomes), None if command == "-" else Command[command])
    return rows


@pytest.mark.parametrize(("given_", "expected"), _rows().items())
def test_every_row(given_: tuple[State, Event], expected: tuple[State, Command | None]) -> None:
    """Each state and event lead to the documented state and command."""
    assert advance(*given_) == expected


def test_there_are_no_other_rows() -> None:
    """A pair outside the table cannot happen and is refused loudly; a closed relay ignores everything."""
    rows = _rows()
    for state in State:
        for event in Event:
            if state is State.CLOSED:
                assert advance(state, event) == (State.CLOSED, None)
            elif (state, event) not in rows:
                with pytest.raises(KeyError):
                    advance(state, event)


def test_the_table_cannot_drift_from_its_description() -> None:
    """Every command is used, and every state can be reached."""
    assert {command for _, command in TABLE.values()} - {None} == set(Command)
    assert {state for state, _ in TABLE.values()} | {State.CONNECTING} == set(State)
    assert relay_state.__doc__ is not None


@given(st.data())
def test_any_life_ends_closed_and_passes_each_eof_on_once(data: st.DataObject) -> None:
    """Whatever happens in whatever order: each EOF is passed on exactly once (or both at once by the close), nothing is
    commanded after CLOSED, and CUT ends everything."""
    state = State.CONNECTING
    happened: list[Event] = []
    commands: list[Command] = []
    while state is not State.CLOSED:
        possible = sorted((e for s, e in TABLE if s is state and e not in happened), key=lambda e: e.value)
        event = data.draw(st.sampled_from(possible))
        happened.append(event)
        state, command = advance(state, event)
        if command is not None:
            commands.append(command)
    if Event.BACKEND_CLOSED in happened:  # both ends at once: whatever was passed on before, the close is the rest
        assert commands[-1] is Command.CLOSE_BOTH
        assert all(commands.count(command) <= 1 for command in Command)
        return
    both = Command.CLOSE_BOTH in commands
    connected = Event.CONNECTED in happened
    eofs = {
        Command.EOF_TO_BACKEND: connected and Event.CLIENT_EOF in happened,
        Command.EOF_TO_CLIENT: Event.BACKEND_EOF in happened,
    }
    for command, expected in eofs.items():
        # In an orderly end the second EOF is the close itself.
        assert commands.count(command) in ((0, 1) if both else (int(expected),))
    if both:
        assert sum(commands.count(command) for command in eofs) == 1
        assert {Event.CONNECTED, Event.CLIENT_EOF, Event.BACKEND_EOF} <= set(happened)
    ends = set(Command) - set(eofs)
    assert [command for command in commands if command in ends] == commands[-1:]
    for event in Event:
        assert advance(state, event) == (State.CLOSED, None)


@pytest.mark.parametrize("state", State)
def test_cut_ends_any_state(state: State) -> None:
    """A cut is possible in every state."""
    assert advance(state, Event.CUT)[0] is State.CLOSED
