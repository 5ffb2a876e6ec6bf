"""The configurations of the peers: each forwards HTTP, HTTPS and, where it can, TCP to one backend each, over kept
connections (up to 512 where there is a bound), and streams bodies (nothing is written to a disk). No peer writes an
access log; only gogate does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class Ports(NamedTuple):
    """Where a proxy listens on 127.0.0.1; ``admin`` is gogate's."""

    http: int
    https: int
    tcp: int
    admin: int


class Setup(NamedTuple):
    """What one run of a proxy is told. ``certificate`` and ``key`` are PEM files; ``connections`` is its share of the
    descriptors that it may have, two for each."""

    folder: Path
    ports: Ports
    web: int
    echo: int
    certificate: Path
    key: Path
    workers: int = 1
    connections: int = 1000


def nginx(setup: Setup, modules: Path | None, stream: bool) -> str:
    """nginx.conf; ``modules`` is where its stream module is, if that must be loaded."""
    folder, ports = setup.folder, setup.ports
    load = f"load_module {modules}/ngx_stream_module.so;\n" if modules else ""
    relay = f"""\
stream {{
    server {{ listen 127.0.0.1:{ports.tcp}; proxy_pass 127.0.0.1:{setup.echo}; }}
}}
"""
    return f"""\
{load}daemon off;
worker_processes {setup.workers};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections {2 * setup.connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 0;
    upstream web {{ server 127.0.0.1:{setup.web}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{ports.http} backlog=4096;
        listen 127.0.0.1:{ports.https} ssl backlog=4096;
        ssl_certificate {setup.certificate};
        ssl_certificate_key {setup.key};
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
{relay if stream else ""}"""


def haproxy(setup: Setup, splice: bool) -> str:
    """haproxy.cfg; ``splice``: always, instead of where it thinks that pays."""
    ports = setup.ports
    options = "option splice-request\n    option splice-response" if splice else "option splice-auto"
    return f"""\
global
    nbthread {setup.workers}
    maxconn {setup.connections}
    maxpipes 100
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    {options}
    http-reuse always
frontend web
    bind 127.0.0.1:{ports.http}
    bind 127.0.0.1:{ports.https} ssl crt {setup.folder}/both.pem
    option forwardfor
    default_backend web
backend web
    server one 127.0.0.1:{setup.web}
frontend echo
    mode tcp
    bind 127.0.0.1:{ports.tcp}
    default_backend echo
backend echo
    mode tcp
    server one 127.0.0.1:{setup.echo}
"""


