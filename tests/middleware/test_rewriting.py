"""Templates, the path towards the backend, and the names that may be edited."""

from __future__ import annotations

import pytest
from doubles.asked import Asked
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gogate_py.errors import Failure, WireError
from gogate_py.middleware.rewriting import (
    VARIABLES,
    Template,
    compile_rewrite,
    editable_name,
    parameter_names,
    path_names,
    valid_rewrite,
    valid_template,
    value_names,
)
from gogate_py.policy.router import compile_captures
from gogate_py.snapshot import HttpRoute, Timeouts
from gogate_py.wire.target import canonical_path

TIMEOUTS = Timeouts(0, 0, 0, 0, 0, 0, 0)


def route(path: str = "", prefix: str = "", *, strip: str = "", to: str = "") -> HttpRoute:
    """A route with these ways of changing the path."""
    return HttpRoute(
        "r", "p", "", path, prefix, (), TIMEOUTS, websocket=True, strip_prefix=strip, rewrite_path=to
    )  # fmt: skip


def rewritten(spec: HttpRoute, path: bytes) -> bytes:
    """The path that the backend gets."""
    rewrite = compile_rewrite(spec)
    assert rewrite is not None
    return rewrite(path)


class TestPath:
    """Stripping and templates."""

    @pytest.mark.parametrize("prefix", ["", "/"])
    def test_nothing_to_do(self, prefix: str) -> None:
        """A route that changes nothing costs nothing."""
        assert compile_rewrite(route(strip=prefix)) is None

    @pytest.mark.parametrize("prefix", ["/api", "/api/"])
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            (b"/api", b"/"),
            (b"/api/", b"/"),
            (b"/api/x", b"/x"),
            (b"/api/x/", b"/x/"),
            (b"/api/api/x", b"/api/x"),
            (b"/apix", b"/apix"),
            (b"/apix/y", b"/apix/y"),
            (b"/API/x", b"/API/x"),
            (b"/x/api", b"/x/api"),
            (b"/", b"/"),
            (b"/api/%41%20", b"/%41%20"),
            (b"/api/a%20b", b"/a%20b"),
            (b"/api/a%2Fb", b"/a%2Fb"),
            (b"*", b"*"),
        ],
    )
    def test_strip(self, prefix: str, path: bytes, expected: bytes) -> None:
        """The prefix goes by whole segments; what it leaves is a path, "/" at least."""
        if path == b"/api/%41%20":  # not canonical: cannot come from a request
            with pytest.raises(WireError):
                rewritten(route(strip=prefix), path)
        else:
            assert rewritten(route(strip=prefix), path) == expected

    @pytest.mark.parametrize(
        ("spec", "path", "expected"),
        [
            (route(prefix="/api", to="/v1/{rest}"), b"/api/x/y", b"/v1/x/y"),
            (route(prefix="/api", to="/v1/{rest}"), b"/api", b"/v1/"),
            (route(prefix="/api", to="/v1/{rest}"), b"/api/x/", b"/v1/x/"),
            (route(prefix="/api", to="/v1{path}"), b"/api/x", b"/v1/api/x"),
            (route(prefix="/api", to="/v1/{path}"), b"/api/x", b"/v1/api/x"),
            (route(prefix="/api", to="{path}/end"), b"/api/", b"/api/end"),
            (route(prefix="/api", strip="/api", to="/v1{path}"), b"/api/x", b"/v1/x"),
            (route(prefix="/api", strip="/api", to="/v1{path}"), b"/api", b"/v1/"),
            (route(prefix="/api", strip="/api", to="/v1/{rest}"), b"/api/x", b"/v1/x"),
            (route(prefix="/api", to="/fixed"), b"/api/x", b"/fixed"),
            (route(prefix="/api", to="/%7Bx%7D"), b"/api/x", b"/%7Bx%7D"),
            (route("/users/{id}", to="/u/{id}/files"), b"/users/7", b"/u/7/files"),
            (route("/users/:id", to="/u/{id}"), b"/users/a%20b", b"/u/a%20b"),
            (route("/t/{tenant}/*", to="/{rest}/of/{tenant}"), b"/t/acme/x/y", b"/x/y/of/acme"),
            (route("/f/*", to="/files/{rest}"), b"/f/a%2Fb;v=1", b"/files/a%2Fb;v=1"),
            (route(prefix="/", to="/x"), b"*", b"*"),
        ],
    )
    def test_template(self, spec: HttpRoute, path: bytes, expected: bytes) -> None:
        """Parameters, the rest and the path as it was left stand in the template, still escaped."""
        assert rewritten(spec, path) == expected

    @pytest.mark.parametrize(
        ("spec", "path"),
        [
            (route(prefix="/api", to="/v1/.{rest}"), b"/api"),
            (route(prefix="/api", to="/v1/..{rest}"), b"/api/"),
            (route(prefix="/api", to="/v1/{rest}."), b"/api"),
            (route(prefix="/api", to="/v1/..{rest}"), b"/api/;x"),
            (route(prefix="/api", to="/v1/.{rest}"), b"/api/%2Fx"),
            (route("/x/{id}", to="/v1/.{id}/y"), b"/x/;a"),
            (route("/x/{id}", to="/v1/%2E{id}"), b"/x/a"),
            (route("/x/{id}", to="{id}"), b"/x/a"),
        ],
    )
    def test_what_would_not_be_canonical_is_refused(self, spec: HttpRoute, path: bytes) -> None:
        """A value that makes a dot segment or an escape with its surroundings is a 400, never another path."""
        with pytest.raises(WireError) as caught:
            rewritten(spec, path)
        assert caught.value.failure is Failure.BAD_TARGET

    PIECE = st.sampled_from(["/", "/", ".", "..", "a", ";", "%2E", "%2F", "%20", "~", "b/", "/.."])

    @settings(max_examples=300, deadline=None)
    @given(
        fixed=st.lists(st.sampled_from(["/v1", "/v2.x", "/a;b"]), min_size=1, max_size=2).map("".join),
        between=st.sampled_from(["/", "/.", "/..", "/x", "", "/%2"]),
        tail=st.sampled_from(["", ".", "/.", "/..", "/y"]),
        variable=st.sampled_from(["{rest}", "{path}"]),
        pieces=st.lists(PIECE, max_size=6),
        strip=st.sampled_from(["", "/p"]),
    )
    def test_a_request_never_leaves_the_fixed_beginning(
        self, fixed: str, between: str, tail: str, variable: str, pieces: list[str], strip: str
    ) -> None:
        """Whatever path is requested, the result is canonical and below the template's literal segments, or refused."""
        try:
            path = canonical_path(("/p/" + "".join(pieces)).encode(), escaped_slashes=True)
        except WireError:
            assume(False)
        if path != b"/p" and not path.startswith(b"/p/"):
            return
        rewrite = compile_rewrite(route(prefix="/p", strip=strip, to=fixed + between + variable + tail))
        assert rewrite is not None
        try:
            result = rewrite(path)
        except WireError:
            return
        assert canonical_path(result, escaped_slashes=True) == result
        whole = fixed if between.startswith("/") else fixed.rpartition("/")[0]
        assert result.startswith(whole.encode())
        assert b"/../" not in result + b"/"
        assert b"/./" not in result + b"/"


