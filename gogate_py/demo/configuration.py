"""The demo's configuration file, and ports for it that nobody else uses."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Final, NamedTuple

HOST: Final = "127.0.0.1"
#: Seconds that a request or connection which still runs may take after Ctrl-C.
GRACE: Final = 2

_TEMPLATE: Final = """\
# Written by gogate demo, in the long form: named pools, and routes that send traffic to them.
server:
  workers: 2
  httpListenAddr: "{host}:{http}"
  admin: {{listenAddr: "{host}:{admin}"}}
  # Quick and strict, so that whoever registers is seen at once and gets nothing before it answers.
  health: {{interval: 500ms, timeout: 400ms, healthyThreshold: 1, unhealthyThreshold: 2, initialState: down}}
  shutdown: {{gracePeriod: {grace}s, drainIdle: 0s}}

pools:
  # No backends here: whoever registers as the service of this name joins.
  web:
    service: web
    health: {{checkType: http, httpPath: /}}
  echo:
    service: echo
    health: {{checkType: tcp}}

routes:
  - {{name: web, pool: web}}
  - {{name: echo, type: tcp, listenAddr: "{host}:{tcp}", pool: echo}}

logging: {{level: info, format: text}}
"""


class Ports(NamedTuple):
    """Where the gateway listens; as a wish, 0 means any free port."""

    http: int = 8081
    tcp: int = 8080
    admin: int = 9090


def configuration(ports: Ports) -> str:
    """The YAML of a gateway on these ports of the loopback interface."""
    return _TEMPLATE.format(host=HOST, grace=GRACE, **ports._asdict())


def is_free(port: int) -> bool:
    """Whether a listener could have this port now."""
    with socket.socket() as sock:
        return _bind(sock, port)


def choose(*wanted: int) -> tuple[int, ...]:
    """A free port for each wish: that one where it is free, another where it is taken or 0; no port twice.

    Nothing keeps a port once it is chosen: whoever binds it must be ready to find it taken.
    """
    with ExitStack() as stack:
        chosen = []
        for port in wanted:
            sock = stack.enter_context(socket.socket())
            if not _bind(sock, port):
                sock = stack.enter_context(socket.socket())
                sock.bind((HOST, 0))
            chosen.append(sock.getsockname()[1])
        return tuple(chosen)


def _bind(sock: socket.socket, port: int) -> bool:
    # As a listener would: the remains of closed connections (TIME_WAIT) do not count, a listening socket does.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen(1)
    except OSError:
        return False
    return True
