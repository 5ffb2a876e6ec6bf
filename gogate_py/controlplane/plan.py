"""Plan: what a change of configuration does, told before it is done. Pure; reloads and ``gogate plan`` use it.

    thing       identity                         keeps over the change              when it goes
    listener    its id (config/listeners.py)     its sockets, at the same address   accepts no more; what is open ends
    route       its name                         a request keeps the one it has     what runs ends
    pool        its name                                                            registered instances get no work
    backend     (pool, address as written)       health, breaker, connections       gets no new work; what runs ends
    limit       scope, name, algorithm, key      what it counted
    setting     its key; a default of pools or routes is told where it has an effect

What is written in another order, or as the short form instead of the long one, is the same. ``restart`` has what a
running gateway cannot change, with the reason (``FIXED``): a plan with any of it is refused as a whole.

Values are as people write them; secrets are never in a plan (config/diff.py), and of certificates only names and end.
Registered instances are not the file's:
a plan tells of their pools only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from gogate_py.config.certificates import facts
from gogate_py.config.diff import ABSENT, Change, changes
from gogate_py.config.listeners import data_listeners
from gogate_py.config.schema import CertificateFiles, Config, ListenerTls, Pool, RateLimit, Route, Server
from gogate_py.config.settings import settings_of
from gogate_py.controlplane.compiler import members
from gogate_py.controlplane.route_compiler import rate_limits

KINDS: Final = ("listener", "route", "pool", "backend", "limit")


@attrs.frozen
class Item:
    """One thing that a configuration has. ``name``: a backend's is POOL/ADDRESS, a limit's its identity."""

    kind: str
    name: str


@attrs.frozen
class Changed:
    """A thing that both configurations have, with what is different."""

    kind: str
    name: str
    fields: tuple[Change, ...]


@attrs.frozen
class Rebind:
    """A listener with another address: the new one is bound before the old one goes."""

    name: str
    before: str
    after: str


@attrs.frozen
class Drain:
    """What gets no new work; what it does for those who use it."""

    kind: str
    name: str
    effect: str


@attrs.frozen
class Restart:
    """A setting that differs and that a running gateway cannot change."""

    key: str
    before: str
    after: str
    reason: str


@attrs.frozen
class Plan:
    """Everything that a change of configuration does. Order: by kind (KINDS), then as in the file."""

    added: tuple[Item, ...] = ()
    removed: tuple[Item, ...] = ()
    changed: tuple[Changed, ...] = ()
    kept: tuple[Item, ...] = ()
    settings: tuple[Change, ...] = ()
    rebinds: tuple[Rebind, ...] = ()
    #: Addresses that are bound anew, and those that are closed. One that passes to another listener is neither.
    binds: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    drains: tuple[Drain, ...] = ()
    #: Backends and limits that go on with what they know and counted.
    keeps_state: tuple[Item, ...] = ()
    restart: tuple[Restart, ...] = ()
    #: What stays as operators said at run time though the new configuration says otherwise, in words.
    overridden: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing that has an effect differs."""
        return not (self.added or self.removed or self.changed or self.settings or self.restart)


@attrs.frozen
class _Fixed:
    """Keys that belong together, the value that they have in effect, and why it is fixed at the start."""

    keys: tuple[str, ...]
    effect: Callable[[Config], Any]
    reason: str


#: Everything else can be reloaded.
FIXED: Final = (
    _Fixed(("server.workers",), lambda config: config.server.workers,
           "every worker has sockets and memory of its own from the start"),
    _Fixed(("server.registry.store",), lambda config: config.server.registry.store,
           "the store is opened, and read, at the start"),
    _Fixed(("logging.addSource",), lambda config: config.logging.add_source,
           "how a process writes its log lines is set up at its start"),
)


#: What is told of a TCP route's listener and limits, not of the route; and what it only seems to inherit.
_NOT_TCP: Final = (
    "rate_limit", "listen_addr", "accept_proxy_protocol", "tls",
    *(named.attribute for named in settings_of(Route) if named.setting.inherits))
#: What the server's part of the file says about things that are told on their own.
_OF_THINGS: Final = ("listen_addr", "http_listen_addr", "tls", "backends", "accept_proxy_protocol", "rate_limit")
#: Key of a pool or route that is inherited → the server's key that it has its default from.
_DEFAULTS: Final = {
    named.key: server.key
    for cls in (Pool, Route) for named in settings_of(cls) if named.setting.inherits
    for server in settings_of(Server) if server.attribute == named.attribute}

