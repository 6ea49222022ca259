"""Every argument and every option of every command, with values that are none: an error of one
line and an exit code of the table, never a traceback.

The commands and their parameters are those of the program, so a new one is tested by itself.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb import Ordered, Text, Vector
from amberdb._shared import model_server
from amberdb.cli.__main__ import app
from amberdb.cli.verb import Exit
from support import slices
from support.cli_reference import commands

COMMANDS = {" ".join(words): command for words, command in commands()}

NUMBERS = ["-1", "0", "nan", "-inf", "1e400", "9" * 20, "9" * 5000, "", "x", "1e-400", "\udcff"]
WORDS = [
    *NUMBERS,
    " ",
    "null",
    "[]",
    "{}",
    "[1, 2]",
    '{"a": NaN}',
    '{"n": 1e999}',
    '{"$where": 1}',
    '{"n": {"$gt": {}}}',
    '{"n": {"$date": "x"}}',
    '{"id": "\\ud800"}',
    "{bad",
    "[" * 5000,
    "\udc80x",
    "\x1b[31m",
    "x" * 5000,
    "a,,b",
    "a=b",
    "-",
    "--",
    "a:b",
    "../nowhere/x",
    "http://127.0.0.1:1",
    "http://",
    "postgresql://nobody@127.0.0.1:1/x",
    "s3://",
    "file:///nowhere",
    "{folder}",
    "{binary}",
    "{empty}",
    "{folder}/t.amber",
]
"""{folder}, {binary} and {empty}: a directory, a file that is no text, and an empty one."""

VALUES = {
    "path": "t.amber",
    "directory": "new",
    "source": "t.amber",
    "collection": "x",
    "target": "new",
    "id": "d1",
    "ids": "d1",
    "patch": '{"n": 2}',
    "document": '{"id": "d2"}',
    "file": "lines.jsonl",
    "kind": "ordered",
    "fields": "n",
    "entity": "ann",
    "reason": "asked",
    "where": '{"n": 1}',
    "archives": "full",
    "before": "full",
    "after": "t.amber",
    "embed_url": "http://127.0.0.1:1",
    "embed_model": "m",
}
"""What else a command needs, by the name of the parameter."""

MORE: dict[str, list[str]] = {"demo": ["--input", "nowhere.jsonl"], "ship": ["--once"]}
"""Options without which a command would run for long."""

GIVEN: dict[str, dict[str, str]] = {
    "index drop": {"name": "ordered:n"},
    "rename": {"name": "y"},
    "restore": {"target": "new"},
    "ship": {"target": "file://away"},
    "copy": {"target": "other.amber"},
    "move": {"target": "other.amber"},
    "import-profiles": {"source": "users.json"},
    "import-memories": {"source": "users.json"},
}
"""Values for one command alone."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a database, a backup of it, and files of all kinds."""
    folder = tmp_path_factory.mktemp("base")
    with amberdb.open(folder / "t.amber", background=False) as db:
        x = db.collection("x", indexes=[Ordered("n"), Text("content"), Vector("v", dim=2)])
        x.put_many({"id": f"d{n}", "n": n, "content": "tea", "v": [1, n]} for n in range(5))
        db.backup(folder / "full")
    (folder / "lines.jsonl").write_text('{"id": "a"}\n')
    (folder / "users.json").write_text("[]")
    (folder / "binary").write_bytes(b"\xff\xfe\x00\x01" * 100)
    (folder / "empty").write_bytes(b"")
    (folder / "folder").mkdir()
    (folder / "away").mkdir()
    return folder


async def served(path: str, options: object, *, ready: Callable[[str], None], **_: Any) -> None:
    """What serve and ui run, but for the requests: they would run until a signal."""
    with amberdb.connect(path):
        ready("http://127.0.0.1:0")


