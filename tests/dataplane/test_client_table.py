"""The client table: a client's connections over all workers, counted exactly (SECURITY.md T18)."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.arena import CLIENT_BUCKET, CLIENT_ENTRIES, Arena
from gogate_py.dataplane.client_table import REFUSED, UNCOUNTED, ClientTable, client_key

MANY = 1_000_000
SHARED = Arena.create()


@pytest.fixture
def arena() -> Arena:
    """An arena of this test's own."""
    return Arena.create()


def in_children(count: int, work: Callable[[int], None]) -> list[int]:
    """Run ``work(number)`` in that many forked processes at once; their pids, which must all end well."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(number)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0
    return pids


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[None]:
    """A process that has done ``work`` and holds on to what it has; kill -9 at the end of the block."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        work()
        os.write(write, b"x")
        signal.pause()
    try:
        os.read(read, 1)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)


def keys_of_one_bucket(table: ClientTable, count: int) -> list[int]:
    """That many clients that all hash into one bucket."""
    bucket = table._bucket(client_key("10.0.0.1"))

    def matching() -> Iterator[int]:
        number = 0
        while True:
            number += 1
            key = client_key(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            if table._bucket(key) == bucket:
                yield key

    found = matching()
    return [next(found) for _ in range(count)]


def test_the_limit_is_exact_in_one_worker(arena: Arena) -> None:
    """A client gets its limit and not one more; one that closes makes room for one."""
    table = ClientTable(arena, 0, 1)
    key = client_key("192.0.2.1")
    tickets = [table.admit(key, 3) for _ in range(4)]
    assert tickets[3] == REFUSED
    assert table.total(key) == 3
    table.release(tickets[0])
    assert table.admit(key, 3) >= 0
    assert table.admit(key, 3) == REFUSED
    assert table.admit(client_key("192.0.2.2"), 3) >= 0


def test_the_limit_is_exact_over_workers(arena: Arena) -> None:
    """Whichever workers its connections come to, the sum counts, the first connection in a worker included."""
    tables = [ClientTable(arena, slot, 3) for slot in range(3)]
    key = client_key("192.0.2.1")
    admitted = [tables[number % 3].admit(key, 5) for number in range(9)]
    assert [ticket >= 0 for ticket in admitted] == [True] * 5 + [False] * 4
    tables[1].release(admitted[1])
    tables[1].release(admitted[4])
    assert tables[0].total(key) == 3
    assert tables[1].admit(key, 3) == REFUSED
    assert tables[1].admit(key, 4) >= 0


def test_workers_that_race_never_exceed_the_limit(arena: Arena) -> None:
    """Four processes that take and give back at once never have more than the limit, and end with nothing counted."""
    key = client_key("192.0.2.1")
    results = arena.limiter(0)

    def work(slot: int) -> None:
        table = ClientTable(arena, slot, 4)
        chance = random.Random(slot)
        held: list[int] = []
        for _ in range(3000):
            if held and chance.random() < 0.4:
                table.release(held.pop())
            else:
                ticket = table.admit(key, 10)
                if ticket >= 0:
                    held.append(ticket)
                    # Others' refusals show up in the sum for a moment; what is held never does.
                    arena.cells[results + slot] = max(arena.cells[results + slot], len(held))
        for ticket in held:
            table.release(ticket)

    in_children(4, work)
    assert max(arena.cells[results : results + 4]) <= 10
    assert ClientTable(arena, 0, 4).total(key) == 0


def test_what_processes_hold_at_once_is_the_limit(arena: Arena) -> None:
    """Four processes that only take get exactly the limit between them, but for places lost to a race (one each)."""
    key = client_key("192.0.2.1")
    results = arena.limiter(0)

    def work(slot: int) -> None:
        table = ClientTable(arena, slot, 4)
        arena.cells[results + slot] = sum(table.admit(key, 100) >= 0 for _ in range(200))

    in_children(4, work)
    total = sum(arena.cells[results : results + 4])
    assert total == ClientTable(arena, 0, 4).total(key)
    assert 100 - 3 <= total <= 100


def test_a_killed_workers_connections_are_forgotten(arena: Arena) -> None:
    """kill -9 of a worker: its counts go with its slot, those of the others stay, and its locks are free."""
    key, other = client_key("192.0.2.1"), client_key("2001:db8::1")
    here = ClientTable(arena, 0, 2)
    mine = here.admit(key, MANY)

    def work() -> None:
        table = ClientTable(arena, 1, 2)
        for _ in range(7):
            table.admit(key, MANY)
            table.admit(other, MANY)
        arena.lock(arena.client(table._bucket(key)))

    with another_process(work):
        assert here.total(key) == 8
    arena.clear_slot(1, [])
    assert (here.total(key), here.total(other)) == (1, 0)
    replacement = ClientTable(arena, 1, 2)
    assert replacement.admit(key, 2) >= 0
    assert here.admit(key, 2) == REFUSED
    here.release(mine)
    assert here.total(key) == 1


def test_a_busy_lock_keeps_nobody_out(arena: Arena) -> None:
    """A client whose bucket is locked is let in uncounted, and that is counted; its close changes nothing."""
    table = ClientTable(arena, 0, 2)
    key = client_key("192.0.2.1")
    with another_process(lambda: arena.lock(arena.client(table._bucket(key)))):
        ticket = table.admit(key, 1)
        assert (ticket, table.contended) == (UNCOUNTED, 1)
    assert table.admit(key, 1) >= 0
    table.release(ticket)
    assert table.total(key) == 1


def test_a_full_bucket_keeps_nobody_out(arena: Arena) -> None:
    """A client for whom there is no room is let in uncounted; when another has gone, its entry is taken."""
    tables = [ClientTable(arena, slot, 2) for slot in (0, 1)]
    *clients, late, later = keys_of_one_bucket(tables[0], CLIENT_BUCKET + 2)
    tickets = [tables[number % 2].admit(key, MANY) for number, key in enumerate(clients)]
    assert len(set(tickets)) == CLIENT_BUCKET
    assert tables[0].admit(late, 1) == UNCOUNTED
    assert tables[0].contended == 1
    tables[1].release(tickets[5])
    assert tables[0].admit(late, 1) == tickets[5]
    assert tables[0].admit(late, 1) == REFUSED
    assert tables[1].admit(later, 1) == UNCOUNTED
    assert tables[0].total(clients[5]) == 0
    assert all(tables[0].total(key) == 1 for key in clients if key != clients[5])


def test_a_client_that_left_is_found_again(arena: Arena) -> None:
    """The entry of a client that comes and goes stays the same, also when it comes to another worker."""
    tables = [ClientTable(arena, slot, 2) for slot in (0, 1)]
    key = client_key("192.0.2.1")
    entries = set()
    for number in range(10):
        ticket = tables[number % 2].admit(key, 1)
        entries.add(ticket)
        tables[number % 2].release(ticket)
    assert len(entries) == 1
    assert 0 <= entries.pop() < CLIENT_ENTRIES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.0", "255.255.255.255", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "::2", True),
        ("::1", "0.0.0.0", False),
        ("fe80::1", "fe80::2", True),
        ("fc00::1", "fd00::1", False),
    ],
)
def test_what_a_client_is(one: str, other: str, same: bool) -> None:
    """An IPv4 address is a client, an IPv6 /64 is a client, and no key is 0, which means an empty entry."""
    assert (client_key(one) == client_key(other)) is same
    assert client_key(one)
    assert client_key(other)


