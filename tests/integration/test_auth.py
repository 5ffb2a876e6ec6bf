"""Authentication through whole gateways of two workers: tokens by secret, PEM and key set, API keys, Basic; what
backends are told of it, and what nobody is."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import websockets
import websockets.sync.client
import websockets.sync.server
from doubles.configs import ANY, gateway_config
from doubles.gateway import ROOT, Gateway, wait_for
from doubles.gateway_clients import Client, a_client_per_worker, field_of, kill_9, slot_of
from doubles.http_backend import HttpBackend
from doubles.load import in_threads
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from gogate_py.clock import wall

ISSUER = "https://auth.example.com"
AUDIENCE = "api.example.com"
SECRET = "an-example-secret-of-32-bytes-or-more"
PASSWORD = "correct horse: battery staple"
EXPECTED = {"issuer": ISSUER, "audience": AUDIENCE, "leeway": "0s"}
HS256 = {"type": "jwt", "secret": SECRET, **EXPECTED}
CLAIMED = {"sub": "X-User-Id", "roles": "X-Roles", "plan": "X-Plan"}


def claims(**more: Any) -> dict[str, Any]:
    """Good claims, with others; None takes one out."""
    merged = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(wall()) + 600, "sub": "alice"} | more
    return {name: value for name, value in merged.items() if value is not None}


def signed(key: OctKey | RSAKey, algorithm: str, **more: Any) -> str:
    """A token as another library makes it; the kid of the key is named."""
    header = {"alg": algorithm} | ({"kid": key.kid} if key.kid else {})
    return jwt.encode(header, claims(**more), key, algorithms=[algorithm])


def token(secret: str = SECRET, **more: Any) -> str:
    """A token of the secret."""
    return signed(OctKey.import_key(secret), "HS256", **more)


def by_hand(header: dict[str, Any], secret: bytes) -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims())]
    mac = hmac.new(secret, b".".join(parts), hashlib.sha256).digest()
    return b".".join((*parts, base64.urlsafe_b64encode(mac).rstrip(b"="))).decode()


def rsa_key(kid: str | None = None) -> RSAKey:
    """A new RSA key."""
    return RSAKey.generate_key(2048, {"kid": kid} if kid else None)


class KeyServer:
    """Serves key sets over HTTP on 127.0.0.1: what stands in ``keys``, or ``status`` when it is not 200."""

    def __init__(self, *keys: RSAKey) -> None:
        self.keys = list(keys)
        self.status = 200
        self.fetches = 0
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.fetches += 1
                body = json.dumps({"keys": [key.as_dict(private=False) for key in served.keys]}).encode()
                self.send_response(served.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/keys?tenant=hidden-in-the-query"

    def __enter__(self) -> KeyServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def made_api_key() -> tuple[str, str]:
    """A key as ``gogate hash api-key`` makes it, and its line."""
    command = [sys.executable, "-m", "gogate_py", "hash", "api-key", "--name", "ci"]
    done = subprocess.run(command, capture_output=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    key, line = done.stdout.decode().split()
    return key, line


def password_line(user: str, password: str) -> str:
    """A line of a usersFile, by Apache's own tool where it is installed."""
    htpasswd = shutil.which("htpasswd")
    if htpasswd is None:
        return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(5)).decode()}"
    done = subprocess.run([htpasswd, "-niB", user], input=password, capture_output=True, timeout=30, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bearer(text: str) -> dict[str, str]:
    """The field that carries a token."""
    return {"Authorization": f"Bearer {text}"}


def basic(user: str, password: str) -> dict[str, str]:
    """The field that carries a password."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def values(backend: HttpBackend, name: bytes) -> list[bytes]:
    """Every line that the last request to the backend had of a field."""
    lines = [line.partition(b": ") for line in backend.heads[-1].split(b"\r\n")[1:]]
    return [value for found, _, value in lines if found.lower() == name]


class Site:
    """A gateway with every kind of authentication, its backend, and what one needs to pass."""

    def __init__(self, gateway: Gateway, backend: HttpBackend, asked: list[dict[str, str]]) -> None:
        self.gateway = gateway
        self.backend = backend
        self.pem_key = rsa_key()
        self.api_key = ""
        self.asked = asked  # the heads that the WebSocket backend got

@contextlib.contextmanager
def websocket_echo(asked: list[dict[str, str]]) -> Iterator[int]:
    """A WebSocket server that gives messages back; → its port."""

    def echo(connection: websockets.sync.server.ServerConnection) -> None:
        assert connection.request is not None
        asked.append({name.lower(): value for name, value in connection.request.headers.raw_items()})
        for message in connection:
            connection.send(message)

    with websockets.sync.server.serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("keys")
    pem_key = rsa_key()
    Path(folder, "key.pem").write_bytes(pem_key.as_pem(private=False))
    api_key, line = made_api_key()
    Path(folder, "api-keys").write_text(f"# keys of machines\n{line}\n")
    Path(folder, "htpasswd").write_text(password_line("alice", PASSWORD) + "\n")
    asked: list[dict[str, str]] = []
    with HttpBackend() as backend, websocket_echo(asked) as port:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False},
             "auth": {**HS256, "forwardClaims": CLAIMED}, "identityHeaders": ["X-Internal-Role"]},
            pools={"web": {"backends": [backend.address]}, "ws": {"backends": [f"127.0.0.1:{port}"]}},
            logging={"level": "debug"},
            routes=[
                {"name": "open", "pool": "web", "auth": {"type": "none"}},
                {"name": "api", "pool": "web", "match": {"pathPrefix": "/api"}},
                {"name": "api-health", "pool": "web", "match": {"path": "/api/health"}, "auth": {"type": "none"}},
                {"name": "api-admin", "pool": "web", "match": {"pathPrefix": "/api/admin"},
                 "auth": {**HS256, "requireClaims": {"scope": ["write", "admin"]}, "realm": "admins"}},
                {"name": "ws", "pool": "ws", "match": {"pathPrefix": "/ws"}},
                {"name": "pem", "pool": "web", "match": {"pathPrefix": "/pem"},
                 "auth": {"type": "jwt", "publicKeyFile": f"{folder}/key.pem", "algorithms": ["RS256"], **EXPECTED}},
                {"name": "keys", "pool": "web", "match": {"pathPrefix": "/keys"},
                 "auth": {"type": "api_key", "header": "X-API-Key", "query": "api_key",
                          "keysFile": f"{folder}/api-keys", "forwardName": "X-Client-Name"}},
                {"name": "basic", "pool": "web", "match": {"pathPrefix": "/basic"},
                 "auth": {"type": "basic", "usersFile": f"{folder}/htpasswd", "forwardUser": "X-User",
                          "realm": "internal"}},
            ],
        )
        with Gateway(config) as gateway:
            site = Site(gateway, backend, asked)
            site.pem_key, site.api_key = pem_key, api_key
            yield site


@pytest.fixture
def clients(site: Site) -> Iterator[list[Client]]:
    """One kept connection to each worker."""
    with a_client_per_worker(site.gateway, site.backend, 2) as clients:
        yield clients


# --- JWT


def test_a_token_of_the_secret_is_needed(site: Site, clients: list[Client]) -> None:
    """Each worker answers 401 without a token and with a wrong one, asks no backend, and lets a good one through."""
    for client in clients:
        before = site.backend.requests
        status, headers, body = client.get("/api/orders")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="gogate"')
        assert json.loads(body)["status"] == 401
        for wrong in (token("another-secret-of-32-bytes-or-more-"), token(aud="other"), token(iss="other"),
                      token(exp=int(wall()) - 5), token(exp=None), token(nbf=int(wall()) + 300), "x.y.z"):
            status, headers, body = client.get("/api/orders", **bearer(wrong))
            assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="gogate", error="invalid_token"')
        assert site.backend.requests == before
        for _ in range(2):  # verified, and remembered
            assert client.get("/api/orders", **bearer(token()))[0] == 200
        assert site.backend.requests == before + 2


def test_refusals_do_not_say_why(site: Site, clients: list[Client]) -> None:
    """An expired token and a forged one get the same answer but for its request id."""
    answers = []
    for wrong in (token("another-secret-of-32-bytes-or-more-"), token(exp=int(wall()) - 5)):
        _, headers, body = clients[0].get("/api/orders", **bearer(wrong))
        told = json.loads(body)
        assert told.pop("request_id") == headers["X-Request-Id"]
        answers.append((told, headers["WWW-Authenticate"]))
    assert answers[0] == answers[1]


def test_claims_reach_the_backend(site: Site, clients: list[Client]) -> None:
    """forwardClaims become fields of exactly one line, whatever the client sent; a claim that is not there is no field.
    """
    for client in clients:
        for _ in range(2):  # verified, and remembered
            sent = {"X_User_Id": "root", "X_Roles": "root", "X_Plan": "gold"}
            good = token(sub="Jürgen, 100%", roles=["reader", "a,b"])
            assert client.get("/api/orders", **sent, **bearer(good))[0] == 200
            assert values(site.backend, b"x-user-id") == [b"J%C3%BCrgen, 100%25"]
            assert values(site.backend, b"x-roles") == [b"reader,a%2Cb"]
            assert values(site.backend, b"x-plan") == []
            assert values(site.backend, b"authorization") == [f"Bearer {good}".encode()]


def test_a_required_claim(site: Site, clients: list[Client]) -> None:
    """requireClaims: 403 with insufficient_scope without one of the values, 200 with it."""
    for client in clients:
        status, headers, _ = client.get("/api/admin/x", **bearer(token(scope="read")))
        assert (status, headers["WWW-Authenticate"]) == (403, 'Bearer realm="admins", error="insufficient_scope"')
        assert client.get("/api/admin/x", **bearer(token()))[0] == 403
        assert client.get("/api/admin/x", **bearer(token(scope="read write")))[0] == 200
        assert client.get("/api/admin/x")[0] == 401


def test_a_public_path_below_a_protected_prefix(site: Site, clients: list[Client]) -> None:
    """auth none makes exactly its own path public, with any token or none."""
    for client in clients:
        assert client.get("/api/health")[0] == 200
        assert client.get("/api/health?deep=1", **bearer("rubbish"))[0] == 200


@pytest.mark.parametrize("path", [
    "/api/health/x", "/api/healthz", "/api/health/", "/api/health/../orders", "/api/health/%2e%2e/orders",
    "/x/../api/orders", "/x/%2E%2E/api/orders", "/./api/orders", "/api/./orders", "/%61pi/orders", "/api%2Forders",
    "/api/health%2F..%2Forders", "/api\\orders", "//api/orders", "/api//orders", "/api/health;/../orders", "/api?x",
])  # fmt: skip
def test_no_spelling_of_a_path_goes_around_authentication(site: Site, path: str) -> None:
    """What a backend may take for a path below a protected prefix is not let through without a token."""
    before = site.backend.requests
    with contextlib.closing(Client(site.gateway)) as client:
        assert client.get(path)[0] in (400, 401)
    assert site.backend.requests == before


def test_a_public_key_from_a_file(site: Site, clients: list[Client]) -> None:
    """A PEM file's key verifies tokens of its own algorithm only: used as a secret, or with alg none, nobody passes."""
    pem = site.pem_key.as_pem(private=False)
    unsigned = by_hand({"alg": "none"}, b"").rpartition(".")[0]
    confused = by_hand({"alg": "HS256"}, pem)
    for client in clients:
        assert client.get("/pem/x", **bearer(signed(site.pem_key, "RS256")))[0] == 200
        for wrong in (signed(rsa_key(), "RS256"), signed(site.pem_key, "PS256"), confused, f"{unsigned}.", token()):
            assert client.get("/pem/x", **bearer(wrong))[0] == 401


def test_a_verified_token_expires(site: Site, clients: list[Client]) -> None:
    """A token that was let through is refused once exp is over, although it is remembered."""
    short = token(exp=int(wall()) + 3)
    for client in clients:
        assert client.get("/api/orders", **bearer(short))[0] == 200
    for client in clients:
        wait_for(lambda: client.get("/api/orders", **bearer(short))[0] == 401, what="the token to expire")  # noqa: B023  # called at once


def test_two_authorization_fields_are_none(site: Site) -> None:
    """A request with two Authorization fields is refused, even if one of them holds a good token."""
    before = site.backend.requests
    for first, second in ((token(), "rubbish"), ("rubbish", token()), (token(), token())):
        with socket.create_connection(site.gateway.address("http:default"), timeout=10) as sock:
            lines = f"Authorization: Bearer {first}\r\nAuthorization: Bearer {second}\r\nConnection: close\r\n"
            sock.sendall(f"GET /api/x HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
            assert sock.makefile("rb").readline().split()[1] in (b"400", b"401")
    assert site.backend.requests == before


def test_websockets_need_the_token_too(site: Site) -> None:
    """An upgrade without a token is answered 401 and no backend hears of it; with one it is a WebSocket."""
    host, port = site.gateway.address("http:default")
    url = f"ws://{host}:{port}/ws"
    for fields in ({}, bearer("rubbish"), bearer(token(exp=int(wall()) - 5))):
        with pytest.raises(websockets.InvalidStatus) as refused:
            websockets.sync.client.connect(url, additional_headers=fields, proxy=None)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert not site.asked
    fields = {**bearer(token()), "X-User-Id": "root", "X-Internal-Role": "root"}
    with websockets.sync.client.connect(url, additional_headers=fields, proxy=None) as connection:
        connection.send("hello")
        assert connection.recv(timeout=10) == "hello"
    assert len(site.asked) == 1
    assert site.asked[0]["x-user-id"] == "alice"
    assert "x-internal-role" not in site.asked[0]


# --- key sets


def keyed_gateway(backend: HttpBackend, url: str) -> str:
    """A gateway with one route for tokens of a key set, and the rest open."""
    auth = {"type": "jwt", "jwksUrl": url, "algorithms": ["RS256"], **EXPECTED}
    return gateway_config(
        {"httpListenAddr": ANY, "health": {"enabled": False}},
        pools={"web": {"backends": [backend.address]}},
        routes=[{"name": "open", "pool": "web"},
                {"name": "keyed", "pool": "web", "match": {"pathPrefix": "/keyed"}, "auth": auth}],
    )


def expect(found: object, expected: object) -> None:
    """For threads."""
    assert found == expected


def keyed(client: Client, key: RSAKey, **more: Any) -> int:
    """The status of a request with a token of this key."""
    return client.get("/keyed/x", **bearer(signed(key, "RS256", **more)))[0]


def test_a_new_key_is_fetched_when_it_is_met() -> None:
    """After a rotation the first token of the new key waits for one fetch and passes, in all workers; one of a key that
    the issuer does not have, or no longer has, is refused, and asks for no fetch each time."""
    old, new, unknown = rsa_key("old"), rsa_key("new"), rsa_key("unknown")
    with (
        HttpBackend() as backend, KeyServer(old) as server,
        Gateway(keyed_gateway(backend, server.url)) as gateway,
        a_client_per_worker(gateway, backend, 2) as clients,
    ):
        assert [keyed(client, old) for client in clients] == [200, 200]
        assert server.fetches == 1
        server.keys = [new]
        assert keyed(clients[0], new) == 200
        wait_for(lambda: keyed(clients[1], new) == 200, what="the other worker to have the key")
        assert server.fetches == 2
        in_threads(2, lambda n: expect(keyed(clients[n], old), 401))  # both wait for a fetch that comes too soon
        assert [keyed(client, unknown, sub=str(n)) for client in clients for n in range(5)] == [401] * 10
        assert server.fetches == 2
        wait_for(
            lambda: gateway.metric("gogate_auth_failures_total", route="keyed", reason="unknown_key") == 12,
            what="the counts",
        )


def test_the_last_good_keys_outlive_their_server() -> None:
    """While the key set cannot be fetched, its last keys are used, also by a worker that starts then."""
    key, unknown = rsa_key("one"), rsa_key("two")
    with (
        HttpBackend() as backend, KeyServer(key) as server,
        Gateway(keyed_gateway(backend, server.url)) as gateway,
    ):
        with a_client_per_worker(gateway, backend, 2) as clients:
            assert [keyed(client, key) for client in clients] == [200, 200]
            server.status = 500
            assert keyed(clients[0], unknown) == 401  # and it is fetched, in vain
            wait_for(lambda: server.fetches >= 2 and gateway.logged("key set cannot be fetched"), what="the failure")
            assert [keyed(client, key, sub="bob") for client in clients] == [200, 200]
        kill_9(gateway, 0)
        with a_client_per_worker(gateway, backend, 2) as clients:
            assert [keyed(client, key, sub="carol") for client in clients] == [200, 200]
        assert "hidden-in-the-query" not in json.dumps([gateway.log, gateway.access])


def test_without_keys_nobody_passes() -> None:
    """A key set that was never fetched is 503 and not 401, for any token; once it is there, its tokens pass."""
    key = rsa_key("one")
    with HttpBackend() as backend, KeyServer(key) as server:
        server.status = 503
        with (
            Gateway(keyed_gateway(backend, server.url)) as gateway,
            a_client_per_worker(gateway, backend, 2) as clients,
        ):
            before = backend.requests
            for client in clients:
                for text in (signed(key, "RS256"), signed(rsa_key("two"), "RS256")):
                    status, _, body = client.get("/keyed/x", **bearer(text))
                    assert (status, json.loads(body)["reason"]) == (503, "auth_unavailable")
                assert client.get("/keyed/x")[0] == 401
            assert backend.requests == before
            server.status = 200
            for client in clients:
                wait_for(lambda: keyed(client, key) == 200, 20.0, what="the keys")  # noqa: B023  # called at once
            (told,) = gateway.admin_json("GET", "/stats")["key_sets"]
            assert (told["keys"], told["error"]) == (1, "")
            assert gateway.metric("gogate_local_responses_total", reason="auth_unavailable") >= 4


# --- API keys, Basic


def test_api_keys(site: Site, clients: list[Client]) -> None:
    """A key that gogate hash made passes in the field or the query; the backend gets its name, and not the field."""
    for client in clients:
        before = site.backend.requests
        for status, headers, _ in (client.get("/keys/x"), client.get("/keys/x", X_API_Key=site.api_key[:-1]),
                                   client.get("/keys/x", X_API_Key=""), client.get("/keys/x?api_key=wrong"),
                                   client.get("/keys/x?API_KEY=" + site.api_key)):
            assert (status, headers["WWW-Authenticate"]) == (401, 'ApiKey realm="gogate"')
        assert site.backend.requests == before
        assert client.get("/keys/x?a=1", X_API_Key=site.api_key, X_Client_Name="root")[0] == 200
        assert values(site.backend, b"x-client-name") == [b"ci"]
        assert site.api_key.encode() not in site.backend.heads[-1]
        assert client.get(f"/keys/x?a=1&api_key={site.api_key}", X_Client_Name="root")[0] == 200
        assert values(site.backend, b"x-client-name") == [b"ci"]


def test_a_wrong_key_in_the_field_is_not_mended_by_the_query(site: Site, clients: list[Client]) -> None:
    """Where the field is there, it decides; a query with the parameter twice is no key."""
    good = f"api_key={site.api_key}"
    assert clients[0].get(f"/keys/x?{good}", X_API_Key="wrong")[0] == 401
    assert clients[0].get(f"/keys/x?{good}&api_key=wrong")[0] in (400, 401)


def test_passwords_of_an_htpasswd_file(site: Site, clients: list[Client]) -> None:
    """htpasswd -B lines decide about Basic; the backend gets the user's name and not the password."""
    for client in clients:
        before = site.backend.requests
        wrongs: tuple[dict[str, str], ...] = (
            {}, basic("alice", "wrong"), basic("bob", PASSWORD), basic("alice", ""),
            basic("Alice", PASSWORD), {"Authorization": "Basic not-base64!"}, bearer(token()),
        )  # fmt: skip
        for fields in wrongs:
            status, headers, _ = client.get("/basic/x", **fields)
            assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="internal", charset="UTF-8"')
        assert site.backend.requests == before
        for _ in range(2):  # compared, and remembered
            assert client.get("/basic/x", X_User="root", **basic("alice", PASSWORD))[0] == 200
            assert values(site.backend, b"x-user") == [b"alice"]
            assert values(site.backend, b"authorization") == []


# --- T8: identity fields


SPELLINGS = ("X-User-Id", "x-user-id", "X-USER-ID", "x_user_id", "X_User_Id", "X.User.Id", "X-User.Id", "x_user-id")
IDENTITY = ("x-user-id", "x-roles", "x-plan", "x-client-name", "x-user", "x-internal-role")


@pytest.mark.parametrize("names", ["drop", "keep"])
def test_identity_fields_from_outside_never_arrive(names: str) -> None:
    """Fields that any route's authentication may set are removed on every route, in every spelling and by every way."""
    with HttpBackend() as backend:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False}, "identityHeaders": ["X-Internal-Role"],
             "headerNames": names},
            pools={"web": {"backends": [backend.address]}},
            routes=[
                {"name": "open", "pool": "web"},
                {"name": "tokens", "pool": "web", "match": {"pathPrefix": "/tokens"},
                 "auth": {**HS256, "forwardClaims": {"sub": "X-User-Id"}}},
                {"name": "cached", "pool": "web", "match": {"pathPrefix": "/cached"}, "cache": {"enabled": True}},
                {"name": "edited", "pool": "web", "match": {"pathPrefix": "/edited"}, "stripPrefix": True,
                 "requestHeaders": {"set": {"X-Env": "prod"}}},
            ],
        )
        with Gateway(config) as gateway, contextlib.closing(Client(gateway)) as client:
            for spelling in (*SPELLINGS, "X-Internal-Role", "x_internal.role"):
                for path, more in (("/", {}), ("/cached/x?", {}), ("/edited", {}), ("/tokens", bearer(token()))):
                    for method, body in (("GET", b""), ("POST", b"data")):
                        path = path.replace("?", f"?{spelling}")
                        before = backend.requests
                        client._connection.request(method, path, body or None, {spelling: "root", **more})
                        assert client._connection.getresponse().read() == b"hello from backend\n"
                        assert backend.requests == before + 1
                        head = backend.heads[-1]
                        assert b"root" not in head, (spelling, head)
                        assert values(backend, b"x-user-id") == ([b"alice"] if more else [])
            if names == "keep":  # others are kept in their odd spelling: it was not the spelling that was removed
                client._connection.request("GET", "/", headers={"x_other.id": "kept"})
                client._connection.getresponse().read()
                assert values(backend, b"x_other.id") == [b"kept"]


