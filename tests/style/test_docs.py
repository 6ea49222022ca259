"""The documents do not rot: verbs, links and the tests they cite exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pytest
import typer

import amberdb
from style.repo import ROOT, documents, files, read

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
_DEFINITION = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_CITED_TEST = re.compile(r"\btests/[\w/]+\.py::[\w:]+")
_FOREIGN = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_TEST_FILE = re.compile(r"tests/.*\btest_\w+\.py$")
_NAMED_TEST = re.compile(r"(?:\w+/)*test_\w+(?:\.py)?")
_PROMISE = re.compile(r"^\| (\d+) \| ")
_TEST_OR_FILE = re.compile(r"`(tests/[\w/]+\.py(?:::[\w:]+)?)`")

GUARANTEES = "docs/guarantees.md"
WALK = "CONTRIBUTING.md"


def links(path: str) -> Iterator[str]:
    """The targets of a document's links, those inside code left out."""
    text = _CODE.sub("", _FENCE.sub("", read(path)))
    for pattern in (_LINK, _DEFINITION):
        for target in pattern.findall(text):
            if not _FOREIGN.match(target):
                yield target


def anchors(document: Path) -> set[str]:
    """The names of a document's headings, as forges make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", document.read_text(encoding="utf-8"))):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


def definitions(path: str) -> set[str]:
    """`function`, `Class` and `Class::method` of a test file."""
    found: set[str] = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):  # TestStore = StoreMachine.TestCase
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{member.name}"
                for member in node.body
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def verbs(command: Any, prefix: str = "") -> Iterator[str]:
    """Every command that can be run, as `verb` or `group verb`.

    Only `commands` and `hidden` are asked for: releases of typer differ in whose classes they use.
    """
    inner: dict[str, Any] | None = getattr(command, "commands", None)
    if inner is None:
        yield prefix.strip()
    else:
        for name, one in inner.items():
            if not one.hidden:
                yield from verbs(one, f"{prefix}{name} ")


@pytest.mark.parametrize("path", documents())
def test_links_lead_somewhere(path: str) -> None:
    lost: list[str] = []
    for target in links(path):
        place, _, anchor = unquote(target).partition("#")
        goal = (ROOT / PurePosixPath(path).parent / place).resolve() if place else ROOT / path
        inside = goal.exists() and goal.is_relative_to(ROOT)
        if not inside or (anchor and goal.suffix == ".md" and anchor.lower() not in anchors(goal)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("path", documents())
def test_cited_tests_exist(path: str) -> None:
    lost: list[str] = []
    for cited in _CITED_TEST.findall(read(path)):
        place, _, name = cited.partition("::")
        if place not in files() or name not in definitions(place):
            lost.append(cited)
    assert lost == []


@pytest.mark.parametrize("path", documents())
def test_tests_that_are_named_without_a_path_exist(path: str) -> None:
    # Tables name the file once in their head and then `test_it`, or `test_file.py::test_it`.
    sources = {name: read(name) for name in files() if _TEST_FILE.match(name)}
    everything = "\n".join(sources.values())
    lost: list[str] = []
    for cited in _CODE.findall(read(path)):
        place, _, name = cited.strip("`").rpartition("::")
        if _NAMED_TEST.fullmatch(name or cited.strip("`")) is None:
            continue
        if name.endswith(".py"):
            place, name = name, ""
        homes = [source for source in sources if f"/{source}".endswith(f"/{place}")]
        text = "\n".join(sources[home] for home in homes) if place else everything
        if (place and not homes) or (name and not re.search(rf"\bdef {name}\b", text)):
            lost.append(cited)
    assert lost == []


def promises() -> list[tuple[int, list[str]]]:
    """Of each promise the number and the tests that its row names."""
    found: list[tuple[int, list[str]]] = []
    for line in read(GUARANTEES).splitlines():
        if row := _PROMISE.match(line):
            found.append((int(row[1]), _TEST_OR_FILE.findall(line.rpartition(" | ")[2])))
    return found


def test_promises_are_numbered_once_and_in_order() -> None:
    numbers = [number for number, _ in promises()]
    assert len(numbers) > 50
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_promise_names_tests_that_exist() -> None:
    without = [number for number, cited in promises() if not cited]
    assert without == [], "a promise without a test is a hope"
    lost = [
        (number, path)
        for number, cited in promises()
        for path in cited
        if path.partition("::")[0] not in files()
    ]
    assert lost == []  # and the functions: test_cited_tests_exist


def test_the_walk_names_files_that_exist() -> None:
    # CONTRIBUTING.md: for behaviours that the documents name, the file where each lives.
    text = read(WALK).partition("## Where a behaviour lives")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](" in line]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"\]\(([\w/]+\.py)\)", row)
        assert named, row
        assert [path for path in named if path not in files()] == []
        function = re.findall(r"`(\w+)(?:\(\))?`", row.rpartition(" | ")[2])
        assert function, row
        source = "\n".join(read(path) for path in named)
        assert [name for name in function if not re.search(rf"\b{name}\b", source)] == []


def test_every_verb_is_documented() -> None:
    from amberdb.cli.__main__ import app  # here, so that links are judged without the extra

    text = "\n".join(read(path) for path in ("README.md", "docs/cli.md") if path in files())
    every = list(verbs(typer.main.get_command(app)))
    assert every
    missing = [verb for verb in every if not re.search(rf"amberdb {re.escape(verb)}\b", text)]
    assert missing == []


def test_every_error_is_in_the_table_of_its_family() -> None:
    tables = read("docs/errors.md").split("\n## ")
    rows = {
        name: table.partition("\n")[0]
        for table in tables
        for name in re.findall(r"^\| `(\w+)` \|", table, re.M)
    }
    kinds = {
        name: kind
        for name in dir(amberdb)
        if isinstance(kind := getattr(amberdb, name), type)
        and issubclass(kind, amberdb.AmberError | amberdb.AmberWarning)
    }
    roots = {"AmberError", "AmberWarning"}
    assert kinds.keys() - rows.keys() - roots == set()
    for name, family in rows.items():
        assert family in {each.__name__ for each in kinds[name].__mro__} | {"Others", "Warnings"}


def test_decisions_are_listed() -> None:
    index = read("docs/decisions/README.md")
    pages = [PurePosixPath(path).name for path in files() if path.startswith("docs/decisions/0")]
    assert pages
    assert [page for page in pages if f"({page})" not in index] == []
    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
