"""What is shown of a request, and what is not."""

from __future__ import annotations

import pytest

from gogate_py.telemetry import redaction

R = redaction.REDACTED


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("", ""),
        ("?", "?"),
        ("?a=1&b=", "?a=1&b="),
        ("?page=2&sort=name", "?page=2&sort=name"),
        ("?token=x&a=1", f"?token={R}&a=1"),
        ("?access_token=x", f"?access_token={R}"),
        ("?API_KEY=x&apikey=y&api-key=z&key=k", f"?API_KEY={R}&apikey={R}&api-key={R}&key={R}"),
        ("?monkey=1&keyword=2&zipcode=3", "?monkey=1&keyword=2&zipcode=3"),
        ("?pass%77ord=x", f"?pass%77ord={R}"),
        ("?code=x&state=y", f"?code={R}&state=y"),
        ("?X-Amz-Signature=x&sig=y", f"?X-Amz-Signature={R}&sig={R}"),
        ("?note=Bearer+abc", f"?note={R}"),
        ("?data=eyJhbGciOiJIUzI1NiJ9.e30.x", f"?data={R}"),
        ("?back=http%3A%2F%2Fu%3Ap%40host%2F", f"?back={R}"),
        ("?mine=x&yours=y", f"?mine={R}&yours=y"),
        ("?debug", "?debug"),
        ("?0123456789abcdef0", f"?{R}"),
        ("?a=" + "x" * 300, "?a=" + "x" * 256 + "…"),
    ],
)
def test_queries(raw: str, shown: str) -> None:
    """Names stay, values of what may be a secret go; further names are told."""
    assert redaction.query(raw, ("Mine",)) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Accept", "*/*", "*/*"),
        ("Authorization", "Bearer x", R),
        ("Proxy-Authorization", "Basic x", R),
        ("Cookie", "a=b", R),
        ("X-API-Key", "x", R),
        ("X-Auth-Request-Email", "x", R),
        ("X-Amz-Security-Token", "x", R),
        ("X-CSRF", "x", R),
        ("X-Note", "basic dXNlcg==", R),
        ("X-Mine", "x", R),
        ("Referer", "https://a/b?token=x&c=d", f"https://a/b?token={R}&c=d"),
        ("Referer", "https://user:pw@a/b", R),
        ("User-Agent", "curl/8", "curl/8"),
        ("X-Long", "y" * 300, "y" * 256 + "…"),
    ],
)
def test_fields(name: str, value: str, shown: str) -> None:
    """By name and by look; queries in values are queries."""
    assert redaction.fields([(name.encode(), value.encode())], ("x-mine",)) == [(name, shown)]


def test_many_fields() -> None:
    """A bounded number is shown."""
    found = redaction.fields([(b"X-%d" % number, b"v") for number in range(80)])
    assert (len(found), found[-1]) == (51, ("…", "30 more"))
