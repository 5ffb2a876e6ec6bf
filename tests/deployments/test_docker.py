"""Dockerfile and docker-compose.yaml against the repository: every path, port, flag and name in them.

No Docker engine runs here: what they say is read and checked piece by piece, and what can run without an engine is run
(the wheel from exactly the files that the image gets, gogate on a read-only file system, the health check's command).
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from doubles.gateway import ROOT
from doubles.servers import free_port, running

from gogate_py.cli import main
from gogate_py.config.loader import load_text
from gogate_py.config.schema import Config
from gogate_py.demo import http_backend

FOLDER = ROOT / "deployments" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and arguments, continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments(name: str) -> list[str]:
    """The arguments of every instruction with this name."""
    return [rest for one, rest in instructions() if one == name]


def copied() -> Iterator[str]:
    """Every path of the repository that gets into an image or its build."""
    for rest in arguments("COPY"):
        if not rest.startswith("--from="):
            yield from rest.split()[:-1]


def ports(config: Config) -> set[int]:
    """The ports that a configuration listens on."""
    server = config.server
    written = (server.listen_addr, server.http_listen_addr, server.admin.listen_addr, server.metrics.listen_addr)
    return {int(address.rpartition(":")[2]) for address in written if address}


def parsed(command: list[str]) -> None:
    """Parse a command line of gogate as gogate does, without running it. Raises for what does not exist."""
    program, *rest = command
    assert program == "gogate"
    if not rest or rest[0].startswith("-"):
        main.make_context("gogate", rest)
        return
    verb = main.get_command(click.Context(main), rest[0])
    if verb is None:
        raise click.UsageError(f"no such command: {rest[0]}")
    verb.make_context(rest[0], rest[1:])


def configuration(name: str) -> Config:
    """A configuration of the folder."""
    return load_text((FOLDER / name).read_text(), name, {})


# --- the image


def test_the_instructions_are_ones() -> None:
    """Nothing misspelt, and the form that passes signals on."""
    known = "FROM WORKDIR RUN COPY ENV USER EXPOSE STOPSIGNAL HEALTHCHECK ENTRYPOINT CMD"
    assert {name for name, _ in instructions()} == set(known.split())
    for name in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(arguments(name)[-1]), list), "the exec form: a shell would keep the signals"


def test_everything_that_is_copied_is_there() -> None:
    """Paths exist, and .dockerignore lets them through; nothing else gets into the build."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    paths = list(copied())
    assert paths
    assert all((ROOT / path).exists() for path in paths)
    assert allowed == set(paths)
    assert not any(fnmatch.fnmatch(path, rule) for path in paths for rule in rules[1:] if not rule.startswith("!"))


