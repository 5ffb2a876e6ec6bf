"""docs/ and README.md are true: configurations load, links lead somewhere, and examples answer what they say.

A YAML block below ``<!-- test: run -->`` is started as a whole gateway before three backends of the demo, and the
``console`` block that follows is run by bash with real curl:

    $ command                 continued while lines end in a backslash; one shell for the block, variables stay
    #=> expected line         … stands for any text in a line; a line of … alone for any number of lines

Beside every configuration lie the files that the pages name (FILES): certificates for localhost and *.example.com, and
their authority. A command without expected lines must succeed. The ports of the text stand for free ones: 8081 (HTTP),
8080 (TCP), 9090 (admin), 9001 to 9003 (the backends web-1 to web-3), 9008 and 9009 (nobody listens).

The ``bash`` blocks below ``<!-- test: run -->`` of a page are what somebody types who follows it: they are run
together, in one shell, and every command must succeed; the YAML block above one that names config.yaml is saved under
that name. Here nobody listens before the page says so. ``bash`` blocks without the mark only call programs that are not
at hand, or are tested elsewhere (NOT_RUN).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from doubles.certificates import write_pair
from doubles.gateway import ROOT, Gateway, wait_for
from doubles.servers import free_port
from doubles.tls_backends import CA

from gogate_py.cli import main as cli
from gogate_py.config.loader import load_text
from gogate_py.controlplane import admin_routes
from gogate_py.demo.configuration import choose
from gogate_py.telemetry.metrics import CATALOGUE

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = "<!-- test: run -->"
_BLOCK = re.compile(r"^(?:(<!-- test: run -->)\n+)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = re.compile(r"\b(8080|8081|9090|900[1-389])\b")
_MARK = "--- gogate docs ---"


class Example(NamedTuple):
    """A configuration that is run, and what is done with it."""

    where: str
    config: str
    console: str


class Step(NamedTuple):
    """One command and the lines it should print."""

    command: str
    expected: list[str]


def blocks(page: Path) -> Iterator[tuple[int, bool, str, str]]:
    """Every fenced block of a page: line, whether it is run, language, text."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(3)) + 1, bool(found[1]), found[2], found[3]


def configurations() -> Iterator[tuple[str, str]]:
    """Every YAML block: its place and its text."""
    for page in PAGES:
        for line, _, language, text in blocks(page):
            if language == "yaml":
                yield f"{page.name}:{line}", text


def examples() -> Iterator[Example]:
    """Every configuration that is run."""
    for page in PAGES:
        config = None
        for line, run, language, text in blocks(page):
            if run and language == "bash":
                continue
            if run:
                assert language == "yaml", (page, line)
                config = (f"{page.name}:{line}", text)
            elif language == "console" and config is not None:
                yield Example(*config, text)
                config = None
        assert config is None, f"{config and config[0]} has no console block"


def steps(console: str) -> Iterator[Step]:
    """The commands of a console block."""
    command = ""
    expected: list[str] = []
    going_on = False
    for line in console.splitlines():
        if going_on:
            command += "\n" + line
            going_on = line.endswith("\\")
        elif line.startswith("$ "):
            if command:
                yield Step(command, expected)
            command, expected = line[2:], []
            going_on = line.endswith("\\")
        else:
            assert command, line
            assert line.startswith("#=>"), f"neither a command nor an expected line: {line}"
            expected.append(line[3:].removeprefix(" "))
    yield Step(command, expected)


def pattern(expected: list[str]) -> str:
    """Expected lines as a regular expression of all that was printed."""
    parts = []
    for line in expected:
        if line == "…":
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(r"[^\n]*".join(re.escape(part) for part in line.split("…")) + r"\n")
    return "".join(parts)


#: Certificates and keys that the pages name.
FILES = ("server", "client", "tls/www/tls", "tls/api/tls")


