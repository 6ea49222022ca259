"""The help of the command line: docs/cli.md has it, shells complete it, and it costs no import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb.cli.__main__ import app
from amberdb.cli.completion import complete_collection
from amberdb.cli.verb import place_of
from amberdb.cli.verbs import VERBS
from support.cli_reference import BEGIN, END, PAGE, commands, page
from support.command_line import CommandLine


def test_the_reference_is_that_of_the_program() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run: make cli-docs"
    assert text.count(BEGIN) == text.count(END) == len(list(commands()))


def test_a_command_gets_its_section_and_prose_stays() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, title, after = text.partition("### amberdb get\n")
    without = before + after[after.index("### amberdb ") :]
    assert title in page(without)
    changed = text.replace("| `--record` | ", "| `--recrod` | ").replace(
        "pass the cursor to `--after`", "pass it"
    )
    assert page(changed) == text.replace("pass the cursor to `--after`", "pass it")
    with pytest.raises(ValueError, match="no such commands"):
        page(text + "### amberdb nonsense\n")


def test_every_command_and_option_has_help() -> None:
    silent = [
        (words, parameter.name)
        for words, command in commands()
        for parameter in command.params
        if not parameter.help and parameter.name != "help"
    ]
    assert silent == []
    for words, command in commands():
        first = " ".join(command.help.split()).partition(". ")[0]
        assert len(first) <= 84, words


def test_help_shows_the_first_sentence_whole() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    assert "..." not in shown.replace("[ARGS]...", "")
    assert "find Shows documents that match a filter, one page" in shown
    assert all(f" {name} " in shown for name in VERBS)


def test_wrong_use_is_one_line_with_the_help_to_look_at() -> None:
    for command, told in (
        (["fnd"], "Did you mean 'find'? (see `amberdb --help`)"),
        (["find"], "(see `amberdb find --help`)"),
        (["index", "add"], "(see `amberdb index add --help`)"),
        (["find", "a", "b", "--limt", "5"], "--limit"),
        (["find", "a", "b", "--limit", "99999999999999999999"], "--limit"),
        (["backup", "a", "b", "--rate", "-1"], "not a number above 0"),
    ):
        result = CliRunner().invoke(app, command, prog_name="amberdb")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert told in result.stderr


def test_a_token_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for data in (b"\xff\xfe", b"", b"\n", b"two\nlines", "schl\u00fcssel".encode()):
        file.write_bytes(data)
        command = ["serve", str(tmp_path / "t.amber"), "--token-file", str(file)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "it has no token" in result.stderr


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("notes@home.amber", "notes@home.amber"),
        ("postgresql://ann:p@ss@host:5432/db?password=x", "postgresql://host:5432/db"),
        ("postgres://host/db", "postgres://host/db"),
    ],
)
def test_a_password_of_a_url_is_not_shown(path: str, shown: str) -> None:
    assert place_of(path) == shown


def test_a_verb_imports_no_other_verb() -> None:
    code = """
import sys
from typer.testing import CliRunner
from amberdb.cli.__main__ import app
CliRunner().invoke(app, ["count", "nowhere", "x", "--json"])
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(ran.stdout.split())
    assert "amberdb.cli.documents.reading" in loaded
    others = ("transfer", "care", "serving", "demo", "collections.indexes", "documents.writing")
    assert not loaded & {f"amberdb.cli.{name}" for name in others}
    assert not loaded & {"rich.console", "rich.progress", "amberdb.memory", "httpx", "pyarrow"}


# -- completion ------------------------------------------------------------------------------


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    run = CommandLine(tmp_path)
    for name in ("note", "notebook", "chat"):
        run("put", name, "{}")
    return run


class Context:
    def __init__(self, **params: object) -> None:
        self.params = params


def test_names_of_collections_are_completed(cli: CommandLine, tmp_path: Path) -> None:
    assert complete_collection(Context(path=cli.path), [], "no") == ["note", "notebook"]
    assert complete_collection(Context(source=cli.path), [], "") == ["chat", "note", "notebook"]
    for path in (None, str(tmp_path), str(tmp_path / "nowhere"), "postgresql://x@127.0.0.1:1/x"):
        assert complete_collection(Context(path=path), [], "") == []
    with amberdb.open(cli.path):  # beside an application
        assert complete_collection(Context(path=cli.path), [], "c") == ["chat"]


@pytest.mark.slow
def test_shells_complete_commands_options_and_names(cli: CommandLine) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        env = {
            "_AMBERDB_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "PYTHONPATH": json.dumps(sys.path)[1:-1].replace('", "', ":").strip('"'),
            "PATH": "",
        }
        command = [sys.executable, "-m", "amberdb.cli"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        assert ran.stderr == ""
        return ran.stdout.split()

    assert completed("amberdb ind") == ["index"]
    assert completed("amberdb index d") == ["drop"]
    assert completed(f"amberdb find {cli.path} not") == ["note", "notebook"]
    assert completed(f"amberdb find {cli.path} note --expl") == ["--explain"]