def test_the_image_is_what_it_promises() -> None:
    """Two stages of one slim Python that gogate supports, a user of its own by number, signals and health check."""
    stages = arguments("FROM")
    assert [stage.partition(" ")[2] for stage in stages] == ["AS build", ""]
    (base,) = {stage.split()[0] for stage in stages}
    found = re.fullmatch(r"python:3\.(\d+)-slim", base)
    assert found is not None
    assert f"Programming Language :: Python :: 3.{found[1]}" in (ROOT / "setup.cfg").read_text()
    (user,) = arguments("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "by number, so that runAsNonRoot can check it"
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")


def test_its_command_and_health_check_exist() -> None:
    """They are command lines of gogate; the configuration they name is in the image, its ports are exposed."""
    (entry,) = (json.loads(rest) for rest in arguments("ENTRYPOINT"))
    (command,) = (json.loads(rest) for rest in arguments("CMD"))
    parsed([*entry, *command])
    (check,) = arguments("HEALTHCHECK")
    parsed(json.loads(check.partition(" CMD ")[2]))
    source = next(rest.split()[0] for rest in arguments("COPY") if rest.split()[1] == command[-1])
    config = load_text((ROOT / source).read_text(), source, {})
    assert {int(port) for port in arguments("EXPOSE")[0].split()} == ports(config)
    assert config.server.admin.listen_addr == ":9090", "gogate health asks there"


def test_the_files_of_the_image_make_a_wheel(tmp_path: Path) -> None:
    """Exactly what is copied builds: the command, its modules and the type marker are in the wheel."""
    for path in copied():
        if path.startswith("deployments/"):
            continue
        ignore = shutil.ignore_patterns("__pycache__")
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, tmp_path / path, ignore=ignore)
        else:
            shutil.copy(ROOT / path, tmp_path / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-index", "--no-build-isolation", "--wheel-dir", "wheels", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").glob("gogate-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", "gogate_py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.split()) <= names
    metadata = next(name for name in names if name.endswith("dist-info/METADATA"))
    extras = re.findall(r"^Provides-Extra: (\w+)$", zipfile.ZipFile(wheel).read(metadata).decode(), re.MULTILINE)
    wanted = re.findall(r'"\$\(ls /wheels/\*\.whl\)\[(\w+)\]"', dict(instructions())["RUN"])
    assert wanted
    assert set(wanted) <= set(extras)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"gogate = gogate_py.cli:main" in zipfile.ZipFile(wheel).read(entry)


@pytest.mark.slow
def test_it_runs_on_a_read_only_root(tmp_path: Path) -> None:
    """With every file system read-only gogate starts with the image's configuration, and gogate health says so."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("unshare: mount namespaces are not allowed here")
    # Every mount whose options can be changed; the root, and with it all that gogate could want to write to, must be.
    script = 'mount -o remount,bind,ro / && ! touch /x 2>/dev/null && cd / && exec "$@"'
    admin = f"127.0.0.1:{free_port()}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("GOGATE_")}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "GOGATE_SERVER_LISTEN_ADDR": "127.0.0.1:0",
            "GOGATE_SERVER_HTTP_LISTEN_ADDR": "127.0.0.1:0", "GOGATE_SERVER_ADMIN_LISTEN_ADDR": admin,
            "GOGATE_SERVER_METRICS_LISTEN_ADDR": "127.0.0.1:0", "GOGATE_ADMIN": admin, "GOGATE_SERVER_WORKERS": "2"}
    gogate = [sys.executable, "-m", "gogate_py"]
    command = ["unshare", "-rm", "sh", "-c", script, "sh", *gogate, "-config", str(FOLDER / "config.yaml")]

    def healthy() -> bool:
        check = subprocess.run([*gogate, "health", "--ready"], env=env, cwd=ROOT, capture_output=True, text=True)
        return check.returncode == 0

    with running(command, healthy, env=env):
        pass
    gone = subprocess.run([*gogate, "health"], env=env, cwd=ROOT, capture_output=True, text=True)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert admin in gone.stderr


# --- the compose file


def test_host_ports_are_the_promised_ones() -> None:
    """As in the README of GoGate; what is not for clients is published on loopback only."""
    published = {}
    for name, service in SERVICES.items():
        for entry in service.get("ports", []):
            *host, outside, inside = entry.split(":")
            published[int(outside)] = (name, int(inside), host)
    assert published == {
        8080: ("gogate", 8080, []), 8081: ("gogate", 8081, []), 9090: ("gogate", 9090, ["127.0.0.1"]),
        9091: ("gogate", 9091, ["127.0.0.1"]), 9092: ("prometheus", 9090, ["127.0.0.1"]),
        3000: ("grafana", 3000, ["127.0.0.1"]), 16686: ("jaeger", 16686, ["127.0.0.1"]),
        4318: ("jaeger", 4318, ["127.0.0.1"]),
    }  # fmt: skip


def test_what_is_mounted_is_there() -> None:
    """Sources exist or are named volumes; everything of the repository is mounted read-only."""
    for name, service in SERVICES.items():
        for entry in service.get("volumes", []):
            source, target, *mode = entry.split(":")
            assert target.startswith("/"), name
            if source.startswith("."):
                assert (FOLDER / source).exists(), entry
                assert mode == ["ro"], entry
            else:
                assert source in COMPOSE["volumes"], entry


def test_the_services_of_gogate_fit_together() -> None:
    """Image and build, the configuration where the image looks for it, ports, backends by their service names."""
    gogate = SERVICES["gogate"]
    assert (FOLDER / gogate["build"]["context"] / gogate["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    (mounted,) = gogate["volumes"]
    source, target, _ = mounted.split(":")
    assert target == json.loads(arguments("CMD")[0])[-1]
    config = configuration(Path(source).name)
    assert {int(entry.split(":")[-1]) for entry in gogate["ports"]} == ports(config)
    named = set(re.findall(r"\$\{(\w+)", (FOLDER / source).read_text()))
    assert named <= gogate["environment"].keys()
    grace = int(gogate["stop_grace_period"].removesuffix("s"))
    assert grace > config.server.shutdown.grace_period + config.server.shutdown.drain_delay
    for backend in config.server.backends:
        host, _, port = backend.addr.rpartition(":")
        service = SERVICES[host]
        assert service["image"] == gogate["image"]
        assert service["expose"] == [port]
        assert service["entrypoint"] == ["python", "-m", http_backend.__name__]
        context = http_backend.main.make_context("backend", list(service["command"]))
        assert (context.params["host"], context.params["port"]) == ("0.0.0.0", int(port))
        parsed(service["healthcheck"]["test"][1:])


@pytest.mark.parametrize("name", [name for name, one in SERVICES.items() if one["image"].startswith("gogate")])
def test_containers_of_ours_can_do_little(name: str) -> None:
    """Read-only root, no capabilities, no new privileges."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_images_are_pinned_and_services_known() -> None:
    """No latest; depends_on, scrape targets and the data source name services and their ports."""
    for service in SERVICES.values():
        assert re.fullmatch(r"[\w./-]+:[\w.]+", service["image"])
        assert not service["image"].endswith(":latest")
        assert set(service.get("depends_on", [])) <= SERVICES.keys()
    scrape = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    targets = [target for job in scrape for one in job["static_configs"] for target in one["targets"]]
    config = configuration("config-compose.yaml")
    assert targets == [f"gogate{config.server.metrics.listen_addr}"]
    assert config.tracing.enabled
    host, _, port = config.tracing.endpoint.removeprefix("http://").partition(":")
    assert port in {entry.split(":")[-1] for entry in SERVICES[host]["ports"]}


def test_unknown_flags_and_commands_are_noticed() -> None:
    """By the parsing that the tests above rely on."""
    with pytest.raises(click.UsageError):
        parsed(shlex.split("gogate health --nonsense"))
    with pytest.raises(click.UsageError):
        parsed(shlex.split("gogate nonsense"))
