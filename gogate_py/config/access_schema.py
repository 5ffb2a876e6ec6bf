"""Who may ask, in the configuration: authentication, CORS, forward authentication; and the response cache.

A part of schema.py.
"""

# ruff: noqa: RUF009  setting() returns an attrs field, which is how attrs takes defaults

from __future__ import annotations

from typing import ClassVar, Final

import attrs

from gogate_py.config.names import FieldName
from gogate_py.config.settings import ListOf, TextMap, setting
from gogate_py.config.traffic_values import (
    Algorithm,
    FieldNameOrAll,
    JwksUrl,
    MethodOrAll,
    Origin,
    Secret,
    ServiceUrl,
)
from gogate_py.config.values import DAY, Boolean, Choice, Duration, Integer, Size, Text

_NAME: Final = Text(r"[^\x00-\x1f\x7f]{1,128}", "a name without control characters")
_FILE: Final = Text(r"\S.*", "a path")
_TEXT: Final = Text(r"[^\x00-\x1f\x7f]+", "text without control characters")


@attrs.frozen
class Auth:
    """Who may use a route. ``type`` alone stands for it without further keys.

    The last three are not written but read from the files that are (resolving.py), together with ``keys`` and
    ``users``.
    """

    HINTS: ClassVar = {
        "jwksUri": "jwksUrl", "jwks": "jwksUrl", "publicKey": "publicKeyFile", "pem": "publicKeyFile",
        "aud": "audience", "iss": "issuer", "clockSkew": "leeway",
        "skew": "leeway", "claimsToHeaders": "forwardClaims", "requiredClaims": "requireClaims", "htpasswd":
        "usersFile", "apiKeys": "keys", "headerName": "header", "keyName": "header", "hmacSecret": "secret"}

    type: str = setting(
        Choice(("jwt", "api_key", "basic", "none"), aliases={"bearer": "jwt", "key_auth": "api_key", "off": "none",
                                                              "public": "none", "basic_auth": "basic"}),
        "none: public, below a prefix that is not", default="", required=True, example="jwt")
    secret: str = setting(
        Secret(), "jwt: of HS*, 32 bytes or more; this or publicKeyFile or jwksUrl", default="", commented=True,
        example="${JWT_SECRET}")
    public_key_file: str = setting(_FILE, "jwt: PEM", default="", commented=True, example="jwt.pem")
    jwks_url: str = setting(JwksUrl(), "jwt: https, or http to this machine", default="",
                            example="https://auth.example.com/.well-known/jwks.json")
    algorithms: tuple[str, ...] = setting(
        ListOf(Algorithm(), scalar=True), "jwt: default: HS256 with secret, else RS256", example=("RS256", "ES256"))
    issuers: tuple[str, ...] = setting(ListOf(_TEXT, scalar=True), "jwt: exactly one of these; (required)",
                                       key="issuer", example=("https://auth.example.com",))
    audiences: tuple[str, ...] = setting(ListOf(_TEXT, scalar=True), "jwt: at least one of these; (required)",
                                         key="audience", example=("api.example.com",))
    leeway: float = setting(Duration(0, 300), "jwt: between clocks", default=30.0)
    forward_claims: dict[str, str] = setting(
        TextMap(_NAME, FieldName()), "jwt: claim → header field for the backend", example={"sub": "X-User-Id"})
    require_claims: dict[str, tuple[str, ...]] = setting(
        TextMap(_NAME, ListOf(_TEXT, scalar=True)), "jwt: claim → value, or a list of which it is one; else 403",
        example={"scope": ("read", "write")})
    realm: str = setting(Text(r"[ -~]{1,128}", "visible ASCII characters"), "in WWW-Authenticate", default="gogate")
    header: str = setting(FieldName(optional=True), "api_key: the field with the key", default="X-API-Key")
    query: str = setting(
        Text(r"[^\x00-\x1f\x7f]{1,256}", "a parameter's name"),
        "api_key: the parameter with the key; it stays in the query, and in access logs of backends", default="",
        commented=True, example="api_key")
    keys: dict[str, str] = setting(
        TextMap(_NAME, Secret()), "api_key: name → SHA-256 of the key in hex (gogate hash api-key)",
        example={"ci": "eacd721bf9f9b0cd0eb6e05328c06a7478b06f7e3042295afc0b969c2729f2d9"})
    keys_file: str = setting(_FILE, "api_key: lines of name:SHA-256", default="", commented=True, example="api-keys")
    forward_name: str = setting(
        FieldName(optional=True), "api_key: field that tells the backend the key's name", default="",
        example="X-Client-Name")
    users: dict[str, str] = setting(
        TextMap(_NAME, Secret()), "basic: name → bcrypt hash (gogate hash password, or htpasswd -B)",
        example={"alice": "$2b$12$BpVHP1y6YUtFXNLTjqCU..ZafncDu645NiFBBPwl.rNcEh9WKWIe6"})
    users_file: str = setting(_FILE, "basic: such lines", default="", commented=True, example="htpasswd")
    forward_user: str = setting(
        FieldName(optional=True), "basic: field that tells the backend the user's name", default="", example="X-User")
    public_key: str = ""
    api_keys: tuple[tuple[str, str], ...] = ()
    basic_users: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Cors:
    """Cross-origin rules; preflights are answered by gogate, before authentication."""

    HINTS: ClassVar = {
        "origins": "allowOrigins", "allowedOrigins": "allowOrigins", "allowedMethods": "allowMethods",
        "methods": "allowMethods", "allowedHeaders": "allowHeaders", "headers": "allowHeaders",
        "exposedHeaders": "exposeHeaders", "credentials": "allowCredentials"}

    allow_origins: tuple[str, ...] = setting(
        ListOf(Origin()), "exact, or only *; (required)", example=("https://app.example.com",))
    allow_methods: tuple[str, ...] = setting(
        ListOf(MethodOrAll()), "others than GET, HEAD and POST must be named", default=("GET", "HEAD", "POST"))
    allow_headers: tuple[str, ...] = setting(
        ListOf(FieldNameOrAll()), "that pages may send beyond the harmless ones", example=("Content-Type",))
    expose_headers: tuple[str, ...] = setting(
        ListOf(FieldNameOrAll()), "that pages may read", example=("X-Request-Id",))
    allow_credentials: bool = setting(Boolean(), "cookies and Authorization; not together with *", default=False)
    max_age: float = setting(Duration(0, DAY), "for which browsers keep a preflight's answer", default=600.0)


