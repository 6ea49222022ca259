"""amberdb.guide() and `amberdb init`: every sample runs, every name exists, and nothing is
overwritten."""

import builtins
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb import Database, QueryError
from amberdb.cli.__main__ import app
from amberdb.cli.init import Template, programs
from amberdb.context import AgentContext
from amberdb.memory import Memory
from support import slices
from support.databases import audited

GUIDE = amberdb.guide()
SAMPLES = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S)
PROSE = re.sub(r"^```.*?^```$", "", GUIDE, flags=re.M | re.S)
CODE = re.findall(r"`([^`\n]+)`", PROSE)

ROOTS = {
    "db": amberdb.Database,
    "notes": amberdb.Collection,
    "tx": amberdb.Transaction,
    "page": amberdb.Page,
    "memory": Memory,
    "context": AgentContext,
}
"""What the guide calls by these names."""

KNOWN = {name for kind in (*ROOTS.values(), amberdb, builtins) for name in dir(kind)}
PARAMETERS = {
    parameter
    for kind in ROOTS.values()
    for _, method in inspect.getmembers(kind, inspect.isfunction)
    for parameter in inspect.signature(method).parameters
}
OTHERS = {"amberdb", "await", "fork", *Template}
"""Words in the guide's code that are no names of AmberDB."""


def init(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def run(script: Path, folder: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


# -- the guide -----------------------------------------------------------------------------------


def test_the_guide_is_short() -> None:
    assert GUIDE.startswith("# AmberDB")
    assert len(GUIDE) < 12_000  # about 3,000 tokens


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_a_sample_of_the_guide_runs_twice(number: int, tmp_path: Path) -> None:
    script = tmp_path / "sample.py"
    script.write_text(SAMPLES[number], encoding="utf-8")
    for _ in range(slices.size(2, 1)):
        run(script, tmp_path)
    (made,) = tmp_path.glob("*.amber")
    with audited(made) as db:
        assert db.collections()


def exists(root: str, names: list[str]) -> bool:
    """Whether `root.name.name` does."""
    thing: Any = amberdb if root == "amberdb" else ROOTS.get(root)
    for name in names:
        if inspect.ismodule(thing) and find_spec(f"{thing.__name__}.{name}") is not None:
            thing = import_module(f"{thing.__name__}.{name}")
        elif hasattr(thing, name) or name in getattr(thing, "__annotations__", {}):
            thing = getattr(thing, name, None)
        else:
            return False
    return True


def missing(code: str) -> Iterator[str]:
    """The names in a piece of code that do not exist."""
    code = re.sub(r'"[^"]*"', '""', code)
    for root, names in re.findall(r"\b([a-z]\w*)((?:\.\w+)+)", code):
        if not exists(root, names[1:].split(".")):
            yield root + names
    yield from set(re.findall(r"(?<![.\w])(\w+)\(", code)) - KNOWN
    yield from set(re.findall(r"(?<![.\w])([A-Z][a-z]\w+)", code)) - KNOWN


@pytest.mark.parametrize("code", sorted(set(CODE)))
def test_every_name_of_the_guide_exists(code: str) -> None:
    if code.startswith("amberdb "):
        verb = code.split()[1]
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0
    elif code.startswith("pip "):
        assert code in ("pip install amberdb", 'pip install "amberdb[cli]"')
    elif re.fullmatch(r"[a-z_]\w+", code):
        assert code in KNOWN | PARAMETERS | OTHERS
    else:
        assert list(missing(code)) == []


@pytest.mark.parametrize(
    "code", ["amberdb.nothing", "db.nothing()", "nothing()", "NothingError", "notes.nothing"]
)
def test_a_name_that_does_not_exist_is_seen(code: str) -> None:
    assert list(missing(code))


def test_operators_are_those_that_filters_and_patches_have(db: Database) -> None:
    notes = db.collection("note")
    notes.put({"id": "a", "n": 1, "tags": ["x"]})
    section = PROSE.partition("## Filters")[2].partition("\n## ")[0]
    refused, _, patches = section.partition("There is no")[2].partition("A patch of")
    operands: dict[str, Any] = dict.fromkeys(("$eq", "$ne", "$gt", "$gte", "$lt", "$lte"), 1)
    operands |= {"$in": [1], "$nin": [1], "$prefix": "a", "$contains": "x", "$exists": True}
    named = set(re.findall(r"\$\w+", section.partition("There is no")[0]))
    assert named == set(operands) | {"$and", "$or", "$not"}
    for name, operand in operands.items():
        notes.find({"n": {name: operand}})
    for name, operand in (("$and", [{"n": 1}]), ("$or", [{"n": 1}]), ("$not", {"n": 2})):
        assert notes.count({name: operand}) == 1
    for name in re.findall(r"\$\w+", refused):
        with pytest.raises(QueryError):
            notes.find({"n": {name: 1}})
    assert set(re.findall(r"\$\w+", patches)) == {"$set", "$unset", "$inc", "$push", "$max"}
    notes.update(
        "a", {"$set": {"m": 1}, "$inc": {"n": 1}, "$push": {"tags": "y"}, "$max": {"k": 2}}
    )
    notes.update("a", {"$unset": ["m"]})
    assert notes["a"] == {"id": "a", "n": 2, "tags": ["x", "y"], "k": 2}


def test_errors_of_the_guide_are_errors() -> None:
    section = PROSE.partition("## Errors")[2].partition("\n## ")[0]
    named = {name for row in section.splitlines() for name in re.findall(r"`(\w+Error)`", row)}
    assert len(named) >= 9
    assert all(issubclass(getattr(amberdb, name), amberdb.AmberError) for name in named)


# -- amberdb init --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("template", Template)
def test_init_makes_a_program_that_runs_and_finds(template: Template, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "project"
    made = init(folder, "--template", template)
    assert made.exit_code == 0, made.output
    assert {path.name for path in folder.iterdir()} == {"memory.amber", "main.py", "AGENTS.md"}
    assert (folder / "AGENTS.md").read_text("utf-8").endswith(GUIDE)
    for _ in range(2):  # from anywhere
        assert run(folder / "main.py", tmp_path)
    # What it says comes next does what it says.
    python, info, search = made.stdout.partition("next:\n")[2].splitlines()
    assert python.split()[1:] == [str(folder / "main.py")]
    assert Path(python.split()[0]).name == "python"
    for step in (info, search):
        assert CliRunner().invoke(app, step.split()[1:]).exit_code == 0
    with audited(folder / "memory.amber"):
        pass


@pytest.mark.parametrize("name", ["memory.amber", "main.py", "AGENTS.md"])
def test_init_overwrites_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    refused = init(tmp_path)
    assert refused.exit_code == 2
    assert str(tmp_path / name) in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_init_in_a_directory_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    made = init(tmp_path, "--json")
    assert json.loads(made.stdout)["AGENTS.md"] == str(tmp_path / "AGENTS.md")
    with audited(tmp_path / "memory.amber") as db:
        assert db.collections() == []


def test_init_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused = init(tmp_path / "file")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")


@pytest.mark.parametrize("template", Template)
def test_a_program_is_short(template: Template) -> None:
    program = programs(GUIDE)[template]
    assert program.startswith('"""')
    assert sum(bool(line.strip()) for line in program.splitlines()) <= 26
    compile(program, "main.py", "exec")
