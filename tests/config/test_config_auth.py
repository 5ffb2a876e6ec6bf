"""Authentication, CORS, forward authentication, cache: what each type needs, files, what no problem may show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from config_loading import load, problems, told
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gogate_py.config.loader import load_file
from gogate_py.config.problems import Problem
from gogate_py.config.schema import Auth, Cache, Cors, ForwardAuth, Route
from gogate_py.errors import ConfigError

POOLS = "pools: {a: {backends: ['a:1']}}\n"
SECRET = "0123456789abcdef0123456789abcdef"
DIGEST = "ab" * 32
HASH = "$2b$12$" + "a" * 53
#: The two that every jwt needs.
FOR = "issuer: https://i, audience: a"


def text(of_route: str, of_server: str = "") -> str:
    """A file with one route."""
    of_server = of_server and f", {of_server}"
    return f"server: {{httpListenAddr: ':1'{of_server}}}\n{POOLS}routes: [{{pool: a, {of_route}}}]"


def one(of_route: str, of_server: str = "") -> Route:
    """The route of such a file."""
    return load(text(of_route, of_server)).routes[0]


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    """The public key of a key pair, as files have it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_jwt_with_a_secret() -> None:
    """A secret is for HS256 unless told otherwise; issuer and audience may be one or several."""
    auth = one(f"auth: {{type: jwt, secret: {SECRET}, {FOR}}}").auth
    assert auth == Auth("jwt", SECRET, algorithms=("HS256",), issuers=("https://i",), audiences=("a",))
    auth = one(
        f"auth: {{type: JWT, secret: {SECRET * 2}, algorithms: [HS512, hs384], issuer: [i, j], audience: [a, b], "
        "leeway: 5s, forwardClaims: {sub: X-User-Id}, requireClaims: {scope: [r, w], tenant: t}, realm: here}").auth
    assert auth is not None
    assert (auth.algorithms, auth.issuers, auth.audiences) == (("HS512", "HS384"), ("i", "j"), ("a", "b"))
    assert (auth.leeway, auth.realm, auth.forward_claims) == (5, "here", {"sub": "X-User-Id"})
    assert auth.require_claims == {"scope": ("r", "w"), "tenant": ("t",)}


def test_jwt_with_a_key_set() -> None:
    """A key set is for RS256 unless told otherwise."""
    auth = one(f"auth: {{type: jwt, jwksUrl: 'https://a.example.com/jwks', {FOR}}}").auth
    assert auth is not None
    assert (auth.jwks_url, auth.algorithms) == ("https://a.example.com/jwks", ("RS256",))
    assert told(text(f"auth: {{type: jwt, jwksUrl: 'http://127.0.0.1:1/jwks', {FOR}}}")) == []


JWT = f"type: jwt, secret: {SECRET}, {FOR}"


