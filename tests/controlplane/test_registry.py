"""Registry: instances with leases, and what a registration may contain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gogate_py.config.schema import Registry as RegistrySettings
from gogate_py.controlplane.registry import AddressForbidden, RegistrationError, Registry, RegistryFull
from gogate_py.controlplane.registry_rules import AddressRules


class World:
    """A registry with a clock that is moved by hand."""

    def __init__(self, max_services: int = 100) -> None:
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        rules = AddressRules(RegistrySettings().allow_cidrs, (), lambda ip: False)
        self.registry = Registry(
            rules, default_ttl=30.0, max_services=max_services, clock=lambda: self.now, wall=lambda: self.wall
        )


    def sweep(self, answers: bool | None = None) -> list[tuple[str, str]]:
        """Sweep now: (id, state) of every instance whose state changed, "gone" included."""
        found = self.registry.sweep(self.now, lambda instance: answers)
        return [*((one.id, one.state) for one in found.changed), *((one.id, "gone") for one in found.gone)]


def body(**fields: object) -> dict[str, object]:
    return {"id": "a", "name": "api", "address": "10.0.0.5:8080", **fields}


def test_a_whole_registration() -> None:
    """Every field is kept; times are there from the start."""
    world = World()
    instance, created = world.registry.register(
        body(tags=["v2", "eu", "v2"], metadata={"zone": "a"}, weight=3, ttl="1m30s")
    )
    assert created
    assert (instance.id, instance.name, instance.address) == ("a", "api", "10.0.0.5:8080")
    assert (instance.tags, instance.metadata, instance.weight, instance.ttl) == (("v2", "eu"), {"zone": "a"}, 3, 90.0)
    assert instance.registered_at == instance.last_heartbeat == "2023-11-14T22:13:20.000Z"
    assert instance.expires_in(1010.0) == 80.0


def test_what_is_left_out_or_null_has_a_default() -> None:
    """Only name and address are needed (a Go client sends null for an empty list)."""
    instance, _ = World().registry.register(
        {"name": "api", "address": "localhost:9001", "id": "", **dict.fromkeys(("tags", "metadata", "weight", "ttl"))}
    )
    assert instance.id.startswith("api-")
    assert len(instance.id) == len("api-") + 12
    assert (instance.tags, instance.metadata, instance.weight, instance.ttl) == ((), {}, 1, 30.0)


def test_the_same_id_is_an_update() -> None:
    """An update replaces the description and renews the lease, and keeps when the instance came."""
    world = World()
    first, _ = world.registry.register(body())
    world.now += 10
    world.wall += 10
    second, created = world.registry.register(body(address="10.0.0.6:8080"))
    assert not created
    assert len(world.registry) == 1
    assert second.registered_at == first.registered_at
    assert second.last_heartbeat == "2023-11-14T22:13:30.000Z"
    assert second.expires_at == 1040.0
    assert not second.routes_like(first)


REFUSED = [
    ("name", body(name=None)),
    ("name", body(name="")),
    ("name", body(name=7)),
    ("name", body(name="a b")),
    ("name", body(name="-a")),
    ("name", body(name="a" * 64)),
    ("id", body(id="a/b")),
    ("id", body(id="a\n")),
    ("id", body(id=["a"])),
    ("id", body(id="a" * 129)),
    ("address", body(address=None)),
    ("address", body(address="")),
    ("address", body(address=8080)),
    ("address", body(address="nonsense")),
    ("address", body(address="a" * 400 + ":80")),
    ("tags", body(tags="v2")),
    ("tags", body(tags=["a b"])),
    ("tags", body(tags=[""])),
    ("tags", body(tags=["a,b"])),
    ("tags", body(tags=[1])),
    ("tags", body(tags=["a\x00"])),
    ("tags", body(tags=[f"t{i}" for i in range(33)])),
    ("metadata", body(metadata=["a"])),
    ("metadata", body(metadata={"a b": "x"})),
    ("metadata", body(metadata={f"k{i}": "" for i in range(33)})),
    ("metadata", body(metadata={"a": "x" * 5000})),
    ("metadata.a", body(metadata={"a": 1})),
    ("weight", body(weight=-1)),
    ("weight", body(weight=1001)),
    ("weight", body(weight="3")),
    ("weight", body(weight=1.5)),
    ("weight", body(weight=True)),
    ("ttl", body(ttl="0s")),
    ("ttl", body(ttl="301s")),
    ("ttl", body(ttl=0.5)),
    ("ttl", body(ttl=-5)),
    ("ttl", body(ttl=float("nan"))),
    ("ttl", body(ttl=10**400)),
    ("ttl", body(ttl="soon")),
    ("ttl", body(ttl="")),
    ("ttl", body(ttl=True)),
    ("ttl", body(ttl=[30])),
    ("ttl", body(ttl="1" * 1000)),
    ("tag", body(tag="v2")),
    ("host", body(host="10.0.0.5", port=80)),
]


@pytest.mark.parametrize(("field", "refused"), REFUSED)
def test_a_refusal_names_the_field_and_changes_nothing(field: str, refused: dict[str, object]) -> None:
    """What cannot be taken is refused with the field and a reason, and what was registered before stays as it was."""
    registry = World().registry
    before, _ = registry.register(body(weight=9))
    with pytest.raises(RegistrationError) as error:
        registry.register(refused)
    assert error.value.field == field
    assert error.value.message
    assert registry.all() == [before]


def test_forbidden_addresses_are_another_kind_of_refusal() -> None:
    """An address that is understood but not allowed raises AddressForbidden."""
    registry = World().registry
    with pytest.raises(AddressForbidden):
        registry.register(body(address="169.254.169.254:80"))
    assert len(registry) == 0


def test_what_an_answer_adds_may_come_back() -> None:
    """A client that registers with the object it once got is not refused for the fields that only answers have."""
    instance, _ = World().registry.register(body(registered_at="2023-11-14T22:13:20Z", last_heartbeat="x"))
    assert instance.id == "a"


@pytest.mark.parametrize(("ttl", "seconds"), [("1s", 1.0), ("5m", 300.0), (45, 45.0), (1.5, 1.5), ("45", 45.0)])
def test_ttl_is_a_duration_or_seconds(ttl: object, seconds: float) -> None:
    """Go durations and plain numbers from 1 to 300 seconds."""
    assert World().registry.register(body(ttl=ttl))[0].ttl == seconds


def test_a_full_registry_takes_updates_only() -> None:
    """maxServices bounds the instances; a known id may still be updated."""
    registry = World(max_services=2).registry
    registry.register(body(id="a"))
    registry.register(body(id="b"))
    with pytest.raises(RegistryFull):
        registry.register(body(id="c"))
    assert registry.register(body(id="b", weight=5))[1] is False
    registry.deregister("a")
    assert registry.register(body(id="c"))[1] is True


def test_a_lease_ends_without_heartbeats() -> None:
    """An instance expires exactly when its TTL has passed since the last heartbeat, and not before."""
    world = World()
    world.registry.register(body(id="a", ttl=10))
    world.registry.register(body(id="b", ttl=10))
    world.now += 9
    assert world.registry.heartbeat("a")
    assert world.sweep() == []
    world.now += 1
    assert world.sweep() == [("b", "critical")]
    assert [one.id for one in world.registry.in_rotation()] == ["a"]
    world.now += 9
    assert world.sweep() == [("a", "critical")]
    assert world.registry.in_rotation() == []


def test_the_wall_clock_decides_nothing() -> None:
    """A step of the wall clock neither ends nor lengthens a lease (SECURITY.md F13)."""
    world = World()
    world.registry.register(body(ttl=10))
    world.wall += 3600
    world.now += 9
    assert world.sweep() == []
    world.wall -= 7200
    world.now += 1
    assert world.sweep() == [("a", "critical")]


def test_leases_can_be_lengthened_together() -> None:
    """The time in which nothing could be heard does not count."""
    world = World()
    world.registry.register(body(ttl=10))
    world.now += 9
    world.registry.stalled(4)  # less than half a TTL: nobody is suspect for that
    world.now += 4
    assert world.sweep() == []
    world.now += 1
    assert world.sweep() == [("a", "critical")]


def test_instances_are_found_by_name_and_tag() -> None:
    """A list holds the instances of that name, with that tag, in the order in which they came."""
    registry = World().registry
    registry.register(body(id="a", name="api", tags=["v1"]))
    registry.register(body(id="b", name="api", tags=["v2"]))
    registry.register(body(id="c", name="web", tags=["v2"]))
    assert [one.id for one in registry.all()] == ["a", "b", "c"]
    assert [one.id for one in registry.all(name="api")] == ["a", "b"]
    assert [one.id for one in registry.all(tag="v2")] == ["b", "c"]
    assert [one.id for one in registry.all(name="api", tag="v2")] == ["b"]
    assert registry.get("c") is not None
    assert registry.get("d") is None
    assert registry.deregister("d") is None


def test_generated_ids_differ() -> None:
    """Instances that bring no id get one each."""
    registry = World().registry
    made = {registry.register(body(id=None))[0].id for _ in range(50)}
    assert len(made) == 50


@given(st.dictionaries(
    st.sampled_from(["id", "name", "address", "tags", "metadata", "weight", "ttl", "x"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
))  # fmt: skip
def test_any_json_object_is_taken_or_refused(given_body: dict[str, object]) -> None:
    """Whatever JSON object comes, it is registered or refused, and nothing else is raised."""
    registry = World().registry
    try:
        instance, _ = registry.register(given_body)
    except (RegistrationError, AddressForbidden):
        assert len(registry) == 0
    else:
        assert 1 <= instance.ttl <= 300
