"""Bindings: which sockets another configuration keeps, takes over, binds and lets go of."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from doubles.servers import free_port

from gogate_py.errors import StartError
from gogate_py.process.bindings import Bindings, Change
from gogate_py.process.sockets import BoundListener

ANY = "127.0.0.1:0"


def run(body: Callable[[Bindings], Coroutine[object, object, None]], slots: int = 2) -> None:
    """Run a test's body with bindings, and close them."""

    async def main() -> None:
        bindings = Bindings(slots)
        try:
            await body(bindings)
        finally:
            bindings.close()

    asyncio.run(main())


async def served(bindings: Bindings, **wanted: str) -> tuple[Change, list[BoundListener]]:
    """Another configuration, served by everybody; → (what it needed, what was let go)."""
    change = await bindings.prepare(wanted)
    removed = bindings.commit()
    bindings.release(removed)
    return change, removed


def inodes(listener: BoundListener) -> list[int]:
    """The kernel's sockets behind a listener: duplicates have the same."""
    return [os.fstat(sock.fileno()).st_ino for sock in listener.sockets]


def listens(port: int) -> bool:
    """Whether anybody does."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_name_and_address_kept_is_the_same_listener() -> None:
    """What a configuration does not touch has its sockets, under their id; only what is new is bound."""

    async def body(bindings: Bindings) -> None:
        await served(bindings, a=ANY)
        (before,) = bindings.listeners
        change, removed = await served(bindings, a=ANY, b=ANY)
        assert [listener.id for listener in change.added] == ["b"]
        assert removed == []
        assert change.bound["a"] is before
        assert bindings.listener_id("a", ANY) == "a"
        assert change.bound["b"].address != before.address

    run(body)


def test_port_zero_is_another_port_for_everybody() -> None:
    """Addresses that are written alike with port 0 are not the same one: a new listener never shares a kept one's."""

    async def body(bindings: Bindings) -> None:
        await served(bindings, a=ANY, b=ANY)
        change, _ = await served(bindings, a=ANY, b=ANY, c=ANY, d=ANY)
        assert len({listener.address for listener in bindings.listeners}) == 4
        assert len({inode for listener in change.bound.values() for inode in inodes(listener)}) == 8

    run(body)


def test_a_moved_listener_is_bound_before_the_old_one_goes() -> None:
    """Another address is another id; until the old one is released both listen."""

    async def body(bindings: Bindings) -> None:
        old, new = free_port(), free_port()
        await served(bindings, a=f"127.0.0.1:{old}")
        change = await bindings.prepare({"a": f"127.0.0.1:{new}"})
        moved = change.listener_id("a", f"127.0.0.1:{new}")
        assert moved != "a"
        # who compiles a snapshot now, because a backend moved, still means the old one
        assert bindings.listener_id("a", f"127.0.0.1:{old}") == "a"
        assert change.added[0].id == moved
        removed = bindings.commit()
        assert bindings.listener_id("a", f"127.0.0.1:{new}") == moved
        assert listens(old)
        assert listens(new)
        bindings.release(removed)
        assert not listens(old)
        again, _ = await served(bindings, a=f"127.0.0.1:{old}")
        assert again.added[0].id not in ("a", moved)

    run(body)


def test_a_renamed_listener_keeps_its_sockets() -> None:
    """The very same sockets under the new name: who waits in their accept queues is lost in no moment."""

    async def body(bindings: Bindings) -> None:
        address = f"127.0.0.1:{free_port()}"
        await served(bindings, a=address)
        before = inodes(bindings.listeners[0])
        with socket.create_connection(("127.0.0.1", bindings.listeners[0].address.port), 5):
            change, removed = await served(bindings, b=address)
            assert inodes(change.bound["b"]) == before
            assert [listener.id for listener in removed] == ["a"]
            assert sum(can_accept(sock) for sock in change.bound["b"].sockets) == 1

    run(body)


