"""Bulk over TCP on a whole gateway: spliced streams through a drain, under the admin API's eyes, and cut by it."""

from __future__ import annotations

import hashlib
import socket
import threading

from doubles.configs import tcp_gateway
from doubles.gateway import Gateway, echo_server, wait_for
from doubles.noise import blocks, digest

MIB = 1 << 20
#: Enough that every direction is spliced long before half of it.
SIZE = 64 * MIB


class Stream:
    """A client that sends SIZE bytes to an echo server, half of them only when it is told to, and hashes what comes."""

    def __init__(self, gateway: Gateway, seed: int) -> None:
        self.go_on = threading.Event()
        self.received = 0
        self.outcome = ""
        self._seed = seed
        self._sha = hashlib.sha256()
        self._sock = socket.create_connection(gateway.address("tcp:echo"), timeout=30)
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        sent = 0
        try:
            for block in blocks(self._seed, SIZE):
                if sent >= SIZE // 2:
                    self.go_on.wait(30)
                self._sock.sendall(block)
                sent += len(block)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was cut: the receiving half says so

    def _receive(self) -> None:
        try:
            while data := self._sock.recv(MIB):
                self._sha.update(data)
                self.received += len(data)
            whole = (self.received, self._sha.hexdigest()) == (SIZE, digest(self._seed, SIZE))
            self.outcome = "whole" if whole else "ended early"
        except OSError:
            self.outcome = "reset"

    def wait(self) -> str:
        """How it ended."""
        for thread in self._threads:
            thread.join(30)
        self._sock.close()
        return self.outcome


def test_bulk_through_views_a_cut_and_a_drain() -> None:
    """Six streams on two workers: exact in the admin API while they live; one is cut, SIGTERM comes in the middle of
    the others, and all their bytes arrive."""
    with echo_server() as (host, port), Gateway(tcp_gateway("echo", f"{host}:{port}")) as gateway:
        streams = [Stream(gateway, seed) for seed in range(6)]
        half = SIZE // 2
        wait_for(lambda: all(stream.received == half for stream in streams), 30, "half of all bytes")
        views = gateway.admin_json("GET", "/connections")["connections"]
        assert [(view["bytes_in"], view["bytes_out"]) for view in views] == [(half, half)] * 6
        port_of_first = streams[0]._sock.getsockname()[1]
        (first,) = [view for view in views if view["client"].endswith(f":{port_of_first}")]
        status, _ = gateway.admin_request("DELETE", f"/connections/{first['id']}")[:2]
        assert status in (200, 202, 204)
        streams[0].go_on.set()
        assert streams[0].wait() in ("ended early", "reset")
        for stream in streams[1:3]:
            stream.go_on.set()
        wait_for(lambda: all(stream.received > half for stream in streams[1:3]), 30, "more bytes")
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        for stream in streams[3:]:
            stream.go_on.set()
        assert [stream.wait() for stream in streams[1:]] == ["whole"] * 5
        stopping.join(40)
        assert gateway.process.returncode == 0
        lines = [line for line in gateway.access if line["msg"] == "connection closed"]
        assert sorted((line["result"], line["bytes_in"], line["bytes_out"]) for line in lines) == sorted(
            [("closed_by_admin", half, half)] + [("ok", SIZE, SIZE)] * 5
        )