_GOES: Final = {
    "listener": "accepts no more connections; those that are open end by themselves",
    "pool": "its registered instances get no more work",
    "backend": "gets no new work; what runs on it ends by itself",
}


def plan(old: Config, new: Config) -> Plan:
    """What happens when a gateway that runs ``old`` is given ``new``."""
    before, after = _things(old), _things(new)
    added: list[Item] = []
    removed: list[Item] = []
    changed: list[Changed] = []
    kept: list[Item] = []
    staying: list[Item] = []
    for kind in KINDS:
        one, other = before[kind], after[kind]
        removed += [Item(kind, name) for name in one if name not in other]
        added += [Item(kind, name) for name in other if name not in one]
        for name in other:
            if name not in one:
                continue
            if kind in ("backend", "limit"):
                staying.append(Item(kind, name))
            fields = _fields(kind, one[name], other[name])
            if fields:
                changed.append(Changed(kind, name, tuple(fields)))
            else:
                kept.append(Item(kind, name))
    bound, binding = before["listener"], after["listener"]
    old_addresses, new_addresses = _addresses(bound), _addresses(binding)
    restart = needs_restart(old, new)
    return Plan(
        tuple(added), tuple(removed), tuple(changed), tuple(kept),
        tuple(_settings(old, new, changed, restart)),
        rebinds=tuple(
            Rebind(name, bound[name].address, one.address) for name, one in binding.items()
            if name in bound and bound[name].address != one.address),
        binds=tuple(address for address in new_addresses if address not in old_addresses),
        closes=tuple(address for address in old_addresses if address not in new_addresses),
        drains=tuple(Drain(item.kind, item.name, _GOES[item.kind]) for item in removed if item.kind in _GOES),
        keeps_state=tuple(staying),
        restart=tuple(restart))


def needs_restart(old: Config, new: Config) -> list[Restart]:
    """The settings that differ, have an effect, and cannot be changed without a restart."""
    different = {change.path: change for change in _beside(old, new)}
    return [
        Restart(key, different[key].before, different[key].after, fixed.reason)
        for fixed in FIXED if fixed.effect(old) != fixed.effect(new)
        for key in fixed.keys if key in different]


@attrs.frozen
class _Listener:
    address: str
    accept_proxy_protocol: bool
    tls: ListenerTls | None
    https_port: int


@attrs.frozen
class _Backend:
    weight: int
    backup: bool
    tls_name: str


def _things(config: Config) -> dict[str, dict[str, Any]]:
    """Kind → identity → what may change of it."""
    routes = config.effective_routes()
    listeners = {
        one.id: _Listener(one.address, one.accept_proxy_protocol, one.tls, one.https_port)
        for one in data_listeners(config)}
    limits: dict[str, RateLimit] = _limits(config.server.rate_limit, "server")
    for route in routes:
        limits |= _limits(route.rate_limit, f"route/{route.name}")
    return {
        "listener": listeners,
        "route": {route.name: route for route in routes},
        "pool": config.effective_pools(),
        "backend": {
            f"{member.pool}/{member.text}": _Backend(member.weight, member.backup, member.tls_name)
            for pool in members(config, ()).values() for member in pool},
        "limit": limits,
    }


def _limits(given: tuple[RateLimit, ...], scope: str) -> dict[str, RateLimit]:
    """Identity → limit, for those that are on; the identity is the compiler's."""
    identities: list[str] = []

    def note(identity: str) -> int:
        identities.append(identity)
        return 0

    rate_limits(given, scope, note)
    return dict(zip(identities, (limit for limit in given if limit.enabled), strict=True))


def _fields(kind: str, one: Any, other: Any) -> list[Change]:
    if one == other:
        return []
    match kind:
        case "listener":
            found = [Change("listenAddr", one.address, other.address),
                     Change("acceptProxyProtocol", *(str(x.accept_proxy_protocol).lower() for x in (one, other))),
                     Change("redirects to port", *(str(x.https_port) for x in (one, other)))]
            return [*(change for change in found if change.before != change.after), *_tls(one.tls, other.tls)]
        case "backend":
            found = [Change("weight", str(one.weight), str(other.weight)),
                     Change("backup", *(str(x.backup).lower() for x in (one, other))),
                     Change("tls", one.tls_name or ABSENT, other.tls_name or ABSENT)]
            return [change for change in found if change.before != change.after]
        case "pool":
            return changes(one, other, ("backends",))
        case "route":
            if one.type != other.type:
                return [Change("type", one.type, other.type)]
            found = changes(one, other, _NOT_TCP if one.type == "tcp" else ("rate_limit",))
            return [change for change in found if change.path != "timeouts.handshake"]  # that of listeners
    # A limit's name and key are its identity; of the name only how it was come by can differ.
    return changes(one, other, ("enabled", "name"))


