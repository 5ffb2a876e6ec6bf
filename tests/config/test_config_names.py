"""Addresses, networks, methods, hosts, paths and statuses."""

from __future__ import annotations

import httptools
import pytest

from gogate_py.config.names import (
    METHODS,
    BackendAddress,
    Cidr,
    HostPattern,
    ListenAddress,
    Method,
    Name,
    PathPattern,
    PathPrefix,
    StatusRanges,
    status_ranges,
)
from gogate_py.config.values import BadValue, Kind

ACCEPTED: list[tuple[Kind, str, str]] = [
    (Name(), "api-v1.2_x", "api-v1.2_x"),
    (ListenAddress(), "", ""),
    (ListenAddress(), ":8080", ":8080"),
    (ListenAddress(), "127.0.0.1:0", "127.0.0.1:0"),
    (ListenAddress(), "[::1]:80", "[::1]:80"),
    (ListenAddress(), "unix:/run/x.sock", "unix:/run/x.sock"),
    (BackendAddress(), "localhost:9001", "localhost:9001"),
    (BackendAddress(), "backend_1.svc:80", "backend_1.svc:80"),
    (BackendAddress(), "http://user-svc-1:8080", "user-svc-1:8080"),
    (BackendAddress(), "HTTP://h/", "h:80"),
    (BackendAddress(), "http://[::1]", "[::1]:80"),
    (BackendAddress(), "http://[::1]:81", "[::1]:81"),
    (BackendAddress(), "HTTPS://h/", "https://h:443"),
    (BackendAddress(), "https://[::1]:8443", "https://[::1]:8443"),
    (BackendAddress(), "unix:/run/x.sock", "unix:/run/x.sock"),
    (Cidr(), "10.0.0.0/8", "10.0.0.0/8"),
    (Cidr(), "10.1.2.3", "10.1.2.3/32"),
    (Cidr(), "fc00::/7", "fc00::/7"),
    (Method(), "GET", "GET"),
    (Method(), "M-SEARCH", "M-SEARCH"),
    (HostPattern(), "API.Example.com", "api.example.com"),
    (HostPattern(), "*.example.com", "*.example.com"),
    (HostPattern(), "10.0.0.1", "10.0.0.1"),
    (HostPattern(), "::1", "[::1]"),
    (HostPattern(), "[::1]", "[::1]"),
    (HostPattern(), "", ""),
    (PathPattern(), "", ""),
    (PathPattern(), "/", "/"),
    (PathPattern(), "/*", "/*"),
    (PathPattern(), "/users/{id}", "/users/{id}"),
    (PathPattern(), "/users/:id/files/*", "/users/:id/files/*"),
    (PathPattern(), "/a%20b/", "/a%20b/"),
    (PathPrefix(), "/", "/"),
    (PathPrefix(), "/api", "/api"),
    (PathPrefix(), "/api/", "/api"),
    (StatusRanges(), "200-399", "200-399"),
    (StatusRanges(), "200, 204-206", "200,204-206"),
    (StatusRanges(), "200", "200"),
]

REFUSED: list[tuple[Kind, str, str, str]] = [
    (Name(), "", "is not a name", ""),
    (Name(), "a b", "is not a name", ""),
    (Name(), "-a", "is not a name", ""),
    (Name(), "a" * 64, "is not a name", ""),
    (ListenAddress(), "8080", "the port is missing", '":8080"'),
    (ListenAddress(), ":99999", "out of range", ""),
    (ListenAddress(), "::1:80", "brackets", ""),
    (BackendAddress(), ":80", "the host is missing", ""),
    (BackendAddress(), "h:0", "out of range", ""),
    (BackendAddress(), "h", "the port is missing", ""),
    (BackendAddress(), "", "the port is missing", ""),
    (BackendAddress(), "https://h/x", "without user, path or query", ""),
    (BackendAddress(), "http://h/x", "without user, path or query", ""),
    (BackendAddress(), "http://u:p@h", "without user, path or query", ""),
    (BackendAddress(), "ftp://h", "without a scheme", ""),
    (Cidr(), "10.0.0.1/8", "bits set beyond", "10.0.0.0/8"),
    (Cidr(), "10.0.0.0/33", "is not a network", ""),
    (Cidr(), "office", "is not a network", ""),
    (Method(), "get", "is not a method", "GET"),
    (Method(), "PUTT", "is not a method", "PUT"),
    (Method(), "CONNECT", "CONNECT is never let through", ""),
    (Method(), "trace", "TRACE is never let through", ""),
    (HostPattern(), "a.com:80", "has no port", "a.com"),
    (HostPattern(), "a.*.com", "whole labels in front", ""),
    (HostPattern(), "*a.com", "whole labels in front", ""),
    (HostPattern(), "*.", "a domain is missing", ""),
    (HostPattern(), "a..com", "is not a host name", ""),
    (HostPattern(), "bücher.de", "xn--", ""),
    (HostPattern(), "a b", "is not a host name", ""),
    (PathPattern(), "users", "begins with /", "/users"),
    (PathPattern(), "/a*", "only possible as the last segment", ""),
    (PathPattern(), "/*/a", "only possible as the last segment", ""),
    (PathPattern(), "/a/../b", "could never match", ""),
    (PathPattern(), "/a//b", "could never match", ""),
    (PathPattern(), "/a b", "no such characters", ""),
    (PathPattern(), "/ü", "no such characters", ""),
    (PathPattern(), "/a?b=1", "no such characters", ""),
    (PathPattern(), "/a%2", "no such characters", ""),
    (PathPattern(), "/a%41", "write A", ""),
    (PathPattern(), "/a%7E", "write ~", ""),
    (PathPattern(), "/a%2Fb", "could never match", ""),
    (PathPattern(), "/v{id}", "a parameter is a whole segment", ""),
    (PathPrefix(), "/api/*", "needs no *", "/api"),
    (PathPrefix(), "/*", "needs no *", "/"),
    (PathPrefix(), "/users/{id}", "not in pathPrefix", ""),
    (PathPrefix(), "api", "begins with /", "/api"),
    (StatusRanges(), "", "is not a list of statuses", ""),
    (StatusRanges(), "2xx", "is not a list of statuses", ""),
    (StatusRanges(), "600", "is not a list of statuses", ""),
    (StatusRanges(), "399-200", "is empty", "200-399"),
]


@pytest.mark.parametrize(("kind", "text", "value"), ACCEPTED)
def test_accepted_names(kind: Kind, text: str, value: str) -> None:
    """Each name is taken in its canonical form, which is a fixed point."""
    assert kind.parse(text, False) == value
    assert kind.parse(value, False) == value


@pytest.mark.parametrize(("kind", "text", "message", "suggestion"), REFUSED)
def test_refused_names(kind: Kind, text: str, message: str, suggestion: str) -> None:
    """A name that is refused is refused with what is wrong and, where it is clear, what was meant."""
    with pytest.raises(BadValue) as caught:
        kind.parse(text, False)
    assert message in caught.value.message
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize("method", METHODS)
def test_the_parser_knows_every_method(method: str) -> None:
    """A method that may be configured is one that the HTTP parser accepts."""

    class Done:
        complete = False

        def on_message_complete(self) -> None:
            self.complete = True

    done = Done()
    httptools.HttpRequestParser(done).feed_data(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert done.complete


def test_status_ranges_are_closed() -> None:
    """The probes' statuses are closed ranges."""
    assert status_ranges("200-399,404") == ((200, 399), (404, 404))
