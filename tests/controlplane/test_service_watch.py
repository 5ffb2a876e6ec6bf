"""Service watch: who waits for the registry hears of everything that happens, once, and never for ever."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from admin_harness import TOKEN, AdminHarness, admin_api

from gogate_py.controlplane import admin_connection, service_answers, service_watch

CONFIG = """
server:
  httpListenAddr: "127.0.0.1:0"
  health: {enabled: false}
  registry: {cleanupInterval: 50ms}
  admin: {listenAddr: "127.0.0.1:0", token: "%s"}
"""


@pytest.fixture
def api() -> Iterator[AdminHarness]:
    """A running admin API over an empty registry."""
    with admin_api(CONFIG % TOKEN) as api:
        yield api


def register(api: AdminHarness, identity: str, name: str = "api", **fields: Any) -> None:
    """Register one instance."""
    body = {"id": identity, "name": name, "address": f"127.0.0.1:{9000 + sum(identity.encode()) % 900}", **fields}
    assert api.ask("POST", "/v1/services", body).status == 201


class Poll:
    """One long poll in a thread."""

    def __init__(self, api: AdminHarness, query: str) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=self._ask, args=(api, query))
        self._thread.start()

    def _ask(self, api: AdminHarness, query: str) -> None:
        self.answer = api.ask("GET", f"/v1/services?{query}")

    def result(self) -> Any:
        """The answer."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.answer


class Stream:
    """An event stream as its client reads it."""

    def __init__(self, api: AdminHarness, query: str = "", last: str = "") -> None:
        self.sock = api.connect()
        head = f"GET /v1/services{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        self.sock.sendall((head + (f"Last-Event-ID: {last}\r\n" if last else "") + "\r\n").encode())
        self._file = self.sock.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()

    def next(self) -> tuple[str, int, Any]:
        """The next event: its name, id, data; ("", 0, None) at the end of the stream."""
        fields: dict[str, str] = {}
        while line := self._file.readline():
            text = line.decode().rstrip("\r\n")
            if text == "0":  # the last chunk
                break
            name, colon, value = text.partition(": ")
            if colon and name in ("event", "id", "data"):
                fields[name] = value
            elif not text and "data" in fields:
                return fields["event"], int(fields["id"]), json.loads(fields["data"])
        return "", 0, None

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.sock.close()


def waiting(api: AdminHarness) -> int:
    """How many wait."""
    return api.control.watch._watchers


def until_waiting(api: AdminHarness, count: int) -> None:
    """Wait until so many wait."""
    for _ in range(2000):
        if waiting(api) == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError((waiting(api), count))