@pytest.mark.parametrize(
    ("auth", "key", "message"),
    [("{}", "", "type is required"),
     ("oauth", "", "not a known value"),
     (f"{{type: jwt, secret: {SECRET}, audience: a}}", "", "issuer is required"),
     (f"{{type: jwt, secret: {SECRET}, issuer: i}}", "", "audience is required"),
     (f"{{type: jwt, secret: {SECRET}, issuer: '', audience: a}}", "issuer", "issuer is required"),
     (f"{{type: jwt, secret: {SECRET}, issuer: i, audience: []}}", "audience", "audience is required"),
     (f"{{type: jwt, {FOR}}}", "", "one of secret, publicKeyFile and jwksUrl is required"),
     (f"{{{JWT}, jwksUrl: 'https://a/b'}}", "jwksUrl", "only one of secret, publicKeyFile and jwksUrl"),
     (f"{{type: jwt, secret: short, {FOR}}}", "secret", "32"),
     (f"{{type: jwt, secret: '', {FOR}}}", "secret", "is empty: anybody could sign tokens"),
     (f"{{type: jwt, secret: '-----BEGIN PUBLIC KEY----- {SECRET}', {FOR}}}", "secret", "looks like a PEM"),
     (f"{{{JWT}, algorithms: [RS256]}}", "algorithms", "RS256 needs a public key"),
     (f"{{{JWT}, algorithms: [HS512]}}", "secret", "64"),
     (f"{{{JWT}, algorithms: [none]}}", "algorithms[0]", "never accepted"),
     (f"{{{JWT}, algorithms: [HS257]}}", "algorithms[0]", "not an algorithm that is known"),
     (f"{{type: jwt, jwksUrl: 'https://a/b', algorithms: [HS256], {FOR}}}", "algorithms", "HS256 needs a secret"),
     (f"{{type: jwt, jwksUrl: 'http://a.com/b', {FOR}}}", "jwksUrl", "must be https"),
     (f"{{type: jwt, jwksUrl: '', {FOR}}}", "jwksUrl", "is not a URL"),
     (f"{{{JWT}, leeway: 6m}}", "leeway", "the most is 5m"),
     (f"{{{JWT}, forwardClaims: {{sub: Host}}}}", "forwardClaims.sub", "means something else"),
     (f"{{{JWT}, forwardClaims: {{sub: X-Forwarded-For}}}}", "forwardClaims.sub", "set by gogate"),
     (f"{{{JWT}, forwardClaims: {{sub: X-A, name: x-a}}}}", "forwardClaims.name", "has the claim sub already"),
     (f"{{{JWT}, requireClaims: {{scope: []}}}}", "requireClaims.scope", "nobody could pass"),
     (f"{{{JWT}, keys: {{a: b}}}}", "keys", "does not apply to auth of type jwt"),
     (f"{{{JWT}, forwardUser: X-A}}", "forwardUser", "does not apply to auth of type jwt"),
     (f"{{{JWT}, jwksUri: x}}", "jwksUri", "unknown key"),
     ("{type: none, realm: x}", "realm", "does not apply to auth of type none"),
     ("{type: api_key}", "", "keys or keysFile is required"),
     (f"{{type: api_key, keys: {{ci: {DIGEST[:-1]}}}}}", "keys.ci", "SHA-256 in hex"),
     (f"{{type: api_key, keys: {{'a b': {DIGEST}}}}}", "keys.a b", "visible ASCII"),
     (f"{{type: api_key, keys: {{a: {DIGEST}, b: {DIGEST.upper()}}}}}", "", "the keys of a and b are the same"),
     (f"{{type: api_key, keys: {{a: {DIGEST}}}, header: ''}}", "header", "no place for the key"),
     (f"{{type: api_key, keys: {{a: {DIGEST}}}, forwardName: Content-Length}}", "forwardName", "gogate writes it"),
     (f"{{type: api_key, keys: {{a: {DIGEST}}}, secret: x}}", "secret", "does not apply to auth of type api_key"),
     ("{type: basic}", "", "users or usersFile is required"),
     ("{type: basic, users: {al: '$apr1$x$y'}}", "users.al", "only bcrypt is accepted"),
     (f"{{type: basic, users: {{al: '{HASH.replace('12', '15', 1)}'}}}}", "users.al", "cost"),
     (f"{{type: basic, users: {{al: '{HASH}'}}, issuer: x}}", "issuer", "does not apply to auth of type basic"),
     ("{type: basic, usersFile: no-such-file}", "usersFile", "no-such-file cannot be read: No such file"),
     ("{type: basic, usersFile: /}", "usersFile", "cannot be read"),
     ("{type: api_key, keysFile: /dev/zero}", "keysFile", "is larger than"),
     (f"{{type: jwt, publicKeyFile: no.pem, {FOR}}}", "publicKeyFile", "no.pem cannot be read")])
@pytest.mark.parametrize("place", ["server", "routes[0]"])
def test_one_wrong_value(auth: str, key: str, message: str, place: str) -> None:
    """One mistake is one problem at its place, at server level and in a route."""
    (problem,) = problems(text(f"auth: {auth}") if place != "server" else text("websocket: true", f"auth: {auth}"))
    assert problem.key == f"{place}.auth.{key}".rstrip(".")
    assert message in problem.message