@pytest.fixture
def here(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where each call finds a copy of it."""
    monkeypatch.setattr(model_server, "PAUSE_S", 0.0)
    monkeypatch.setattr("amberdb.server.serve", served)
    monkeypatch.setattr("amberdb.inspector.web.serve", served)
    for name in ("AMBERDB_TOKEN", "AMBERDB_EMBED_URL", "AMBERDB_EMBED_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters(command: Any, kind: str) -> list[Any]:
    return [each for each in command.params if each.param_type_name == kind and each.name != "help"]


def arguments(name: str, changed: Any, value: str) -> list[str]:
    """The command line, where one parameter has this value."""
    command, given = COMMANDS[name], {**VALUES, **GIVEN.get(name, {})}
    options: list[str] = list(MORE.get(name, []))
    for each in parameters(command, "option"):
        if each is changed:
            options += [each.opts[-1], value]
        elif each.required or _goes_with(each, changed):
            options += [each.opts[-1], given[each.name]]
    if any(option in ("--where", "--limit", "--order-by") for option in options):
        given.pop("ids", None)
        if name in ("update", "delete") and "--where" not in options:
            options += ["--where", "{}"]
    positional: list[str] = []
    for each in parameters(command, "argument"):
        if each is changed:
            positional.append(value)
        elif each.required or (each.name in given and each.name != "source"):
            positional.append(given[each.name])
    return [*name.split(), *options, "--", *positional]


def _goes_with(option: Any, changed: Any) -> bool:
    pair = {option.name, changed.name}
    return pair == {"embed_url", "embed_model"} or pair == {"embed", "dim"} - {changed.name}


def cases() -> Iterator[tuple[str, Any, str]]:
    """Each command with each of its parameters and each bad value."""
    for name, command in COMMANDS.items():
        for each in [*parameters(command, "argument"), *parameters(command, "option")]:
            if each.param_type_name == "option" and each.is_flag:
                continue
            is_number = each.type_descriptor.annotation in (int, float)
            yield from ((name, each, value) for value in (NUMBERS if is_number else WORDS))


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("name", COMMANDS)
def test_no_value_of_an_argument_is_a_traceback(name: str, base: Path, here: Path) -> None:
    failures: list[str] = []
    of_command = [case for case in cases() if case[0] == name]
    for number, (_, parameter, text) in enumerate(slices.every(23, of_command)):
        folder = here / f"{number}"
        shutil.copytree(base, folder)
        command = arguments(name, parameter, _filled(text, folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            result = CliRunner().invoke(app, command, input="")
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        is_told = len(errors) == 1 or result.exit_code in (Exit.OK, Exit.NOTHING, Exit.INPUT)
        is_error = isinstance(result.exception, SystemExit | None)
        if not (is_told and is_error and result.exit_code in list(Exit)):
            shown = [each[:60] for each in command]
            failures.append(f"{shown}: {result.exit_code} {result.exception!r} {result.stderr}")
        shutil.rmtree(folder, ignore_errors=True)
    assert not failures, "\n".join(failures)


def _filled(text: str, folder: Path) -> str:
    for name in ("folder", "binary", "empty"):
        text = text.replace(f"{{{name}}}", str(folder / name))
    return text


def required() -> Iterator[tuple[str, Any]]:
    """The arguments that a command cannot be called without."""
    for name, command in COMMANDS.items():
        yield from ((name, each) for each in parameters(command, "argument") if each.required)


def test_values_are_thrown_at_every_option() -> None:
    # Parameters that no case reaches would make the test above pass.
    met = {(name, parameter.name) for name, parameter, _ in cases()}
    assert len(COMMANDS) > 40
    assert len(met) > 150
    assert ("find", "limit") in met
    assert ("backup", "rate") in met
    assert ("index add", "kind") in met
    assert all(each.name in VALUES or name in GIVEN for name, each in required())


def test_an_option_of_several_commands_is_declared_once() -> None:
    """The same flag with the same value has the same help everywhere."""
    shared = ("where", "order_by", "fields", "dates", "embed_url", "embed_model", "zone", "dry_run")
    for option in (*shared, "token_file", "as_json", "reason", "after", "key_file", "embed"):
        found = {
            json.dumps([each.opts, each.help, each.metavar])
            for command in COMMANDS.values()
            for each in parameters(command, "option")
            if each.name == option
        }
        assert len(found) == 1 or (option == "where" and len(found) == 2), (option, found)
