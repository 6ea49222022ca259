"""Vectors that an embedder makes: at the write, later, in the background, and never for a text that
is not the document's any more."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from amberdb import (
    REMOVE,
    Collection,
    Database,
    DocumentTooLargeError,
    EmbeddingError,
    Hits,
    Vector,
)
from amberdb.engine import failures
from amberdb.engine.maintenance import embedding_backfill
from support.databases import FakeClock, OpenDatabase

DIM = 3


def lengths(texts: list[str]) -> Sequence[Sequence[float]]:
    """A model of sorts: how long a text is, and how many e and words it has."""
    return [[float(len(t)), float(t.count("e")), float(t.count(" ") + 1)] for t in texts]


def down(texts: list[str]) -> Any:
    raise ConnectionError("the model is not there")


def short(texts: list[str]) -> Any:
    return [[1.0, 2.0]] * len(texts)


def endless(texts: list[str]) -> Any:
    return [[1.0, 2.0, float("nan")]] * len(texts)


def embedded(
    db: Database, embed: Any, *, defer: bool = False, source: str = "content"
) -> Collection:
    index = Vector("embedding", dim=DIM, metric="l2", source=source, embed=embed, defer=defer)
    return db.collection("memory", indexes=[index])


def ids(hits: Hits) -> list[str]:
    return [hit.id for hit in hits]


def waiting(db: Database) -> int:
    count = db.stats()["collections"]["memory"]["embedding"]["embedding"]["waiting"]
    assert isinstance(count, int)
    return count


# -- at the write ----------------------------------------------------------------------------


def test_documents_get_their_vectors_from_the_embedder(db: Database) -> None:
    batches: list[int] = []

    def embed(texts: list[str]) -> Any:
        batches.append(len(texts))
        return lengths(texts)

    memory = embedded(db, embed)
    memory.put_many([{"id": f"d{n}", "content": "e" * n} for n in range(1, 101)])
    assert batches == [64, 36]
    memory.put({"id": "own", "content": "eee", "embedding": [500, 0, 0]})
    memory.put({"id": "none"})
    assert len(batches) == 2
    assert ids(memory.search(vector=[7, 7, 1], limit=1)) == ["d7"]
    memory.update("d7", {"content": "e" * 300})
    assert ids(memory.search(vector=[300, 300, 1], limit=1)) == ["d7"]


def test_a_document_that_is_kept_is_not_embedded(db: Database) -> None:
    texts: list[str] = []

    def embed(batch: list[str]) -> Any:
        texts.extend(batch)
        return lengths(batch)

    memory = embedded(db, embed)
    memory.put({"id": "a", "content": "old"})
    given = [{"id": "a", "content": "new"}, {"content": "another"}, {"id": "b", "content": "b"}]
    assert memory.put_many(given, on_conflict="keep")[::2] == ["a", "b"]
    assert texts == ["old", "another", "b"]
    assert memory["a"]["content"] == "old"
    assert "embedding" in memory["b"]
    with db.transaction() as tx:
        assert tx["memory"].put_many(given[2:], on_conflict="keep") == ["b"]


def test_a_document_that_is_kept_no_more_is_embedded(db: Database) -> None:
    texts: list[str] = []

    def embed(batch: list[str]) -> Any:
        texts.extend(batch)
        if "deletes" in batch:
            memory.delete("a")
        return lengths(batch)

    memory = embedded(db, embed)
    memory.put({"id": "a", "content": "old"})
    memory.put_many(
        [{"id": "a", "content": "new"}, {"id": "b", "content": "deletes"}], on_conflict="keep"
    )
    assert memory["a"]["content"] == "new"
    assert memory["a"]["embedding"].tolist() == lengths(["new"])[0]
    assert texts == ["old", "deletes", "new", "deletes"]


@pytest.mark.parametrize("embed", [down, short, endless])
def test_a_failing_embedder_stores_nothing_or_leaves_the_vector_for_later(
    db: Database, embed: Any
) -> None:
    memory = embedded(db, embed)
    with pytest.raises(EmbeddingError):
        memory.put({"id": "a", "content": "tea"})
    assert len(memory) == 0
    memory = embedded(db, embed, defer=True)
    memory.put({"id": "a", "content": "tea"})
    assert ids(memory.search(vector=[3, 1, 1])) == []
    assert waiting(db) == 1
    with pytest.raises(EmbeddingError):
        memory.embed_missing()
    memory = embedded(db, lengths)
    assert memory.embed_missing() == 1
    assert ids(memory.search(vector=[3, 1, 1])) == ["a"]
    assert memory.embed_missing() == waiting(db) == 0


def test_the_source_may_be_within_a_map(db: Database) -> None:
    memory = embedded(db, lengths, source="message.text")
    memory.put({"id": "a", "message": {"text": "tea", "by": "u1"}})
    assert ids(memory.search(vector=[3, 1, 1])) == ["a"]
    memory.update("a", {"message": {"text": "tea please"}})
    assert memory.search(vector=[10, 3, 2])[0].score == 0


def test_a_vector_never_outlives_its_text(db: Database) -> None:
    """Else a document would be found by what it no longer says."""
    memory = embedded(db, lengths)
    memory.put_many([{"id": id, "content": "tea"} for id in "abc"])
    with db.transaction() as tx:  # where no model is called
        tx["memory"].update("a", {"content": "something else"})
        tx["memory"].update("b", {"content": "coffee", "embedding": [6, 2, 1]})
    assert ids(memory.search(vector=[3, 1, 1])) == ["c", "b"]
    memory = embedded(db, down, defer=True)
    memory.update("b", {"content": "gone"})
    memory.update("c", {"content": REMOVE})
    assert ids(memory.search(vector=[3, 1, 1])) == []
    assert waiting(db) == 2
    memory = embedded(db, lengths)
    assert memory.embed_missing() == 2
    assert set(ids(memory.search(vector=[3, 1, 1]))) == {"a", "b"}


def test_what_waits_is_counted_at_every_commit(open_db: OpenDatabase) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    index = Vector("embedding", dim=DIM, source="content")
    memory = db.collection("memory", indexes=[index], expires_at="until")
    until = datetime.fromtimestamp(clock.now + 60, UTC)
    memory.put_many({"id": f"d{n}", "content": "x"} for n in range(10))
    memory.put_many([{"id": "empty", "content": ""}, {"id": "number", "content": 7}, {"id": "n"}])
    memory.put({"id": "brief", "content": "x", "until": until})
    assert waiting(db) == 11
    memory.delete("d1")
    memory.update("d2", {"embedding": [1, 0, 0]})
    memory.update("d3", {"content": None})
    db.checkpoint()
    assert waiting(db) == 8
    clock.advance(120)
    db.expire()
    assert waiting(db) == 7
    db.close()
    db = open_db(clock=clock)
    assert waiting(db) == 7
    assert db.collection("memory").count({"embedding": {"$exists": False}}) == 11
    db.collection("memory", indexes=[])
    assert db.stats()["collections"]["memory"]["embedding"] == {}


# -- in the background -----------------------------------------------------------------------


class Model:
    """An embedder that refuses some texts, or all."""

    def __init__(self) -> None:
        self.is_down = False
        self.refused: set[str] = set()
        self.calls = 0

    def __call__(self, texts: list[str]) -> Any:
        self.calls += 1
        if self.is_down or self.refused & set(texts):
            raise ConnectionError("not these")
        return lengths(texts)


def come(db: Database, count: int, since: Any = None) -> Iterator[str]:
    """The ids of documents that get a vector, as they do, until there are so many."""
    found: set[str] = set()
    for change in db.changes(since, follow=True, timeout_s=60):
        document = change.document
        if document is not None and document.get("embedding") is not None:
            found.add(change.id)
            yield change.id
        if len(found) == count:
            return
    pytest.fail(f"{len(found)} of {count} documents got a vector")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that do not last."""
    monkeypatch.setattr(embedding_backfill, "PAUSE_S", 0.001)
    monkeypatch.setattr(failures, "PAUSE_MAX_S", 0.01)


