"""config.example.yaml is what the classes say, and it is a configuration."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import yaml
from test_config_schema import CLASSES

from gogate_py.config.example import example
from gogate_py.config.loader import load_file
from gogate_py.config.schema import Config, Pool, Route, Server
from gogate_py.config.settings import settings_of

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
#: Where each class is written out in full in the example.
PLACES = {
    "Config": (), "Server": ("server",), "Backend": ("server", "backends", 0), "Health": ("server", "health"),
    "CircuitBreaker": ("server", "circuitBreaker"), "TcpPool": ("server", "tcpPool"),
    "Timeouts": ("server", "timeouts"),
    "HttpTransport": ("server", "httpTransport"), "RateLimit": ("server", "rateLimit"), "Limits": ("server", "limits"),
    "Admin": ("server", "admin"), "Metrics": ("server", "metrics"), "Registry": ("server", "registry"),
    "Shutdown": ("server", "shutdown"), "Pool": ("pools", "api-v1"), "Logging": ("logging",),
    "Access": ("logging", "access")}


def test_the_file_is_generated_from_the_classes() -> None:
    """The file in the repository is what ``python -m gogate_py.config.example`` writes."""
    assert EXAMPLE.read_text() == example()


def test_the_file_loads() -> None:
    """The example is a configuration without a problem."""
    config = load_file(str(EXAMPLE), {})
    assert [route.name for route in config.effective_routes()] == ["api", "user", "postgres", "default-tcp",
        "default-http"]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_file_shows_every_key(cls: type[attrs.AttrsInstance]) -> None:
    """Every supported key is shown in its canonical spelling."""
    document = yaml.safe_load(EXAMPLE.read_text())
    keys = {named.key for named in settings_of(cls)}
    if cls is Route:
        assert {key for route in document["routes"] for key in route} == keys
        return
    if cls.__name__ == "Match":
        assert {key for route in document["routes"] for key in route.get("match", {})} == keys
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
    assert differing == ["listen_addr", "http_listen_addr", "backends"]
    assert load_file(str(EXAMPLE), {}).logging == Config().logging


def test_every_class_has_its_place() -> None:
    """A new class must be shown too."""
    assert set(PLACES) | {"Route", "Match"} == {cls.__name__ for cls in CLASSES}
    assert Pool in CLASSES


def test_lines_fit_a_screen() -> None:
    """No line of the example is wider than the project's limit."""
    assert max(len(line) for line in example().splitlines()) <= 120