def test_connection_options_do_not_remove_identity(site: Site, clients: list[Client]) -> None:
    """A client that calls an identity field hop-by-hop does not keep it from the backend."""
    for client in clients:
        fields = {"Connection": "keep-alive, X-User-Id, X-Client-Name, X-User, Authorization"}
        assert client.get("/api/x", **fields, **bearer(token()))[0] == 200
        assert values(site.backend, b"x-user-id") == [b"alice"]
        assert client.get("/keys/x", **fields, X_API_Key=site.api_key)[0] == 200
        assert values(site.backend, b"x-client-name") == [b"ci"]
        assert client.get("/basic/x", **fields, **basic("alice", PASSWORD))[0] == 200
        assert values(site.backend, b"x-user") == [b"alice"]


def test_every_route_of_a_site_removes_them(site: Site, clients: list[Client]) -> None:
    """Each route removes what the other routes set, public ones included."""
    sent = {name.replace("-", "_"): "root" for name in IDENTITY}
    for client in clients:
        passing: list[tuple[str, dict[str, str]]] = [
            ("/", {}), ("/api/health", {}), ("/api/x", bearer(token())),
            ("/pem/x", bearer(signed(site.pem_key, "RS256"))), ("/keys/x", {"X_API_Key": site.api_key}),
            ("/basic/x", basic("alice", PASSWORD)),
        ]  # fmt: skip
        for path, fields in passing:
            assert client.get(path, **sent, **fields)[0] == 200
            assert b"root" not in site.backend.heads[-1]


