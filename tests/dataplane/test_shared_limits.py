"""Rate limits over processes: exact, bounded in memory, and never waiting for anybody (SECURITY.md T26)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count, cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.arena import LIMITER_KEY_BUCKETS, Arena
from gogate_py.clock import monotonic_ns
from gogate_py.dataplane.shared_limits import KeyedLimiter, LimiterTable, SharedBucket
from gogate_py.policy.rate_limiter import ALGORITHMS, Bucket, FixedWindow, SlidingWindow, burst_of, new_algorithm
from gogate_py.snapshot import RateLimit

S = 1_000_000_000
HOUR = 3600.0
SHARED = Arena.create()
ROWS = count(100)


@pytest.fixture
def arena() -> Arena:
    """An arena of this test's own."""
    return Arena.create()


def limit(row: int = 1, *keys: str, algorithm: str = "token_bucket", **settings: float) -> RateLimit:
    """A limit by ip that does not refill during a test, unless told otherwise."""
    given = {"rate": 1.0, "per": HOUR, "burst": 5} | settings
    return RateLimit(row, given["rate"], given["per"], int(given["burst"]), algorithm, keys or ("ip",), f"limit{row}")


def in_children(number: int, work: Callable[[int], None]) -> None:
    """Run ``work(slot)`` in that many forked processes at once; all must end well."""
    pids = []
    for slot in range(number):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(slot)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0


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


def bucket_of(limiter: KeyedLimiter, key: bytes) -> int:
    """The first cell of a key's bucket."""
    return (limiter._hints.get(key) or limiter._look(key))[1]


def keys_of_one_bucket(limiter: KeyedLimiter, number: int) -> list[bytes]:
    """That many keys that share a bucket. As many as that are found by reading hashes, 32 768 for each."""
    by_bucket: dict[int, list[bytes]] = {}
    for each in count():
        key = b"%d" % each
        keys = by_bucket.setdefault(bucket_of(limiter, key), [])
        keys.append(key)
        if len(keys) == number:
            return keys
    raise AssertionError


def promised(spec: RateLimit, elapsed: float) -> float:
    """The most that one key may get in that many nanoseconds."""
    algorithm = new_algorithm(spec)
    if isinstance(algorithm, Bucket):
        return elapsed / algorithm.interval_ns + burst_of(spec)
    assert isinstance(algorithm, FixedWindow | SlidingWindow)
    windows = elapsed / algorithm.window_ns
    return algorithm.limit * (int(windows) + 1 if isinstance(algorithm, FixedWindow) else windows + 1)


@pytest.mark.parametrize(("workers", "keys"), [(1, 1), (2, 1), (4, 1), (4, 16)])
def test_exact_over_workers(arena: Arena, workers: int, keys: int) -> None:
    """Some ten times the limit offered by all workers at once: by every algorithm each key gets rate·t + burst (or its
    windows' worth), within 1 %.

    What was decided without the lock may come on top: on a machine with fewer processors than workers, one may lose the
    processor while it owes. Without the lock at all, two workers get half as much again, and nothing is contended.
    """
    specs = [
        limit(row, algorithm=algorithm, rate=200.0 / keys, per=0.1, burst=40)
        for row, algorithm in enumerate(ALGORITHMS)
    ]
    names = [b"key%d" % number for number in range(keys)]
    results = [arena.limiter(100 + slot) for slot in range(workers)]
    begin = monotonic_ns()
    end = begin + S * 4 // 10

    def work(slot: int) -> None:
        limiters = [KeyedLimiter(arena, spec, workers) for spec in specs]
        admitted = [0] * len(specs)
        now = begin
        lost = 0
        for name in cycle(names):
            for number, limiter in enumerate(limiters):
                admitted[number] += limiter.try_take(name)
            sha256(bytes(4000)).digest()  # a worker also does other things
            before, now = now, monotonic_ns()
            if now - before > S // 200:
                lost += now - before  # the machine had something else to do
            if now > end:
                break
        arena.cells[results[slot] + 6] = lost
        for number, limiter in enumerate(limiters):
            arena.cells[results[slot] + number] = admitted[number] + (limiter.contended << 32)
        arena.cells[results[slot] + 7] = now

    in_children(workers, work)
    elapsed = max(arena.cells[result + 7] for result in results) - begin
    # A time in which some worker ran, without the window that had not ended.
    served = elapsed - min(arena.cells[result + 6] for result in results) - S // 10
    for number, spec in enumerate(specs):
        counted = [arena.cells[result + number] for result in results]
        admitted, contended = sum(one & 0xFFFFFFFF for one in counted), sum(one >> 32 for one in counted)
        assert admitted <= keys * promised(spec, elapsed) * 1.01 + contended, spec.algorithm
        assert admitted >= 0.95 * keys * spec.rate * 10 * served / S - contended, spec.algorithm


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kind", ["shared", "keyed"])
def test_a_burst_is_exact_over_workers(arena: Arena, workers: int, kind: str) -> None:
    """However many workers ask at once, a limit gives out its burst and not one more, but for what was lent while
    the lock was busy."""
    results = arena.limiter(100)
    spec = limit(1, "global" if kind == "shared" else "ip", burst=100)

    def work(slot: int) -> None:
        limiter = LimiterTable(arena, workers).limiter(spec)
        arena.cells[results + slot] = sum(limiter.try_take(b"k") for _ in range(400))
        arena.cells[results + 8 + slot] = limiter.contended

    in_children(workers, work)
    lent = sum(arena.cells[results + 8 : results + 8 + workers])
    assert 100 <= sum(arena.cells[results : results + workers]) <= 100 + lent


