"""What an editor and an interactive session show: modules, docstrings, reprs, checked options."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import amberdb
from amberdb import Collection, Database, Ordered, ReadOnlyError, Text, aio
from amberdb.engine.options import OpenOptions, Options

ROOT = Path(__file__).parents[2]
NAMES: list[str] = vars(amberdb)["__all__"]  # made at run time; checkers read __init__.pyi

EXPLAINED: list[Callable[..., Any]] = [
    amberdb.open,
    Database.collection,
    Database.transaction,
    Database.snapshot,
    Database.changes,
    Database.subscriber,
    Database.erase,
    Database.backup,
    Collection.get,
    Collection.record,
    Collection.put,
    Collection.put_many,
    Collection.update,
    Collection.delete_many,
    Collection.find,
    Collection.search,
    Collection.explain,
]
"""Those whose docstring has an example."""


# -- help() ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", EXPLAINED, ids=lambda function: function.__qualname__)
def test_help_has_a_summary_an_example_and_the_errors(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    summary, blank, *rest = text.splitlines()
    assert summary.endswith(".")
    assert blank == ""
    code = "\n".join(line for line in rest if line.startswith("    "))
    assert re.search(r"\w\(|\w\[", code), "no example, indented by four"
    if function not in (Collection.get,):  # whose class says what every read raises
        assert re.search(r"\b\w+Error\b", text)


@pytest.mark.parametrize("function", EXPLAINED, ids=lambda function: function.__qualname__)
def test_help_explains_every_parameter(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    if function is amberdb.open:
        text += "settings"
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    # The class says what `sync` of a write means; an id, a default and a document need no word.
    plain = {"sync", "id", "default", "name", "document", "documents", "collection", "reason"}
    if function in (Collection.delete_many, Database.erase, Collection.explain):
        plain |= {"where", "progress", "order_by", "text", "vector"}  # as in find() and search()
    missing = [name for name in names if name not in plain and not re.search(rf"\b{name}\b", text)]
    assert missing == []


@pytest.mark.parametrize("function", EXPLAINED, ids=lambda function: function.__qualname__)
def test_errors_in_help_exist(function: Callable[..., Any]) -> None:
    named = set(re.findall(r"\b\w+Errors?\b", inspect.getdoc(function) or ""))
    known = {*NAMES, "ValueError", "TypeError", "OpenErrors"}
    assert named <= known


# -- names -------------------------------------------------------------------------------------


def test_every_public_name_is_of_the_module_that_it_is_imported_from() -> None:
    inner = {
        name: thing.__module__
        for name in NAMES
        if getattr(thing := getattr(amberdb, name), "__module__", "").startswith("amberdb.")
    }
    assert inner == {}


def test_a_public_function_has_the_name_that_it_is_exported_under() -> None:
    for name in NAMES:
        thing = getattr(amberdb, name)
        if inspect.isfunction(thing):
            assert (thing.__name__, thing.__qualname__) == (name, name)


def test_type_hints_of_public_classes_can_be_resolved() -> None:
    # They are looked up in the module that __module__ names.
    for name in NAMES:
        thing = getattr(amberdb, name)
        if isinstance(thing, type):
            get_type_hints(thing)


def test_an_error_in_a_traceback_has_its_public_name() -> None:
    import traceback

    line = traceback.format_exception_only(ReadOnlyError("open it to write"))[0]
    assert line == "amberdb.ReadOnlyError: open it to write\n"


# -- reprs -------------------------------------------------------------------------------------


def test_a_page_is_a_list_and_shows_whether_there_is_a_next_one(db: Database) -> None:
    events = db.collection("event", indexes=[Ordered("n")])
    events.put_many({"id": f"{n}", "n": n} for n in range(3))
    page = events.find(order_by="n", limit=2)
    assert page == [{"id": "0", "n": 0}, {"id": "1", "n": 1}]
    assert repr(page).startswith("<amberdb.Page of 2, next page: after=page.cursor: [{'id': '0'")
    last = events.find(order_by="n", after=page.cursor)
    assert repr(last).startswith("<amberdb.Page of 1, last page: [{'id': '2'")


def test_the_repr_of_a_page_does_not_grow_with_it(db: Database) -> None:
    events = db.collection("event")
    events.put_many({"text": "x" * 10_000} for _ in range(200))
    assert len(repr(events.find())) < 2_000


def test_hits_are_a_list_and_show_how_many_by_which_index(db: Database) -> None:
    notes = db.collection("note", indexes=[Text("content")])
    notes.put_many({"id": f"{n}", "content": "umbrella"} for n in range(5))
    hits = notes.search("umbrella")
    assert [hit.id for hit in list(hits)] == [hit.id for hit in hits]
    assert repr(hits).startswith("<amberdb.Hits 5 by text:content; best (id, score): [('4', ")
    assert repr(notes.search("zebra")) == ("<amberdb.Hits 0 by text:content; best (id, score): []>")


def test_a_transaction_shows_whether_it_is_open(db: Database) -> None:
    events = db.collection("event")
    with db.transaction() as tx:
        assert repr(tx) == "<amberdb.Transaction open>"
        tx["event"].put({"id": "a"})
    assert repr(tx) == f"<amberdb.Transaction committed at Lsn {events.record('a').version}>"
    assert repr(db.transaction()) == "<amberdb.Transaction not open>"


def test_a_snapshot_and_a_subscriber_show_their_lsn(db: Database) -> None:
    db.collection("event").put({"id": "a"})
    with db.snapshot() as at:
        assert re.fullmatch(rf"<amberdb\.Snapshot at Lsn {at.lsn}, age \d+ ms>", repr(at))
    assert repr(at).endswith(" closed>")
    reader = db.subscriber("indexer")
    assert repr(reader) == f"<amberdb.Subscriber 'indexer' at Lsn {reader.position}>"


def test_a_database_and_a_collection_show_their_path(db: Database) -> None:
    assert repr(db) == f"<amberdb.Database {db.path!r}>"
    assert repr(db.collection("event")) == f"<amberdb.Collection 'event' of {db.path!r}>"


# -- options -----------------------------------------------------------------------------------


def test_open_takes_exactly_the_fields_of_options() -> None:
    assert get_type_hints(OpenOptions) == get_type_hints(Options)


def test_an_unknown_option_is_a_type_error() -> None:
    settings: dict[str, Any] = {"sync_intervall_ms": 5}
    with pytest.raises(TypeError, match="sync_intervall_ms"):
        amberdb.open(":memory:", **settings)


SNIPPET = """\
import amberdb
from amberdb import *