@pytest.mark.usefixtures("soon")
def test_what_was_deferred_gets_its_vector_when_the_embedder_is_back(
    open_db: OpenDatabase,
) -> None:
    db = open_db(background=True)
    model = Model()
    model.is_down = True
    memory = embedded(db, model, defer=True)
    memory.put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 200))
    with db.transaction() as tx:
        tx["memory"].put({"id": "within", "content": "e e"})
    assert waiting(db) == 200
    model.is_down = False
    assert len(set(come(db, 200))) == 200
    assert waiting(db) == 0
    assert ids(memory.search(vector=[3, 2, 2], limit=1)) == ["within"]
    with db.transaction() as tx:  # and those that come later
        tx["memory"].update("d1", {"content": "later"})
    assert "d1" in set(come(db, 1, tx.lsn))


@pytest.mark.usefixtures("soon")
def test_texts_that_cannot_be_embedded_hold_up_no_others(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    model = Model()
    model.is_down = True
    memory = embedded(db, model, defer=True)
    memory.put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 301))
    model.refused = {"e" * n for n in (1, 2, 3, 100, 101, 102, 103, 300)}
    model.is_down = False
    assert len(set(come(db, 292))) == 292
    assert waiting(db) == 8
    model.refused = set()
    assert len(set(come(db, 300))) == 300


