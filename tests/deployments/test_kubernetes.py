"""The Helm chart and the plain manifests: rendered by a real helm for several sets of values, every object valid by
Kubernetes' own schemas, names and ports that fit together, and a configuration that gogate takes."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from doubles.gateway import ROOT
from doubles.helm import helm

from gogate_py import __version__
from gogate_py.cli import main
from gogate_py.config.loader import load_file
from gogate_py.config.schema import Config

CHART = ROOT / "deployments" / "helm" / "gogate"
MANIFESTS = ROOT / "deployments" / "kubernetes"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
#: The oldest that Chart.yaml allows, and the newest whose schemas we have.
KUBERNETES = ("1.25.0", kubernetes_validate.latest_version())
#: Kinds of the Prometheus operator, which Kubernetes has no schema for.
OPERATOR = "monitoring.coreos.com/v1"

Object = dict[str, Any]

#: What the chart is rendered with. "readme" is the override file of GoGate's README.
SETS: dict[str, Object] = {
    "defaults": {},
    "readme": {
        "replicaCount": 3, "backends": [{"addr": "my-service:8080", "weight": 1}],
        "serviceMonitor": {"enabled": True},
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 10},
    },
    "everything": {
        "fullnameOverride": "edge", "backends": ["a:80", {"addr": "b:80", "weight": 5}], "configReload": "rollout",
        "image": {"repository": "registry.test/gogate", "tag": "1.2.3", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}], "serviceAccount": {"name": "sa", "annotations": {"a": "b"}},
        "config": {"workers": 4, "logLevel": "debug", "loadBalancer": {"algorithm": "least_connections"},
                   "rateLimit": {"enabled": True, "rate": 2000000, "burst": 3000000},
                   "health": {"checkType": "http", "httpPath": "/up"}, "tcpPool": {"enabled": True},
                   "extra": {"server": {"retry": {"attempts": 2}, "limits": {"connections": 5000}}}},
        "shutdown": {"drainDelaySeconds": 7, "gracePeriodSeconds": 100, "preStopSleepSeconds": 3},
        "admin": {"existingSecret": "mine"},
        "service": {"type": "NodePort", "annotations": {"x": "y"}, "http": {"port": 80, "nodePort": 30080},
                    "tcp": {"port": 6000, "nodePort": 30060}},
        "ingress": {"enabled": True, "className": "nginx", "annotations": {"x": "y"},
                    "hosts": [{"host": "a.test", "paths": [{"path": "/", "pathType": "Prefix"}]}],
                    "tls": [{"hosts": ["a.test"], "secretName": "tls"}]},
        "networkPolicy": {"enabled": True, "clientsFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                          "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "autoscaling": {"enabled": True, "targetMemoryUtilizationPercentage": None},
        "podDisruptionBudget": {"maxUnavailable": 0}, "startupProbe": None,
        "podAnnotations": {"p": "q"}, "podLabels": {"l": "m"}, "extraEnv": [{"name": "KEY", "value": "v"}],
        "extraVolumes": [{"name": "certs", "secret": {"secretName": "certs"}}],
        "extraVolumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": True}],
        "nodeSelector": {"n": "o"}, "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}]}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "grafanaDashboard": {"enabled": True},
    },
    "pools": {
        "config": {"extra": {"pools": {"api": {"backends": ["api:80"]}, "web": {"service": "web"},
                                       "db": {"backends": ["db:5432"]}},
                             "routes": [{"name": "api", "match": {"pathPrefix": "/api"}, "pool": "api"},
                                        {"name": "web", "pool": "web"},
                                        {"name": "postgres", "type": "tcp", "listenAddr": ":5432", "pool": "db"}]}},
        "service": {"extraPorts": [{"name": "postgres", "port": 15432, "containerPort": 5432}]},
        "networkPolicy": {"enabled": True},
        "podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False}, "admin": {"token": "t0ken"},
    },
}  # fmt: skip
_EACH = pytest.mark.parametrize("name", SETS)


def run(*arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
    """helm, with values on standard input."""
    given = ["-f", "-"] if values is not None else []
    return subprocess.run([helm(), *arguments, *given], input=json.dumps(values), capture_output=True, text=True)


@cache
def rendered(name: str) -> tuple[Object, ...]:
    """Every object of a set."""
    done = run("template", "rel", str(CHART), "--namespace", "ns", values=SETS[name])
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def find(objects: tuple[Object, ...], kind: str, end: str = "") -> Object:
    """The one object of this kind, whose name ends so."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(end)]
    return found


def kinds(name: str) -> list[str]:
    """What a set renders."""
    return sorted(one["kind"] for one in rendered(name))