# --- what is counted, and what is not told


def test_refusals_are_counted_by_reason() -> None:
    """gogate_auth_failures_total has the route and why, over all workers, and nothing for those that passed."""
    key, line = made_api_key()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode().replace("$", "$$")
    forged = token("another-secret-of-32-bytes-or-more-")
    refused = {
        ("api", "missing"): ("/api/x", {}),
        ("api", "malformed"): ("/api/x", bearer("two words")),
        ("api", "bad_signature"): ("/api/x", bearer(forged)),
        ("api", "bad_algorithm"): ("/api/x", bearer(signed(rsa_key(), "RS256"))),
        ("api", "expired"): ("/api/x", bearer(token(exp=int(wall()) - 5))),
        ("api", "bad_claim"): ("/api/x", bearer(token(exp=None))),
        ("api", "not_yet_valid"): ("/api/x", bearer(token(nbf=int(wall()) + 300))),
        ("api", "wrong_issuer"): ("/api/x", bearer(token(iss="other"))),
        ("api", "wrong_audience"): ("/api/x", bearer(token(aud="other"))),
        ("api", "insufficient_scope"): ("/api/x", bearer(token(role="guest"))),
        ("keys", "missing"): ("/keys", {}),
        ("keys", "unknown"): ("/keys", {"X_API_Key": "wrong"}),
        ("basic", "missing"): ("/basic", {}),
        ("basic", "malformed"): ("/basic", {"Authorization": "Basic %%%"}),
        ("basic", "wrong_password"): ("/basic", basic("alice", "wrong")),
    }
    passed = [("/api/x", bearer(token(role="admin"))), ("/keys", {"X_API_Key": key}),
              ("/basic", basic("alice", PASSWORD))]
    with HttpBackend() as backend:
        config = gateway_config(
            {"httpListenAddr": ANY, "health": {"enabled": False},
             "auth": {**HS256, "requireClaims": {"role": "admin"}}},
            pools={"web": {"backends": [backend.address]}},
            routes=[
                {"name": "open", "pool": "web", "auth": {"type": "none"}},
                {"name": "api", "pool": "web", "match": {"pathPrefix": "/api"}},
                {"name": "keys", "pool": "web", "match": {"pathPrefix": "/keys"},
                 "auth": {"type": "api_key", "keys": dict([line.split(":")])}},
                {"name": "basic", "pool": "web", "match": {"pathPrefix": "/basic"},
                 "auth": {"type": "basic", "users": {"alice": hashed}}},
            ],
        )
        with Gateway(config) as gateway, a_client_per_worker(gateway, backend, 2) as clients:
            for client in clients:
                for path, fields in refused.values():
                    assert client.get(path, **fields)[0] in (401, 403), path
                for path, fields in passed:
                    assert client.get(path, **fields)[0] == 200, path

            def counted() -> dict[str, float]:
                name = "gogate_auth_failures_total{"
                return {key: value for key, value in gateway.metrics().items() if key.startswith(name) and value}

            expected = {f'gogate_auth_failures_total{{reason="{reason}",route="{route}"}}': 2.0
                        for route, reason in refused}
            wait_for(lambda: sum(counted().values()) == 2 * len(refused), what="all of them")
            assert {frozenset(re.findall(r'\w+="[^"]*"', key)): value for key, value in counted().items()} == {
                frozenset(re.findall(r'\w+="[^"]*"', key)): value for key, value in expected.items()
            }


