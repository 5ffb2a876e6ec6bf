"""Rules, alerts and dashboard are true: promtool accepts them, their metrics exist, and a real Prometheus that scrapes
a real gogate answers every one of their queries."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trustme
import yaml
from conftest import need_program
from doubles.configs import ANY, gateway_config
from doubles.gateway import ROOT, Gateway, echo_server, wait_for
from doubles.http_backend import HttpBackend
from doubles.servers import free_port, prometheus

from gogate_py.telemetry.metrics import CATALOGUE

RULES = ROOT / "deployments" / "prometheus"
RECORDING, ALERTS = RULES / "recording.yaml", RULES / "alerts.yaml"
DASHBOARD = json.loads((ROOT / "deployments/grafana/dashboards/gogate-overview.json").read_text())
PROVISIONING = ROOT / "deployments" / "grafana" / "provisioning"

#: What Grafana fills in.
_VARIABLES = {"$job": ".*", "$instance": ".*", "$route": ".*", "$pool": ".*", "$__rate_interval": "1m"}
_NAME = re.compile(r"\bgogate_[a-z_]+\b")
_RECORDED = re.compile(r"\b[a-z_]+:gogate_[a-z_]+:[a-z0-9_]+\b")


def rules(path: Path) -> list[dict[str, Any]]:
    """Every rule of a file."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def panel_queries() -> list[tuple[str, str]]:
    """(title, query as Prometheus gets it) of the whole dashboard."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in _VARIABLES.items():
                query = query.replace(name, value)
            found.append((panel["title"], query))
    return found


def every_query() -> list[str]:
    """All that is asked anywhere."""
    return [*(rule["expr"] for rule in rules(RECORDING) + rules(ALERTS)), *(query for _, query in panel_queries())]


# --- without a server


def test_promtool_accepts_the_rules() -> None:
    """promtool check rules, with its lint."""
    command = [need_program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RECORDING), str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_alerts_fire_when_they_should() -> None:
    """promtool test rules: the cases of alerts.test.yaml, those where nothing must fire included."""
    command = [need_program("promtool"), "test", "rules", str(RULES / "alerts.test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_of_the_compose_file_is_one(tmp_path: Path) -> None:
    """promtool check config accepts it, its rules included."""
    text = (ROOT / "deployments/docker/prometheus.yaml").read_text()
    for name in ("recording.yaml", "alerts.yaml"):
        assert f"/etc/prometheus/rules/{name}" in text
    path = tmp_path / "prometheus.yaml"
    path.write_text(text.replace("/etc/prometheus/rules", str(RULES)))
    done = subprocess.run([need_program("promtool"), "check", "config", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("query", every_query())
def test_names_in_queries_exist(query: str) -> None:
    """Metrics are those of the catalogue (with a histogram's suffixes), recorded series those of recording.yaml."""
    recorded = {rule["record"] for rule in rules(RECORDING)}
    assert set(_RECORDED.findall(query)) <= recorded
    known = set(CATALOGUE)
    known |= {f"{m.name}{end}" for m in CATALOGUE.values() if m.kind == "histogram" for end in ("_bucket", "_count")}
    assert set(_NAME.findall(_RECORDED.sub("", query))) <= known


def test_labels_in_queries_exist() -> None:
    """A selector or grouping names labels that the metric has; those of the scrape are job and instance."""
    for query in every_query():
        for name, selector in re.findall(r"\b(gogate_[a-z_]+)\{([^}]*)\}", query):
            labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))
            metric = CATALOGUE.get(name) or CATALOGUE[name.removesuffix("_bucket")]
            assert labels - {"job", "instance"} <= set(metric.labels), query