@pytest.mark.parametrize("workers", [2, 4])
def test_many_keys_at_once_are_exact(arena: Arena, workers: int) -> None:
    """Four workers that go through thousands of keys in any order give each of them its burst."""
    results = arena.limiter(100)
    spec = limit(1, burst=3)

    def work(slot: int) -> None:
        limiter = KeyedLimiter(arena, spec)
        names = [b"%d" % number for number in range(1500)]
        admitted = 0
        for turn in range(4):
            for name in names if (turn + slot) % 2 else reversed(names):
                admitted += limiter.try_take(name)
        limiter.settle()
        arena.cells[results + slot] = admitted
        arena.cells[results + 8 + slot] = limiter.evicted
        arena.cells[results + 16 + slot] = limiter.contended

    in_children(workers, work)
    admitted = sum(arena.cells[results : results + workers])
    assert sum(arena.cells[results + 8 : results + 8 + workers]) == 0
    # What was lent while a lock was busy may come on top.
    assert 4500 <= admitted <= 4500 + sum(arena.cells[results + 16 : results + 16 + workers])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ALGORITHMS),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=60),
)
def test_agrees_with_a_dictionary(algorithm: str, most: int, steps: list[tuple[int, bytes, bool]]) -> None:
    """Any order of requests and give-backs in three workers gives the verdicts of a plain counter, and so does peek."""
    spec = limit(next(ROWS), algorithm=algorithm, rate=most, burst=most - (algorithm == "leaky_bucket"))
    workers = [KeyedLimiter(SHARED, spec) for _ in range(3)]
    counts = dict.fromkeys((b"a", b"b", b"c"), 0)
    for worker, key, back in steps:
        if back and counts[key]:
            workers[worker].give_back(key)
            counts[key] -= 1
        else:
            admitted = counts[key] < most
            assert workers[worker].try_take(key) == admitted
            counts[key] += admitted
        assert [limiter.peek(key)[0] for limiter in workers] == [most - counts[key]] * 3
    assert not any(limiter._debts for limiter in workers)


@pytest.mark.parametrize("kind", ["shared", "keyed"])
def test_a_killed_holder_blocks_nobody(arena: Arena, kind: str) -> None:
    """While a process holds the lock others decide by what they read and owe it; kill -9, and it is settled."""
    spec = limit(1, "global" if kind == "shared" else "ip", burst=5)
    limiter = LimiterTable(arena).limiter(spec)
    assert limiter.try_take(b"k")

    def hold() -> None:
        lock = arena.limiter(1) if isinstance(limiter, SharedBucket) else bucket_of(limiter, b"k")
        assert arena.lock(lock)

    with another_process(hold):
        # Four are left, for this worker and two others that may be deciding alone, too.
        assert [limiter.try_take(b"k") for _ in range(4)] == [True] * 2 + [False] * 2
        assert (limiter.contended, limiter.rejected) == (4, 2)
        assert limiter.peek(b"k")[0] == 2
        limiter.give_back(b"k")
        assert limiter.peek(b"k")[0] == 3
        assert limiter.try_take(b"k")
        limiter.settle()
    other = LimiterTable(arena).limiter(spec)
    assert other.peek(b"k")[0] == 4
    limiter.settle()
    assert other.peek(b"k")[0] == 2
    assert [limiter.try_take(b"k") for _ in range(3)] == [True, True, False]
    assert limiter.contended == 5