def write_files(folder: Path) -> None:
    """The files that configurations of the pages name, for their folder."""
    (folder / "tls" / "www").mkdir(parents=True)
    (folder / "tls" / "api").mkdir()
    for name in FILES:
        write_pair(folder, name, "localhost", "*.example.com")
    for name in ("server.crt", "clients.pem"):  # a page's certificate is its own authority
        with (folder / name).open("ab") as file:
            file.write(CA.cert_pem.bytes())


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Ports of the text → ports of this run, with the backends web-1 to web-3 listening."""
    with contextlib.ExitStack() as stack:
        found: dict[str, int] = {}
        for silent in ("9008", "9009"):
            # Bound and not listening: connections are refused, and nobody else can have it.
            dead = stack.enter_context(socket.socket())
            dead.bind(("127.0.0.1", 0))
            found[silent] = dead.getsockname()[1]
        for number, port in enumerate(choose(0, 0, 0), 1):
            command = [sys.executable, "-m", "gogate_py.demo.http_backend", "--name", f"web-{number}"]
            process = stack.enter_context(subprocess.Popen([*command, "--port", str(port)], cwd=ROOT))
            stack.callback(process.terminate)
            found[f"900{number}"] = port
        wait_for(lambda: all(listens(found[f"900{number}"]) for number in (1, 2, 3)), 20.0, "web-1 to web-3")
        yield found


def listens(port: int) -> bool:
    """Whether somebody does on this port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def replaced(text: str, ports: dict[str, int]) -> str:
    """A text with the ports of this run."""
    return _PORT.sub(lambda found: str(ports.get(found[0], found[0])), text)


def run(console: list[Step], gateway: Gateway) -> list[str]:
    """What each command printed, with a line end at the end; and "(exit code n)" for one that failed."""
    script = [f'gogate() {{ "{sys.executable}" -m gogate_py "$@"; }}']
    for step in console:
        script += [step.command, f'code=$?; [ $code = 0 ] || echo "(exit code $code)"; echo "{_MARK}"']
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOGATE_")}
    environ |= {"PYTHONPATH": str(ROOT), "http_proxy": "", "no_proxy": "*"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=gateway.config_path.parent, env=environ, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=50)
    printed = done.stdout.replace("\r", "").split(f"{_MARK}\n")[:-1]
    return [text if text.endswith("\n") or not text else f"{text}\n" for text in printed]


@pytest.mark.slow
@pytest.mark.parametrize("example", [pytest.param(example, id=example.where) for example in examples()])
def test_an_example_answers_what_it_says(example: Example, ports: dict[str, int]) -> None:
    """A gateway with the example's configuration answers its commands as the page says."""
    env = {"GOGATE_SERVER_WORKERS": "2", "GOGATE_SERVER_ADMIN_LISTEN_ADDR": "127.0.0.1:0"}
    mine = {**ports, "8080": free_port(), "8081": free_port()}
    with Gateway(replaced(example.config, mine), env=env, prepare=write_files) as gateway:
        mine["9090"] = int(gateway.admin.rpartition(":")[2])
        console = list(steps(replaced(example.console, mine)))
        printed = run(console, gateway)
    assert len(printed) == len(console), printed
    for step, text in zip(console, printed, strict=True):
        if step.expected:
            assert re.fullmatch(pattern(step.expected), text), f"$ {step.command}\n{text}"
        else:
            assert "(exit code" not in text, f"$ {step.command}\n{text}"


#: Why a program is not called here.
NOT_RUN = {
    "docker": "no engine is at hand; tests/deployments parses what it is given",
    "helm": "needs a cluster; tests/deployments renders the chart",
    "kubectl": "needs a cluster",
    "systemctl": "needs systemd as process 1",
    "install": "writes to /etc",
    "pipx": "writes to the home folder; deployments/docker's way to install is tested",
    "python3 -m venv": "the test environment is there already",
    "make": "is how these tests are run",
    "k6": "tests/integration/test_k6.py runs every script",
    "cd": "", "cat": "",
}  # fmt: skip


def typed(page: Path) -> str:
    """The marked bash blocks of a page as one script; "" when there are none."""
    parts, config = [], ""
    for _, run, language, text in blocks(page):
        if language == "yaml":
            config = text
        elif run and language == "bash":
            if "config.yaml" in text:
                parts.append(f"cat > config.yaml <<'END OF CONFIG'\n{config}END OF CONFIG\n")
            parts.append(text)
    return "".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=lambda page: page.name)