def _tls(one: ListenerTls | None, other: ListenerTls | None) -> list[Change]:
    if one is None or other is None:
        shown = [ABSENT if tls is None else ", ".join(map(_certificate, tls.certificates)) for tls in (one, other)]
        return [Change("tls", *shown)] if one is not other else []
    # Redirects are listeners, and told as such.
    found = changes(one, other, ("certificates", "authorities", "redirect_http"))
    if one.authorities != other.authorities and one.client_ca == other.client_ca:
        found.append(Change(f"clientCA {one.client_ca}", "(contents)", "(contents)"))
    before = {certificate.cert_file: certificate for certificate in one.certificates}
    after = {certificate.cert_file: certificate for certificate in other.certificates}
    for file in dict.fromkeys((*before, *after)):
        if before.get(file) != after.get(file):
            shown = [_certificate(side[file]) if file in side else ABSENT for side in (before, after)]
            found.append(Change(f"certificate {file}", *shown))
    if [*before] != [*after] and before.keys() == after.keys():
        found.append(Change("certificates (order)", ", ".join(before), ", ".join(after)))
    return [attrs.evolve(change, path=f"tls.{change.path}") for change in found]


def _certificate(one: CertificateFiles) -> str:
    """Its names, and the day on which it ends."""
    about = facts(one.chain)
    until = datetime.fromtimestamp(about.not_after, UTC).date().isoformat()
    return f"{' '.join(about.names) or one.cert_file} until {until}"


def _beside(old: Config, new: Config) -> list[Change]:
    """What differs beside the things."""
    server = changes(old.server, new.server, _OF_THINGS)
    found = [attrs.evolve(change, path=f"server.{change.path}") for change in server]
    return found + changes(old, new, ("server", "listeners", "pools", "routes", "files"))


def _settings(old: Config, new: Config, changed: list[Changed], restart: list[Restart]) -> list[Change]:
    """What differs beside the things, but for defaults that are told of a pool or route, and what is in ``restart``."""
    told = {one.key for one in restart}
    for path in (change.path for thing in changed for change in thing.fields):
        key = path.partition(".")[0].partition("[")[0]
        if key in _DEFAULTS:
            told.add(f"server.{_DEFAULTS[key]}{path.removeprefix(key)}")
    return [change for change in _beside(old, new) if change.path not in told]


def _addresses(listeners: Mapping[str, _Listener]) -> list[str]:
    return list(dict.fromkeys(one.address for one in listeners.values()))


# --- for people, and for programs

def render(plan: Plan) -> list[str]:
    """A plan for people, a line each; what needs a restart first."""
    lines = [f"! {one.key}: {one.before} → {one.after}: needs a restart: {one.reason}" for one in plan.restart]
    if plan.is_empty:
        return ["nothing changes"]
    lines += [f"- {item.kind} {item.name}" for item in plan.removed]
    lines += [f"+ {item.kind} {item.name}" for item in plan.added]
    for thing in plan.changed:
        lines.append(f"~ {thing.kind} {thing.name}")
        lines += [f"    {_change(change)}" for change in thing.fields]
    lines += [f"~ {_change(change)}" for change in plan.settings]
    for kind in KINDS:
        names = [item.name for item in plan.kept if item.kind == kind]
        if names:
            lines.append(f"= {len(names)} {kind}{'' if len(names) == 1 else 's'} unchanged")
    lines += [f"rebinds: {one.name} {one.before} → {one.after}" for one in plan.rebinds]
    if plan.binds:
        lines.append(f"binds: {', '.join(plan.binds)}")
    if plan.closes:
        lines.append(f"closes: {', '.join(plan.closes)}")
    lines += [f"drains: {one.kind} {one.name}: {one.effect}" for one in plan.drains]
    if plan.keeps_state:
        counts = [(kind, sum(item.kind == kind for item in plan.keeps_state)) for kind in ("backend", "limit")]
        shown = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts if count)
        lines.append(f"keeps state: {shown}")
    lines += [f"overridden: {one}" for one in plan.overridden]
    return lines


def _change(change: Change) -> str:
    if change.before == change.after:
        return f"{change.path}: changed {change.after}"  # a secret, or the contents of a file
    return f"{change.path}: {change.before} → {change.after}"


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan for programs: lists of flat objects, under the names of the fields of :class:`Plan`, and ``empty``."""
    shown = attrs.asdict(plan)
    return {"empty": plan.is_empty} | {key: [*value] for key, value in shown.items()}
