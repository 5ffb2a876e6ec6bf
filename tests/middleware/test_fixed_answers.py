"""Redirects and fixed responses."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from doubles.asked import Asked
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.chain import Answer, Refusal
from gogate_py.middleware.fixed_answers import (
    REDIRECT_STATUSES,
    FixedResponseStage,
    RedirectStage,
    valid_fixed,
    valid_redirect,
)
from gogate_py.middleware.rewriting import value_names
from gogate_py.policy.router import compile_captures
from gogate_py.snapshot import FixedResponse, Redirect
from gogate_py.wire.target import split_target

CAPTURES = compile_captures("", "/old")
NAMES = value_names("")


def location(to: str, request: Asked, status: int = 308) -> str:
    """Where the client is sent."""
    assert valid_redirect(to, NAMES) == ""
    stage = RedirectStage(Redirect(to, status), CAPTURES)
    answer = stage(request)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.reason) == (status, b"", "redirect")
    assert stage.explain(request).outcome == answer
    assert answer.lines.startswith(b"Location: ")
    assert answer.lines.endswith(b"\r\n")
    value = answer.lines[len(b"Location: ") : -2].decode("ascii")
    assert "\r" not in value
    assert "\n" not in value
    assert stage.explain(request).facts == {"status": status, "location": value}
    return value


ASKED = Asked(path=b"/old/x%20y", query=b"?a=1|2", host=b"A.example:8080")


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("https://{host}{uri}", "https://a.example/old/x%20y?a=1%7C2"),
        ("https://{hostport}{path}", "https://A.example:8080/old/x%20y"),
        ("https://{host}:8443{uri}", "https://a.example:8443/old/x%20y?a=1%7C2"),
        ("{scheme}://new.example/{rest}", "http://new.example/x%20y"),
        ("//cdn.example/{rest}", "//cdn.example/x%20y"),
        ("/new/{rest}?{query}", "/new/x%20y?a=1%7C2"),
        ("/{path}", "/old/x%20y"),
        ("{uri}&seen=1#top", "/old/x%20y?a=1%7C2&seen=1#top"),
        ("/bücher/%C3%A9", "/b%C3%BCcher/%C3%A9"),
        ("/login?return={path}&ip={client_ip}", "/login?return=/old/x%20y&ip=192.0.2.1"),
    ],
)
def test_location(to: str, expected: str) -> None:
    """Variables are filled in as received; what is no part of a URI is percent-encoded."""
    assert location(to, ASKED) == expected


@pytest.mark.parametrize("status", REDIRECT_STATUSES)
def test_statuses(status: int) -> None:
    """Every redirect that clients follow."""
    assert location("/x", ASKED, status) == "/x"


def test_host_of_an_address() -> None:
    """An IPv6 address keeps its brackets and loses its port."""
    assert location("https://{host}/", Asked(host=b"[2001:db8::1]:80")) == "https://[2001:db8::1]/"


@pytest.mark.parametrize(
    ("to", "request_", "failure"),
    [
        ("https://{host}/", Asked(host=b""), Failure.BAD_HOST),
        ("https://{hostport}/", Asked(host=b""), Failure.BAD_HOST),
        ("https://{host}{uri}", Asked(b"OPTIONS", b"*"), Failure.BAD_TARGET),
        ("/x/{rest}", Asked(b"OPTIONS", b"*"), Failure.BAD_TARGET),
    ],
)
def test_what_a_target_needs(to: str, request_: Asked, failure: Failure) -> None:
    """Without Host or path there is no place to send the client to."""
    stage = RedirectStage(Redirect(to, 301), CAPTURES)
    refusal = stage(request_)
    assert isinstance(refusal, Refusal)
    assert refusal.failure is failure
    assert stage.explain(request_).outcome == refusal


def test_a_constant_target_needs_nothing() -> None:
    """A fixed URL answers every request."""
    assert location("https://x.example/", Asked(b"OPTIONS", b"*", host=b"")) == "https://x.example/"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://{host}{uri}", ""),
        ("HTTP://x.example:81?x", ""),
        ("https://[::1]:80/", ""),
        ("https://{host}.cdn.example/{rest}", ""),
        ("https://x.example#{rest}", ""),
        ("https://{rest}", "{rest} would let a request choose"),
        ("https://x.example{rest}", "{rest} would let a request choose"),
        ("https://{rest}.example/", "{rest} would let a request choose"),
        ("https://x.example:{query}/", "{query} would let a request choose"),
        ("//{rest}/x", "{rest} would let a request choose"),
        ("{scheme}://{rest}/", "{rest} would let a request choose"),
        ("https://{client_ip}/", "{client_ip} would let a request choose"),
        ("https://user@x.example/", "user name"),
        ("https://{host}@x.example/", "user name"),
        ("https://{hostport}:1/", "no valid host"),
        ("https:///x", "no valid host"),
        ("https://x..example/", "no valid host"),
        ("https://x.example:99999/", "no valid host"),
        ("{rest}", "the target begins with"),
        ("{host}/x", "the target begins with"),
        ("{scheme}:x", "the target begins with"),
        ("x/y", "the target begins with"),
        ("", "the target begins with"),
        ("javascript:alert(1)", "the target begins with"),
        ("https:x", "the target begins with"),
        ("/a b", "a URL cannot have"),
        ("/a\r\nb", "a URL cannot have"),
        ("/\\evil.example", "a URL cannot have"),
        ("/100%", "a URL cannot have"),
        ("/%2{rest}", "a URL cannot have"),
        ("/{ids}", "{ids} is not known here"),
    ],
)
def test_targets(to: str, said: str) -> None:
    """Nothing of a request decides the host, but the validated Host itself."""
    wrong = valid_redirect(to, NAMES)
    assert said in wrong
    assert bool(wrong) is bool(said)


PIECE = st.sampled_from(["/", "//", "\\", "evil.example", "%2F", "@", ":", "?", ";", "..", "%5C", "|", "a", "~", "#"])


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(PIECE, max_size=6),
    to=st.sampled_from(
        ["/{rest}", "/{path}", "{path}", "{uri}", "/{query}", "/{rest}{query}", "https://safe.example{uri}",
         "https://safe.example/{rest}", "//safe.example{path}", "https://{host}{uri}", "https://safe.example?{query}"]
    ),
)  # fmt: skip
def test_no_request_chooses_the_host(pieces: list[str], to: str) -> None:
    """A browser that reads backslashes as slashes still stays on the host that the configuration names."""
    try:
        path, query, _ = split_target(b"GET", ("/old/" + "".join(pieces)).encode())
    except WireError:
        return
    if not path.startswith(b"/old/"):
        return
    found = location(to, Asked(path=path, query=query, host=b"safe.example"))
    read = urlsplit(found.replace("\\", "/"))
    assert read.netloc == ("safe.example" if "//" in to else "")
    assert read.scheme == ("https" if to.startswith("https") else "")
    if not to.startswith(("https", "//")):
        assert found.startswith("/")
        assert not found.startswith("//")


class TestFixedResponse:
    """Answers from the configuration."""

    def test_answer(self) -> None:
        """Status, body and type as configured; one answer for all requests."""
        stage = FixedResponseStage(FixedResponse(403, b"no", "text/plain; charset=utf-8"))
        answer = stage(Asked())
        assert answer == Answer(403, b"Content-Type: text/plain; charset=utf-8\r\n", b"no", "fixed_response")
        assert stage(Asked(b"POST")) is answer
        assert stage.explain(Asked()).outcome is answer

    @pytest.mark.parametrize("status", [204, 304])
    def test_statuses_without_a_body(self, status: int) -> None:
        """Neither body nor Content-Type."""
        assert FixedResponseStage(FixedResponse(status, b"x", "text/plain"))(Asked()) == Answer(
            status, b"", b"", "fixed_response"
        )

    @pytest.mark.parametrize(
        ("status", "body", "content_type", "said"),
        [
            (200, b"x", "text/plain", ""),
            (200, b"", "application/problem+json;charset=utf-8", ""),
            (204, b"", "", ""),
            (599, b"x", 'multipart/mixed; boundary="a b"', ""),
            (199, b"", "text/plain", "200 to 599"),
            (600, b"", "text/plain", "200 to 599"),
            (204, b"x", "text/plain", "has no body"),
            (304, b"x", "text/plain", "has no body"),
            (200, b"x", "text", "not a media type"),
            (200, b"x", "", "not a media type"),
            (200, b"x", "text/plain\r\nX: y", "not a media type"),
            (200, b"x", "text/plain; x=é", "not a media type"),
            (200, b"x", "text/plain\n", "not a media type"),
        ],
    )
    def test_what_can_be_configured(self, status: int, body: bytes, content_type: str, said: str) -> None:
        """A final status, and a media type where there is something to have one."""
        wrong = valid_fixed(status, body, content_type)
        assert said in wrong
        assert bool(wrong) is bool(said)
