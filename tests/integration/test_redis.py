"""Redis through the L4 listener: deep pipelines, messages that come by themselves, large values."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import subprocess
from collections.abc import Iterator

import pytest
from conftest import need_program
from doubles.configs import tcp_gateway
from doubles.gateway import Gateway, wait_for
from doubles.load import in_threads, sampled_memory
from doubles.noise import blocks
from doubles.servers import redis


class Store:
    """Connections to a Redis through the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.address = gateway.address("tcp:redis")

    def connect(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(self.address, timeout=30)

    def cli(self, *arguments: str, data: bytes = b"") -> bytes:
        """What redis-cli prints."""
        command = [need_program("redis-cli"), "-h", self.address[0], "-p", str(self.address[1]), *arguments]
        done = subprocess.run(command, input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with redis() as port, Gateway(tcp_gateway("redis", f"127.0.0.1:{port}")) as gateway:
        yield Store(gateway)


def _expect(sock: socket.socket, expected: bytes) -> None:
    """Read as much as is expected; it must be that."""
    data = b""
    while len(data) < len(expected):
        more = sock.recv(1 << 16)
        assert more, f"closed after {len(data)} of {len(expected)} bytes"
        data += more
    assert data == expected


def test_a_pipeline_of_10000_commands_is_answered_in_order(store: Store) -> None:
    """10 000 commands written before an answer is read get 10 000 answers in order, on 4 connections at once."""
    def work(client: int) -> None:
        with store.connect() as sock:
            key = f"counter:{client}"
            sock.sendall(f"INCR {key}\r\n".encode() * 10_000)
            _expect(sock, b"".join(b":%d\r\n" % n for n in range(1, 10_001)))

    in_threads(4, work)


def test_redis_cli_pipe_mode(store: Store) -> None:
    """redis-cli --pipe, which half-closes and waits for the last answer, loads 10 000 keys without an error."""
    commands = b"".join(b"SET key:%d value:%d\r\n" % (n, n) for n in range(10_000))
    assert b"errors: 0, replies: 10000" in store.cli("--pipe", data=commands)
    assert store.cli("GET", "key:9999") == b"value:9999\n"


def test_messages_reach_every_subscriber(store: Store) -> None:
    """Published messages reach subscribers that sent nothing for long, all of them and in order."""
    with contextlib.ExitStack() as stack:
        subscribers = [stack.enter_context(store.connect()) for _ in range(8)]
        for sock in subscribers:
            sock.sendall(b"SUBSCRIBE news\r\n")
            _expect(sock, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
        with store.connect() as publisher:
            publisher.sendall(b"".join(b"PUBLISH news %04d\r\n" % n for n in range(1000)))
            _expect(publisher, b":8\r\n" * 1000)
        for sock in subscribers:
            _expect(sock, b"".join(b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\n%04d\r\n" % n for n in range(1000)))


def test_a_value_of_50_megabytes_is_exact(store: Store) -> None:
    """A 50 MB value goes in and comes back with the same checksum, in flat memory."""
    value = b"".join(blocks(5, 50_000_000))
    with sampled_memory(store.gateway.pids()) as memory:
        assert store.cli("-x", "SET", "big", data=value) == b"OK\n"
        back = store.cli("--raw", "GET", "big")
    assert hashlib.sha256(back.removesuffix(b"\n")).digest() == hashlib.sha256(value).digest()
    assert memory.growth() < 16 << 20


def test_a_blocked_client_is_woken(store: Store) -> None:
    """A client blocked in BLPOP is answered when another one pushes."""
    with store.connect() as waiting:
        waiting.sendall(b"BLPOP queue 0\r\n")
        wait_for(lambda: b"blocked_clients:1" in store.cli("INFO", "clients"), what="the client to block")
        store.cli("LPUSH", "queue", "job")
        _expect(waiting, b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n")
