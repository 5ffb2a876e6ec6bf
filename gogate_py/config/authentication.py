"""Checks of authentication and CORS: what each type needs and may have, that keys fit their algorithms, that no field
is set that gogate writes itself."""

from __future__ import annotations

from typing import Any, Final, cast

from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Auth, Config, Cors, ForwardAuth, Route
from gogate_py.config.settings import settings_of
from gogate_py.middleware.cors import valid_cors
from gogate_py.middleware.rewriting import editable_name
from gogate_py.policy import credentials

#: Type → the attributes that belong to it.
_OF_TYPE: Final[dict[str, frozenset[str]]] = {
    "jwt": frozenset((
        "secret", "public_key_file", "jwks_url", "algorithms", "issuers", "audiences", "leeway", "forward_claims",
        "require_claims", "realm")),
    "api_key": frozenset(("header", "query", "keys", "keys_file", "forward_name", "realm")),
    "basic": frozenset(("users", "users_file", "forward_user", "realm")),
    "none": frozenset(),
}
_KEY_SOURCES: Final = {"secret": "secret", "publicKeyFile": "public_key", "jwksUrl": "jwks"}


def check_access(config: Config, findings: Findings) -> None:
    """Add every problem of who may ask, at server level and in routes."""
    server = config.server
    _check(server.auth, server.cors, server.forward_auth, ("server",), findings)
    for number, route in enumerate(config.routes):
        if route.type == "http":
            _check(route.auth, route.cors, route.forward_auth, ("routes", number), findings)


def auth_of(route: Route) -> str:
    """The type of a route's authentication, "none" if it has none."""
    return route.auth.type if route.auth is not None else "none"


def _check(auth: Auth | None, cors: Cors | None, forward: ForwardAuth | None, path: Path, findings: Findings) -> None:
    """What is written here; what is inherited is checked where it is written."""
    if auth is not None and findings.given((*path, "auth")) and findings.was_read((*path, "auth")):
        _check_auth(auth, (*path, "auth"), findings)
    if cors is not None and findings.given((*path, "cors")) and findings.is_sound((*path, "cors")):
        # It has what snapshot.Cors has, by the same names: the rules ask for no more.
        wrong = valid_cors(cast(Any, cors))
        if wrong:
            findings.add((*path, "cors"), wrong, at="key")
    if forward is not None and findings.given((*path, "forwardAuth")):
        for number, name in enumerate(forward.response_headers):
            _check_field(name, (*path, "forwardAuth", "responseHeaders", number), findings)


def _check_auth(auth: Auth, path: Path, findings: Findings) -> None:
    if not auth.type or not findings.was_read((*path, "type")):
        return
    possible = _OF_TYPE[auth.type]
    for named in settings_of(Auth):
        if named.attribute not in possible and named.key != "type" and findings.given((*path, named.key)):
            keys = tuple(one.key for one in settings_of(Auth) if one.attribute in possible)
            findings.add((*path, named.key), f"does not apply to auth of type {auth.type}", keys, at="key")
    match auth.type:
        case "jwt":
            _check_jwt(auth, path, findings)
        case "api_key":
            if not auth.header and not auth.query:
                findings.add((*path, "header"), "is empty, as query is: there is no place for the key")
            _check_entries(bool(auth.api_keys), "keys", "keysFile", path, findings)
            _check_field(auth.forward_name, (*path, "forwardName"), findings)
        case "basic":
            _check_entries(bool(auth.basic_users), "users", "usersFile", path, findings)
            _check_field(auth.forward_user, (*path, "forwardUser"), findings)


def _check_entries(some: bool, inline: str, file: str, path: Path, findings: Findings) -> None:
    if not some and findings.is_sound(path):
        findings.add(path, f"{inline} or {file} is required: without an entry nobody could pass", at="key")


def _check_jwt(auth: Auth, path: Path, findings: Findings) -> None:
    for key, values in (("issuer", auth.issuers), ("audience", auth.audiences)):
        if not any(values) and findings.was_read((*path, key)):
            findings.spoil((*path, key))
            why = "without it a token for another service would be good here" if key == "audience" else (
                "without it tokens of everybody with a good key would pass")
            findings.add(
                (*path, key) if findings.given((*path, key)) else path, f"{key} is required: {why}", at="key")
    given = [key for key in _KEY_SOURCES if findings.given((*path, key))]
    if len(given) > 1:
        first = findings.line_of((*path, given[0]))
        findings.add(
            (*path, given[1]), f"only one of secret, publicKeyFile and jwksUrl is possible; {given[0]} is in {first}",
            at="key")
    elif not given:
        if findings.is_sound(path):
            findings.add(path, "one of secret, publicKeyFile and jwksUrl is required", at="key")
    elif findings.was_read((*path, given[0])) and findings.is_sound((*path, "algorithms")):
        _check_key(auth, given[0], path, findings)
    _check_forwarded_claims(auth, path, findings)


def _check_key(auth: Auth, key: str, path: Path, findings: Findings) -> None:
    """The algorithms fit the kind of key, and the key is good for them."""
    if findings.given((*path, "algorithms")):
        wrong = credentials.check_algorithms(auth.algorithms, _KEY_SOURCES[key])
        if wrong:
            findings.add((*path, "algorithms"), wrong)
            return
    if key == "secret":
        wrong = credentials.check_secret(auth.secret, auth.algorithms) if auth.secret else (
            "is empty: anybody could sign tokens")
    elif key == "publicKeyFile":
        hint = "" if findings.given((*path, "algorithms")) else "; name its algorithms (the default is RS256)"
        wrong = credentials.check_public_key(auth.public_key, auth.algorithms)
        wrong = f"{auth.public_key_file}: {wrong}{hint}" if wrong else ""
    else:
        wrong = "" if auth.jwks_url else "is empty"
    if wrong:
        findings.add((*path, key), wrong)


def _check_forwarded_claims(auth: Auth, path: Path, findings: Findings) -> None:
    first: dict[str, str] = {}
    for claim, field in auth.forward_claims.items():
        place = (*path, "forwardClaims", claim)
        _check_field(field, place, findings)
        other = first.setdefault(field.lower(), claim)
        if other != claim:
            findings.add(place, f"{field} has the claim {other} already")
    for claim, values in auth.require_claims.items():
        place = (*path, "requireClaims", claim)
        if not values and findings.is_sound(place):
            findings.add(place, "has no value: nobody could pass")


def _check_field(name: str, path: Path, findings: Findings) -> None:
    """A field that carries who was authenticated to the backend."""
    if not name or not findings.was_read(path):
        return
    wrong = editable_name(name, False)
    if not wrong and name.lower() in ("host", "authorization", "cookie"):
        wrong = f"{name} means something else to a backend"
    if wrong:
        findings.add(path, wrong)
