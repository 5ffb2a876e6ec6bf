"""config.example.yaml is what the classes say, and it is a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import yaml
from test_config_schema import CLASSES

from gogate_py.config.example import example
from gogate_py.config.loader import load_file
from gogate_py.config.schema import Config, Pool, RateLimit, Route, Server
from gogate_py.config.settings import settings_of

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
#: Where each class is written out in full in the example.
PLACES = {
    "Config": (), "Server": ("server",), "Backend": ("server", "backends", 0),
    "BackendTls": ("server", "backendTLS"), "Health": ("server", "health"),
    "CircuitBreaker": ("server", "circuitBreaker"), "TcpPool": ("server", "tcpPool"), "Dns": ("server", "dns"),
    "Timeouts": ("server", "timeouts"),
    "HttpTransport": ("server", "httpTransport"), "RateLimit": ("server", "rateLimit"), "Limits": ("server", "limits"),
    "Admin": ("server", "admin"), "Metrics": ("server", "metrics"), "Trace": ("server", "trace"),
    "Tracing": ("tracing",),
    "Registry": ("server", "registry"),
    "Shutdown": ("server", "shutdown"), "Pool": ("pools", "api-v1"), "Logging": ("logging",),
    "Access": ("logging", "access"), "LoadBalancer": ("pools", "api-v1", "loadBalancer"),
    "Outlier": ("server", "outlier"), "Retry": ("server", "retry"), "SplitArm": ("routes", 0, "split", 0),
    "Sticky": ("routes", 0, "sticky"), "Rewrite": ("routes", 0, "rewrite"),
    "FieldEdits": ("routes", 0, "requestHeaders"), "ForwardAuth": ("routes", 0, "forwardAuth"),
    "Cors": ("routes", 0, "cors"), "Cache": ("routes", 0, "cache"), "RouteLimits": ("routes", 0, "limits"),
    "ListenerTls": ("server", "tls"), "CertificateFiles": ("server", "tls", "certificates", 0),
    "Listener": ("listeners", 0),
    "Redirect": ("routes", 3, "redirect"), "FixedResponse": ("routes", 4, "fixedResponse")}


def uncommented(text: str) -> str:
    """The example with the keys that stand in it as comments: those behind a # without a blank."""
    return re.sub(r"^( *)#(?=[A-Za-z0-9]+:)", r"\1", text, flags=re.MULTILINE)


def test_the_file_is_generated_from_the_classes() -> None:
    """The file in the repository is what ``python -m gogate_py.config.example`` writes."""
    assert EXAMPLE.read_text() == example()


def test_the_file_loads() -> None:
    """The example is a configuration without a problem."""
    config = load_file(str(EXAMPLE), {})
    assert [route.name for route in config.effective_routes()] == [
        "api", "user", "internal", "to-https", "closed", "postgres", "default-tcp", "default-http"]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_file_shows_every_key(cls: type[attrs.AttrsInstance]) -> None:
    """Every supported key is shown in its canonical spelling."""
    document = yaml.load(uncommented(EXAMPLE.read_text()), Loader=yaml.BaseLoader)
    keys = {named.key for named in settings_of(cls)}
    if cls is Route:
        assert {key for route in document["routes"] for key in route} == keys
        return
    if cls.__name__ in ("Match", "Auth"):
        section = cls.__name__.lower()
        assert {key for route in document["routes"] for key in route.get(section, {})} == keys
        return
    place = document
    for part in PLACES[cls.__name__]:
        place = place[part]
    assert set(place) == keys


def test_the_file_shows_defaults() -> None:
    """What the file shows of the server is the default, but for listeners, backends and the token's variable."""
    shown, default = load_file(str(EXAMPLE), {}).server, Server()
    differing = [field.name for field in attrs.fields(Server) if getattr(shown, field.name) != getattr(default,
        field.name)]
    assert differing == ["listen_addr", "http_listen_addr", "backends", "rate_limit"]
    assert shown.rate_limit == (RateLimit(),)
    assert load_file(str(EXAMPLE), {}).logging == Config().logging


def test_every_class_has_its_place() -> None:
    """A new class must be shown too."""
    assert set(PLACES) | {"Route", "Match", "Auth"} == {cls.__name__ for cls in CLASSES}
    assert Pool in CLASSES


def test_lines_fit_a_screen() -> None:
    """No line of the example is wider than the project's limit."""
    assert max(len(line) for line in example().splitlines()) <= 120


def test_what_is_commented_out_is_good_too(tmp_path: Path) -> None:
    """Each key that stands in the example as a comment can be switched on, where what excludes it is not there."""
    text = EXAMPLE.read_text()
    assert len(re.findall(r"^ *#[a-zA-Z0-9]+:", text, re.MULTILINE)) == 29
    switched = re.sub(r"^( *)#(auth|forwardAuth|cors|cache|requestHeaders|responseHeaders|query|secret: .*STICKY.*)",
                      r"\1\2", text, flags=re.MULTILINE)
    path = tmp_path / "config.yaml"
    path.write_text(switched)
    config = load_file(str(path), {"STICKY_SECRET": "s" * 32})
    assert config.server.cors is not None
    assert config.server.auth is not None
    assert config.routes[0].sticky is not None
    assert config.routes[0].sticky.secret == "s" * 32
