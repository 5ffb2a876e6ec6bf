"""HttpSite: what all HTTP connections of a worker share — routes, limits, counters, request ids — rebuilt from each
snapshot."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from gogate_py.clock import monotonic
from gogate_py.dataplane.client_table import REFUSED
from gogate_py.dataplane.deadlines import INFINITE
from gogate_py.dataplane.decisions import Decisions
from gogate_py.dataplane.downstream import LEAVE_IDLE, Downstream
from gogate_py.dataplane.live_route import LiveRoute, RouteCounts
from gogate_py.dataplane.upstream import LARGEST_KNOWN, MOST_KNOWN_FIELDS
from gogate_py.errors import Failure
from gogate_py.middleware.pipeline import compile_pipeline
from gogate_py.middleware.response_cache import ResponseCache
from gogate_py.policy.retry import RetryBudget
from gogate_py.policy.router import Router
from gogate_py.snapshot import HeadRules, HttpRoute, Limits, Snapshot
from gogate_py.telemetry.histogram import Histogram
from gogate_py.telemetry.metrics import ROUTE_HISTOGRAMS
from gogate_py.wire.fast_head import (
    FastBodyRequest,
    FastRequest,
    make_fast_body_request,
    make_fast_request,
    make_fast_response,
    make_set_apart,
)
from gogate_py.wire.head_check import HeadLimits, RequestHead, check_request_head
from gogate_py.wire.llhttp_check import RequestFraming
from gogate_py.wire.proxy_protocol import ProxyHeader

if TYPE_CHECKING:
    from gogate_py.dataplane.exchange_state import ExchangeState
    from gogate_py.dataplane.listeners import LiveListener
    from gogate_py.dataplane.plane import Plane
    from gogate_py.dataplane.secured import Secured

_CACHED_NAMES: Final = 1024
#: Heads that are remembered: 512 without a body, as many with one, as many taken apart, of at most 1 KiB and 32 fields.
#: A client that brings others all the time makes that 4 MB.
_KNOWN_HEADS: Final = 512

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


class HttpSite:
    """The HTTP side of one worker."""

    # Slots: an object of more than 30 attributes loses the interpreter's fast way to them.
    __slots__ = (
        "_budgets", "_checked_heads", "_clean_body_heads", "_clean_heads", "_compiled", "_host_keys", "_id_prefix",
        "_ids", "_known_trust", "_trusted", "caches", "clients", "counts", "decisions", "drain_idle", "draining",
        "fast_body_request", "fast_request", "fast_response", "framing", "idle_timeout", "in_flight", "leaving",
        "limits", "local_reasons", "log_sample", "log_timers", "max_in_flight", "memory", "min_body_rate",
        "other_durations", "plane", "request_header_timeout", "set_apart", "slow", "trailers", "unrouted_codes",
        "unrouted_durations", "watcher",
    )  # fmt: skip

    def __init__(self, plane: Plane, incarnation: int) -> None:
        self.plane = plane
        self.clients: set[Downstream] = set()
        self.memory = plane.memory
        self.in_flight = 0
        self.draining = False
        # listeners that are gone, but still have clients: those are answered, and then sent away
        self.leaving: set[LiveListener] = set()
        # how long a client may take for its next request while draining, seconds
        self.drain_idle = 0.0
        # --- from the snapshot
        self._compiled: tuple[Limits, HeadRules, bool] | None = None
        self.trailers: frozenset[bytes] = frozenset()
        self.limits = HeadLimits()
        # the second opinion on heads (DESIGN.md section 4); it only ever sees whole messages, so one serves all
        # connections
        self.framing = RequestFraming()
        self.fast_request = make_fast_request(self.limits)
        self.fast_body_request = make_fast_body_request(self.limits)
        self.set_apart = make_set_apart(self.limits)
        self.fast_response = make_fast_response(self.limits)
        self.max_in_flight = 0
        self.log_sample = 0.0
        self.log_timers = False
        self.request_header_timeout = INFINITE
        self.idle_timeout = INFINITE
        self.min_body_rate = 0
        # every request is shown to it, unless it is None
        self.watcher: Decisions | None = None
        self.slow = INFINITE
        self._trusted: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._known_trust: dict[str, bool] = {}
        # --- counters since the last report
        self.local_reasons: dict[str, int] = {}
        self.unrouted_codes: dict[int, int] = {}
        self.unrouted_durations = Histogram()
        # of all routes that have no histogram of their own
        self.other_durations = Histogram()
        # of every route there ever was, by name
        self.counts: dict[str, RouteCounts] = {}
        self.caches: dict[str, ResponseCache] = {}
        self._budgets: dict[str, RetryBudget] = {}
        # --- request ids: a prefix of this process and a counter; unique, and cheap (0.2 µs where uuid4 takes 1.5)
        self._id_prefix = b"%02x%02x%s-" % (plane.slot, incarnation & 0xFF, os.urandom(6).hex().encode())
        self._ids = 0
        self._host_keys: dict[bytes, bytes] = {}
        self._clean_heads: dict[bytes, FastRequest] = {}
        self._clean_body_heads: dict[bytes, FastBodyRequest] = {}
        self._checked_heads: dict[bytes, RequestHead] = {}
        self.decisions = Decisions(self)

    def apply(self, snapshot: Snapshot) -> None:
        """Compile a snapshot's routes and settings."""
        services = self.plane.services
        pools = self.plane.table.pools
        routes: list[tuple[HttpRoute, LiveRoute]] = []
        caches: dict[str, ResponseCache] = {}
        budgets: dict[str, RetryBudget] = {}
        for number, spec in enumerate(snapshot.http_routes):
            if spec.cache is not None:
                kept = self.caches.get(spec.name)
                same = kept is not None and kept.settings == spec.cache
                caches[spec.name] = kept if kept is not None and same else ResponseCache(spec.cache)
            if spec.retry is not None and spec.retry.budget_percent:
                budget = budgets[spec.name] = self._budgets.get(spec.name) or RetryBudget(spec.retry.budget_percent)
                budget.percent = spec.retry.budget_percent
            pipeline = compile_pipeline(spec, snapshot.rate_limits, services, caches.get(spec.name))
            counts = self._counts_of(spec.name, own_histogram=number < ROUTE_HISTOGRAMS)
            routes.append((spec, LiveRoute(spec, pipeline, pools, counts, budgets.get(spec.name))))
        self.caches = caches
        self._budgets = budgets
        self._give_routers(snapshot, routes)
        limits, rules = snapshot.limits, head_rules(snapshot)
        checks = head_limits(limits, rules, trace_context=snapshot.tracing is not None)
        if self._compiled != (limits, rules, checks.trace_context):
            self._compiled = (limits, rules, checks.trace_context)
            self._compile_limits(checks, rules)
        self.max_in_flight = limits.in_flight
        access = snapshot.access_log
        self.log_sample = access.sample if access.enabled else 0.0
        shown = self.decisions.apply(snapshot.decisions, access.timers, snapshot.tracing)
        self.watcher = self.decisions if shown else None
        self.log_timers = access.timers
        self.slow = self.decisions.slow
        self.request_header_timeout = snapshot.timeouts.request_header or INFINITE
        self.idle_timeout = snapshot.timeouts.idle or INFINITE
        self.min_body_rate = snapshot.timeouts.min_body_rate
        self._trusted = [ipaddress.ip_network(cidr) for cidr in snapshot.trusted_proxies]
        self._known_trust = {}

    def _counts_of(self, route: str, *, own_histogram: bool) -> RouteCounts:
        """What is counted on a route. Who has a histogram keeps it: running requests still count there."""
        counts = self.counts.get(route)
        if counts is None:
            counts = self.counts[route] = RouteCounts(None if own_histogram else self.other_durations)
        elif counts.shares and own_histogram:
            counts.shares, counts.durations = False, Histogram()
        return counts

    def _give_routers(self, snapshot: Snapshot, routes: list[tuple[HttpRoute, LiveRoute]]) -> None:
        """Every listener gets a router over the routes that it has; listeners with the same ones share it."""
        specs = {spec.id: spec for spec in snapshot.listeners}
        routers: dict[tuple[str, ...], Router[LiveRoute]] = {}
        for listener in self.plane.listeners.everyone():
            spec = specs.get(listener.id) or listener.spec
            if spec is None or spec.tcp_routes():
                continue
            mine = routes_of(spec.name or spec.id, routes)
            key = tuple(rule.name for rule, _ in mine)
            if key not in routers:
                routers[key] = Router(list(mine))
            listener.router = routers[key]

    def _compile_limits(self, limits: HeadLimits, rules: HeadRules) -> None:
        """Make the head checks for these limits (milliseconds: expressions are compiled)."""
        self.limits = limits
        # What only the gateway may set (T8) is no trailer of a client's, either.
        self.trailers = frozenset(name.encode() for name in rules.forward_trailers) - self.limits.identity
        self.fast_request = make_fast_request(self.limits)
        self._clean_heads = {}
        self._clean_body_heads = {}
        self._checked_heads = {}
        self.fast_body_request = make_fast_body_request(self.limits)
        self.set_apart = make_set_apart(self.limits)
        self.fast_response = make_fast_response(self.limits)

    def clean_request(self, data: bytes) -> FastRequest | None:
        """The proof that these bytes are one clean head without a body and nothing else, or None. Connections that come
        for one request, and clients of one program, bring the same bytes again and again."""
        known = self._clean_heads
        found = known.get(data)
        if found is None:
            found = self.fast_request(data)
            if found is None or not self.framing.agrees_one_message(data, found[6] is not None):
                return None
            if len(data) <= LARGEST_KNOWN:
                _remember(known, data, found, _KNOWN_HEADS)
        return found

    def clean_body_request(self, head: bytes) -> FastBodyRequest | None:
        """The same of a head that announces a body of a known length, with nothing behind it."""
        known = self._clean_body_heads
        found = known.get(head)
        if found is None:
            found = self.fast_body_request(head)
            if found is None or not RequestFraming.accepts_head(head, True):
                return None
            if len(head) <= LARGEST_KNOWN:
                _remember(known, head, found, _KNOWN_HEADS)
        return found

    def checked_request(self, head: bytes) -> RequestHead:
        """A head that was found clean, taken apart; the same ones come again and again."""
        known = self._checked_heads
        found = known.get(head)
        if found is None:
            found = check_request_head(head, self.limits)
            if len(head) <= LARGEST_KNOWN and len(found.fields) <= MOST_KNOWN_FIELDS:
                _remember(known, head, found, _KNOWN_HEADS)
        return found.copy()

    def accept(
        self,
        listener: LiveListener,
        header: ProxyHeader | None = None,
        secured: Secured | None = None,
        ticket: int = REFUSED,
    ) -> Downstream:
        """The protocol of a new client connection, behind its PROXY header and TLS handshake where there are."""
        return Downstream(self, listener, header, secured, ticket)

    def request_id(self) -> bytes:
        """A new request id."""
        self._ids += 1
        return b"%b%06x" % (self._id_prefix, self._ids)

    def log_refusal(self, client: str, failure: Failure, detail: str, request_id: bytes) -> None:
        """Count, and log, bytes that never became a request: the rule they broke, and nothing of the bytes."""
        reason = failure.reason
        self.local_reasons[reason] = self.local_reasons.get(reason, 0) + 1
        self.unrouted_codes[failure.status] = self.unrouted_codes.get(failure.status, 0) + 1
        if self.logs_this():
            now, status = monotonic(), failure.status
            self.plane.access_log.request_over(
                (now, b"", b"", status, 0.0, "", "", request_id, client, 0, reason, b"", 0, detail, None)
            )

    def log_request(self, exchange: ExchangeState, duration: float, now: float) -> None:
        """The access line of a request that is complete, at ``now``."""
        backend, route, attempts = exchange.backend, exchange.route, exchange.attempts
        self.plane.access_log.request_over((
            now,
            exchange.method,
            exchange.path,
            exchange.status,
            duration,
            backend.address if backend is not None else exchange.last_backend,
            route.name if route is not None else "",
            exchange.request_id,
            exchange.client,
            exchange.sent_bytes,
            exchange.reason,
            exchange.host,
            attempts - 1 if attempts > 1 else 0,
            exchange.detail,
            exchange.timeline.timers(exchange.started, exchange.started + duration)
            if self.log_timers and exchange.timeline is not None
            else None,
        ))

    def logs_this(self) -> bool:
        """Whether this request is in the sample of the access log."""
        sample = self.log_sample
        return sample >= 1.0 or (sample > 0.0 and self.plane.random.random() < sample)

    def host_key(self, host: bytes) -> bytes:
        """A Host value, checked by the head check already, as routes are keyed; most come again and again."""
        key = self._host_keys.get(host)
        if key is None:
            key = host_key(host)
            _remember(self._host_keys, host, key, _CACHED_NAMES)
        return key

    def is_trusted(self, address: str) -> bool:
        """Whether a peer is one of trustedProxies. The same ones are asked about again and again."""
        if not self._trusted:
            return False
        known = self._known_trust.get(address)
        if known is None:
            known = self._in_trusted(address)
            _remember(self._known_trust, address, known, _CACHED_NAMES)
        return known

    def _in_trusted(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._trusted)

    def drain(self, drain_idle: float) -> None:
        """Answer what runs and what a kept-alive client still asks within ``drain_idle`` seconds, then close."""
        self.draining = True
        self.drain_idle = drain_idle
        by = monotonic() + drain_idle
        for client in list(self.clients):
            client.drain(by)
        for backend in self.plane.table.rows.values():
            if backend.http is not None:
                backend.http.close_idle()

    def leave(self, listener: LiveListener) -> None:
        """A listener is gone: as in :meth:`drain`, for its clients only."""
        by = monotonic() + LEAVE_IDLE
        clients = [client for client in self.clients if client.listener is listener]
        if clients:
            self.leaving.add(listener)
            for client in clients:
                client.drain(by)

    def send_away(self) -> None:
        """The grace time is over: cut every client, but those of WebSockets when they have been told."""
        for client in list(self.clients):
            exchange = client.exchange
            if exchange is not None and exchange.tunnel is not None:
                exchange.tunnel.go_away("grace_period")
            else:
                client.cut_off("grace_period")

    def cut(self) -> None:
        """Abort every client connection that is left."""
        for client in list(self.clients):
            client.cut_off("grace_period")