def envoy(setup: Setup) -> str:
    """envoy.yaml."""
    types = "type.googleapis.com/envoy.extensions"
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "web", "timeout": "0s"}}]}]  # fmt: skip
    manager = ("envoy.filters.network.http_connection_manager", {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "http",
        "route_config": {"virtual_hosts": hosts}, "http_filters": [router], "use_remote_address": True,
    })  # fmt: skip
    relay = ("envoy.filters.network.tcp_proxy", {
        "@type": f"{types}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "echo",
    })  # fmt: skip
    pair = {"certificate_chain": {"filename": str(setup.certificate)}, "private_key": {"filename": str(setup.key)}}
    tls = {"name": "tls", "typed_config": {
        "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pair]}}}  # fmt: skip

    def listener(name: str, port: int, named: tuple[str, dict[str, Any]], chain: dict[str, Any]) -> dict[str, Any]:
        filters = [{"name": named[0], "typed_config": named[1]}]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        return {"name": name, "address": address, "filter_chains": [{"filters": filters, **chain}]}

    def cluster(name: str, port: int) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        room = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
        return {"name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [room]},
                "load_assignment": {"cluster_name": name, "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address}}]}]}}  # fmt: skip

    return yaml.safe_dump({"static_resources": {
        "listeners": [
            listener("http", setup.ports.http, manager, {}),
            listener("https", setup.ports.https, manager, {"transport_socket": tls}),
            listener("tcp", setup.ports.tcp, relay, {}),
        ],
        "clusters": [cluster("web", setup.web), cluster("echo", setup.echo)],
    }}, sort_keys=False)  # fmt: skip


def traefik(setup: Setup) -> tuple[str, str]:
    """Its static configuration, and the one of routers and services."""
    points = {"web": setup.ports.http, "secure": setup.ports.https, "echo": setup.ports.tcp}
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "entryPoints": {name: {"address": f"127.0.0.1:{port}"} for name, port in points.items()},
        "serversTransport": {"maxIdleConnsPerHost": 512},
        "providers": {"file": {"filename": f"{setup.folder}/routes.yaml", "watch": False}},
    }
    match_all = "PathPrefix(`/`)"
    routes = {
        "http": {
            "routers": {
                "web": {"entryPoints": ["web"], "rule": match_all, "service": "web"},
                "secure": {"entryPoints": ["secure"], "rule": match_all, "service": "web", "tls": {}},
            },
            "services": {"web": {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{setup.web}"}]}}},
        },
        "tcp": {
            "routers": {"echo": {"entryPoints": ["echo"], "rule": "HostSNI(`*`)", "service": "echo"}},
            "services": {"echo": {"loadBalancer": {"servers": [{"address": f"127.0.0.1:{setup.echo}"}]}}},
        },
        "tls": {"certificates": [{"certFile": str(setup.certificate), "keyFile": str(setup.key)}]},
    }
    return yaml.safe_dump(static, sort_keys=False), yaml.safe_dump(routes, sort_keys=False)


def caddy(setup: Setup) -> str:
    """Caddyfile. It relays no TCP."""
    return f"""\
{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    default_bind 127.0.0.1
}}
(backend) {{
    reverse_proxy 127.0.0.1:{setup.web} {{
        transport http {{
            keepalive_idle_conns_per_host 512
        }}
    }}
}}
http://:{setup.ports.http} {{
    import backend
}}
https://:{setup.ports.https} {{
    tls {setup.certificate} {setup.key}
    import backend
}}
"""


def aiohttp(setup: Setup) -> str:
    """The settings of aiohttp_proxy.py."""
    return json.dumps({"workers": setup.workers, "http": setup.ports.http, "https": setup.ports.https,
                       "web": setup.web, "certificate": str(setup.certificate), "key": str(setup.key)})  # fmt: skip


def gogate(setup: Setup, variant: str = "", many: int = 1) -> str:
    """config.yaml: a limit per client, a breaker, metrics, probes and the access log are on. ``variant`` is what the
    rows of scaling need ``many`` of: "routes", "backends" (balanced by "least" connections), "keys" of the limit."""
    ports = setup.ports
    limit = {"enabled": True, "rate": 1_000_000_000, "burst": 1_000_000_000,
             "keyBy": "header:X-Key" if variant == "keys" else "ip"}  # fmt: skip
    backends = [f"127.0.0.1:{setup.web}"]
    if variant in ("backends", "least"):
        backends = [f"127.0.{number // 250}.{1 + number % 250}:{setup.web}" for number in range(many)]
    web: dict[str, Any] = {"backends": backends}
    if variant == "least":
        web["loadBalancer"] = "least_connections"
    routes = [{"name": "web", "match": {"pathPrefix": "/"}, "pool": "web"}]
    if variant == "routes":
        routes += [
            {"name": f"web-{n}", "match": {"pathPrefix": f"/route-{n}"}, "pool": "web"} for n in range(many)
        ]  # fmt: skip
    return yaml.safe_dump({
        "server": {
            "workers": setup.workers,
            "httpListenAddr": f"127.0.0.1:{ports.http}",
            "limits": {"connectionsPerClient": 20_000},  # all of the load comes from one address
            "rateLimit": limit,
            "circuitBreaker": {"enabled": True},
            "httpTransport": {"maxIdleConnsPerHost": 512},
            "health": {"enabled": True},
            "admin": {"listenAddr": f"127.0.0.1:{ports.admin}"},
            "metrics": {"enabled": True},
        },
        "listeners": [{
            "name": "https", "listenAddr": f"127.0.0.1:{ports.https}", "type": "http",
            "tls": {"certificates": [{"certFile": str(setup.certificate), "keyFile": str(setup.key)}]},
        }],
        "pools": {"web": web, "echo": {"backends": [f"127.0.0.1:{setup.echo}"]}},
        "routes": [*routes, {"name": "echo", "type": "tcp", "listenAddr": f"127.0.0.1:{ports.tcp}", "pool": "echo"}],
        "logging": {"level": "info", "format": "json", "access": {"enabled": True, "path": "-"}},
    }, sort_keys=False)  # fmt: skip