@pytest.mark.parametrize("text", ["unix", "", "1.2.3", "localhost", "2001:db8::1%eth0"])
def test_what_is_not_an_address(text: str) -> None:
    """Only addresses have keys."""
    with pytest.raises(OSError):
        client_key(text)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "::1"]), st.booleans()),
        max_size=80,
    ),
    st.integers(1, 4),
)
def test_agrees_with_a_dictionary(steps: list[tuple[int, str, bool]], limit: int) -> None:
    """Any order of accepts and closes in three workers gives the verdicts and sums of a plain counter."""
    for slot in range(3):
        SHARED.clear_slot(slot, [])
    tables = [ClientTable(SHARED, slot, 3) for slot in range(3)]
    held: dict[tuple[int, str], list[int]] = {}
    for slot, host, opens in steps:
        key = client_key(host)
        mine = held.setdefault((slot, host), [])
        if opens:
            count = sum(len(tickets) for (_, whose), tickets in held.items() if whose == host)
            ticket = tables[slot].admit(key, limit)
            assert (ticket >= 0) is (count < limit)
            if ticket >= 0:
                mine.append(ticket)
        elif mine:
            tables[slot].release(mine.pop())
        expected = sum(len(tickets) for (_, whose), tickets in held.items() if whose == host)
        assert all(table.total(key) == expected for table in tables)


def test_the_hash_is_the_same_in_every_process_and_another_in_every_run() -> None:
    """Keys spread over the buckets by a number that is in the arena, not by Python's hash."""
    one, other = Arena.create(), Arena.create()
    keys = [client_key(f"10.0.{number >> 8}.{number & 255}") for number in range(4096)]
    buckets = [ClientTable(one, 0, 1)._bucket(key) for key in keys]
    in_another = ClientTable(Arena(os.dup(one.fd)), 1, 2)
    assert buckets == [in_another._bucket(key) for key in keys]
    assert buckets != [ClientTable(other, 0, 1)._bucket(key) for key in keys]
    assert all(bucket % CLIENT_BUCKET == 0 and bucket < CLIENT_ENTRIES for bucket in buckets)
    assert max(buckets.count(bucket) for bucket in set(buckets)) <= CLIENT_BUCKET