def test_what_a_reader_types_works(page: Path, tmp_path: Path) -> None:
    """The commands of a page, from the first to the last, in an empty folder."""
    ports = {str(port): free_port() for port in (8080, 8081, 9090, *range(9001, 9008))}
    script = re.sub(r"\b(8080|8081|9090|900[1-7])\b", lambda found: str(ports[found[0]]), typed(page))
    prelude = f'gogate() {{ "{sys.executable}" -m gogate_py "$@"; }}; curl() {{ command curl --fail-with-body "$@"; }}'
    python = tmp_path / ".venv" / "bin" / "python"  # of a checkout, after make demo
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOGATE_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "http_proxy": "", "no_proxy": "*", "GOGATE_ADMIN": f"http://127.0.0.1:{ports['9090']}",
        "GOGATE_SERVER_WORKERS": "2", "GOGATE_SERVER_ADMIN_LISTEN_ADDR": f"127.0.0.1:{ports['9090']}"}  # fmt: skip
    with (tmp_path / "output").open("w+") as output:
        shell = subprocess.Popen(
            ["bash", "-euc", f"{prelude}\nset -x\n{script}"], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True)  # fmt: skip
        try:
            code = shell.wait(90)
        finally:
            end(shell)
        output.seek(0)
        assert code == 0, output.read()


def end(shell: subprocess.Popen[bytes]) -> None:
    """End a shell, and what it left running in the background."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
    try:
        shell.wait(20)
        wait_for(lambda: not alive(shell.pid), 20.0, "the page's background processes to end")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


def alive(group: int) -> bool:
    """Whether a process group has processes."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_cannot_be(page: Path) -> None:
    """A bash block without the mark calls programs of NOT_RUN only; and gogate, where one of them installed it."""
    for line, run, language, text in blocks(page):
        if language != "bash" or run:
            continue
        text = re.sub(r"<<'EOF'\n.*?^EOF$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
        commands = [" ".join(shlex.split(command, comments=True)) for command in text.splitlines()]
        commands = [re.sub(r"^([A-Z_]+=\S* )*", "", command) for command in commands if command]
        others = [one for one in commands if not one.startswith(tuple(f"{program} " for program in NOT_RUN))]
        assert len(others) < len(commands), f"{page.name}:{line} can be run"
        assert all(one.startswith("gogate ") for one in others), f"{page.name}:{line} can be run: {others}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_console_block_is_run(page: Path) -> None:
    """Only the demo's first screen (tests/test_readme.py) and what replaces the installation are not."""
    consoles = [text for _, _, language, text in blocks(page) if language == "console"]
    run = [one.console for one in examples() if one.where.startswith(f"{page.name}:")]
    left = [text for text in consoles if text not in run and not re.match(r"\$ (make demo|pipx upgrade)\b", text)]
    assert not left, left[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    """``gogate NAME --flag`` in code of any kind is a command with this flag."""
    code = [text for _, _, language, text in blocks(page) if language == "bash"]
    for _, _, language, text in blocks(page):
        if language == "console":  # without what is printed
            code += re.findall(r"^\$ ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    code += re.findall(r"`([^`\n]+)`", prose)
    for text in code:
        for found in re.finditer(r"(?:^|[$;&|(] ?)gogate ([a-z][a-z-]*)([^;&|#\n]*)", text, re.MULTILINE):
            command = cli.get_command(None, found[1])  # type: ignore[arg-type]  # the context is not looked at
            if isinstance(command, click.Group) and (inner := re.match(r" ([a-z-]+)", found[2])):
                command = command.commands.get(inner[1])
            assert command is not None, found[0]
            known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
            flags = re.findall(r"(?<=\s)--?[a-z][a-z-]*", found[2].partition(" -- ")[0])
            assert set(flags) <= known | {"--help"}, found[0]


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=where) for where, text in configurations()]
)
def test_every_configuration_loads(text: str, tmp_path: Path) -> None:
    """Each YAML block is a configuration without a problem, as gogate check sees it."""
    write_files(tmp_path)
    assert load_text(text, str(tmp_path / "config.yaml"), {}).effective_routes()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files that exist, and their fragments headings of these."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        file, _, fragment = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    """Names of metrics are names of the catalogue."""
    named = set(re.findall(r"\bgogate_[a-z_]+\b", page.read_text())) - {"gogate_py", "gogate_arm"}
    assert named <= CATALOGUE.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_admin_path_that_is_named_exists(page: Path) -> None:
    """Tables of the admin API name paths that the admin side has."""
    source = Path(admin_routes.__file__).read_text()
    known = {path.replace(":path", "") for path in re.findall(r'Endpoint\(\s*"([^"]+)"', source)}
    services = admin_routes.SERVICES
    known |= {"/metrics", services, f"{services}/{{id}}", f"{services}/{{id}}{admin_routes.HEARTBEAT}"}
    for cell in re.findall(r"^\| (`(?:GET|PUT|POST|DELETE)[ `].*?) \|", page.read_text(), re.MULTILINE):
        assert set(re.findall(r"[ `](/[a-z0-9/{}.]+)", cell)) <= known, cell
