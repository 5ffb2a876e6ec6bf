"""A TCP peer for bulk transfers, as a process of its own: ``python bulk_peer.py`` prints its port and serves.

A client sends ``SEED SIZE\\n``; both sides then send SIZE bytes at once (the server with SEED + 1), the client
half-closes, and the server answers behind its bytes with the SHA-256 of what it received, in hex, and closes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from noise import blocks


def receive_all(sock: socket.socket, limit: int = -1) -> tuple[int, str, bytes]:
    """Read to EOF; the hash is of the first ``limit`` bytes (-1: of all), the rest is returned."""
    sha, size, rest = hashlib.sha256(), 0, b""
    buffer = memoryview(bytearray(1 << 18))
    while got := sock.recv_into(buffer):
        take = got if limit < 0 else max(0, min(got, limit - size))
        sha.update(buffer[:take])
        size += take
        rest += bytes(buffer[take:got])
    return size, sha.hexdigest(), rest


def _serve(sock: socket.socket) -> None:
    with sock:
        head = b""
        while not head.endswith(b"\n"):
            head += sock.recv(1)
        seed, size = map(int, head.split())
        received: list[str] = []
        reader = threading.Thread(target=lambda: received.append(receive_all(sock)[1]))
        reader.start()
        for block in blocks(seed + 1, size):
            sock.sendall(block)
        reader.join()
        sock.sendall(received[0].encode())


def main() -> None:
    """Serve until killed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            sock, _ = server.accept()
            threading.Thread(target=_serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(0)
