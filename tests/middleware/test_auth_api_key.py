"""The API key stage."""

from __future__ import annotations

import hashlib

import pytest
from token_maker import AuthRequest

from gogate_py.errors import Failure
from gogate_py.middleware.auth_api_key import MAX_KEY, REASONS, ApiKeyAuthStage
from gogate_py.middleware.chain import Refusal
from gogate_py.snapshot import ApiKeyAuth


def digest(key: bytes) -> str:
    """As a key is stored."""
    return hashlib.sha256(key).hexdigest()


KEYS = (("mobile", digest(b"gg_mobile")), ("batch job", digest(b"gg_batch")))
STAGE = ApiKeyAuthStage(ApiKeyAuth(KEYS, query="api_key", forward_name="X-Caller"))


@pytest.mark.parametrize(
    ("key", "query", "reason", "user"),
    [
        (b"gg_mobile", b"", "", "mobile"),
        (b"gg_batch", b"", "", "batch job"),
        (None, b"?api_key=gg_mobile", "", "mobile"),
        (None, b"?a=1&api_key=gg%5Fmobile&b=2", "", "mobile"),
        (b"gg_mobile", b"?api_key=wrong", "", "mobile"),
        (b"wrong", b"?api_key=gg_mobile", "unknown", ""),
        (b"", b"?api_key=gg_mobile", "missing", ""),
        (None, b"", "missing", ""),
        (None, b"?api_key=", "missing", ""),
        (None, b"?API_KEY=gg_mobile", "missing", ""),
        (None, b"?api_key=gg_mobile&api_key=gg_mobile", "missing", ""),
        (None, b"?api_key=%zz", "bad_query", ""),
        (b"gg_mobile ", b"", "unknown", ""),
        (b"GG_MOBILE", b"", "unknown", ""),
        (b"gg_mobile, gg_mobile", b"", "unknown", ""),
        (digest(b"gg_mobile").encode(), b"", "unknown", ""),
        (b"x" * (MAX_KEY + 1), b"", "unknown", ""),
        (b"\xff\xfe", b"", "unknown", ""),
    ],
)
def test_which_key_is_whose(key: bytes | None, query: bytes, reason: str, user: str) -> None:
    """The field decides where there is one, else the query parameter; keys compare byte for byte by their hash."""
    request = AuthRequest({} if key is None else {b"x-api-key": key}, query)
    outcome = STAGE(request)
    assert (outcome.counted if outcome else "") == reason
    assert request.user == user
    explained = STAGE.explain(AuthRequest(request.fields, query))
    assert (explained.outcome, explained.facts["reason"]) == (outcome, reason)
    if reason:
        assert reason in REASONS
        assert request.untouched
    else:
        assert request.withheld == [b"x-api-key"]
        assert request.forwarded == {b"X-Caller": user.encode()}
        assert explained.facts["user"] == user


def test_the_answers() -> None:
    """401 with a challenge for a missing or unknown key, 400 for a query with two meanings."""
    assert STAGE(AuthRequest()) == Refusal(
        Failure.UNAUTHORIZED, Failure.UNAUTHORIZED.detail, 0, b'WWW-Authenticate: ApiKey realm="gogate"\r\n', "missing"
    )
    refusal = STAGE(AuthRequest(query=b"?a=1;b=2"))
    assert refusal is not None
    assert (refusal.failure, refusal.lines) == (Failure.BAD_QUERY, b"")


def test_without_a_query_parameter_the_query_is_not_read() -> None:
    """A query that has two meanings is nothing to a route that takes keys from the field."""
    stage = ApiKeyAuthStage(ApiKeyAuth(KEYS, header="X-Token"))
    request = AuthRequest({b"x-token": b"gg_mobile"}, b"?a=%zz;")
    assert stage(request) is None
    assert request.forwarded == {}
    refusal = stage(AuthRequest({}, b"?a=%zz;"))
    assert refusal is not None
    assert refusal.counted == "missing"


def test_keys_from_the_query_only() -> None:
    """Without a header field only the parameter counts."""
    stage = ApiKeyAuthStage(ApiKeyAuth(KEYS, header="", query="k"))
    request = AuthRequest({b"x-api-key": b"wrong", b"": b"wrong"}, b"?k=gg_batch")
    assert stage(request) is None
    assert (request.user, request.withheld) == ("batch job", [])