class TestLongPoll:
    """GET /v1/services?wait=…&index=…"""

    def test_it_is_answered_when_something_happens(self, api: AdminHarness) -> None:
        """A poll with the current index waits for the next change, and its answer has a higher one."""
        first = api.ask("GET", "/v1/services")
        index = int(first.headers["x-gogate-index"])
        poll = Poll(api, f"wait=1m&index={index}")
        until_waiting(api, 1)
        register(api, "a")
        answer = poll.result()
        assert [one["id"] for one in answer.json["services"]] == ["a"]
        assert int(answer.headers["x-gogate-index"]) == index + 1
        assert waiting(api) == 0

    def test_an_old_or_unknown_index_is_answered_at_once(self, api: AdminHarness) -> None:
        """Who missed something, or comes from another life of the gateway, does not wait."""
        index = int(api.ask("GET", "/v1/services").headers["x-gogate-index"])
        register(api, "a")
        for known in (index, 1, index + 10_000):
            assert len(api.ask("GET", f"/v1/services?wait=10m&index={known}").json["services"]) == 1

    def test_only_what_was_asked_for_wakes(self, api: AdminHarness) -> None:
        """A poll for one service sleeps through changes of others."""
        poll = Poll(api, "wait=1m&name=api")
        until_waiting(api, 1)
        register(api, "x", "other")
        register(api, "a")
        assert [one["id"] for one in poll.result().json["services"]] == ["a"]

    def test_it_ends_when_its_time_is_over(self, api: AdminHarness) -> None:
        """Without news the list is answered when the wait is over."""
        assert api.ask("GET", "/v1/services?wait=10ms").json == {"services": []}

    @pytest.mark.parametrize("query", ["wait=soon", "wait=11m", "index=-1", "index=x", "index=" + "9" * 30, "state=up"])
    def test_what_is_wrong_is_said(self, api: AdminHarness, query: str) -> None:
        """A parameter that cannot be read is 400 with its name."""
        answer = api.ask("GET", f"/v1/services?{query}")
        assert (answer.status, answer.json["field"]) == (400, query.partition("=")[0])

    def test_a_client_that_goes_away_waits_no_more(self, api: AdminHarness) -> None:
        """The place of a client that hangs up is free at once."""
        with api.connect() as sock:
            sock.sendall(b"GET /v1/services?wait=10m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until_waiting(api, 1)
        until_waiting(api, 0)

    def test_state_filters(self, api: AdminHarness) -> None:
        """?state= shows only the instances in that state."""
        register(api, "a")
        assert len(api.ask("GET", "/v1/services?state=passing").json["services"]) == 1
        assert api.ask("GET", "/v1/services?state=critical").json["services"] == []


class TestStream:
    """Accept: text/event-stream"""

    def test_everything_that_happens(self, api: AdminHarness) -> None:
        """First the list, then each event with its instance."""
        register(api, "a")
        stream = Stream(api)
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        kind, index, data = stream.next()
        assert (kind, [one["id"] for one in data["services"]]) == ("services", ["a"])
        register(api, "b", weight=1)
        register(api, "b", weight=5)
        api.ask("DELETE", "/v1/services/b")
        found = [stream.next() for _ in range(3)]
        assert [(kind, data["id"]) for kind, _, data in found] == [
            ("registered", "b"), ("updated", "b"), ("deregistered", "b")]
        assert [number for _, number, _ in found] == [index + 1, index + 2, index + 3]
        stream.close()
        until_waiting(api, 0)

    def test_a_lease_that_ends_and_comes_back(self, api: AdminHarness) -> None:
        """critical and passing are told, with the state they stand for."""
        stream = Stream(api)
        stream.next()
        register(api, "a", ttl=1)
        assert stream.next()[0] == "registered"
        kind, _, data = stream.next()
        assert (kind, data["state"], data["expires_in_s"]) == ("critical", "critical", 0)
        assert api.ask("PUT", "/v1/services/a/heartbeat").status == 204
        kind, _, data = stream.next()
        assert (kind, data["state"]) == ("passing", "passing")
        stream.close()

    def test_a_client_that_comes_back_gets_what_it_missed(self, api: AdminHarness) -> None:
        """Last-Event-ID continues where the client was; one that is not known begins with the list."""
        stream = Stream(api)
        _, index, _ = stream.next()
        stream.close()
        register(api, "a")
        register(api, "b", "other")
        again = Stream(api, last=str(index))
        assert [again.next()[2]["id"] for _ in range(2)] == ["a", "b"]
        again.close()
        strange = Stream(api, last="12345")
        assert strange.next()[0] == "services"
        strange.close()
        narrow = Stream(api, f"?index={index}&name=other")
        assert narrow.next()[2]["id"] == "b"
        narrow.close()

    def test_who_is_too_slow_gets_the_list(self, api: AdminHarness) -> None:
        """More events than are kept: the list again instead of a gap."""
        index = api.control.watch.index
        for number in range(service_watch.LATEST + 5):
            register(api, "a", weight=1 + number % 2)
        stream = Stream(api, last=str(index))
        assert stream.next()[0] == "services"
        stream.close()

    def test_silence_is_filled(self, api: AdminHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without news a comment shows that the connection lives."""
        monkeypatch.setattr(service_answers, "KEEP_ALIVE", 0.01)
        stream = Stream(api)
        stream.next()
        assert b":\n" in [stream._file.readline() for _ in range(12)]
        stream.close()

    def test_head_has_no_body(self, api: AdminHarness) -> None:
        """HEAD answers at once."""
        answer = api.ask("HEAD", "/v1/services", headers={"Accept": "text/event-stream"})
        assert (answer.status, answer.body) == (200, b"")


class TestBounds:
    """Nobody waits without bound."""

    def test_too_many_are_refused(self, api: AdminHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the bound a watcher is 503 with Retry-After; a list is still answered."""
        monkeypatch.setattr(service_watch, "MAX_WATCHERS", 2)
        streams = [Stream(api), Stream(api)]
        until_waiting(api, 2)
        answer = api.ask("GET", "/v1/services?wait=1s")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        third = Stream(api)
        assert third.status == 503
        assert api.ask("GET", "/v1/services").status == 200
        for stream in (*streams, third):
            stream.close()

    def test_watchers_do_not_use_up_the_admin_api(self, api: AdminHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connections that wait do not count to the quota of the listener."""
        monkeypatch.setattr(admin_connection, "QUOTA", 3)
        streams = []
        for number in range(6):
            streams.append(Stream(api))
            until_waiting(api, number + 1)
        assert api.ask("GET", "/stats").status == 200
        for stream in streams:
            stream.close()

    def test_a_client_that_does_not_read_is_cut(self, api: AdminHarness, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who leaves what it was sent unread loses its connection, and nobody else notices."""
        monkeypatch.setattr(service_answers, "STUCK", 0.05)
        for number in range(60):
            register(api, f"i{number}", metadata={"text": "x" * 4000})
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(api.addresses["admin"])
        sock.sendall(b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        until_waiting(api, 1)
        for number in range(2000):
            register(api, "i0", weight=1 + number % 2, metadata={"text": "x" * 4000})
            if not waiting(api):
                break
        until_waiting(api, 0)
        sock.close()

    def test_drain_lets_everybody_go(self, api: AdminHarness) -> None:
        """When gogate drains, polls are answered, streams end well, and nobody waits any more."""
        poll, stream = Poll(api, "wait=10m"), Stream(api)
        stream.next()
        until_waiting(api, 2)

        async def drain() -> None:
            api.control.draining = True

        api.call(drain())
        assert poll.result().json == {"services": []}
        assert stream.next() == ("", 0, None)
        until_waiting(api, 0)
        assert api.ask("GET", "/v1/services?wait=10m").json == {"services": []}
        late = Stream(api)
        assert late.status == 503
        stream.close()
        late.close()
