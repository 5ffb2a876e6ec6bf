"""docs/observability.md and docs/deployment.md are true: every metric and alert is listed as it is, commands name what
exists."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import yaml
from doubles.gateway import ROOT
from doubles.helm import helm

from gogate_py.cli import main as cli
from gogate_py.telemetry.metrics import CATALOGUE

OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
LOAD_TESTS = (ROOT / "docs" / "load-tests.md").read_text()


def rows(page: str, heading: str) -> list[str]:
    """The rows of the first table below a heading."""
    below = page.split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|[-|]+\|\n((?:\|.*\n)+)", below, re.MULTILINE)
    assert table is not None
    return table[1].splitlines()


def test_every_metric_is_listed() -> None:
    """The table is the catalogue: names, kinds, labels, help, in its order."""
    assert rows(OBSERVABILITY, "### All of them") == [
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels) or ''} | {one.help} |" for one in CATALOGUE.values()
    ]


def test_every_alert_is_listed() -> None:
    """The table is alerts.yaml."""
    groups = yaml.safe_load((ROOT / "deployments/prometheus/alerts.yaml").read_text())["groups"]
    assert rows(OBSERVABILITY, "## Alerts") == [
        f"| {one['alert']} | {one['labels']['severity']} | {one['annotations']['description']} |"
        for group in groups for one in group["rules"]
    ]  # fmt: skip


@pytest.mark.parametrize("page", [DEPLOYMENT, LOAD_TESTS], ids=["deployment", "load-tests"])
def test_files_in_commands_exist(page: str) -> None:
    """Paths of the repository that a command names are there."""
    found = 0
    for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for word in shlex.split(re.sub(r"<<'EOF'\n.*?^EOF$", "", block, flags=re.MULTILINE | re.DOTALL), comments=True):
            path = word.removeprefix("./")
            if re.match(r"(deployments|k6)/", path):
                assert (ROOT / path).exists(), word
                found += 1
    assert found


def test_commands_of_gogate_exist() -> None:
    """`gogate …` in a text is a command with such flags."""
    named = re.findall(r"`gogate ([a-z]+)((?: --[a-z]+)*)", OBSERVABILITY + DEPLOYMENT)
    assert ("health", " --ready") in named
    for name, flags in named:
        command = cli.get_command(None, name)  # type: ignore[arg-type]  # the context is not looked at
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(flags.split()) <= known, name


def test_the_values_of_the_page_are_values() -> None:
    """The override file renders."""
    found = re.search(r"values-override\.yaml <<'EOF'\n(.*?)^EOF$", DEPLOYMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    command = [helm(), "template", "gogate", str(ROOT / "deployments/helm/gogate"), "-f", "-"]
    done = subprocess.run(command, input=found[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "my-service:8080" in done.stdout
