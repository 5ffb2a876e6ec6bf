"""Short ways to load a configuration text in tests."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

from gogate_py.config.loader import load_text
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Config
from gogate_py.errors import ConfigError

#: The README of GoGate, whose users come with these two files.
MINIMAL = """\
server:
  listenAddr: ":8080"      # L4 TCP proxy
  httpListenAddr: ":8081"  # L7 HTTP proxy
  
  backends:
    - addr: "localhost:9001"
    - addr: "localhost:9002"
  
  loadBalancer: "round_robin"

logging:
  level: "info"
  format: "json"
"""  # noqa: W293  as it stands there

PRODUCTION = """\
server:
  listenAddr: ":8080"
  httpListenAddr: ":8081"

  backends:
    - addr: "backend-1:8080"
      weight: 5
    - addr: "backend-2:8080"
      weight: 3
    - addr: "backend-canary:8080"
      weight: 1

  loadBalancer: "weighted_round_robin"

  health:
    interval: 10s
    timeout: 2s
    unhealthyThreshold: 3
    healthyThreshold: 2
    checkType: "http"
    httpPath: "/health"

  rateLimit:
    enabled: true
    rate: 1000      # requests per second
    burst: 100      # burst allowance

  circuitBreaker:
    enabled: true
    failureThreshold: 5
    successThreshold: 2
    timeout: 30s

  admin:
    enabled: true
    listenAddr: ":9090"

  metrics:
    enabled: true
    listenAddr: ":9091"

  tcpPool:
    enabled: true
    maxIdle: 10
    idleTimeout: 60s

logging:
  level: "info"
  format: "json"
"""


def load(text: str, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration of an indented text."""
    return load_text(dedent(text), "test.yaml", environ or {})


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """The problems of an indented text; none if it loads."""
    try:
        load(text, environ)
    except ConfigError as error:
        return [problem for problem in error.problems if isinstance(problem, Problem)]
    return []


def told(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """``key: message`` of each problem."""
    return [f"{problem.key}: {problem.message}" for problem in problems(text, environ)]


def server(inside: str) -> str:
    """A sound short-form configuration with one more line of flow style inside ``server``."""
    return f'server:\n  httpListenAddr: ":8081"\n  backends: ["localhost:9001"]\n  {inside}\n'
