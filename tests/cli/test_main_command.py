"""``gogate`` itself: the first screen, help with examples, wrong usage, exit codes, completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from doubles.gateway import ROOT
from doubles.reloading import reloading
from doubles.servers import free_port

from gogate_py import __version__
from gogate_py.cli import help as help_texts
from gogate_py.cli import main

CONFIG = "server: {backends: ['127.0.0.1:9001'], listenAddr: '127.0.0.1:0'}\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its words, those of groups included."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())


COMMANDS = dict(commands())


def run(*arguments: str) -> Result:
    """One command."""
    return CliRunner().invoke(main, list(arguments), prog_name="gogate")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run where there is no configuration, and of no gateway that the environment names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOGATE_ADMIN", raising=False)


class TestHelp:
    """What is printed helps."""

    def test_first_screen(self) -> None:
        """It fits a screen of 40 lines, begins with what a newcomer types, and says where the documentation is."""
        shown = run("--help")
        assert shown.stdout == run("-h").stdout == run("-help").stdout
        lines = shown.stdout.splitlines()
        assert shown.exit_code == 0
        assert lines[0] == "Usage: gogate [-config FILE] | gogate COMMAND [OPTIONS]"
        start = [line.split("  ")[1] for line in lines[lines.index("Start here:") + 1 :][:5]]
        assert start == ["gogate demo", "gogate check -config FILE", "gogate -config FILE", "gogate top",
                         "gogate explain GET URL"]  # fmt: skip
        assert lines[-1] == f"Documentation: {ROOT}/docs/README.md"
        assert len(lines) <= 40
        assert all(len(line) <= 80 for line in lines[:-1])
        for name in main.list_commands(click.Context(main)):
            assert any(line.startswith(f"  {name} ") for line in lines), name

    def test_documentation_of_an_installation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the source, where a wheel puts it; without that either, where it would be found."""
        monkeypatch.setattr("gogate_py.__file__", str(tmp_path / "site" / "gogate_py" / "__init__.py"))
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        assert help_texts.documentation() == "docs/README.md of gogate's source"
        page = tmp_path / "share" / "doc" / "gogate" / "docs" / "README.md"
        page.parent.mkdir(parents=True)
        page.touch()
        assert help_texts.documentation() == str(page)

    @pytest.mark.parametrize("words", COMMANDS)
    def test_every_command_has_help_with_examples(self, words: str) -> None:
        """It says what it does, what each option is for, and how it is used."""
        shown = run(*words.split(), "--help")
        assert shown.exit_code == 0
        assert f"Usage: gogate {words}" in shown.stdout
        assert "\n  Examples:\n    " in shown.stdout
        for option in COMMANDS[words].params:
            if isinstance(option, click.Option):
                assert option.help, option.name

    @pytest.mark.parametrize("words", COMMANDS)
    def test_examples_can_be_typed(self, words: str) -> None:
        """Each example is a command line that gogate understands."""
        epilog = COMMANDS[words].epilog
        assert epilog is not None
        for line in re.findall(r"^  (?:.*[ (])?(gogate .*?)(?:   .*|\).*| [|>].*| < .*)?$", epilog, re.MULTILINE):
            name, *rest = shlex.split(line)[1:]
            assert name == words.split()[0]
            command: click.Command = COMMANDS[name]
            if isinstance(command, click.Group):
                command = COMMANDS[f"{name} {rest.pop(0)}"]
            command.make_context(name, rest).close()

    def test_the_documentation_has_every_command(self) -> None:
        """docs/cli.md has each in its table, and an example of it."""
        page = (ROOT / "docs" / "cli.md").read_text()
        for name in main.list_commands(click.Context(main)):
            assert re.search(rf"^\| \[`gogate {name}`\].*`gogate {name} .*\|$", page, re.MULTILINE), name

    def test_version_of_one_place(self) -> None:
        """--version and the package agree."""
        assert run("--version").stdout == f"gogate {__version__}\n"