class TestTemplate:
    """Values with variables."""

    REQUEST = Asked(
        b"POST", b"/users/7/a%20b", b"?x=1&y=", b"WWW.Example.com:8443", "2001:db8::1", b"https", request_id=b"r-7"
    )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", b""),
            ("plain", b"plain"),
            ("{host}", b"www.example.com"),
            ("{hostport}", b"WWW.Example.com:8443"),
            ("{path}", b"/users/7/a%20b"),
            ("{query}", b"x=1&y="),
            ("{uri}", b"/users/7/a%20b?x=1&y="),
            ("{scheme}", b"https"),
            ("{method}", b"POST"),
            ("{client_ip}", b"2001:db8::1"),
            ("{request_id}", b"r-7"),
            ("{id}/{rest}", b"7/a%20b"),
            ("<{id}>", b"<7>"),
            ('{{"group":"{id}"}}', b'{"group":"7"}'),
            ("{{id}}", b"{id}"),
            ("{{{id}}}", b"{7}"),
            ("é", "é".encode()),
        ],
    )
    def test_values(self, text: str, expected: bytes) -> None:
        """Each variable is what the request has, undecoded; doubled braces are braces."""
        assert valid_template(text, value_names("/users/{id}/*")) == ""
        template = Template(text, compile_captures("/users/{id}/*", ""))
        assert template.render(self.REQUEST) == expected
        assert (template.constant is None) == bool(template.names)

    @pytest.mark.parametrize(
        ("host", "expected"),
        [(b"a", b"a"), (b"a:80", b"a"), (b"[::1]:80", b"[::1]"), (b"[::1]", b"[::1]"), (b"", b"")],
    )
    def test_host_without_port(self, host: bytes, expected: bytes) -> None:
        """{host} is the name or address alone."""
        assert Template("{host}").render(Asked(host=host)) == expected

    def test_a_parameter_does_not_hide_a_variable(self) -> None:
        """A path with {host} in it cannot choose the host of a redirect."""
        captures = compile_captures("/go/{host}", "")
        assert Template("{host}", captures).render(Asked(path=b"/go/evil.example")) == b"a.example"

    def test_a_request_without_path_has_no_parameters(self) -> None:
        """OPTIONS * has none, and no id while it is only explained."""
        template = Template("{rest}-{request_id}", compile_captures("", "/"))
        request = Asked(b"OPTIONS", b"*")
        del request.request_id
        assert template.render(request) == b"-"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{hots}", "{hots} is not known here (did you mean {host}?); known: {host}, "),
            ("{zzz}", "{zzz} is not known here; known: {host}, {hostport}, {path}, "),
            ("{}", "{} is not known here; "),
            ("{ host }", "{ host } is not known here (did you mean {host}?)"),
            ("{HOST}", "{HOST} is not known here"),
            ("{host", "a { stands alone"),
            ("host}", "a } stands alone"),
            ("{{host}", "a } stands alone"),
            ("{ho{st}", "a { stands alone"),
        ],
    )
    def test_what_is_no_template(self, text: str, said: str) -> None:
        """A variable that nobody fills in, and a brace without its other half, are found before they are used."""
        assert valid_template(text, VARIABLES).startswith(said)

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(st.sampled_from("{}ax"), max_size=12))
    def test_valid_templates_render(self, text: str) -> None:
        """Whatever passes the check renders, with doubled braces as the only other change."""
        if valid_template(text, ("a", "ax", "x", "aa")) == "":
            out = Template(text, lambda path: {}).render(Asked())
            assert out.count(b"{") <= text.count("{")

    @pytest.mark.parametrize(
        ("path", "names"),
        [
            ("", ("rest",)),
            ("/users", ()),
            ("/users/{id}", ("id",)),
            ("/users/:id/{post}/*", ("id", "post", "rest")),
        ],
    )
    def test_names(self, path: str, names: tuple[str, ...]) -> None:
        """A route's templates know the parameters of its path, and the rest where there is one."""
        assert parameter_names(path) == names
        assert path_names(path) == ("path", *names)
        assert value_names(path) == (*VARIABLES, *names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/v1/{rest}", ""),
        ("{path}", ""),
        ("/", ""),
        ("/a%20b/{rest}", ""),
        ("/v1/{path}", ""),
        ("/v1/.{rest}", ""),  # only some values make it a dot segment: those requests are refused
        ("v1/{rest}", "a path begins with"),
        ("{rest}", "a path begins with"),
        ("", "a path begins with"),
        ("/x?y=1", "cannot have this character"),
        ("/x#y", "cannot have this character"),
        ("/a b", "cannot have this character"),
        ("/a\r\nb", "cannot have this character"),
        ("/bücher", "cannot have this character"),
        ("/{{x}}", "cannot have this character"),
        ("/%2{rest}", "invalid percent-escape"),
        ("/%2F{rest}", "encoded slash"),
        ("/v1/../{rest}", "canonical form"),
        ("/v1/./x", "canonical form"),
        ("/%41", "canonical form"),
        ("/../x", "climbs"),
        ("/{host}", "{host} is not known here"),
    ],
)
def test_path_templates(text: str, said: str) -> None:
    """A path template begins with a slash and is canonical as far as it is fixed."""
    wrong = valid_rewrite(text, path_names(""))
    assert said in wrong
    assert bool(wrong) is bool(said)


