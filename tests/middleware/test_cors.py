"""CORS as the Fetch standard has it: preflights and the fields of other answers."""

from __future__ import annotations

import pytest
from doubles.asked import Asked
from hypothesis import given, settings
from hypothesis import strategies as st

from gogate_py.middleware.chain import Answer
from gogate_py.middleware.cors import CorsFilter, CorsStage, requested_method, valid_cors, valid_origin, vary_by
from gogate_py.snapshot import Cors

APP = "https://app.example.com"
VARY_OF_PREFLIGHT = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def rules(
    origins: tuple[str, ...] = (APP,),
    *,
    methods: tuple[str, ...] = ("GET", "PUT"),
    headers: tuple[str, ...] = ("X-One", "X-Two"),
    expose: tuple[str, ...] = (),
    credentials: bool = False,
    max_age: float = 600.0,
) -> Cors:
    """Rules of a route."""
    return Cors(origins, methods, headers, expose, credentials, max_age)


def preflight(origin: str = APP, method: str = "PUT", headers: str | None = None, **more: str) -> Asked:
    """A preflight as a browser sends it."""
    fields = {b"Origin": origin.encode(), b"Access-Control-Request-Method": method.encode()}
    if headers is not None:
        fields[b"Access-Control-Request-Headers"] = headers.encode()
    fields.update({name.encode(): value.encode() for name, value in more.items()})
    return Asked(b"OPTIONS", fields=fields)


def answer_of(cors: Cors, request: Asked) -> dict[str, str]:
    """The fields of a preflight's answer."""
    answer = CorsStage(cors)(request)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.reason) == (204, b"", "preflight")
    assert CorsStage(cors).explain(request).outcome == answer
    lines = answer.lines.decode().split("\r\n")
    assert lines.pop() == ""
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


def filtered(cors: Cors, origin: str | None, fields: list[tuple[bytes, bytes]], method: bytes = b"GET") -> None:
    """Run the filter over an answer's fields, in place."""
    request = Asked(method, fields={} if origin is None else {b"Origin": origin.encode()})
    CorsFilter(cors)(request, 200, fields)