def test_embed_missing_embeds_the_others_and_raises_for_the_one(open_db: OpenDatabase) -> None:
    db = open_db()
    model = Model()
    model.is_down = True
    memory = embedded(db, model, defer=True)
    memory.put_many({"id": f"d{n:03}", "content": "e" * n} for n in range(1, 201))
    model.is_down = False
    model.refused = {"e", "e" * 100}
    with pytest.raises(EmbeddingError):
        memory.embed_missing()
    assert waiting(db) == 2
    model.refused = set()
    assert memory.embed_missing() == 2


def test_a_document_that_its_vector_makes_too_large_holds_up_no_other(
    open_db: OpenDatabase,
) -> None:
    db = open_db(document_bytes_max=1000)
    model = Model()
    model.is_down = True
    memory = embedded(db, model, defer=True)
    memory.put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 50))
    memory.put({"id": "a", "content": "e" * 965})
    model.is_down = False
    with pytest.raises(DocumentTooLargeError):
        memory.embed_missing()
    assert waiting(db) == 1


def test_what_is_written_meanwhile_ends_no_pause_of_an_embedder_that_is_down(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_backfill, "PAUSE_S", 1000.0)
    monkeypatch.setattr(failures, "PAUSE_MAX_S", 1000.0)
    db = open_db(background=True)
    asked = threading.Semaphore(0)

    def embed(texts: list[str]) -> Any:
        asked.release()
        raise ConnectionError("the model is not there")

    embedded(db, down)
    with db.transaction() as tx:
        tx["memory"].put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 1001))
    index = Vector("embedding", dim=DIM, source="content", embed=embed, defer=True)
    with db.transaction() as tx:
        tx["memory"].put({"id": "x", "content": "x"})
    db.collection("memory", indexes=[index])
    for _ in range(embedding_backfill.FAILURES_MAX):
        assert asked.acquire(timeout=60)
    while not db.stats().failures:
        threading.Event().wait(0.001)
    for n in range(10):
        with db.transaction() as tx:
            tx["memory"].put({"id": f"later{n}", "content": "e"})
    (failure,) = db.stats().failures
    assert "pending documents of collection 'memory'" in failure.job
    assert failure.attempts == 1
    db.close()
    assert not asked.acquire(timeout=0)


@pytest.mark.usefixtures("soon")
def test_documents_from_before_the_declaration_get_their_vectors(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    db.collection("memory").put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 200))
    embedded(db, Model(), defer=True)
    assert len(set(come(db, 199))) == 199
    assert waiting(db) == 0


def test_an_embedder_that_is_down_is_asked_a_few_times(open_db: OpenDatabase) -> None:
    db = open_db(background=True)
    model = Model()
    model.is_down = True
    memory = embedded(db, model)
    db.collection("memory").put({"id": "none"})
    with db.transaction() as tx:
        tx["memory"].put_many({"id": f"d{n}", "content": "e" * n} for n in range(1, 1001))
    asked = threading.Event()

    def embed(texts: list[str]) -> Any:
        try:
            return model(texts)
        finally:
            if model.calls == embedding_backfill.FAILURES_MAX:
                asked.set()

    memory = embedded(db, embed, defer=True)
    assert asked.wait(60)
    db.close()  # in the pause after the last of them
    assert model.calls == embedding_backfill.FAILURES_MAX
    assert memory.name == "memory"


def test_close_waits_for_the_call_of_an_embedder_but_not_for_ever(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_backfill, "PAUSE_S", 0.01)
    db = open_db(background=True)
    asked, answer = threading.Event(), threading.Event()

    def embed(texts: list[str]) -> Any:
        asked.set()
        assert answer.wait(60)
        return lengths(texts)

    embedded(db, embed, defer=True)
    with db.transaction() as tx:
        tx["memory"].put({"id": "a", "content": "tea"})
    assert asked.wait(60)
    db.close()
    answer.set()
    thread = next((t for t in threading.enumerate() if t.name == "amberdb-embedding"), None)
    if thread is not None:
        thread.join(60)
        assert not thread.is_alive()
    db = open_db()
    memory = embedded(db, lengths)
    assert memory.embed_missing() == 1


def test_what_changes_while_it_is_embedded_is_left_alone(db: Database) -> None:
    memory = embedded(db, lengths)
    with db.transaction() as tx:
        tx["memory"].put_many({"id": id, "content": "tea"} for id in "abc")

    def embed(texts: list[str]) -> Any:
        if len(texts) == 3:
            with db.transaction() as tx:
                tx["memory"].update("a", {"content": "changed"})
                tx["memory"].delete("b")
        return lengths(texts)

    memory = embedded(db, embed)
    assert memory.embed_missing() == 1
    assert memory.search(vector=[3, 1, 1])[0].id == "c"
    assert memory.embed_missing() == 1
    assert memory.search(vector=[7, 1, 1])[0].id == "a"
    assert memory.get("b") is None
