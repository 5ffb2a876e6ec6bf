"""Advice about who may do what: the operator's listeners, trusted networks, secrets.

    GG050  admin or registry listener beyond this machine, no token
    GG051  0.0.0.0/0 or ::/0 in trustedProxies
    GG052  a secret, or the token, without a variable
    GG053  jwt, api_key or basic on an HTTP listener beyond this machine, no TLS here and no proxy in front
    GG054  0.0.0.0/0 or ::/0 in registry.allowCIDRs
    GG055  auth.query
    GG056  insecureSkipVerify where TLS is spoken
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from gogate_py import addresses
from gogate_py.config.advice_pools import written
from gogate_py.config.advice_traffic import http_routes
from gogate_py.config.authentication import auth_of
from gogate_py.config.listeners import http_listeners, serves
from gogate_py.config.problems import Findings, Path
from gogate_py.config.schema import Config

_SERVER: Final[Path] = ("server",)


def advise_access(config: Config, findings: Findings) -> None:
    """Add what is to be said of access."""
    server = config.server
    admin, registry = server.admin, server.registry
    if not admin.token:
        if admin.enabled and reachable_from_outside(admin.listen_addr):
            findings.advise(
                (*_SERVER, "admin", "listenAddr"), "GG050", "other hosts can read the state of gogate, and their "
                "changes are refused: there is no token", "set server.admin.token, or listen on 127.0.0.1")
        if registry.enabled and registry.listen_addr and reachable_from_outside(registry.listen_addr):
            findings.advise(
                (*_SERVER, "registry", "listenAddr"), "GG050", "services on other hosts cannot register: there is no "
                "token", "set server.admin.token, or listen on 127.0.0.1")
    _advise_everybody(server.trusted_proxies, (*_SERVER, "trustedProxies"), "GG051", "every client is believed what it "
                      "says of its address: limits by ip and allowCIDRs stop nobody", "name your own proxies", findings)
    _advise_everybody(registry.allow_cidrs, (*_SERVER, "registry", "allowCIDRs"), "GG054", "whoever may register can "
                      "make gogate ask any address", "name the networks of your services", findings)
    for path in _secrets(config):
        if findings.in_clear(path):
            findings.hide(path)
            variable = f"{path[-2]}_{path[-1]}".upper()
            findings.advise(
                path, "GG052", "a secret stands in the file itself: whoever reads the file has it",
                f'write it as "${{{variable}}}" and set that variable')
    _advise_auth(config, findings)
    for name, pool in config.effective_pools().items():
        tls = pool.backend_tls
        if tls.insecure_skip_verify and (tls.enabled or any(backend.tls for backend in pool.backends)):
            own: Path = ("pools", name, "tls", "insecureSkipVerify")
            findings.advise(
                own if findings.given(own) else (*_SERVER, "backendTLS", "insecureSkipVerify"), "GG056",
                "whoever is on the way to a backend can take its place: certificates are not looked at",
                "name the authority of the backends in caFile", at="key")


def reachable_from_outside(listen_addr: str) -> bool:
    """Whether other hosts may reach a listener. A name other than localhost may be anything: it counts."""
    address = addresses.parse(listen_addr, allow_port_zero=True)
    if address.is_unix or address.host.lower() == "localhost":
        return False
    return not (addresses.is_ip(address.host) and ipaddress.ip_address(address.host).is_loopback)


def _advise_everybody(
    networks: tuple[str, ...], path: Path, code: str, message: str, fix: str, findings: Findings
) -> None:
    for number, network in enumerate(networks):
        if network.endswith("/0"):
            findings.advise((*path, number), code, f"{network} is everybody: {message}", fix)


def _secrets(config: Config) -> Iterator[Path]:
    """Where secrets are that are not hashes."""
    if config.server.admin.token:
        yield (*_SERVER, "admin", "token")
    yield (*_SERVER, "auth", "secret")
    for number in range(len(config.routes)):
        yield ("routes", number, "auth", "secret")
        yield ("routes", number, "sticky", "secret")


def _advise_auth(config: Config, findings: Findings) -> None:
    in_clear = [
        one for one in http_listeners(config)
        if one.tls is None and reachable_from_outside(one.address) and not config.server.trusted_proxies]
    for path, route in http_routes(config):
        auth = route.auth
        if auth is None or auth_of(route) == "none":
            continue
        at = written(findings, path, "auth")
        if any(serves(one, route) for one in in_clear):
            findings.advise(
                at, "GG053", "credentials come over connections without TLS: whoever is on the way can read them",
                "terminate TLS here, or in a proxy in front, and name that in server.trustedProxies", at="key")
        if auth.query:
            findings.advise(
                (*at, "query"), "GG055", "keys in queries end up in logs and in the history of browsers",
                "take keys from a header field", at="key")
