"""The store behind the response cache: bounds, recency, variants."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.middleware.cache_store import MAX_VARIANTS, OVERHEAD, CacheStore, Key, Stored, Variant


def key(path: bytes) -> Key:
    """A key that differs by its path."""
    return b"http", b"a.example", path, b""


def made(path: bytes, variant: Variant = (), body: bytes = b"") -> Stored:
    """A stored answer."""
    return Stored(
        key(path), variant, 200, b"", b"", body, born=0.0, expires=1.0, shared=False, etag=b"", modified=None
    )


def nothing(name: bytes) -> bytes | None:
    """The fields of a request without any."""
    return None


def test_the_least_recently_used_goes_first() -> None:
    """Being used counts, being looked at does not."""
    store = CacheStore(2, 1 << 20)
    a, b, c = made(b"/a"), made(b"/b"), made(b"/c")
    store.put(a, ())
    store.put(b, ())
    store.touch(a)
    assert store.find(key(b"/b"), nothing) is b
    store.put(c, ())
    assert store.find(key(b"/a"), nothing) is a
    assert store.find(key(b"/b"), nothing) is None
    assert (store.entries, store.evicted, store.bytes) == (2, 1, a.size + c.size)


def test_bytes_are_bounded() -> None:
    """As many go as the new one needs room for."""
    store = CacheStore(100, 10 * OVERHEAD)
    for number in range(4):
        store.put(made(b"/%d" % number), ())
    store.put(made(b"/large", body=b"x" * 8 * OVERHEAD), ())
    assert store.entries == 1
    assert store.bytes <= 10 * OVERHEAD
    assert store.evicted == 4


def test_variants_are_told_apart_by_the_named_fields() -> None:
    """A field's value, another value and no value are three variants; the oldest of too many goes."""
    store = CacheStore(100, 1 << 20)
    names = (b"accept-language",)
    for value in (b"de", b"en", None):
        store.put(made(b"/", (value,)), names)
    for value in (b"de", b"en", None):
        found = store.find(key(b"/"), lambda name, value=value: value if name == b"accept-language" else b"x")  # type: ignore[misc]  # bound now
        assert found is not None
        assert found.variant == (value,)
    assert store.find(key(b"/"), lambda name: b"fr") is None
    for number in range(MAX_VARIANTS):
        store.put(made(b"/", (b"%d" % number,)), names)
    assert store.entries == MAX_VARIANTS
    assert store.evicted == 3
    assert store.find(key(b"/"), lambda name: b"0") is not None


def test_other_names_drop_the_older_variants() -> None:
    """What the older ones depend on is not known any more."""
    store = CacheStore(100, 1 << 20)
    store.put(made(b"/", (b"de",)), (b"accept-language",))
    store.put(made(b"/"), ())
    assert store.entries == 1
    found = store.find(key(b"/"), lambda name: b"de")
    assert found is not None
    assert found.variant == ()


def test_dropping_a_key_drops_its_variants_only() -> None:
    """Every variant of one key, nothing of another."""
    store = CacheStore(100, 1 << 20)
    for value in (b"de", b"en"):
        store.put(made(b"/", (value,)), (b"accept-language",))
    store.put(made(b"/other"), ())
    store.drop_key(key(b"/"))
    store.drop_key(key(b"/unknown"))
    assert store.entries == 1
    assert store.find(key(b"/other"), nothing) is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("put", "put", "touch", "drop", "drop_key")),
            st.sampled_from((b"/a", b"/b", b"/c")),
            st.sampled_from((None, b"1", b"2")),
            st.booleans(),
            st.integers(0, 3000),
        ),
        max_size=40,
    )
)
@settings(max_examples=200)
def test_the_sums_are_always_right(steps: list[tuple[str, bytes, bytes | None, bool, int]]) -> None:
    """Whatever happens, entries and bytes are those of what can be found, and within their bounds."""
    store = CacheStore(4, 6 * OVERHEAD)
    known: list[Stored] = []
    for step, path, value, varies, size in steps:
        names = (b"x",) if varies else ()
        found = store.find(key(path), lambda name, value=value: value)  # type: ignore[misc]  # bound now
        if step == "put":
            one = made(path, (value,) if varies else (), b"x" * size)
            known.append(one)
            store.put(one, names)
        elif step == "drop_key":
            store.drop_key(key(path))
        elif found is not None:
            (store.touch if step == "touch" else store.drop)(found)
        alive = [
            one
            for one in known
            if store.find(one.key, lambda name, one=one: one.variant[0] if one.variant else None) is one  # type: ignore[misc]  # bound now
        ]
        assert store.entries == len(alive) <= 4
        assert store.bytes == sum(one.size for one in alive) <= 6 * OVERHEAD