def test_a_routes_authentication_replaces_the_servers() -> None:
    """A route has the server's authentication, or one of its own as a whole; none makes it public."""
    server = f"auth: {{type: jwt, secret: {SECRET}, {FOR}, realm: all}}"
    inherited = one("websocket: true", server).auth
    assert inherited is not None
    assert inherited.realm == "all"
    own = one(f"auth: {{type: api_key, keys: {{ci: {DIGEST}}}}}", server).auth
    assert own == Auth("api_key", keys={"ci": DIGEST}, api_keys=(("ci", DIGEST),))
    assert one("auth: none", server).auth == Auth("none")
    assert one("auth: {type: none}", server).auth == Auth("none")
    assert one("websocket: true").auth is None


def test_credentials_in_the_configuration() -> None:
    """Keys and users may stand in the configuration itself, hashed."""
    written = f"{{type: api-key, keys: {{ci: {DIGEST.upper()}}}, header: '', query: key, forwardName: X-N}}"
    auth = one(f"auth: {written}").auth
    assert auth is not None
    assert (auth.api_keys, auth.header, auth.query, auth.forward_name) == ((("ci", DIGEST),), "", "key", "X-N")
    auth = one(f"auth: {{type: basic, users: {{al: '{HASH}'}}, forwardUser: X-U}}").auth
    assert auth is not None
    assert (auth.basic_users, auth.forward_user) == ((("al", HASH),), "X-U")


@pytest.fixture
def at(tmp_path: Path) -> Callable[[str], Auth | list[Problem]]:
    """Load a file in the folder with this auth: what was read, or the problems."""

    def loaded(auth: str) -> Auth | list[Problem]:
        path = tmp_path / "gogate.yaml"
        path.write_text(text(f"auth: {{{auth}}}"))
        try:
            read = load_file(str(path), {}).routes[0].auth
        except ConfigError as error:
            return [problem for problem in error.problems if isinstance(problem, Problem)]
        assert read is not None
        return read

    return loaded


def test_files_are_read_beside_the_configuration(
    tmp_path: Path, at: Callable[[str], Auth | list[Problem]]
) -> None:
    """Keys and users come from files, relative to the folder of the configuration, together with those that stand in
    it."""
    (tmp_path / "keys").write_text(f"# ours\nmobile:{'cd' * 32}\n")
    auth = at(f"type: api_key, keysFile: keys, keys: {{ci: {DIGEST}}}")
    assert isinstance(auth, Auth)
    assert auth.api_keys == (("ci", DIGEST), ("mobile", "cd" * 32))
    (tmp_path / "users").write_text(f"al:{HASH}\r\n")
    auth = at(f"type: basic, usersFile: {tmp_path}/users")
    assert isinstance(auth, Auth)
    assert auth.basic_users == (("al", HASH),)


def test_problems_in_files_have_their_line_and_show_nothing(
    tmp_path: Path, at: Callable[[str], Auth | list[Problem]]
) -> None:
    """What is wrong in a file is told with its name and line, all at once, without its text."""
    (tmp_path / "keys").write_text(f"ci:secret-in-clear\nok:{DIGEST}\nnonsense\n")
    found = at("type: api_key, keysFile: keys")
    assert isinstance(found, list)
    assert [(problem.file, problem.line) for problem in found] == [(f"{tmp_path}/keys", 1), (f"{tmp_path}/keys", 3)]
    assert all(problem.key == "routes[0].auth.keysFile" for problem in found)
    assert not any("secret-in-clear" in problem.render() for problem in found)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has no entry"), (b"# nothing\n", "has no entry"), (b"\xff\xfe", "not UTF-8"), (b"a\0b", "U+0000")])
def test_files_that_are_none(
    tmp_path: Path, at: Callable[[str], Auth | list[Problem]], content: bytes, message: str
) -> None:
    """An empty file and one that is not text are told at the key that names it."""
    (tmp_path / "users").write_bytes(content)
    found = at("type: basic, usersFile: users")
    assert isinstance(found, list)
    (problem,) = found
    assert (problem.key, problem.line) == ("routes[0].auth.usersFile", 3)
    assert message in problem.message


