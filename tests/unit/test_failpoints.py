"""The named places: each stands once, and is reached only while a test wants it."""

import ast
from collections import Counter
from pathlib import Path

import amberdb
from amberdb import Ordered
from amberdb import _failpoints as failpoints
from support.databases import SMALL

PACKAGE = Path(amberdb.__file__).parent


def names_in_source() -> list[str]:
    sources = [path for name in ("engine", "wal") for path in (PACKAGE / name).rglob("*.py")]
    assert sources
    return [
        ast.literal_eval(node.args[0])
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "reach"
    ]


def test_each_name_stands_at_one_place() -> None:
    assert sorted(names_in_source()) == list(failpoints.NAMES)


def test_names_are_reached_while_installed(tmp_path: Path) -> None:
    reached: Counter[str] = Counter()

    def note(name: str) -> None:
        reached[name] += 1

    failpoints.install(note)
    try:
        with amberdb.open(tmp_path / "t.amber", **SMALL, sync="always") as db:
            notes = db.collection("notes")
            for number in range(20):
                notes.put({"id": str(number), "text": "x" * 1000})
            db.checkpoint()
            db.collection("notes", indexes=[Ordered("text")])
            db.build_indexes()
    finally:
        failpoints.install(None)
    phases = {name.partition(".")[0] for name in reached}
    assert phases >= {"create", "recovery", "commit", "rotation", "checkpoint", "index", "close"}
    assert set(reached) <= set(failpoints.NAMES)
    before = sum(reached.values())
    with amberdb.open(tmp_path / "t.amber", **SMALL):
        pass
    assert sum(reached.values()) == before