@pytest.mark.parametrize("kind", ["shared", "keyed"])
def test_a_holder_that_stands_still_stops_nobody(arena: Arena, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped with the lock keeps it: the others go on with their share of the rate, and what they
    admitted is charged as of then."""
    spec = limit(1, "global" if kind == "shared" else "ip", rate=100.0, per=1.0, burst=1)
    limiter = LimiterTable(arena, workers=3).limiter(spec)
    now = start = monotonic_ns()
    monkeypatch.setattr("gogate_py.dataplane.shared_limits.monotonic_ns", lambda: now)

    def hold() -> None:
        lock = arena.limiter(1) if isinstance(limiter, SharedBucket) else bucket_of(limiter, b"k")
        assert arena.lock(lock)

    with another_process(hold):
        admitted = 0
        for tick in range(200):
            now = start + tick * S // 200
            admitted += limiter.try_take(b"k")
        assert 48 <= admitted <= 51  # half of the rate: the other half is for the third worker
    now = start + S
    assert limiter.try_take(b"k")  # what came back meanwhile was more than that
    assert not limiter.try_take(b"k")


def test_what_is_owed_counts_with_its_share_when_the_state_has_moved(arena: Arena) -> None:
    """A worker that owes and still gets no lock takes the state as it is now, and what it owes as one share of that."""
    limiter = LimiterTable(arena, workers=4).limiter(limit(1, "global", burst=12))
    assert limiter.try_take(b"")
    with another_process(lambda: arena.lock(arena.limiter(1))):
        assert limiter.try_take(b"")
        assert limiter.try_take(b"")
        arena.cells[arena.limiter(1) + 1] += 3 * 3600 * S  # the holder has counted three more: 8 are left
        assert [limiter.try_take(b"") for _ in range(3)] == [True, False, False]


def test_what_is_owed_is_settled_by_the_next_request(arena: Arena) -> None:
    """Without a call of settle, the next request of the key in this worker counts what was lent."""
    limiter = KeyedLimiter(arena, limit(burst=5))
    with another_process(lambda: arena.lock(bucket_of(limiter, b"k"))):
        assert limiter.try_take(b"k")
        assert limiter.try_take(b"k")
    assert limiter.try_take(b"k")
    assert KeyedLimiter(arena, limit(burst=5)).peek(b"k")[0] == 2


def test_limits_do_not_share_keys(arena: Arena) -> None:
    """The same key in another limit, or in a row that was another algorithm's, begins anew."""
    table = LimiterTable(arena)
    for row, algorithm in ((1, "token_bucket"), (2, "token_bucket"), (2, "fixed_window")):
        assert KeyedLimiter(arena, limit(row, algorithm=algorithm, burst=1)).try_take(b"k")
        assert not KeyedLimiter(arena, limit(row, algorithm=algorithm, burst=1)).try_take(b"k")
        shared = table.limiter(limit(row, "global", algorithm=algorithm, burst=1))
        assert shared.try_take(b"")
        assert not shared.try_take(b"")


def test_the_oldest_of_a_full_bucket_is_out(arena: Arena) -> None:
    """Entries that say nothing any more are taken first and cost nobody anything; then the one that will first."""
    spec = limit(burst=3)
    limiter = KeyedLimiter(arena, spec)
    *keys, late, later = keys_of_one_bucket(limiter, 10)
    for key in keys:
        limiter.try_take(key)
        limiter.try_take(key)
    limiter.try_take(keys[0])
    bucket = bucket_of(limiter, late)
    idle = bucket_of(limiter, keys[3]) + (limiter._look(keys[3])[2] - bucket)
    arena.cells[idle + 1] = monotonic_ns() - 1  # this one has been full again for a moment
    assert limiter.try_take(late)
    assert limiter.evicted == 0
    assert limiter.peek(keys[3])[0] == 3
    assert limiter.try_take(later)
    assert limiter.evicted == 1
    # late has taken one only: it was the next to be full again. Who is furthest ahead stays.
    assert limiter.peek(late)[0] == 3
    assert limiter.peek(keys[0])[0] == 0
    assert [limiter.peek(key)[0] for key in keys if key not in (keys[0], keys[3])] == [1] * 6


def test_a_flood_of_keys_does_not_free_a_client_that_is_at_its_limit(arena: Arena) -> None:
    """Keys that come once push out each other, not the key that has used up its burst."""
    limiter = KeyedLimiter(arena, limit(burst=3))
    own, *others = keys_of_one_bucket(limiter, 14)
    while limiter.try_take(own):
        pass
    for key in others * 3:
        limiter.try_take(key)
    assert limiter.peek(own)[0] == 0


def test_the_table_and_its_hints_are_bounded(arena: Arena) -> None:
    """However many keys come, the arena does not grow and a worker remembers some thousand of them."""
    limiter = KeyedLimiter(arena, limit(burst=1))
    for number in range(10_000):
        assert limiter.try_take(b"%d" % number)
    assert len(limiter._hints) <= 4096
    assert not any(limiter.try_take(b"%d" % number) for number in range(0, 10_000, 7))
    assert limiter.evicted == 0
    first, last = Arena.limiter_bucket(0), Arena.limiter_bucket(LIMITER_KEY_BUCKETS - 1)
    assert all(first <= bucket_of(limiter, b"%d" % number) <= last for number in range(2000))


def test_hashes_are_secret_and_the_same_in_every_worker(arena: Arena) -> None:
    """A key has one place in all workers of a run, and another in another run: nobody can choose keys that collide."""
    spec = limit()
    same, other = KeyedLimiter(Arena(os.dup(arena.fd)), spec), KeyedLimiter(Arena.create(), spec)
    here = KeyedLimiter(arena, spec)
    keys = [b"%d" % number for number in range(200)]
    assert [here._look(key)[0] for key in keys] == [same._look(key)[0] for key in keys]
    assert [here._look(key)[0] for key in keys] != [other._look(key)[0] for key in keys]
    assert len({here._look(key)[1] for key in keys}) > 190


def test_a_stale_hint_is_noticed(arena: Arena) -> None:
    """An entry that was given to another key meanwhile is not counted for the one that had it."""
    spec = limit(burst=2)
    one, two = KeyedLimiter(arena, spec), KeyedLimiter(arena, spec)
    first, *others = keys_of_one_bucket(one, 9)
    one.try_take(first)
    for key in others:
        two.try_take(key)
        two.try_take(key)
    assert two.peek(first)[0] == 2  # the eighth of the others took its entry
    assert one.try_take(first)
    assert one.peek(first)[0] == 1
    assert sum(one.peek(key)[0] == 0 for key in others) == 7


@pytest.mark.parametrize("kind", ["shared", "keyed"])
def test_a_refusal_counts_and_changes_nothing(arena: Arena, kind: str) -> None:
    """What is refused is counted as rejected and takes nothing; what is given back can be taken again."""
    spec = limit(1, "global" if kind == "shared" else "ip", rate=2.0, per=1000.0, burst=1)
    limiter = LimiterTable(arena).limiter(spec)
    assert limiter.try_take(b"k")
    before = limiter.peek(b"k")
    assert [limiter.try_take(b"k") for _ in range(5)] == [False] * 5
    after = limiter.peek(b"k")
    assert (before[0], after[0], limiter.rejected) == (0, 0, 5)
    assert 490 * S < after[1] <= before[1] <= 500 * S
    limiter.give_back(b"k")
    assert limiter.peek(b"k") == (1, 0)


def test_a_limiter_goes_on_over_snapshots(arena: Arena) -> None:
    """Unchanged: the same object. Other settings: the states go on. No longer asked for: it goes, its counts do not."""
    table = LimiterTable(arena)
    ours, shared = limit(1, burst=2), limit(2, "global", burst=1)
    limiter = table.limiter(ours, "api")
    assert table.limiter(ours, "api") is limiter
    assert isinstance(table.limiter(shared), SharedBucket)
    assert [limiter.try_take(b"k") for _ in range(3)] == [True, True, False]
    table.drop_unused()
    larger = table.limiter(limit(1, burst=4), "api")
    assert larger is not limiter
    assert [larger.try_take(b"k") for _ in range(3)] == [True, True, False]
    table.limiter(shared).try_take(b"")
    table.limiter(shared).try_take(b"")
    table.drop_unused()
    table.drop_unused()
    assert dict(table.take_rejected()) == {("api", "limit1"): 2, ("", "limit2"): 1}
    assert dict(table.take_rejected()) == {}
    assert (table.take_contended(), table.take_evicted()) == (0, 0)


def test_what_a_changed_limit_owes_is_settled(arena: Arena) -> None:
    """A limit that gets other settings counts what it lent, and the tick counts what is left."""
    table = LimiterTable(arena)
    limiter = table.limiter(limit(1, burst=5))
    assert isinstance(limiter, KeyedLimiter)
    with another_process(lambda: arena.lock(bucket_of(limiter, b"k"))):
        assert limiter.try_take(b"k")
    assert table.limiter(limit(1, burst=6)).peek(b"k")[0] == 5
    assert table.take_contended() == 1
    again = table.limiter(limit(1, burst=6))
    with another_process(lambda: arena.lock(bucket_of(limiter, b"k"))):
        again.try_take(b"k")
    table.settle()
    assert KeyedLimiter(arena, limit(1, burst=6)).peek(b"k")[0] == 4