class TestPreflight:
    """OPTIONS with Origin and Access-Control-Request-Method."""

    def test_allowed(self) -> None:
        """An allowed origin gets the route's full lists, and how long to remember them."""
        assert answer_of(rules(), preflight()) == {
            "Access-Control-Allow-Origin": APP,
            "Access-Control-Allow-Methods": "GET, PUT",
            "Access-Control-Allow-Headers": "X-One, X-Two",
            "Access-Control-Max-Age": "600",
            "Vary": VARY_OF_PREFLIGHT,
        }

    def test_credentials(self) -> None:
        """Credentials are allowed in so many words, and only with the exact origin."""
        fields = answer_of(rules(credentials=True), preflight())
        assert fields["Access-Control-Allow-Credentials"] == "true"
        assert fields["Access-Control-Allow-Origin"] == APP

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "https://app.example.com.evil.example",
            "https://evil-app.example.com",
            "https://app.example.com:443",
            "https://APP.example.com",
            "http://app.example.com",
            "https://app.example.com/",
            "null",
            "*",
            "",
            "https://app.example.com, https://evil.example",
        ],
    )
    def test_not_allowed(self, origin: str) -> None:
        """Any other origin gets 204 without a permission; no part of the origin comes back."""
        assert answer_of(rules(), preflight(origin)) == {"Vary": VARY_OF_PREFLIGHT}

    @pytest.mark.parametrize(("method", "headers"), [("DELETE", None), ("PUT", "x-three"), ("PUT", "\x00,(")])
    def test_what_is_asked_for_does_not_change_the_answer(self, method: str, headers: str | None) -> None:
        """A method or field that is not allowed is refused by the browser, which is told what would be."""
        assert answer_of(rules(), preflight(method=method, headers=headers)) == answer_of(rules(), preflight())

    def test_any_origin(self) -> None:
        """``*`` is answered with ``*``."""
        assert answer_of(rules(("*",)), preflight("https://x.example"))["Access-Control-Allow-Origin"] == "*"

    @pytest.mark.parametrize("credentials", [False, True])
    def test_any_origin_never_comes_with_credentials(self, credentials: bool) -> None:
        """The void combination, if it ever got here, allows nobody."""
        fields = answer_of(rules(("*",), credentials=credentials), preflight())
        assert ("Access-Control-Allow-Origin" in fields) is not credentials
        assert "Access-Control-Allow-Credentials" not in fields

    def test_null_is_not_allowed_even_if_listed(self) -> None:
        """``null`` is no origin that anybody owns."""
        assert "Access-Control-Allow-Origin" not in answer_of(rules(("null", APP)), preflight("null"))

    def test_any_header(self) -> None:
        """``*`` answers with the names that were asked for, Authorization among them."""
        cors = rules(headers=("*",))
        fields = answer_of(cors, preflight(headers="authorization,X-New ,, x-two"))
        assert fields["Access-Control-Allow-Headers"] == "authorization, x-new, x-two"
        assert "Access-Control-Allow-Headers" not in answer_of(cors, preflight())

    @pytest.mark.parametrize("headers", ["x y", "x\x0by", "a,(b)", ",".join(f"x-{n}" for n in range(101))])
    def test_any_header_answers_only_with_names(self, headers: str) -> None:
        """What is not a list of at most 100 field names is not repeated."""
        assert "Access-Control-Allow-Headers" not in answer_of(rules(headers=("*",)), preflight(headers=headers))

    def test_private_network_is_not_permitted(self) -> None:
        """A private-network preflight is answered like any other."""
        request = preflight(**{"Access-Control-Request-Private-Network": "true"})
        assert answer_of(rules(), request) == answer_of(rules(), preflight())

    def test_max_age_zero_is_sent(self) -> None:
        """Zero means that nothing is remembered; leaving the field out would mean 5 seconds."""
        assert answer_of(rules(max_age=0.0), preflight())["Access-Control-Max-Age"] == "0"

    @pytest.mark.parametrize(
        "request_",
        [
            Asked(b"OPTIONS"),
            Asked(b"OPTIONS", fields={b"Origin": APP.encode()}),
            Asked(b"OPTIONS", fields={b"Access-Control-Request-Method": b"PUT"}),
            Asked(b"GET", fields={b"Origin": APP.encode(), b"Access-Control-Request-Method": b"PUT"}),
            Asked(b"PUT", fields={b"Origin": APP.encode()}),
        ],
    )
    def test_everything_else_passes(self, request_: Asked) -> None:
        """Without all three signs it is a request for the backend."""
        assert CorsStage(rules())(request_) is None
        assert CorsStage(rules()).explain(request_).outcome is None
        assert requested_method(request_) == b""

    def test_requested_method(self) -> None:
        """The method a preflight asks for is what its route is looked up by."""
        assert requested_method(preflight(method="PUT")) == b"PUT"

    @settings(max_examples=60, deadline=None)
    @given(origin=st.binary(max_size=40), headers=st.binary(max_size=40), anything=st.booleans())
    def test_no_input_adds_a_line(self, origin: bytes, headers: bytes, anything: bool) -> None:
        """Whatever a request holds, the answer consists of the known fields, each on a line of its own."""
        cors = rules((APP,), headers=("*",)) if anything else rules(("*",), headers=("*",))
        fields = {
            b"Origin": origin, b"Access-Control-Request-Method": b"GET", b"Access-Control-Request-Headers": headers
        }  # fmt: skip
        answer = CorsStage(cors)(Asked(b"OPTIONS", fields=fields))
        assert answer is not None
        lines = answer.lines.split(b"\r\n")
        assert all(line.startswith((b"Access-Control-", b"Vary: ")) for line in lines[:-1])
        assert len(lines) <= 7
        assert b"\n" not in b"".join(lines)