def routes_of(listener: str, routes: list[tuple[HttpRoute, LiveRoute]]) -> list[tuple[HttpRoute, LiveRoute]]:
    """Those of the routes that a listener of this name has."""
    return [(rule, route) for rule, route in routes if not rule.listeners or listener in rule.listeners]


def head_rules(snapshot: Snapshot) -> HeadRules:
    """The rules for heads. What tells backends the subject of a client's certificate is not for clients to set, on any
    listener, whatever else is said of it."""
    rules = snapshot.head_rules
    headers = {listener.tls.subject_header.lower() for listener in snapshot.listeners if listener.tls is not None}
    missing = headers - {"", *rules.identity_headers}
    if not missing:
        return rules
    return replace(rules, identity_headers=(*rules.identity_headers, *sorted(missing)))


def head_limits(limits: Limits, rules: HeadRules, *, trace_context: bool = False) -> HeadLimits:
    """What heads are checked against."""
    return HeadLimits(
        request_line=limits.request_line,
        request_head=limits.request_head,
        request_fields=limits.request_fields,
        response_head=limits.response_head,
        response_fields=limits.response_fields,
        methods=frozenset(method.encode() for method in limits.methods),
        header_names=rules.header_names,
        identity=frozenset(name.encode() for name in rules.identity_headers),
        escaped_slashes=rules.escaped_slashes,
        trace_context=trace_context,
    )


def host_key(host: bytes) -> bytes:
    """A Host value as routes are keyed: lower case, without port or trailing dot."""
    name = host.lower()
    return name.partition(b"]")[0] + b"]" if name.startswith(b"[") else name.partition(b":")[0].rstrip(b".")


def _remember(known: dict[_Key, _Found], key: _Key, found: _Found, most: int) -> None:
    """Keep what was found for a key. Emptied when full: that costs finding all again, now and then, and needs no order
    in which they came."""
    if len(known) >= most:
        known.clear()
    known[key] = found