def test_a_name_is_in_one_place(tmp_path: Path, at: Callable[[str], Auth | list[Problem]]) -> None:
    """A name in the configuration and the file, and the same key under two names, are refused."""
    (tmp_path / "keys").write_text(f"ci:{'cd' * 32}\nother:{DIGEST}\n")
    found = at(f"type: api_key, keysFile: keys, keys: {{ci: {DIGEST}}}")
    assert isinstance(found, list)
    assert sorted(problem.message for problem in found) == [
        "ci is in this file and in the configuration, too",
        "the keys of ci and other are the same: nobody could tell who calls"]


def test_public_keys(tmp_path: Path, at: Callable[[str], Auth | list[Problem]]) -> None:
    """A public key is read, and must be one for each algorithm."""
    (tmp_path / "ec.pem").write_text(pem(ec.generate_private_key(ec.SECP256R1())))
    (tmp_path / "ed.pem").write_text(pem(ed25519.Ed25519PrivateKey.generate()))
    (tmp_path / "bad.pem").write_text("-----BEGIN PUBLIC KEY-----\nnope\n-----END PUBLIC KEY-----\n")
    for name, algorithm in (("ec.pem", "ES256"), ("ed.pem", "EdDSA")):
        auth = at(f"type: jwt, publicKeyFile: {name}, algorithms: [{algorithm}], {FOR}")
        assert isinstance(auth, Auth)
        assert auth.public_key == (tmp_path / name).read_text()
    for name, algorithms, message in (
        ("ec.pem", "algorithms: [ES384], ", "is a P-256 key, which ES384 cannot be used with"),
        ("ec.pem", "", "name its algorithms (the default is RS256)"), ("bad.pem", "", "bad.pem: "),
    ):
        found = at(f"type: jwt, publicKeyFile: {name}, {algorithms}{FOR}")
        assert isinstance(found, list)
        (problem,) = found
        assert problem.key == "routes[0].auth.publicKeyFile"
        assert message in problem.message


def test_secrets_are_not_shown() -> None:
    """A problem in the line of a secret comes without that line, be the secret wrong itself or something beside it."""
    for inside in (f"{{type: jwt, secret: hunter2, {FOR}}}", f"{{type: jwt, secret: hunter2hunter2, nope: 1, {FOR}}}",
                   "{type: basic, users: {al: hunter2}}", "{type: api_key, keys: {ci: hunter2}}"):
        found = problems(text(f"auth: {inside}"))
        assert found
        assert not any("hunter2" in problem.render() for problem in found)
    found = problems(text("split: [a], sticky: {by: cookie, secret: hunter2}").replace("pool: a, ", ""))
    assert [problem.key for problem in found] == ["routes[0].sticky.secret"]
    assert "hunter2" not in found[0].render()


def test_secrets_from_variables() -> None:
    """A secret may come from the environment; the line that names the variable is shown."""
    route = "auth: {type: jwt, secret: '${JWT_SECRET}', " + FOR + "}"
    assert load(text(route), {"JWT_SECRET": SECRET}).routes[0].auth is not None
    (problem,) = problems(text(route), {"JWT_SECRET": "short"})
    assert "${JWT_SECRET}" in problem.render()
    (problem,) = problems(text(route))
    assert "JWT_SECRET is not set" in problem.message


def test_cors() -> None:
    """Origins are exact or all; a route changes each key on its own, or has none of it."""
    server = "cors: {allowOrigins: ['https://a.com'], maxAge: 1m}"
    assert one("websocket: true", server).cors == Cors(("https://a.com",), max_age=60)
    assert one("cors: {allowMethods: [GET, PUT], allowCredentials: true}", server).cors == Cors(
        ("https://a.com",), ("GET", "PUT"), allow_credentials=True, max_age=60)
    assert one("cors: none", server).cors is None
    assert one("websocket: true").cors is None
    assert one("cors: {allowOrigins: ['*'], allowHeaders: ['*'], exposeHeaders: [X-A]}").cors == Cors(
        ("*",), allow_headers=("*",), expose_headers=("X-A",))