amberdb.open("a", create=False, sync="interval", backups=amberdb.RollingBackups())
amberdb.restore("a", "b", until=7, sync="os")
amberdb.open("a", sync_intervall_ms=5)  # wrong
amberdb.open("a", sync="Always")  # wrong
amberdb.check("a", sync_intervall_ms=5)  # wrong
amberdb.repair("a", sync_intervall_ms=5)  # wrong
amberdb.restore("a", "b", sync_intervall_ms=5)  # wrong
amberdb.verify_backup("a", sync_intervall_ms=5)  # wrong
kinds: list[type] = [AmberError, Database, amberdb.Hit]
print(amberdb.Any)  # wrong
"""
WRONG = [number for number, line in enumerate(SNIPPET.splitlines(), 1) if "# wrong" in line]


@pytest.mark.slow
@pytest.mark.campaign  # pyright, below, takes a third of the time
def test_mypy_knows_the_names_and_finds_a_typo_in_an_option(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="comes with the extra `check`")
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPET)
    ran = checked(
        "mypy", "--no-incremental", "--config-file", str(ROOT / "pyproject.toml"), str(script)
    )
    found = re.findall(r"snippet\.py:(\d+): error", ran.stdout)
    assert sorted(map(int, found)) == WRONG, ran.stdout + ran.stderr


@pytest.mark.slow
def test_pyright_knows_the_names_and_finds_a_typo_in_an_option(tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="comes with the extra `check`")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    settings = {"include": ["snippet.py"], "extraPaths": [str(ROOT / "src")]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    ran = checked("pyright", "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson")
    found = [
        each["range"]["start"]["line"] + 1 for each in json.loads(ran.stdout)["generalDiagnostics"]
    ]
    assert sorted(found) == WRONG, ran.stdout + ran.stderr


def checked(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


# -- names of collections and documents --------------------------------------------------------


def test_an_existing_collection_is_reached_by_its_name(db: Database) -> None:
    db.collection("event", indexes=[Ordered("n")]).put({"id": "a", "n": 1})
    assert db["event"]["a"] == {"id": "a", "n": 1}
    with pytest.raises(amberdb.CollectionMissingError):
        db["other"]
    assert db.collections() == ["event"]
    with pytest.raises(amberdb.MissingKeyError):
        db["event"]["b"]
    del db["event"]["a"]
    assert "a" not in db["event"]


def test_the_async_face_shows_the_same_help() -> None:
    for name in ("find", "search", "put", "put_many", "update"):
        assert inspect.getdoc(getattr(aio.Collection, name)) == inspect.getdoc(
            getattr(Collection, name)
        )
