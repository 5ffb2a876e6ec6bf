"""Whole gateways that are reloaded: a configuration as a dictionary, written anew and served; streams that live on."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
from collections.abc import Iterator
from typing import Any

from doubles.gateway import Gateway

Settings = dict[str, Any]
OFF = {"enabled": False}


class Reloading:
    """One gateway and the configuration it was given last. ``settings`` is changed in place, then reloaded."""

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self.gateway = gateway
        self.settings = settings

    def write(self) -> None:
        """Write the settings as they are now, by rename."""
        new = self.gateway.config_path.with_suffix(".new")
        new.write_text(json.dumps(self.settings, indent=1))
        new.rename(self.gateway.config_path)

    def reload(self) -> dict[str, Any]:
        """Serve the settings as they are now; → what the admin API said. Fails when they are not served."""
        self.write()
        status, _, body = self.gateway.admin_request("POST", "/reload")
        done: dict[str, Any] = json.loads(body)
        assert status == 200, done
        return done

    def refused(self) -> list[str]:
        """The problems of the settings as they are now, which must not be served; they are taken back."""
        before = json.loads(self.gateway.config_path.read_text())
        self.write()
        status, _, body = self.gateway.admin_request("POST", "/reload")
        done: dict[str, Any] = json.loads(body)
        assert status == 400, done
        problems: list[str] = done["problems"]
        self.settings.clear()
        self.settings.update(before)
        return problems


@contextlib.contextmanager
def reloading(settings: Settings, **options: Any) -> Iterator[Reloading]:
    """A gateway with two workers and these settings."""
    whole = copy.deepcopy(settings)
    whole.setdefault("server", {})
    for key, value in {"workers": 2, "admin": {"listenAddr": "127.0.0.1:0"}, "health": OFF}.items():
        whole["server"].setdefault(key, value)
    with Gateway(json.dumps(whole, indent=1), **options) as gateway:
        yield Reloading(gateway, whole)


class Stream:
    """A client connection that sends words and gets them back: a TCP stream, or one behind a WebSocket handshake."""

    def __init__(self, address: tuple[str, int], upgrade: str = "") -> None:
        """``upgrade``: the path of a WebSocket; "" = bare TCP."""
        self._sock = socket.create_connection(address, timeout=10)
        self._said = 0
        if upgrade:
            self._sock.sendall(
                f"GET {upgrade} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._sock.recv(4096)
            assert head.startswith(b"HTTP/1.1 101 "), head

    def says(self) -> bool:
        """Whether the next word comes back."""
        self._said += 1
        word = b"word %06d" % self._said
        try:
            self._sock.sendall(word)
            found = b""
            while len(found) < len(word):
                data = self._sock.recv(len(word) - len(found))
                if not data:
                    return False
                found += data
        except OSError:
            return False
        return found == word

    def close(self) -> None:
        """End it."""
        self._sock.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextlib.contextmanager
def upgrading_echo() -> Iterator[str]:
    """A backend that takes any head for a WebSocket handshake, and then sends everything back; → its address."""
    import socketserver

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in head:
                    data = self.request.recv(65536)
                    if not data:
                        return
                    head += data
                self.request.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                )
                while data := self.request.recv(65536):
                    self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that resets is part of the tests."""

    import threading

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