@pytest.mark.parametrize(
    ("cors", "key", "message"),
    [("{}", "", "allowOrigins is empty"),
     ("{allowOrigins: []}", "", "allowOrigins is empty"),
     ("{allowOrigins: ['*'], allowCredentials: true}", "", "does not go together with allowCredentials"),
     ("{allowOrigins: ['*', 'https://a.com']}", "", "stands alone"),
     ("{allowOrigins: ['null']}", "allowOrigins[0]", "never allowed"),
     ("{allowOrigins: ['https://a.com/x']}", "allowOrigins[0]", "not an origin"),
     ("{allowOrigins: ['https://*.a.com']}", "allowOrigins[0]", "patterns are not possible"),
     ("{allowOrigins: ['https://.*']}", "allowOrigins[0]", "patterns are not possible"),
     ("{allowOrigins: ['https://A.com']}", "allowOrigins[0]", "lower case"),
     ("{allowOrigins: 'https://a.com'}", "allowOrigins", "expected a list"),
     ("{allowOrigins: ['https://a.com'], allowMethods: [get]}", "allowMethods[0]", "not a method"),
     ("{allowOrigins: ['https://a.com'], allowHeaders: ['a b']}", "allowHeaders[0]", "not a field name"),
     ("{allowOrigins: ['https://a.com'], maxAge: 2d}", "maxAge", "not a duration"),
     ("{origins: ['https://a.com']}", "origins", "unknown key"),
     ("off", "", "expected a mapping")])
@pytest.mark.parametrize("place", ["server", "routes[0]"])
def test_wrong_cors(cors: str, key: str, message: str, place: str) -> None:
    """Rules that are void or open more than they say are refused (SECURITY.md T25)."""
    found = problems(text(f"cors: {cors}") if place != "server" else text("websocket: true", f"cors: {cors}"))
    assert [problem.key for problem in found] == [f"{place}.cors.{key}".rstrip(".")]
    assert message in found[0].message


def test_caches() -> None:
    """A cache is off unless enabled; a route changes each key on its own."""
    assert one("cache: {}").cache == Cache()
    assert one("cache: {ttl: 1s}", "cache: {enabled: true, maxBytes: 1MiB}").cache == Cache(
        True, 1, max_bytes=1 << 20)
    assert one("cache: none", "cache: {enabled: true}").cache is None
    for inside, message in (("ttl: 400d", "not a duration"), ("maxEntries: 0", "the least is 1"),
                            ("maxBytes: 1", "the least is 1KiB"), ("size: 5", "unknown key")):
        (found,) = told(text(f"cache: {{{inside}}}"))
        assert message in found


def test_forward_authentication() -> None:
    """A service is asked; a route changes each key on its own, or does not ask."""
    server = "forwardAuth: {url: 'http://127.0.0.1:9000/verify', responseHeaders: [X-User]}"
    assert one("forwardAuth: {timeout: 1s, requestHeaders: [Cookie]}", server).forward_auth == ForwardAuth(
        "http://127.0.0.1:9000/verify", 1, ("Cookie",), ("X-User",))
    assert one("forwardAuth: none", server).forward_auth is None
    assert one("forwardAuth: {url: 'http://auth'}").forward_auth == ForwardAuth("http://auth")
    assert one("forwardAuth: {url: 'https://auth/verify'}").forward_auth == ForwardAuth("https://auth/verify")


@pytest.mark.parametrize(
    ("inside", "key", "message"),
    [("{}", "", "url is required"), ("{url: 'ftp://a'}", "url", "is not a URL"),
     ("{url: 'auth:80'}", "url", "is not a URL"), ("{url: 'http://u:p@a/'}", "url", "is not a URL"),
     ("{url: 'http://a:99999/'}", "url", "out of range"), ("{url: 'http://a/#x'}", "url", "is not a URL"),
     ("{url: 'http://a', timeout: 0s}", "timeout", "the least is 1ms"),
     ("{url: 'http://a', responseHeaders: [Content-Length]}", "responseHeaders[0]", "gogate writes it"),
     ("{url: 'http://a', responseHeaders: [Host]}", "responseHeaders[0]", "means something else"),
     ("{address: 'http://a'}", "address", "unknown key")])
def test_wrong_forward_authentication(inside: str, key: str, message: str) -> None:
    """One mistake is one problem at its place."""
    (problem,) = problems(text(f"forwardAuth: {inside}"))
    assert problem.key == f"routes[0].forwardAuth.{key}".rstrip(".")
    assert message in problem.message