class TestWrongUsage:
    """What cannot be understood leads on."""

    def test_nothing_to_run(self) -> None:
        """Without a configuration in sight: what to do now."""
        result = run()
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("gogate: there is no config.yaml here")
        for way in ("gogate -config FILE", "gogate demo", "gogate --help"):
            assert f"\n  {way} " in result.stderr

    @pytest.mark.parametrize(("arguments", "said"), [
        (["chek"], "No such command 'chek'. Did you mean check?"),
        (["xyzzy"], "No such command 'xyzzy'. gogate --help lists them."),
        (["etc/gogate.yaml"], "To run with this configuration: gogate -config etc/gogate.yaml"),
        (["-confg", "config.yaml2x"], "To run with this configuration: gogate -config config.yaml2x"),
        (["-confg", "config"], "No such command 'config'. The configuration before it was 'onfg'."),
        (["-config", "a.yaml", "check"], "-config stands behind the command: gogate check -config a.yaml"),
        (["--confg", "x"], "--config"),
        (["check", "--strct"], "--strict"),
        (["hash", "pasword"], "password"),
        (["drain"], "Missing argument 'BACKEND'"),
    ])  # fmt: skip
    def test_says_what_was_meant(self, arguments: list[str], said: str) -> None:
        """Exit code 2, and the nearest thing that there is."""
        result = run(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr


class TestExitCodes:
    """0 done, 1 not possible, 2 wrong usage; for every command."""

    @pytest.mark.parametrize("words", COMMANDS)
    def test_unknown_options_are_2(self, words: str) -> None:
        """Whatever the command."""
        assert run(*words.split(), "--no-such-option").exit_code == 2

    @pytest.mark.parametrize("words", ["status", "reload", "plan", "drain a", "services", "health", "top --once"])
    def test_no_gateway_is_1(self, words: str, tmp_path: Path) -> None:
        """One line that names the address."""
        (tmp_path / "config.yaml").write_text(CONFIG)
        admin = f"http://127.0.0.1:{free_port()}"
        more = ["-config", str(tmp_path / "config.yaml")] if words == "plan" else []
        result = run(*words.split(), *more, "--admin", admin)
        assert (result.exit_code, result.stdout) == (1, "")
        assert admin in result.stderr
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("words", ["", "run", "check", "explain GET http://a.test/"])
    def test_no_configuration_is_1(self, words: str) -> None:
        """Told by name."""
        result = run(*words.split(), "-config", "nowhere.yaml")
        assert result.exit_code == 1
        assert "nowhere.yaml" in result.stderr


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command gogate, as an installation has it, and a configuration."""
    folder = tmp_path_factory.mktemp("shell")
    program = folder / "gogate"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom gogate_py.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    (folder / "config.yaml").touch()
    return folder


@pytest.mark.slow
class TestCompletion:
    """gogate completion: real bash; of zsh and fish the script is made."""

    @staticmethod
    def complete(shell: Path, *words: str, admin: str = "") -> list[str]:
        """What bash offers for the last word."""
        line = " ".join(shlex.quote(word) for word in words)
        script = f'''
            eval "$(gogate completion bash)"
            complete -p gogate >/dev/null || exit 3
            COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
            _gogate_completion gogate {shlex.quote(words[-1])} {shlex.quote(words[-2])}
            printf '%s\\n' "${{COMPREPLY[@]}}"'''
        environ = {"PATH": f"{shell}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "GOGATE_ADMIN": admin}
        done = subprocess.run(["bash", "-c", script], cwd=shell, env=environ, text=True, check=False,
                              capture_output=True, timeout=60)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    def test_commands_options_and_words(self, shell: Path) -> None:
        """Commands, commands of groups, options, the words that an option takes."""
        assert self.complete(shell, "gogate", "re") == ["reload", "register"]
        assert set(self.complete(shell, "gogate", "")) >= set(main.list_commands(click.Context(main)))
        assert self.complete(shell, "gogate", "hash", "") == ["api-key", "password"]
        assert self.complete(shell, "gogate", "top", "--on") == ["--once"]
        assert self.complete(shell, "gogate", "top", "--table", "r") == ["routes"]
        assert self.complete(shell, "gogate", "completion", "") == ["bash", "zsh", "fish"]

    def test_backends_of_the_running_gateway(self, shell: Path) -> None:
        """drain completes addresses; without a gateway nothing, and no error."""
        address = f"127.0.0.1:{free_port()}"
        with reloading({"server": {"httpListenAddr": "127.0.0.1:0", "backends": [address]}}) as running:
            admin = f"http://{running.gateway.admin}"
            assert self.complete(shell, "gogate", "drain", "127", admin=admin) == [address]
            assert self.complete(shell, "gogate", "drain", "--pool", "default", "10.", admin=admin) == []
            assert self.complete(shell, "gogate", "drain", "--admin", admin, "") == [address]
        assert self.complete(shell, "gogate", "drain", "", admin=f"http://127.0.0.1:{free_port()}") == []

    @pytest.mark.parametrize(("name", "line"), [
        ("bash", "complete -o nosort -F _gogate_completion gogate"),
        ("zsh", "#compdef gogate"),
        ("fish", "complete --no-files --command gogate"),
    ])  # fmt: skip
    def test_scripts(self, shell: Path, name: str, line: str) -> None:
        """Each for its shell, and each answered by gogate: what it asks gets the commands."""
        script = run("completion", name)
        assert script.exit_code == 0
        assert line in script.stdout
        assert f"_GOGATE_COMPLETE={name}_complete" in script.stdout
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "_GOGATE_COMPLETE": f"{name}_complete",
                   "COMP_WORDS": "gogate expl", "COMP_CWORD": "expl" if name == "fish" else "1"}  # fmt: skip
        asked = subprocess.run([shell / "gogate"], env=environ, text=True, check=True, stdout=subprocess.PIPE)
        assert "explain" in asked.stdout