def can_accept(sock: socket.socket) -> bool:
    """Whether a connection waited here; it is closed."""
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_two_listeners_swap_their_addresses() -> None:
    """Each takes the other's sockets; nothing is bound anew, so nothing can be taken meanwhile."""

    async def body(bindings: Bindings) -> None:
        one, two = (f"127.0.0.1:{free_port()}" for _ in range(2))
        await served(bindings, a=one, b=two)
        first, second = (inodes(listener) for listener in bindings.listeners)
        change, _ = await served(bindings, a=two, b=one)
        assert (inodes(change.bound["a"]), inodes(change.bound["b"])) == (second, first)
        assert len({"a", "b", *(listener.id for listener in change.added)}) == 4

    run(body)


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1:{}", ":{}"), (":{}", "127.0.0.1:{}"),
                                               ("127.0.0.1:{}", "localhost:{}")])  # fmt: skip
def test_the_same_port_on_other_addresses(before: str, after: str) -> None:
    """From one address to all of the machine, and back: the port of the listener that goes is not taken."""

    async def body(bindings: Bindings) -> None:
        port = free_port()
        await served(bindings, a=before.format(port))
        await served(bindings, a=after.format(port))
        assert listens(port)

    run(body)


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_taken_address_changes_nothing(reuse_port: bool) -> None:
    """Whoever has it, what was bound for the same configuration is closed, and the old listeners go on."""

    async def body(bindings: Bindings) -> None:
        await served(bindings, a=ANY)
        kept, other = bindings.listeners[0], free_port()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(StartError, match="already in use"):
                await bindings.prepare(
                    {"b": f"127.0.0.1:{other}", "c": f"127.0.0.1:{taken.getsockname()[1]}"}
                )
        assert bindings.listeners == [kept]
        assert listens(kept.address.port)
        assert not listens(other)
        assert bindings.listener_id("a", ANY) == "a"

    run(body)


def test_abandoned_is_as_if_nothing_was() -> None:
    """A configuration that is not served after all leaves nothing behind, and keeps nothing from the next one."""

    async def body(bindings: Bindings) -> None:
        address = f"127.0.0.1:{free_port()}"
        await served(bindings, a=address)
        port = free_port()
        await bindings.prepare({"a": f"127.0.0.1:{port}", "b": address})
        bindings.abandon()
        assert not listens(port)
        assert listens(bindings.listeners[0].address.port)
        assert bindings.listener_id("a", address) == "a"
        change, removed = await served(bindings, a=address)
        assert (change.added, removed) == ([], [])

    run(body)


class TestUnixSockets:
    """unix:/path listeners."""

    def test_the_path_passes_from_name_to_name(self, tmp_path: Path) -> None:
        """A renamed listener keeps socket and path; when its listener is gone, so is the path."""

        async def body(bindings: Bindings) -> None:
            path = tmp_path / "gogate.sock"
            await served(bindings, a=f"unix:{path}")
            await served(bindings, b=f"unix:{path}")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            await served(bindings)
            assert not path.exists()

        run(body)

    def test_abandoned_leaves_the_path_of_who_is_served(self, tmp_path: Path) -> None:
        """Only paths that were made for the configuration that failed go with it."""

        async def body(bindings: Bindings) -> None:
            old, new = tmp_path / "old.sock", tmp_path / "new.sock"
            await served(bindings, a=f"unix:{old}")
            await bindings.prepare({"b": f"unix:{old}", "a": f"unix:{new}"})
            bindings.abandon()
            assert old.exists()
            assert not new.exists()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(old))

        run(body)


def test_other_rules_make_another_listener_with_the_same_sockets() -> None:
    """Each its own, also where addresses are written alike; who has the same rules is kept."""

    async def body(bindings: Bindings) -> None:
        await bindings.prepare({"a": ANY, "b": ANY, "c": ANY}, {"a": "tls", "c": "tls"})
        bindings.commit()
        before = {listener.id: inodes(listener) for listener in bindings.listeners}
        change = await bindings.prepare({"a": ANY, "b": ANY, "c": ANY}, {"a": "mutual", "b": "tls", "c": "tls"})
        assert {name: inodes(listener) for name, listener in change.bound.items()} == before
        assert sorted(listener.id for listener in change.added) == ["a#1", "b#2"]
        assert sorted(listener.id for listener in change.removed) == ["a", "b"]
        bindings.release(bindings.commit())
        (_, again, _) = bindings.listeners
        change = await bindings.prepare({"b": ANY}, {"b": "tls"})
        assert change.bound["b"] is again
        bindings.release(bindings.commit())

    run(body)