class TestActualRequests:
    """The filter over every other answer."""

    def test_allowed(self) -> None:
        """An allowed origin may read, with credentials and exposed fields as configured."""
        fields = [(b"Content-Type", b"text/plain")]
        filtered(rules(expose=("X-A", "X-B"), credentials=True), APP, fields)
        assert fields == [
            (b"Content-Type", b"text/plain"),
            (b"Access-Control-Allow-Origin", APP.encode()),
            (b"Access-Control-Allow-Credentials", b"true"),
            (b"Access-Control-Expose-Headers", b"X-A, X-B"),
            (b"Vary", b"Origin"),
        ]

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "", None])
    def test_not_allowed(self, origin: str | None) -> None:
        """Nobody else may read, and caches are told that the origin decides."""
        fields: list[tuple[bytes, bytes]] = []
        filtered(rules(expose=("X-A",), credentials=True), origin, fields)
        assert fields == [(b"Vary", b"Origin")]

    @pytest.mark.parametrize("origin", [APP, "null", None])
    def test_any_origin(self, origin: str | None) -> None:
        """``*`` is the same answer for everybody, so it does not vary."""
        fields: list[tuple[bytes, bytes]] = []
        filtered(rules(("*",), expose=("X-A",)), origin, fields)
        assert fields == [(b"Access-Control-Allow-Origin", b"*"), (b"Access-Control-Expose-Headers", b"X-A")]

    @pytest.mark.parametrize("origin", [APP, "https://evil.example", None])
    def test_the_backends_fields_are_replaced(self, origin: str | None) -> None:
        """No Access-Control-* field of a backend gets through, however it is spelled."""
        theirs = [
            (b"access-control-allow-origin", b"*"),
            (b"ACCESS-CONTROL-ALLOW-CREDENTIALS", b"true"),
            (b"Access-Control-Allow-Private-Network", b"true"),
        ]
        fields = [*theirs, (b"X-Kept", b"1")]
        filtered(rules(), origin, fields)
        assert not set(theirs) & set(fields)
        assert (b"X-Kept", b"1") in fields
        allowed = [value for name, value in fields if name.lower() == b"access-control-allow-origin"]
        assert allowed == ([APP.encode()] if origin == APP else [])

    def test_a_preflights_answer_is_left_alone(self) -> None:
        """The stage wrote it; the filter would take its permissions away."""
        request = preflight()
        fields = [(b"Access-Control-Allow-Methods", b"PUT")]
        CorsFilter(rules())(request, 204, fields)
        assert fields == [(b"Access-Control-Allow-Methods", b"PUT")]

    def test_other_options_are_filtered(self) -> None:
        """OPTIONS that is no preflight is answered by the backend, and filtered."""
        fields: list[tuple[bytes, bytes]] = []
        filtered(rules(), APP, fields, b"OPTIONS")
        assert (b"Access-Control-Allow-Origin", APP.encode()) in fields


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"Origin"]),
        ([b"Accept"], [b"Accept, Origin"]),
        ([b"Accept", b"Cookie"], [b"Accept", b"Cookie, Origin"]),
        ([b"origin, Accept"], [b"origin, Accept"]),
        ([b"Accept", b"ORIGIN", b"Cookie"], [b"Accept", b"ORIGIN", b"Cookie"]),
        ([b"*"], [b"*"]),
        ([b"Accept, *"], [b"Accept, *"]),
        ([b"X-Origin"], [b"X-Origin, Origin"]),
        ([b""], [b"Origin"]),
    ],
)
def test_vary_is_merged(before: list[bytes], after: list[bytes]) -> None:
    """The name joins the list there is, once."""
    fields = [(b"vAry", value) for value in before]
    vary_by(fields, b"Origin")
    assert [value for _, value in fields] == after


@pytest.mark.parametrize(
    "text",
    ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "http://10.0.0.1",
     "https://a_b.example", "capacitor://localhost", "http://app.example.com:443"],
)  # fmt: skip
def test_origins_that_browsers_send(text: str) -> None:
    """Scheme, host and a port that is not the scheme's default."""
    assert valid_origin(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "never allowed"),
        ("https://*.example.com", "patterns"),
        ("https://app.example.com/", "did you mean https://app.example.com?"),
        ("https://App.example.com", "did you mean https://app.example.com?"),
        ("https://app.example.com:443", "did you mean https://app.example.com?"),
        ("http://app.example.com:80", "did you mean http://app.example.com?"),
        ("https://bücher.example", "xn--"),
        ("app.example.com", "scheme://host"),
        ("https://app.example.com/x", "scheme://host"),
        ("https://u@app.example.com", "scheme://host"),
        ("https://a\r\nX: y", "scheme://host"),
        ("https://app.example.com\n", "scheme://host"),
        ("", "scheme://host"),
    ],
)
def test_origins_that_could_never_match(text: str, said: str) -> None:
    """Said when the configuration is read, with what was probably meant."""
    assert said in valid_origin(text)


@pytest.mark.parametrize(
    ("cors", "said"),
    [
        (rules(), ""),
        (rules(("*",), methods=("*",), headers=("*",), expose=("*",)), ""),
        (rules(credentials=True), ""),
        (rules(("*",), credentials=True), "* in allowOrigins"),
        (rules(methods=("*",), credentials=True), "* in allowMethods"),
        (rules(headers=("*",), credentials=True), "* in allowHeaders"),
        (rules(expose=("*",), credentials=True), "* in exposeHeaders"),
        (rules(("*", APP)), "stands alone"),
        (rules(()), "allowOrigins is empty"),
    ],
)
def test_rules_that_contradict_themselves(cors: Cors, said: str) -> None:
    """``*`` stands alone and without credentials, in every list."""
    assert valid_cors(cors).startswith(said) if said.startswith(("*", "allow")) else said in valid_cors(cors)
    assert bool(valid_cors(cors)) is bool(said)
