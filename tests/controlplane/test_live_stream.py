"""GET /events and /topology, and the page's files, over a real admin API."""

from __future__ import annotations

import http.client
import json
from typing import Any, cast

from admin_harness import CONFIG, TOKEN, AdminHarness, admin_api
from doubles.gateway import wait_for

from gogate_py.controlplane import live_stream
from gogate_py.controlplane.control import Control
from gogate_py.controlplane.operations import BackendView


class Events:
    """One client of the stream."""

    def __init__(self, harness: AdminHarness) -> None:
        host, port = harness.addresses["admin"]
        self._connection = http.client.HTTPConnection(host, port, timeout=10)
        self._connection.request("GET", "/events")
        self.answer = self._connection.getresponse()

    def next(self) -> tuple[str, Any]:
        """Kind and data of the next event."""
        kind = ""
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))
            elif not line and self.answer.isclosed():
                raise EOFError

    def until(self, wanted: str) -> Any:
        """The data of the next event of a kind."""
        while True:
            kind, data = self.next()
            if kind == wanted:
                return data

    def close(self) -> None:
        """Go away."""
        self.answer.close()
        self._connection.close()


def test_a_stream_begins_with_the_whole_and_goes_on_with_beats() -> None:
    """Topology, history, then figures once a second; a drain is told as a happening, and in the topology."""
    with admin_api() as harness:
        events = Events(harness)
        assert events.answer.headers["Content-Type"].startswith("text/event-stream")
        topology = events.until("topology")
        assert [one["addr"] for one in topology["backends"]] == ["127.0.0.1:9001", "127.0.0.1:9002"]
        assert topology["listeners"][0]["routes"] == ["default-http"]
        history = events.until("history")
        assert history["columns"][0] == "at"
        beat = events.until("beat")
        assert beat["backends"][0][5] == 7  # active, as the played supervisor says
        harness.loop.call_soon_threadsafe(harness.control.drain, "127.0.0.1:9001", None)
        assert next(one for one in events.until("topology")["backends"] if one["draining"])["addr"] == "127.0.0.1:9001"
        news = events.until("happened")
        assert ("backend", "draining", "default/127.0.0.1:9001") in [
            (one["kind"], one["what"], one["name"]) for one in news]
        events.close()
        late = Events(harness)
        assert any(one["what"] == "draining" for one in late.until("history")["happened"])
        late.close()


def test_streams_are_bounded_and_end_with_the_gateway() -> None:
    """Beyond MAX_WATCHERS 503; who drains sends everybody away."""
    with admin_api() as harness:
        many = [Events(harness) for _ in range(live_stream.MAX_WATCHERS)]
        for one in many:
            one.until("history")
        refused = harness.ask("GET", "/events")
        assert refused.status == 503
        assert "Retry-After" in {name.title() for name in refused.headers}
        for one in many[1:]:
            one.close()

        def drain() -> None:
            harness.control.draining = True

        harness.loop.call_soon_threadsafe(drain)
        while many[0].answer.readline():
            pass
        assert harness.ask("GET", "/events").status == 503
        many[0].close()


def test_topology_and_the_page_are_plain_answers() -> None:
    """JSON for scripts; HTML for browsers, with a policy that lets nothing in from elsewhere; only its own files."""
    with admin_api() as harness:
        assert harness.ask("GET", "/topology").json["pools"] == [
            {"name": "default", "load_balancer": "round_robin", "panic": False}]
        page = harness.ask("GET", "/", headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert harness.ask("GET", "/").json["name"] == "gogate"
        for name in ("app.js", "style.css", "uplot.js", "icon.svg"):
            assert harness.ask("GET", f"/dashboard/{name}").status == 200
        for name in ("nothing.js", "..%2fpy.typed", "uplot.LICENSE.txt"):
            assert harness.ask("GET", f"/dashboard/{name}").status == 404


def test_the_stream_follows_the_access_rules() -> None:
    """A wrong token is 401 here, too."""
    with admin_api(CONFIG % TOKEN) as harness:
        answer = harness.ask("GET", "/events", headers={"Authorization": "Bearer wrong"})
        assert answer.status == 401


class CountingControl:
    """A control plane that counts how often all of its backends are asked for."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)

    def backends(self) -> list[BackendView]:
        """All of them."""
        self.looks += 1
        return self._control.backends()


def test_who_is_not_watched_looks_only_where_something_happened() -> None:
    """With nothing new a beat asks nobody for the backends, however many there are; what happened meanwhile is in the
    history of who comes later: a drain (a generation), a breaker that opened (the arena)."""
    with admin_api() as harness:
        control = CountingControl(harness.control)

        async def made() -> live_stream.Live:
            return live_stream.Live(cast(Control, control), harness.supervisor, harness.totals)

        async def beat() -> int:
            live.beat()
            return control.looks

        async def drain() -> int:
            harness.control.drain("127.0.0.1:9001")
            return harness.control.generation

        live = harness.call(made())
        assert [harness.call(beat()) for _ in range(3)] == [1, 1, 1]
        before = harness.call(drain())
        wait_for(lambda: harness.control.generation > before or control.looks > 1 or harness.call(beat()) > 1)
        assert harness.call(beat()) == 2
        harness.supervisor.breakers[harness.control.backends()[1].row] = "open"
        assert harness.call(beat()) == harness.call(beat()) == 3
        data = live.first().partition(b"event: history")[2].partition(b"data: ")[2].splitlines()[0]
        assert [(one["what"], one["name"]) for one in json.loads(data)["happened"]] == [
            ("draining", "default/127.0.0.1:9001"), ("breaker open", "default/127.0.0.1:9002")]