def test_alerts_say_what_to_do() -> None:
    """Every alert has a severity, a summary and a description."""
    names = [rule["alert"] for rule in rules(ALERTS)]
    assert len(set(names)) == len(names)
    for rule in rules(ALERTS):
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    """Ids are unique, panels do not overlap, variables that are used are defined, Grafana finds it."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & mine, panel["title"]
        cells |= mine
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?([a-z_]+)", json.dumps(DASHBOARD))) - {"__all"} <= defined
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/gogate.yaml").read_text())["providers"]
    compose = (ROOT / "deployments/docker/docker-compose.yaml").read_text()
    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in compose
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


# --- with one


class Prometheus:
    """The API of a running one."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; fails with Prometheus' own words."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", (answer, query)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def number(self, expression: str) -> float | None:
        """The value of an expression with one series, None without any."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


def _busy_configuration(good: str, bad: str, echo: str, folder: Path) -> str:
    """Something of everything that the dashboard shows."""
    issued = trustme.CA().issue_cert("db.test")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "key.pem").chmod(0o600)
    certificate = {"certFile": str(folder / "cert.pem"), "keyFile": str(folder / "key.pem")}
    return gateway_config(
        {"httpListenAddr": ANY, "metrics": {"listenAddr": ANY}, "registry": {"enabled": True},
         "health": {"interval": "100ms", "unhealthyThreshold": 1}, "tcpPool": {"enabled": True, "maxIdle": 1}},
        pools={"web": {"backends": [good]}, "failing": {"backends": [bad], "health": {"enabled": False},
                                                         "circuitBreaker": {"enabled": True, "failureThreshold": 12}},
               "mixed": {"backends": [bad, good], "health": {"enabled": False}},
               "dead": {"backends": [f"127.0.0.1:{free_port()}"]}, "echo": {"backends": [echo]}},
        routes=[
            {"name": "web", "pool": "web"},
            {"name": "failing", "match": {"pathPrefix": "/failing"}, "pool": "failing"},
            {"name": "dead", "match": {"pathPrefix": "/dead"}, "pool": "dead"},
            {"name": "canary", "match": {"pathPrefix": "/split"}, "split": [{"pool": "web", "weight": 9},
                                                                          {"pool": "failing", "weight": 1}]},
            {"name": "limited", "match": {"path": "/limited"}, "pool": "web",
             "rateLimit": {"rate": 0.001, "burst": 1}},
            {"name": "cached", "match": {"path": "/cached"}, "pool": "web", "cache": {"enabled": True}},
            {"name": "keys", "match": {"path": "/keys"}, "pool": "web",
             "auth": {"type": "api_key", "keys": {"me": "0" * 64}}},
            {"name": "private", "match": {"path": "/private"}, "pool": "web", "denyCIDRs": ["0.0.0.0/0"]},
            {"name": "retrying", "match": {"path": "/retrying"}, "pool": "mixed",
             "retry": {"attempts": 2, "on": [503]}},
            {"name": "echo", "type": "tcp", "listenAddr": ANY, "pool": "echo"},
            {"name": "db", "type": "tcp", "listenAddr": ANY, "pool": "echo", "tls": {"certificates": [certificate]}},
        ],
    )  # fmt: skip


def _traffic(gateway: Gateway) -> None:
    for path in ("/", "/", "/split", "/limited", "/limited", "/cached", "/keys", "/private", "/dead",
                 *["/retrying"] * 8, *["/failing"] * 6):  # fmt: skip
        gateway.get(path)
    with contextlib.ExitStack() as stack:  # more at once than there are ready connections
        for _ in range(8):
            sock = stack.enter_context(socket.create_connection(gateway.address("tcp:echo"), timeout=10))
            sock.sendall(b"ping")
            assert sock.recv(10) == b"ping"
    with (
        socket.create_connection(gateway.address("tcp:db"), timeout=10) as sock,
        ssl._create_unverified_context().wrap_socket(sock, server_hostname="db.test") as secure,
    ):
        secure.sendall(b"ping")
        assert secure.recv(10) == b"ping"
    instance = {"id": "one", "name": "nobody", "address": "127.0.0.1:9"}
    assert gateway.admin_request("POST", "/v1/services", instance)[0] < 300


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a gateway under traffic often enough for rates, with all rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yaml"
    with (
        HttpBackend("good") as good, HttpBackend("bad") as bad, echo_server() as (host, port),
        Gateway(_busy_configuration(good.address, bad.address, f"{host}:{port}", folder)) as gateway,
    ):
        bad.status = 503
        settings = yaml.safe_load((ROOT / "deployments/docker/prometheus.yaml").read_text())
        settings["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        settings["rule_files"] = [str(RECORDING), str(ALERTS)]
        settings["scrape_configs"][0]["static_configs"][0]["targets"] = [gateway.metrics_address]
        config.write_text(yaml.safe_dump(settings))
        _traffic(gateway)
        with prometheus(config) as port:
            server = Prometheus(port)

            def settled() -> bool:
                # A rate is there when a series has grown between two scrapes; when it is new that takes another round.
                _traffic(gateway)
                return all(server.query(query) for query in expected)

            expected = [rule["record"] for rule in rules(RECORDING)]
            expected += ["gogate_circuit_breaker_opened_total"]
            expected += ['job_route:gogate_errors:ratio_rate5m{route="failing"} == 1']
            wait_for(settled, 30.0, "rates")
            yield server


@pytest.mark.slow
def test_prometheus_reads_every_metric(scraped: Prometheus) -> None:
    """Each metric of the catalogue has arrived with its type and help."""
    known = scraped.get("metadata", limit="1000")
    for metric in CATALOGUE.values():
        family = metric.name.removesuffix("_total")  # so OpenMetrics calls a counter, which Prometheus asks for
        assert [(one["type"], one["help"]) for one in known[family]] == [(metric.kind, metric.help)]


@pytest.mark.slow
def test_every_panel_shows_something(scraped: Prometheus) -> None:
    """Every query of the dashboard has an answer under this traffic; what nothing happened for is named here."""
    nothing = {
        'sum by (route) (rate(gogate_retries_denied_total{job=~".*",instance=~".*"}[1m]))',
        'sum by (listener, reason) (rate(gogate_connections_refused_total{job=~".*",instance=~".*"}[1m]))',
        'sum by (pool) (gogate_pool_waiting{job=~".*",instance=~".*",pool=~".*"})',
        'sum by (pool) (rate(gogate_pool_wait_timeouts_total{job=~".*",instance=~".*",pool=~".*"}[1m]))',
        'sum by (pool, backend) (increase(gogate_outlier_ejections_total{job=~".*",instance=~".*",pool=~".*"}[1m]))',
    }
    assert {query for _, query in panel_queries()} >= nothing
    silent = [query for _, query in panel_queries() if query not in nothing and not scraped.query(query)]
    assert silent == []


@pytest.mark.slow
def test_every_rule_is_evaluated(scraped: Prometheus) -> None:
    """Prometheus runs every rule without an error; those that can have a value after a minute have one."""
    def loaded() -> list[dict[str, Any]]:
        groups = scraped.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_for(lambda: all(rule["health"] != "unknown" for rule in loaded()), 20.0, "every rule to be evaluated")
    assert [rule["lastError"] for rule in loaded() if rule["health"] != "ok"] == []
    assert len(loaded()) == len(rules(RECORDING)) + len(rules(ALERTS))
    unanswered = [rule["record"] for rule in rules(RECORDING) if not scraped.query(rule["record"])]
    assert unanswered == []


@pytest.mark.slow
def test_the_numbers_are_right(scraped: Prometheus) -> None:
    """What is recorded is what happened: the dead pool is not usable, the failing route fails, alerts are pending."""
    usable = 'job_instance_pool:gogate_backends_usable:ratio{pool="%s"}'
    wait_for(lambda: scraped.number(usable % "dead") == 0, 20.0, "the dead pool")
    assert scraped.number(usable % "web") == 1
    assert scraped.number('job_route:gogate_errors:ratio_rate5m{route="failing"}') == 1
    saturation = scraped.number('job_instance_worker:gogate_fds:saturation{worker="0"}')
    assert saturation is not None
    assert 0 < saturation < 1

    def pending() -> set[str]:
        return {one["labels"]["alertname"] for one in scraped.get("alerts")["alerts"]}

    wait_for(lambda: {"GogatePoolWithoutBackends", "GogateBackendDown"} <= pending(), 20.0, "the alerts")
    assert not pending() & {"GogateDown", "GogateConfigurationRefused", "GogateWorkersDie", "GogateInternalErrors"}
    left = scraped.number("min(gogate_tls_certificate_expiry_seconds) - time()")
    assert left is not None
    assert left > 86400