def container(name: str) -> Object:
    """gogate's container."""
    (only,) = find(rendered(name), "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def configuration(objects: tuple[Object, ...], tmp_path: Path) -> Config:
    """The configuration of a rendered ConfigMap, as gogate in the pod loads it; gogate check has nothing against it."""
    maps = [one for one in objects if one["kind"] == "ConfigMap" and "config.yaml" in one["data"]]
    path = tmp_path / "config.yaml"
    path.write_text(maps[0]["data"]["config.yaml"])
    env = {"GOGATE_ADMIN_TOKEN": "t"}
    checked = CliRunner(env=env).invoke(main, ["check", "-config", str(path)])
    assert checked.exit_code == 0, checked.output
    return load_file(str(path), env)


# --- the chart


def test_lint() -> None:
    """helm lint --strict, with the defaults and with everything."""
    for values in SETS.values():
        done = run("lint", "--strict", str(CHART), values=values)
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions() -> None:
    """The chart installs the gogate that it came with."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
    assert container("defaults")["image"].endswith(f":{__version__}")


@_EACH
def test_objects_are_valid(name: str) -> None:
    """By the strict schemas of the oldest and the newest Kubernetes; names are unique, the namespace is given."""
    objects = rendered(name)
    identities = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(identities)) == len(identities)
    for one in objects:
        assert one["metadata"]["namespace"] == "ns"
        for version in KUBERNETES if one["apiVersion"] != OPERATOR else ():
            kubernetes_validate.validate(one, version, strict=True)


@_EACH
def test_the_configuration_is_one(name: str, tmp_path: Path) -> None:
    """gogate loads it; its ports are those of the container, its shutdown fits into the pod's."""
    config = configuration(rendered(name), tmp_path)
    declared = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    server = config.server
    written = {"http": server.http_listen_addr, "admin": server.admin.listen_addr,
               "metrics": server.metrics.listen_addr}
    if server.listen_addr:
        written["tcp"] = server.listen_addr
    written |= {route.name: route.listen_addr for route in config.routes if route.type == "tcp"}
    for port, address in written.items():
        assert address == f":{declared[port]}"
    pod = find(rendered(name), "Deployment")["spec"]["template"]["spec"]
    sleep = int(container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
    needed = sleep + server.shutdown.drain_delay + server.shutdown.grace_period
    assert pod["terminationGracePeriodSeconds"] == needed + 10


@_EACH
def test_names_lead_somewhere(name: str) -> None:
    """Selectors select the pods, ports are the container's by name, the Secret and the ConfigMap exist or are named."""
    objects = rendered(name)
    deployment = find(objects, "Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    ports = {port["name"] for port in container(name)["ports"]}
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    for one in objects:
        if one["kind"] == "Service":
            selectors.append(one["spec"]["selector"])
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
        elif one["kind"] == "PodDisruptionBudget":
            selectors.append(one["spec"]["selector"]["matchLabels"])
        elif one["kind"] == "NetworkPolicy":
            selectors.append(one["spec"]["podSelector"]["matchLabels"])
            assert {port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]} == ports
        elif one["kind"] == "HorizontalPodAutoscaler":
            assert one["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        elif one["kind"] == "Ingress":
            backend = one["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
            service = find(objects, "Service", deployment["metadata"]["name"])
            assert backend["name"] == service["metadata"]["name"]
            assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert all(selector.items() <= labels.items() for selector in selectors)
    secret = container(name)["env"][0]["valueFrom"]["secretKeyRef"]
    here = [one for one in objects if one["kind"] == "Secret"]
    assert secret["key"] == "token"
    assert secret["name"] == (here[0]["metadata"]["name"] if here else "mine")
    (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "config"]
    assert find(objects, "ConfigMap", volume["configMap"]["name"])
    assert pod["spec"]["serviceAccountName"] in {
        "default", *(one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount")}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe in container(name):
            assert container(name)[probe]["httpGet"]["port"] in ports


@_EACH
def test_pods_can_do_little(name: str) -> None:
    """No root, no writable root file system, no capabilities, no token of the cluster, no variables of Services."""
    pod = find(rendered(name), "Deployment")["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (user,) = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert not any("subPath" in mount for mount in container(name)["volumeMounts"])


def test_what_each_set_renders() -> None:
    """Only what is asked for."""
    always = ["ConfigMap", "Deployment", "Service", "Service"]
    assert kinds("defaults") == sorted([*always, "PodDisruptionBudget", "Secret", "ServiceAccount"])
    assert kinds("pools") == sorted([*always, "Secret", "NetworkPolicy"])
    assert kinds("readme") == sorted(
        [*always, "PodDisruptionBudget", "Secret", "ServiceAccount", "ServiceMonitor", "HorizontalPodAutoscaler"])
    assert kinds("everything") == sorted(
        [*always, "ConfigMap", "PodDisruptionBudget", "ServiceAccount", "ServiceMonitor", "HorizontalPodAutoscaler",
         "Ingress", "NetworkPolicy", "PrometheusRule"])


def test_values_arrive(tmp_path: Path) -> None:
    """What the values say is what is served, config.extra included; replicas are the autoscaler's when there is one."""
    config = configuration(rendered("everything"), tmp_path)
    server = config.server
    assert (server.workers, server.load_balancer.type, server.limits.connections) == (4, "least_connections", 5000)
    (limit,) = server.rate_limit
    assert (limit.rate, limit.burst) == (2_000_000, 3_000_000)
    assert (server.health.check_type, server.health.http_path) == ("http", "/up")
    assert [(one.addr, one.weight) for one in server.backends] == [("a:80", 1), ("b:80", 5)]
    assert "edge-admin.ns.svc" in server.admin.allowed_hosts
    assert "replicas" not in find(rendered("everything"), "Deployment")["spec"]
    assert find(rendered("defaults"), "Deployment")["spec"]["replicas"] == 2
    assert set(configuration(rendered("pools"), tmp_path).effective_pools()) == {"api", "db", "web"}


def test_the_admin_service_has_pods_that_are_not_ready() -> None:
    """The one for admin and metrics; clients' traffic only gets to ready ones."""
    admin = find(rendered("defaults"), "Service", "-admin")
    assert admin["spec"]["publishNotReadyAddresses"] is True
    assert {port["name"] for port in admin["spec"]["ports"]} == {"admin", "metrics"}
    clients = find(rendered("defaults"), "Service", "gogate")
    assert "publishNotReadyAddresses" not in clients["spec"]
    monitor = find(rendered("everything"), "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= find(
        rendered("everything"), "Service", "-admin")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == "metrics"
    assert "gogate" in admin["metadata"]["labels"][monitor["jobLabel"]], "the alerts look for it in the job"


def test_a_changed_configuration() -> None:
    """live: the same pods read it; rollout: other pods."""
    def annotations(reload: str, algorithm: str) -> Object:
        values = {"configReload": reload, "config": {"loadBalancer": {"algorithm": algorithm}}}
        done = run("template", "rel", str(CHART), "-s", "templates/deployment.yaml", values=values)
        found: Object = yaml.safe_load(done.stdout)["spec"]["template"]["metadata"].get("annotations", {})
        return found

    assert annotations("live", "random") == annotations("live", "p2c") == {}
    first, second = annotations("rollout", "random"), annotations("rollout", "p2c")
    assert first.keys() == {"checksum/config"}
    assert first != second


def test_rules_and_dashboard_are_the_repository_s() -> None:
    """PrometheusRule and the dashboard's ConfigMap hold what deployments/ has."""
    groups = find(rendered("everything"), "PrometheusRule")["spec"]["groups"]
    files = [ROOT / "deployments/prometheus" / name for name in ("recording.yaml", "alerts.yaml")]
    assert groups == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    shown = find(rendered("everything"), "ConfigMap", "-dashboard")["data"]["gogate-overview.json"]
    path = ROOT / "deployments/grafana/dashboards/gogate-overview.json"
    assert json.loads(shown) == json.loads(path.read_text())


@pytest.mark.parametrize(
    "values",
    [
        {"replicaCounts": 3}, {"config": {"loglevel": "info"}}, {"config": {"loadBalancer": {"algorithm": "x"}}},
        {"service": {"http": {"port": 0}}}, {"autoscaling": {"maxReplicas": "many"}}, {"admin": {"token": "a b"}},
        {"configReload": "never"}, {"backends": [{"address": "a:80"}]}, {"config": {"health": {"interval": "soon"}}},
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_in_values_are_refused(values: Object) -> None:
    """values.schema.json names what is wrong."""
    done = run("template", "rel", str(CHART), values=values)
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_the_schema_has_every_value() -> None:
    """Each value has its place in the schema, and the other way round; nothing else is let through."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Object, node: Object, where: str) -> None:
        known = node.get("properties")
        if known is None:
            return
        assert node["additionalProperties"] is False, where
        assert values.keys() == known.keys() - {"global"}, where
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, known[key], f"{where}.{key}")

    compare(VALUES, schema, "values")


# --- the plain manifests


def test_manifests_are_the_chart_s() -> None:
    """gogate.yaml is what render.sh makes now."""
    done = run("template", "gogate", str(CHART), "--namespace", "gogate",
               values=yaml.safe_load((MANIFESTS / "values.yaml").read_text()))
    text = re.sub(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", "", done.stdout, flags=re.MULTILINE)
    text = re.sub(r"^ *namespace: gogate\n", "", text, flags=re.MULTILINE)
    expected = [one for one in yaml.safe_load_all(text) if one]
    committed = [one for one in yaml.safe_load_all((MANIFESTS / "gogate.yaml").read_text()) if one]
    assert committed == expected, "run deployments/kubernetes/render.sh"


def test_manifests_are_valid(tmp_path: Path) -> None:
    """By the schemas; the Secret that they need is the one that the comment makes; gogate takes the configuration."""
    text = (MANIFESTS / "gogate.yaml").read_text()
    objects = tuple(one for one in yaml.safe_load_all(text) if one)
    for one in objects:
        for version in KUBERNETES:
            kubernetes_validate.validate(one, version, strict=True)
    assert configuration(objects, tmp_path).server.backends[0].addr == "my-service:8080"
    pod = find(objects, "Deployment")["spec"]["template"]["spec"]
    secret = pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]
    assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in text