def test_access_lines_name_the_reason(site: Site, clients: list[Client]) -> None:
    """The access line of a refused request says unauthorized or forbidden, and which route."""
    clients[0].get("/api/logged-401")
    clients[1].get("/api/admin/logged-403", **bearer(token()))

    def lines() -> dict[str, tuple[Any, ...]]:
        return {line["path"]: (line["status"], line["reason"], line["route"], line["backend"])
                for line in site.gateway.access if "logged-" in line["path"]}

    wait_for(lambda: len(lines()) == 2, what="both lines")
    assert lines() == {
        "/api/logged-401": (401, "unauthorized", "api", ""),
        "/api/admin/logged-403": (403, "forbidden", "api-admin", ""),
    }


def test_no_secret_is_told(site: Site, clients: list[Client]) -> None:
    """Neither logs at level debug, nor metrics, nor the admin API hold a token, a key, a password or their hashes."""
    good, bad = token(sub="mallory"), token("another-secret-of-32-bytes-or-more-", sub="mallory")
    for client in clients:
        for text in (good, bad):
            client.get(f"/api/x?access_token={text}", **bearer(text))
        client.get("/keys/x", X_API_Key=site.api_key)
        client.get(f"/keys/x?api_key={site.api_key}")
        client.get("/keys/x", X_API_Key="a-wrong-key-of-somebody")
        client.get("/basic/x", **basic("alice", PASSWORD))
        client.get("/basic/x", **basic("alice", "a-wrong-password"))
        client.get("/secrets-were-told")

    def told() -> bool:
        return [line["path"] for line in site.gateway.access].count("/secrets-were-told") == 2

    wait_for(told, what="the access lines")
    texts = {"log": json.dumps(site.gateway.log), "access": json.dumps(site.gateway.access)}
    for path in ("/stats", "/routes", "/backends", "/config", "/metrics"):
        status, _, body = site.gateway.admin_request("GET", path)
        assert status in (200, 404)
        texts[path] = body.decode()
    secrets = [SECRET, PASSWORD, site.api_key, "a-wrong-key", "a-wrong-password", "$2y$", "$2b$",
               *good.split("."), *bad.split("."), basic("alice", PASSWORD)["Authorization"].split()[1]]
    for where, text in texts.items():
        for secret in secrets:
            assert secret not in text, (where, secret)


def test_ids_of_this_test_are_of_both_workers(site: Site, clients: list[Client]) -> None:
    """The two kept connections of these tests are to two workers, or they would prove half of what they say."""
    slots = set()
    for client in clients:
        assert client.get("/api/x", **bearer(token()))[0] == 200
        slots.add(slot_of(site.backend))
        assert field_of(site.backend.heads[-1], b"x-user-id") == b"alice"
    assert slots == {0, 1}
