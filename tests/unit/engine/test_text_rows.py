"""The rows of a text index between their commit and their segment: analyzed once, whoever asks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from amberdb import Collection, Database, Text
from amberdb.engine.search.segments import SegmentList
from amberdb.index.text.postings import InMemoryPostings
from amberdb.index.text.text import Occurrences, TextExtractor
from support.databases import OpenDatabase
from unit.engine.helpers import abandon


@pytest.fixture
def analyzed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The documents whose texts were analyzed, in order."""
    analyze = TextExtractor.occurrences
    seen: list[Any] = []

    def counted(self: TextExtractor, document: dict[str, Any]) -> Occurrences:
        seen.append(document["id"])
        return analyze(self, document)

    monkeypatch.setattr(TextExtractor, "occurrences", counted)
    return seen


@pytest.fixture
def notes(db: Database) -> Collection:
    return db.collection("notes", indexes=[Text("text")])


def found(notes: Collection, text: str) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in notes.search(text, limit=50)]


def test_a_commit_analyzes_and_searches_and_checkpoints_reuse_it(
    db: Database, notes: Collection, analyzed: list[str]
) -> None:
    notes.put_many({"id": f"n{i}", "text": f"green tea {i}"} for i in range(20))
    with db.transaction() as tx:
        tx["notes"].put({"id": "n20", "text": "black tea"})
        tx["notes"].delete("n3")
    notes.update("n4", {"stars": 5})  # the text is the same
    assert sorted(analyzed) == sorted(f"n{i}" for i in range(21))
    before = found(notes, "green tea")
    assert len(before) == 20
    db.checkpoint()
    assert found(notes, "green tea") == before
    assert len(analyzed) == 21


def test_only_rows_that_live_become_a_segment(
    db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[tuple[int, int]]] = []

    def noted(segments: SegmentList, store: Any, index: Any) -> None:
        written.append(segments.items)
        store.put(*segments.pair(index))

    monkeypatch.setattr(SegmentList, "write", noted)
    for round in range(3):
        notes.put_many({"id": f"n{i}", "text": f"tea {round}"} for i in range(5))
    notes.delete("n0")
    db.checkpoint()
    assert [[rows for _, rows in items] for items in written] == [[4]]
    assert [hit.id for hit in notes.search("0 1")] == []
    assert sorted(hit.id for hit in notes.search("tea")) == ["n1", "n2", "n3", "n4"]
    assert db.check().ok


@pytest.mark.parametrize("row", [0, 1, 2])
def test_an_interrupted_commit_leaves_no_part_of_a_row(
    db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    analyze = TextExtractor.occurrences

    def interrupted(self: TextExtractor, document: dict[str, Any]) -> Iterator[Any]:
        yield from analyze(self, document)
        if document["id"] == f"n{row}":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TextExtractor, "occurrences", interrupted)
        with pytest.raises(KeyboardInterrupt):
            notes.put_many({"id": f"n{i}", "text": "tea " * (i + 1)} for i in range(3))
    scores = found(notes, "tea")
    assert [id for id, _ in scores] == ["n2", "n1", "n0"]
    assert db.check().ok  # it compares the postings in memory with the documents
    db.checkpoint()
    assert found(notes, "tea") == scores


def test_an_analysis_that_fails_fails_no_commit(
    db: Database, notes: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: TextExtractor, document: dict[str, Any]) -> Occurrences:
        raise ValueError("no terms")

    with monkeypatch.context() as patch:
        patch.setattr(TextExtractor, "occurrences", broken)
        notes.put({"id": "a", "text": "tea"})
        with pytest.raises(ValueError, match="no terms"):
            notes.search("tea")
    assert [hit.id for hit in notes.search("tea")] == ["a"]


def test_replayed_rows_are_analyzed_in_the_background(
    open_db: OpenDatabase,
    db: Database,
    notes: Collection,
    tmp_path: Path,
    analyzed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes.put_many({"id": f"n{i}", "text": f"tea {i}"} for i in range(20))
    expected = found(notes, "tea 7")
    path = abandon(db, tmp_path / "crashed.amber")
    analyzed.clear()
    done = Event()
    add: Callable[..., None] = InMemoryPostings.add

    def noted(self: InMemoryPostings, rowid: int, occurrences: Occurrences) -> None:
        add(self, rowid, occurrences)
        if len(self) == 20:
            done.set()

    monkeypatch.setattr(InMemoryPostings, "add", noted)
    copy = open_db(path.name, background=True)
    assert done.wait(30)
    assert found(copy.collection("notes"), "tea 7") == expected
    assert analyzed.count("n7") == 1


def test_postings_count_in_the_memory_of_the_memtable(open_db: OpenDatabase) -> None:
    sizes: list[int] = []
    for number, indexes in enumerate(([], [Text("text")])):
        db = open_db(f"{number}.amber")
        notes = db.collection("notes", indexes=indexes)
        before = db.stats().memtable_bytes
        notes.put({"id": "a", "text": " ".join(f"word{i}" for i in range(1000))})
        sizes.append(db.stats().memtable_bytes - before)
    assert sizes[1] - sizes[0] > 100_000
