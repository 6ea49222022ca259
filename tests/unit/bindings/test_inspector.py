"""The reading model of the inspector: what it reads of a directory beside the process that writes,
with work that is bounded."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    ConflictError,
    Database,
    InvalidDocumentError,
    Lsn,
    MissingKeyError,
    Ordered,
    QueryError,
    ReadOnlyError,
    Text,
    Vector,
)
from amberdb._jsonl.text import loads
from amberdb.inspector import (
    Changes,
    Checking,
    Condition,
    conditions_of,
    delete_document,
    differences,
    edit_document,
    erase_documents,
    export_documents,
    newest_changes,
    parse_where,
    read_backups,
    read_collection,
    read_collections,
    read_document,
    read_history,
    read_map,
    read_measures,
    read_page,
    read_points,
    search_documents,
    wait_for_changes,
    where_of,
    where_text,
    whole_text,
)
from amberdb.inspector import feed as feed_module
from amberdb.inspector import history as history_module
from amberdb.inspector import vector_map as vector_map_module
from amberdb.inspector.values import JSON_CHARS_MAX, cell, json_text, kind_of
from amberdb.inspector.vector_map import project
from support.databases import FakeClock, OpenDatabase

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def notes(db: Database) -> amberdb.Collection:
    notes = db.collection(
        "notes",
        indexes=[Ordered("thread", "at"), Text("text"), Vector("v", dim=4)],
        expires_at="until",
    )
    words = ["umbrella", "car", "coffee", "meeting"]
    notes.put_many(
        {
            "id": f"n{n:02}",
            "thread": ["trip", "work"][n % 2],
            "at": n,
            "text": f"the {words[n % 4]} of day {n}",
            "v": np.eye(4, dtype=np.float32)[n % 4] + 0.01 * n,
        }
        for n in range(40)
    )
    return notes


@pytest.fixture
def reader(db: Database, notes: amberdb.Collection) -> Iterator[Database]:
    """Beside the process that writes, as the inspector opens it."""
    with amberdb.open(db.path, read_only=True) as reader:
        yield reader


# -- collections ---------------------------------------------------------------------------------


def test_collections_with_counts_sizes_and_indexes(db: Database, reader: Database) -> None:
    db.collection("empty")
    db.checkpoint()
    empty, notes = read_collections(reader)
    assert (empty.name, empty.documents, empty.size_bytes, empty.indexes) == ("empty", 0, 0, ())
    assert (notes.documents, notes.expires_at, notes.version) == (40, "until", 1)
    assert notes.size_bytes is not None
    assert notes.size_bytes > 8192
    kinds = {index.name: (index.kind, index.state) for index in notes.indexes}
    assert kinds == {
        "ordered:thread,at": ("ordered", "ready"),
        "text:text": ("text", "ready"),
        "vector:v": ("vector", "ready"),
    }
    assert notes.vector_indexes[0].details == {"dim": 4, "metric": "cosine"}
    assert notes.fields == ["id", "until", "thread", "at", "text"]
    assert read_collection(reader, "notes") == notes
    with pytest.raises(amberdb.CollectionMissingError):
        read_collection(reader, "nothing")


# -- documents -----------------------------------------------------------------------------------


def test_pages_by_cursor_with_their_plan(reader: Database) -> None:
    where = parse_where('{"thread": "trip"}')
    first = read_page(reader, "notes", where=where, order_by=["-at"], limit=15)
    rest = read_page(reader, "notes", where=where, order_by=["-at"], limit=15, after=first.cursor)
    assert [row.record.document["at"] for row in (*first.rows, *rest.rows)] == list(
        range(38, -1, -2)
    )
    assert rest.cursor is None
    assert first.plan.index == "ordered:thread,at"
    assert not first.plan.is_full_scan
    assert first.where_text == '{"thread": "trip"}'
    assert read_page(reader, "notes", where={"text": "x"}).plan.is_full_scan
    assert not read_page(reader, "notes").plan.is_full_scan
    with pytest.raises(QueryError, match="limit"):
        read_page(reader, "notes", limit=10_000)


def test_columns_are_chosen_or_those_that_most_documents_have(
    db: Database, reader: Database
) -> None:
    page = read_page(reader, "notes", limit=2)
    assert page.columns == ("thread", "at", "text", "v")
    assert [cell.text for cell in page.rows[0].cells][:2] == ["trip", "0"]
    assert [cell.kind for cell in page.rows[0].cells] == ["text", "number", "text", "vector"]
    chosen = read_page(reader, "notes", columns=["$updated_at", "at", "no.such", ".", "id"])
    assert chosen.columns == ("$updated_at", "at", "no.such", ".")
    assert chosen.rows[0].cells[0].kind == "time"
    assert [cell.text for cell in chosen.rows[0].cells[1:]] == ["0", "", ""]
    db.collection("odd").put(
        {"id": "a", "a.b": 1, "$x": 2, "": 3, **{f"f{n}": n for n in range(9)}}
    )
    odd = read_page(reader, "odd")
    assert odd.fields == tuple(f"f{n}" for n in range(9))
    assert odd.columns == odd.fields[:6]


def test_filters_are_built_and_taken_apart() -> None:
    conditions = [
        Condition("thread", "$eq", "trip"),
        Condition("at", "$gte", "3"),
        Condition("at", "$lt", "10"),
        Condition("at", "$gte", "4"),
        Condition("tags", "$in", "a, b, 3"),
        Condition("code", "$eq", "007"),
        Condition("done", "$eq", "true"),
        Condition("text", "$prefix", "12"),
        Condition("gone", "$exists", "no"),
        Condition("when", "$lt", '{"$date": "2026-03-01T12:00:00Z"}'),
        Condition(" ", "$eq", "left out"),
    ]
    where = where_of(conditions)
    assert where == {
        "thread": "trip",
        "at": {"$gte": 3, "$lt": 10},
        "tags": {"$in": ["a", "b", 3]},
        "code": "007",
        "done": True,
        "text": {"$prefix": "12"},
        "gone": {"$exists": False},
        "when": {"$lt": DAY},
        "$and": [{"at": {"$gte": 4}}],
    }
    assert parse_where(where_text(where)) == where
    again = conditions_of(where)
    assert again is not None
    assert where_of(again) == where
    assert conditions_of({"$or": [{"a": 1}]}) is None
    assert conditions_of({"a": {"$not": {"$gt": 1}}}) is None
    assert conditions_of(None) == []
    assert where_of([]) is None
    assert parse_where("  ") is None
    for wrong in ("[1]", "{", "3"):
        with pytest.raises(QueryError, match="the filter"):
            parse_where(wrong)
    with pytest.raises(QueryError, match="operator"):
        where_of([Condition("a", "$where", "1")])


def test_cells_are_short_and_of_one_line() -> None:
    assert cell("a\n b\t" + "x" * 500) == "a b " + "x" * 115 + "\u2026"
    values: tuple[Any, ...] = (
        None,
        True,
        1.5,
        DAY,
        b"abc",
        {"a": [1]},
        np.zeros((2, 3), np.float32),
    )
    assert [cell(value) for value in values] == [
        "", "true", "1.5", "2026-03-01T12:00:00Z", "3 bytes", '{"a": [1]}',
        "2 vectors of 3 numbers",
    ]  # fmt: skip
    more: tuple[Any, ...] = (*values, "x", [])
    assert [kind_of(value) for value in more] == [
        "none", "bool", "number", "time", "bytes", "map", "vector", "text", "list",
    ]  # fmt: skip
    text, is_cut = json_text({"id": "a", "text": "x" * JSON_CHARS_MAX})
    assert is_cut
    assert len(text) == JSON_CHARS_MAX


def test_one_document_with_times_and_vectors(
    db: Database, notes: amberdb.Collection, reader: Database
) -> None:
    notes.update("n03", {"until": DAY.replace(year=2099)})
    view = read_document(reader, "notes", "n03")
    assert view is not None
    assert view.record.version == notes.record("n03").version
    assert view.expires_at == DAY.replace(year=2099)
    assert '"v": "vector of 4 numbers"' in view.text.text
    (vector,) = view.vectors
    assert (vector.field, vector.dim, vector.count) == ("v", 4, 1)
    assert vector.norm == pytest.approx(float(np.linalg.norm(view.record.document["v"])))
    assert max(vector.strip) == 1.0
    assert amberdb.equal(loads(whole_text(view.record.document)), view.record.document)
    assert read_document(reader, "notes", "none") is None


# -- history -------------------------------------------------------------------------------------


def test_history_as_far_as_the_log_holds_it(
    db: Database, notes: amberdb.Collection, reader: Database
) -> None:
    notes.update("n03", {"at": 7, "place": {"city": "Oslo"}})
    notes.update("n03", {"place": {"city": "Bergen", "zip": "5003"}, "text": amberdb.REMOVE})
    notes.delete("n03")
    history = read_history(reader, "notes", "n03")
    assert [version.op for version in history.versions] == ["delete", "put", "put", "put"]
    assert history.is_complete
    assert history.dropped == 0
    assert history.oldest_lsn is not None
    assert history.oldest_lsn <= history.versions[-1].lsn
    deleted, third, second, first = history.versions
    assert (deleted.document, deleted.differences, first.differences) == (None, None, None)
    assert second.differences is not None
    assert third.differences is not None
    assert [(each.path, each.kind, each.before, each.after) for each in second.differences] == [
        ("at", "changed", "3", "7"),
        ("place", "added", "", '{"city": "Oslo"}'),
    ]
    assert {(each.path, each.kind) for each in third.differences} == {
        ("place.city", "changed"),
        ("place.zip", "added"),
        ("text", "removed"),
    }


def test_history_goes_on_where_its_time_was_over(
    notes: amberdb.Collection, reader: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        notes.update("n03", {"at": number})
    monkeypatch.setattr(history_module, "_CHECKED_EVERY", 50)
    part = read_history(reader, "notes", "n03", budget_s=-1)
    assert not part.is_complete
    assert 0 < len(part.versions) < 21
    versions = list(part.versions)
    while not part.is_complete:
        before = part.read_to
        part = read_history(reader, "notes", "n03", since=part.read_to, budget_s=-1)
        assert part.read_to > before
        assert part.oldest_lsn == versions[-1].lsn
        versions = [*part.versions, *versions]
    assert [version.document["at"] for version in versions if version.document] == [
        *range(19, -1, -1),
        3,
    ]


def test_history_that_the_log_no_longer_holds_and_former_names(
    db: Database, notes: amberdb.Collection, reader: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        notes.update("n04", {"text": "x" * 300, "at": number})
    db.checkpoint()
    db.checkpoint()
    db.rename_collection("notes", "diary")
    db["diary"].update("n03", {"at": 1})
    monkeypatch.setattr(history_module, "VERSIONS_MAX", 5)
    history = read_history(reader, "diary", "n03")
    assert [version.op for version in history.versions] == ["put"]
    assert history.versions[0].differences is None
    assert history.oldest_lsn is not None
    assert history.oldest_lsn > 41
    before = read_history(reader, "diary", "n04", since=Lsn(1))
    assert len(before.versions) <= 5


def test_differences_are_of_values_and_not_of_their_order() -> None:
    vector = np.ones(3, np.float32)
    same = {"v": vector, "m": {"a": 1, "b": 2}, "l": [1, {"x": 1}]}
    assert differences(same, {"l": [1, {"x": 1}], "m": {"b": 2, "a": 1}, "v": vector.copy()}) == []
    (changed,) = differences(same, {**same, "l": [1, {"x": 2}]})
    assert (changed.path, changed.before, changed.after) == ("l", '[1, {"x": 1}]', '[1, {"x": 2}]')
    (added,) = differences({}, {"v": vector})
    assert (added.kind, added.after) == ("added", "vector of 3 numbers")


# -- search --------------------------------------------------------------------------------------


def test_search_by_words_by_meaning_and_by_both(reader: Database) -> None:
    words = search_documents(reader, "notes", words="umbrella", limit=3)
    assert {hit.document["text"].split()[1] for hit in words.hits} == {"umbrella"}
    assert words.hits[0].snippet[1] == ("umbrella", True)
    assert [part.kind for part in words.hits[0].parts] == ["text"]
    assert words.hits[0].parts[0].score == words.hits[0].score
    more = search_documents(reader, "notes", words="umbrella", limit=3, after=words.cursor)
    assert not {hit.id for hit in more.hits} & {hit.id for hit in words.hits}

    like = search_documents(reader, "notes", like="n01", limit=3)
    assert like.hits[0].id == "n01"
    assert like.hits[0].score == pytest.approx(1)
    assert like.hits[0].snippet == (("the car of day 1", False),)

    def embed(texts: list[str]) -> Any:
        return [[0.0, 1.0, 0.0, 0.0] for _ in texts]

    both = search_documents(reader, "notes", words="umbrella", meaning="car", embed=embed, limit=40)
    vectors = search_documents(reader, "notes", vector=[0, 1, 0, 0], limit=40)
    alone = {hit.id: hit.score for hit in vectors.hits}
    texts = {hit.id: hit.score for hit in search_documents(reader, "notes", words="umbrella").hits}
    for hit in both.hits:
        parts = {part.kind: part for part in hit.parts}
        assert parts["vector"].score == pytest.approx(alone[hit.id])
        assert parts["text"].score == (pytest.approx(texts[hit.id]) if hit.id in texts else None)
    assert any(part.score is None for hit in both.hits for part in hit.parts)
    assert set(both.how["indexes"]) == {"text:text", "vector:v"}


def test_a_search_that_cannot_be_says_why(db: Database, reader: Database) -> None:
    db.collection("plain").put({"id": "a"})
    with pytest.raises(QueryError, match="nothing is asked"):
        search_documents(reader, "notes")
    with pytest.raises(QueryError, match="embedder"):
        search_documents(reader, "notes", meaning="tea")
    with pytest.raises(QueryError, match="no Vector index"):
        search_documents(reader, "plain", like="a")
    with pytest.raises(QueryError, match="'x'"):
        search_documents(reader, "notes", like="n01", field="x")
    with pytest.raises(MissingKeyError):
        search_documents(reader, "notes", like="none")
    with pytest.raises(amberdb.EmbeddingError):
        search_documents(reader, "notes", meaning="tea", embed=lambda texts: 1 / 0)
    assert search_documents(reader, "notes", words="nowhere").hits == ()


# -- changes, charts, backups, check -------------------------------------------------------------


def test_newest_changes_and_those_that_come(notes: amberdb.Collection, reader: Database) -> None:
    notes.put({"id": "x", "text": "hello"})
    newest = newest_changes(reader, limit=3)
    line = newest.lines[0]
    assert (line.op, line.collection, line.id) == ("put", "notes", "x")
    assert line.summary == '{"text": "hello"}'
    assert len(newest.lines) == 3
    came: list[Changes] = []
    following = threading.Thread(
        target=lambda: came.append(wait_for_changes(reader, newest.last, timeout_s=60))
    )
    following.start()
    notes.delete("x")
    following.join()
    (batch,) = came
    assert [(line.op, line.id) for line in batch.lines] == [("delete", "x")]
    assert batch.skipped == 0
    assert wait_for_changes(reader, batch.last, timeout_s=0) == Changes((), batch.last, 0)


def test_of_many_commits_at_once_the_newest_are_read(
    notes: amberdb.Collection, reader: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "COMMITS", 4)
    since = newest_changes(reader).last
    for number in range(10):
        notes.put({"id": str(number)})
    batch = wait_for_changes(reader, since, timeout_s=60)
    assert [line.id for line in batch.lines] == ["9", "8", "7", "6"]
    assert batch.skipped == 6


def test_charts_have_a_gap_where_nobody_wrote(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    notes = db.collection("notes")
    for minute in (0, 1, 3):
        clock.now = 1_700_000_040.0 + 60 * minute
        notes.put({"id": str(minute)})
    measures = read_measures(db)
    assert [time - measures.times[-1] for time in measures.times][-4:] == [-180, -120, -60, 0]
    assert measures.series["commits"][-2:] == (0, 1)
    assert measures.series["data_bytes"][-2] is None
    assert measures.series["log_bytes"][-1]
    assert all(len(values) == len(measures.times) for values in measures.series.values())
    clock.advance(7200)
    assert read_measures(db).times == ()


def test_backups_form_chains_with_points(
    db: Database, notes: amberdb.Collection, reader: Database, tmp_path: Path
) -> None:
    assert read_backups(reader).chains == ()
    db.backup(tmp_path / "a.amberbak")
    db.backup(tmp_path / "full.amberbak")
    for number in range(3):
        notes.put({"id": f"late{number}"})
    report = db.backup(tmp_path / "more.amberbak", base=tmp_path / "full.amberbak")
    (tmp_path / "a.amberbak").unlink()
    backups = read_backups(reader)
    assert backups.archived_lsn == report.lsn
    newest, gone = backups.chains
    assert [Path(each.backup.path).name for each in newest.files] == [
        "full.amberbak",
        "more.amberbak",
    ]
    assert newest.is_whole
    assert newest.size_bytes > 0
    assert not gone.is_whole
    points = read_points(newest)
    assert points.is_complete
    assert points.newest[0][0] == report.lsn
    assert points.count == len(points.newest) >= 4
    assert read_points(gone).problem


def test_a_check_runs_beside_and_reports(reader: Database) -> None:
    checking = Checking(reader)
    assert not checking.state().is_running
    checking.start()
    checking.start()
    checking.wait()
    state = checking.state()
    assert not state.is_running
    assert state.report is not None
    assert state.report.ok
    assert state.error is None
    reader.close()
    checking.start()
    checking.wait()
    assert checking.state().error


# -- the map -------------------------------------------------------------------------------------


def test_the_map_has_groups_apart(reader: Database) -> None:
    shown = read_map(reader, "notes", group_by="thread")
    assert len(shown.points) == shown.documents == 40
    assert not shown.is_sample
    assert {point.group for point in shown.points} == {"trip", "work"}
    assert all(-1 <= place <= 1 for point in shown.points for place in (point.x, point.y))
    assert read_map(reader, "notes", group_by="thread").points == shown.points
    with pytest.raises(QueryError, match="no Vector index"):
        read_map(reader, "notes", field="text")


def test_the_map_of_many_is_a_sample_over_all_ids(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_map_module, "SAMPLE", 200)
    monkeypatch.setattr(vector_map_module, "_RUN", 10)
    monkeypatch.setattr(vector_map_module, "_KNOWN_IDS", 50)
    rows = np.random.default_rng(1).standard_normal((2000, 8)).astype(np.float32)
    many = db.collection("many", indexes=[Vector("v", dim=8)])
    many.put_many({"id": f"k{n:05x}", "v": rows[n]} for n in range(2000))
    shown = read_map(db, "many")
    assert shown.is_sample
    assert shown.documents == 2000
    assert 120 < len(shown.points) <= 200
    places = sorted(int(point.id[1:], 16) for point in shown.points)
    assert places[0] < 400
    assert places[-1] > 1600
    assert max(after - before for before, after in pairwise(places)) < 500


def test_the_projection_is_that_of_the_whole_decomposition() -> None:
    rows = np.random.default_rng(2).standard_normal((300, 20)).astype(np.float32)
    rows[:, 0] *= 9
    rows[:, 1] *= 5
    places, explained = project(rows)
    centered = rows - rows.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centered, full_matrices=False)
    wanted = left[:, :2] * lengths[:2]
    wanted /= np.abs(wanted).max()
    assert np.allclose(np.abs(places), np.abs(wanted), atol=1e-3)
    assert explained == pytest.approx(float((lengths[:2] ** 2).sum() / (lengths**2).sum()), 1e-3)
    for few in (np.ones((1, 4)), np.ones((3, 4)), np.zeros((2, 1))):
        assert project(few.astype(np.float32))[0].shape == (len(few), 2)


# -- export and changes --------------------------------------------------------------------------


def test_what_is_shown_is_exported(reader: Database) -> None:
    page = read_page(reader, "notes", where={"thread": "trip"}, order_by=["-at"], limit=5)
    lines = list(
        export_documents(reader, "notes", where={"thread": "trip"}, order_by=["-at"], limit=5)
    )
    assert [loads(line)["id"] for line in lines] == [row.id for row in page.rows]
    assert amberdb.equal(loads(lines[0]), page.rows[0].record.document)
    columns = list(export_documents(reader, "notes", columns=["at", "$version"]))
    assert len(columns) == 40
    assert loads(columns[0]) == {"id": "n00", "at": 0}
    rest = list(
        export_documents(
            reader, "notes", where={"thread": "trip"}, order_by=["-at"], limit=5, after=page.cursor
        )
    )
    assert loads(rest[0])["at"] == 28


def test_an_edit_needs_its_confirmation_and_the_version_that_was_seen(
    db: Database, notes: amberdb.Collection
) -> None:
    record = notes.record("n01")
    text = whole_text({**record.document, "at": 99})
    with pytest.raises(QueryError, match="confirm"):
        edit_document(db, "notes", "n01", text, version=record.version, confirmed="n02")
    version = edit_document(db, "notes", "n01", text, version=record.version, confirmed="n01")
    assert amberdb.equal(notes["n01"], {**record.document, "at": 99})
    assert notes.record("n01").version == version
    with pytest.raises(ConflictError):
        edit_document(db, "notes", "n01", text, version=record.version, confirmed="n01")
    for wrong in ("{", "[]", '{"id": "other"}'):
        with pytest.raises(InvalidDocumentError):
            edit_document(db, "notes", "n01", wrong, version=version, confirmed="n01")
    with pytest.raises(MissingKeyError):
        edit_document(db, "notes", "none", "{}", version=version, confirmed="none")


def test_deletes_and_erasures_need_theirs(db: Database, notes: amberdb.Collection) -> None:
    with pytest.raises(QueryError, match="confirm"):
        delete_document(db, "notes", "n01", confirmed="")
    delete_document(db, "notes", "n01", confirmed="n01")
    with pytest.raises(MissingKeyError):
        delete_document(db, "notes", "n01", confirmed="n01")
    for confirmed, reason in (("note", "asked"), ("notes", " ")):
        with pytest.raises(QueryError):
            erase_documents(db, "notes", {"thread": "trip"}, reason=reason, confirmed=confirmed)
    assert len(notes) == 39
    receipt = erase_documents(db, "notes", {"thread": "trip"}, reason="asked", confirmed="notes")
    assert (receipt.documents, receipt.reason, len(notes)) == (20, "asked", 19)


def test_a_following_database_refuses_every_change(reader: Database) -> None:
    version = reader["notes"].record("n01").version
    with pytest.raises(ReadOnlyError):
        edit_document(reader, "notes", "n01", "{}", version=version, confirmed="n01")
    with pytest.raises(ReadOnlyError):
        delete_document(reader, "notes", "n01", confirmed="n01")
    with pytest.raises(ReadOnlyError):
        erase_documents(reader, "notes", {"at": 1}, reason="asked", confirmed="notes")
