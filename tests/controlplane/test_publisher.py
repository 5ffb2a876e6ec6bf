"""Publisher: what every worker gets, and who serves which generation."""

from __future__ import annotations

import asyncio

from control_world import Link, turns

from gogate_py.config.loader import load_text
from gogate_py.controlplane.compiler import Member, compile_snapshot, members
from gogate_py.controlplane.overrides import Overrides
from gogate_py.controlplane.publisher import Publisher
from gogate_py.controlplane.rows import LimitRows
from gogate_py.messages import Configure, States, decode_down, encode
from gogate_py.snapshot import BackendState, Snapshot

CONFIG = load_text("server: {listenAddr: ':8080', backends: ['10.0.0.1:80', '10.0.0.2:80']}\n", "config.yaml", {})


def snapshot(generation: int) -> Snapshot:
    found = members(CONFIG, [])
    rows = {member.key: row for row, member in enumerate(found["default"])}

    def endpoints(member: Member) -> tuple[tuple[str, int], ...]:
        return ((member.address.host, member.address.port),)

    return compile_snapshot(
        CONFIG,
        found,
        rows,
        endpoints,
        lambda _, row: BackendState(row, True, False),
        generation,
        2,
        Overrides(lambda: 0.0),
        LimitRows(),
        b"s" * 32,
    )


def test_everybody_gets_a_snapshot_and_late_comers_the_current_one() -> None:
    """A worker that joins gets the whole current snapshot first, then what follows."""
    publisher = Publisher()
    early, late = Link(0), Link(1)
    publisher.join(early)
    assert early.sent == []  # nothing to serve yet
    publisher.publish(snapshot(1))
    publisher.publish(snapshot(2))
    publisher.join(late)
    assert [one.generation for one in early.snapshots] == [1, 2]
    assert [one.generation for one in late.snapshots] == [2]


def test_a_state_change_is_in_the_snapshot_of_who_joins_later() -> None:
    """Applying States gives what the next whole snapshot has; generations go on over both kinds."""
    publisher = Publisher()
    early, late = Link(0), Link(1)
    publisher.join(early)
    publisher.publish(snapshot(1))
    change = BackendState(1, False, True, "connection refused")
    publisher.publish_states([change])
    publisher.join(late)
    assert early.sent[1] == States(2, (change,))
    assert publisher.generation == early.generation == late.generation == 2
    assert early.states == late.states == {0: BackendState(0, True, False), 1: change}
    publisher.publish(snapshot(3))
    assert early.generation == 3


def test_messages_survive_the_channel() -> None:
    """What is published is what a worker decodes."""
    publisher = Publisher()
    link = Link()
    publisher.join(link)
    publisher.publish(snapshot(1))
    publisher.publish_states([BackendState(0, False, False, "down")])
    assert [decode_down(encode(message)) for message in link.sent] == link.sent
    assert isinstance(link.sent[0], Configure)


def test_acknowledged_is_what_the_slowest_worker_serves() -> None:
    """A generation counts as served when every worker has it; a worker that left is not waited for."""
    publisher = Publisher()
    publisher.publish(snapshot(1))
    assert publisher.acknowledged() == 1  # nobody serves anything older
    first, second = Link(0), Link(1)
    publisher.join(first)
    publisher.join(second)
    publisher.publish(snapshot(2))
    publisher.acknowledged_by(first, 2)
    publisher.acknowledged_by(second, 1)
    assert publisher.acknowledged() == 1
    publisher.leave(second)
    assert publisher.acknowledged() == 2


def test_a_replaced_worker_cannot_speak_for_the_new_one() -> None:
    """A late acknowledgement of the process that had the slot before does not count."""
    publisher = Publisher()
    publisher.publish(snapshot(1))
    old, new = Link(0), Link(0)
    publisher.join(old)
    publisher.join(new)
    publisher.acknowledged_by(old, 1)
    assert publisher.acknowledged() == 0
    publisher.acknowledged_by(new, 1)
    assert publisher.acknowledged() == 1


def test_waiting_for_acknowledgement() -> None:
    """wait_acknowledged ends with the last worker's answer, or says that the limit has passed."""

    async def main() -> None:
        publisher = Publisher()
        first, second = Link(0), Link(1)
        publisher.join(first)
        publisher.join(second)
        publisher.publish(snapshot(1))
        waiting = asyncio.create_task(publisher.wait_acknowledged(1, 5.0))
        await turns()
        publisher.acknowledged_by(first, 1)
        await turns()
        assert not waiting.done()
        publisher.acknowledged_by(second, 1)
        assert await waiting
        assert not await publisher.wait_acknowledged(2, 0.001)

    asyncio.run(main())


class TestRefusals:
    """Workers that could not take over a generation."""

    def setup_method(self) -> None:
        self.publisher = Publisher()
        self.links = [Link(0), Link(1)]
        for link in self.links:
            self.publisher.join(link)
        self.publisher.publish(snapshot(1))
        for link in self.links:
            self.publisher.acknowledged_by(link, 1)
        self.publisher.publish(snapshot(2))

    def test_one_that_could_not_what_another_could_is_at_fault(self) -> None:
        """Whoever answers first."""
        self.publisher.refused_by(self.links[1], 2, "boom")
        assert self.publisher.at_fault() == {}
        self.publisher.acknowledged_by(self.links[0], 2)
        assert self.publisher.at_fault() == {1: "boom"}
        assert self.publisher.nobody_serves(2) == ""

    def test_a_generation_that_none_could_is_nobodys_fault(self) -> None:
        """Not even when the next one is taken over."""
        for link in self.links:
            self.publisher.refused_by(link, 2, "boom")
        assert self.publisher.nobody_serves(2) == "boom"
        assert self.publisher.at_fault() == {}
        self.publisher.publish(snapshot(3))
        self.publisher.acknowledged_by(self.links[0], 3)
        assert self.publisher.at_fault() == {}
        self.publisher.acknowledged_by(self.links[1], 3)
        assert self.publisher.nobody_serves(2) == ""

    def test_one_that_never_took_over_anything_is_at_fault(self) -> None:
        """It serves nothing, and holds sockets."""
        self.publisher.leave(self.links[1])
        self.publisher.join(self.links[1])
        self.publisher.refused_by(self.links[1], 2, "boom")
        assert self.publisher.at_fault() == {1: "boom"}

    def test_its_replacement_is_waited_for(self) -> None:
        """What it is ended for counts as acknowledged when the next one in its slot has it."""
        self.publisher.refused_by(self.links[1], 2, "boom")
        self.publisher.acknowledged_by(self.links[0], 2)
        self.publisher.await_another(self.links[1])
        assert self.publisher.at_fault() == {}
        self.publisher.leave(self.links[1])
        assert self.publisher.acknowledged() == 1
        self.publisher.join(self.links[1])
        self.publisher.acknowledged_by(self.links[1], 2)
        assert self.publisher.acknowledged() == 2
