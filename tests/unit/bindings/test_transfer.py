"""Import and export: resumable, converging, and equal to what was there."""

import gzip
import io
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amberdb import CollectionMissingError, Database, IndexSpec, Ordered, Unique
from amberdb._jsonl import reader
from amberdb._jsonl.exporter import export_lines
from amberdb._jsonl.importer import BadLineError, Importer, ImportOptions, ImportReport
from amberdb._jsonl.reader import InputDamagedError, numbered_lines, open_input
from amberdb._shared.files import whole_file
from amberdb.cli.transfer.lines import declared_indexes
from support.databases import audited
from support.names import recorded_names

ALL_TYPES: dict[str, Any] = {
    "id": "all",
    "none": None,
    "bool": True,
    "int": -(1 << 63),
    "float": 1.0,
    "tiny": 5e-324,
    "inf": float("inf"),
    "str": "\u4f60\u597d \U0001f600 \u2028 line",
    "bytes": bytes(range(256)),
    "time": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "list": [1, 1.0, "1", [b"1"], {"$date": "a str"}],
    "map": {"": {}, "$date": "x", "y": 1},
    "escape": {"$map": {"$bytes": 1}},
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with audited(tmp_path / "t.amber") as opened:
        yield opened


def run(db: Database, text: str | bytes, name: str = "x", **options: Any) -> ImportReport:
    data = text.encode() if isinstance(text, str) else text
    importer = Importer(db.collection(name), "in.jsonl", ImportOptions(**options))
    return importer.run(numbered_lines(io.BytesIO(data)))


def ids(db: Database, name: str = "x") -> list[str]:
    return list(db.collection(name))


def test_export_then_import_gives_equal_documents(db: Database) -> None:
    db.collection("a").put_many([ALL_TYPES, {"id": "empty"}])
    run(db, "\n".join(export_lines(db, "a")), "b")
    for one, other in zip(db.collection("a").find(), db.collection("b").find(), strict=True):
        assert repr(one) == repr(other)


def test_running_again_changes_nothing(db: Database) -> None:
    text = '{"a": 1}\n\n{"a": 1}\r\n{"id": "own", "a": 2}\n'
    run(db, text)
    before = db.collection("x").find()
    report = run(db, text)
    assert db.collection("x").find() == before
    assert len(before) == 3  # equal lines are two documents
    assert (report.stored, report.lines, report.next_line) == (3, 4, 5)


def test_id_is_that_of_the_file_name_packed_or_not(db: Database) -> None:
    options = ImportOptions()
    for source in ("/here/in.jsonl", "/there/in.jsonl.gz"):
        importer = Importer(db.collection("x"), source, options)
        importer.run(numbered_lines(io.BytesIO(b'{"a": 1}')))
    assert len(ids(db)) == 1
    Importer(db.collection("x"), "other.jsonl", options).run(
        numbered_lines(io.BytesIO(b'{"a": 1}'))
    )
    assert len(ids(db)) == 2


def test_id_from_fields(db: Database) -> None:
    run(db, '{"k": "a"}\n{"k": "a", "v": 1}\n{"k": 7}', id_from=["k"])
    assert ids(db) == ["7", "a"]
    assert db.collection("x").get("a") == {"id": "a", "k": "a", "v": 1}
    run(db, '{"s": 1, "n": {"m": 1}}\n{"s": 1, "n": {"m": 2}}', "y", id_from=["s", "n.m"])
    assert len(ids(db, "y")) == 2
    with pytest.raises(BadLineError, match=r"'k'.*missing"):
        run(db, "{}", id_from=["k"])


def test_id_that_is_no_str_is_refused_or_made_one(db: Database) -> None:
    with pytest.raises(BadLineError, match="--id-from id"):
        run(db, '{"id": 5}')
    with pytest.raises(BadLineError, match="--id-from id"):
        run(db, '{"id": 5, "k": "a"}', id_from=["k"])  # or the 5 would be lost
    run(db, '{"id": 5}\n{"id": null}'.splitlines()[0], id_from=["id"])
    assert ids(db) == ["5"]


def test_bad_line_stops_and_what_came_before_stays(db: Database) -> None:
    text = '{"id": "a"}\n{"id": "b"}\n{oops\n{"id": "c"}\n'
    with pytest.raises(BadLineError, match="line 3: not JSON") as caught:
        run(db, text)
    assert caught.value.line == 3
    assert ids(db) == ["a", "b"]
    run(db, text.replace("{oops", '{"id": "mended"}'), from_line=3)
    assert ids(db) == ["a", "b", "c", "mended"]


def test_next_line_is_the_bad_one_also_behind_blank_lines(db: Database) -> None:
    importer = Importer(db.collection("x"), "in.jsonl", ImportOptions())
    with pytest.raises(BadLineError):
        importer.run(numbered_lines(io.BytesIO(b'{"id": "a"}\n\n\n{bad\n')))
    assert importer.report.next_line == 4


def test_bad_lines_are_skipped_and_counted(db: Database) -> None:
    report = run(db, '{"id": "a"}\n[1]\n{"id": ""}\n\xff\n{"id": "b"}\n', skip_bad=True, batch=2)
    assert ids(db) == ["a", "b"]
    assert [bad.line for bad in report.bad_lines] == [2, 3, 4]
    assert (report.bad, report.stored, report.next_line) == (3, 2, 6)


def test_line_that_an_index_refuses_is_found_within_its_batch(db: Database) -> None:
    db.collection("x", indexes=[Unique("k")])
    text = "".join(json.dumps({"id": f"d{n}", "k": n if n != 7 else 3}) + "\n" for n in range(20))
    report = run(db, text, skip_bad=True)
    assert [bad.line for bad in report.bad_lines] == [8]
    assert len(ids(db)) == 19
    with pytest.raises(BadLineError) as caught:
        run(db, text.replace("d", "e"))
    assert caught.value.line == 1


def test_interrupted_import_goes_on_from_its_next_line(db: Database) -> None:
    text = "".join(json.dumps({"n": n}) + "\n" for n in range(10)).encode()

    def interrupt(report: ImportReport) -> None:
        if report.commits == 2:
            raise KeyboardInterrupt

    options = ImportOptions(batch=3)
    importer = Importer(db.collection("x"), "in.jsonl", options, on_commit=interrupt)
    with pytest.raises(KeyboardInterrupt):
        importer.run(numbered_lines(io.BytesIO(text)))
    assert (importer.report.stored, importer.report.next_line) == (6, 7)
    assert len(ids(db)) == 6
    run(db, text, from_line=importer.report.next_line)
    assert sorted(one["n"] for one in db.collection("x").find()) == list(range(10))
    run(db, text)
    assert len(ids(db)) == 10


def test_batches_are_one_commit_each(db: Database) -> None:
    report = run(db, "{}\n" * 7, batch=3)
    assert report.commits == 3
    lsns = [change.lsn for change in db.changes() if change.collection == "x"]
    assert len(set(lsns)) == 3


def test_byte_order_mark_and_missing_last_newline(db: Database) -> None:
    run(db, b'\xef\xbb\xbf{"id": "a"}\n{"id": "b"}')
    assert ids(db) == ["a", "b"]


def test_line_over_the_limit_is_one_bad_line(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LINE_BYTES_MAX", 40)
    text = '{"id": "a"}\n{"id": "%s"}\n{"id": "b"}\n' % ("long" * 50)
    report = run(db, text, skip_bad=True)
    assert [bad.line for bad in report.bad_lines] == [2]
    assert ids(db) == ["a", "b"]


@pytest.mark.slow
def test_packed_input_that_ends_early_keeps_what_came_before(db: Database, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": f"{n:05}"}) + "\n" for n in range(20_000))
    packed = tmp_path / "in.jsonl.gz"
    whole = gzip.compress(lines.encode())
    packed.write_bytes(whole[: len(whole) // 2])
    importer = Importer(db.collection("x"), "in.jsonl", ImportOptions())
    with open_input(str(packed)) as source, pytest.raises(InputDamagedError) as caught:
        importer.run(numbered_lines(source.stream))
    assert len(ids(db)) == importer.report.stored == caught.value.line > 0
    assert importer.report.next_line == caught.value.line + 1


def test_dates_of_a_line_are_converted(db: Database) -> None:
    run(db, '{"id": "a", "at": "2026-01-01T08:00:00+08:00"}', dates=["at"])
    stored = db.collection("x").get("a")
    assert stored == {"id": "a", "at": datetime(2026, 1, 1, tzinfo=UTC)}


def test_declared_indexes_are_those_of_the_catalog(db: Database) -> None:
    specs: list[IndexSpec] = [Ordered("a", "-b", sparse=True), Unique("c", name="mine")]
    db.collection("x", indexes=specs)
    assert declared_indexes(db, "x") == specs
    assert declared_indexes(db, "nothing") == []


def test_export_is_of_one_moment(db: Database) -> None:
    x = db.collection("x", indexes=[Ordered("n")])
    x.put_many({"id": f"{n:04}", "n": n} for n in range(2500))
    for where in (None, {"n": {"$gte": 0}}):
        lines = export_lines(db, "x", where)
        first = next(lines)
        x.delete("2499")
        x.put({"id": "9999", "n": 1})
        exported = [json.loads(line)["id"] for line in [first, *lines]]
        assert sorted(exported) == [f"{n:04}" for n in range(2500)]
        x.delete("9999")
        x.put({"id": "2499", "n": 2499})


def test_export_of_a_missing_collection_creates_none(db: Database) -> None:
    with pytest.raises(CollectionMissingError):
        list(export_lines(db, "nope"))
    assert "nope" not in db.stats()["collections"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_failed_export_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_text("old")

    def fail() -> None:
        with whole_file(str(target)) as file:
            file.write("new" * 10_000)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with whole_file(str(target)) as file:
        file.write("new")
    read = gzip.decompress(target.read_bytes()) if name.endswith("gz") else target.read_bytes()
    assert read == b"new"


@pytest.mark.parametrize("folder", ["", "inner"])
def test_the_name_of_an_export_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    calls = recorded_names(monkeypatch)
    target = os.path.join(folder, "out.jsonl")
    with whole_file(target) as file:
        file.write("text")
        assert calls == []
    assert calls == [("rename", "out.jsonl"), ("sync_dir", folder or tmp_path.name)]