@pytest.mark.parametrize(
    ("name", "request_", "response"),
    [
        ("X-Env", True, True),
        ("x_env", True, True),
        ("Authorization", True, True),
        ("Set-Cookie", True, True),
        ("Server", True, True),
        ("Host", True, True),
        ("Connection", False, False),
        ("keep-alive", False, False),
        ("Transfer-Encoding", False, False),
        ("CONTENT-LENGTH", False, False),
        ("Content_Length", False, False),
        ("TE", False, False),
        ("Trailer", False, False),
        ("Upgrade", False, False),
        ("Proxy-Connection", False, False),
        ("Expect", False, False),
        ("X-Request-ID", False, False),
        ("X-Forwarded-For", False, True),
        ("X-Forwarded-Port", False, True),
        ("x.forwarded.for", False, True),
        ("Forwarded", False, True),
        ("X-Real-IP", False, True),
        ("", False, False),
        ("X Y", False, False),
        ("X:Y", False, False),
        ("X\n", False, False),
        ("É", False, False),
        ("X" * 257, False, False),
    ],
)
def test_which_fields_may_be_changed(name: str, request_: bool, response: bool) -> None:
    """Framing, hop-by-hop and gogate's own fields may not, under any spelling."""
    assert (editable_name(name, False) == "") is request_
    assert (editable_name(name, True) == "") is response


@pytest.mark.parametrize(
    ("name", "change", "allowed"),
    [
        ("Host", "set", True),
        ("Host", "remove", False),
        ("Host", "add", False),
        ("Authorization", "add", False),
        ("Authorization", "remove", True),
        ("Cookie", "add", False),
        ("Accept", "add", True),
    ],
)
def test_changes_that_make_sense(name: str, change: str, allowed: bool) -> None:
    """A field with one value is set, never added to; Host is always there."""
    assert (editable_name(name, False, change) == "") is allowed