@attrs.frozen
class Cache:
    """A response cache in the memory of each worker."""

    HINTS: ClassVar = {"maxSize": "maxBytes", "size": "maxEntries", "maxAge": "ttl"}

    enabled: bool = setting(Boolean(), "keep answers to GET, as Cache-Control and Vary allow it", default=False)
    ttl: float = setting(
        Duration(0, 365 * DAY, zero="those are not kept"), "of answers that do not say how long they are fresh",
        default=60.0)
    max_entries: int = setting(Integer(1, 1_000_000), "per worker and route; the least recently used goes first",
                               default=1000)
    max_bytes: int = setting(Size(1 << 10, 1 << 40), "per worker and route", default=64 << 20)


@attrs.frozen
class ForwardAuth:
    """A service that is asked about every request: its 2xx lets the request pass, anything else is the answer."""

    HINTS: ClassVar = {
        "address": "url", "uri": "url", "authResponseHeaders": "responseHeaders", "copyHeaders": "responseHeaders",
        "authRequestHeaders": "requestHeaders"}

    url: str = setting(ServiceUrl(), "http", default="", required=True, example="http://127.0.0.1:9000/verify")
    timeout: float = setting(Duration(0.001, 60), "then 503, as when it cannot be reached", default=2.0)
    request_headers: tuple[str, ...] = setting(
        ListOf(FieldName()), "that it is shown; default: all", example=("Authorization", "Cookie"))
    response_headers: tuple[str, ...] = setting(
        ListOf(FieldName()), "of its answer that the backend gets", example=("X-Tenant",))
