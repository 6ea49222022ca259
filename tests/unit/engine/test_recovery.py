"""Recovery: an abandoned directory opens with everything acknowledged, and says what it found."""

from pathlib import Path
from typing import Any

import pytest

from amberdb import CorruptionError, FormatError, Ordered, Unique
from amberdb._types import lsn_epoch, lsn_number
from amberdb.engine.schema.codec import decode_effects, encode
from amberdb.index.registry import spec_from_map
from support.databases import FakeClock, OpenDatabase
from unit.engine.helpers import abandon, got, ids


def segments(path: Path) -> list[Path]:
    return sorted((path / "wal").glob("*.wal"))


def test_everything_acknowledged_is_replayed(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("x"), Unique("key", sparse=True)])
    notes.put_many({"id": f"{n:02d}", "x": n, "key": n} for n in range(20))
    db.checkpoint()
    notes.delete("03")
    notes.update("04", {"x": 100})
    notes.put({"id": "new", "x": 50}, sync="os")
    before = {id: notes.record(id) for id in notes}
    abandon(db, tmp_path / "copy.amber")
    db.close()
    copy = open_db("copy.amber")
    assert copy.recovery is not None
    assert copy.recovery.records == 3
    assert copy.recovery.cut is None
    notes = copy.collection("n")
    assert {id: notes.record(id) for id in notes} == before
    assert ids(notes.find({"x": {"$gte": 19}})) == ["19", "new", "04"]


def test_declarations_and_subscribers_are_replayed(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    db.collection("n", indexes=[Ordered("x")], expires_at="e", required=["x"])
    position = db.subscriber("reader").position
    db.collection("n").put({"x": 1})
    abandon(db, tmp_path / "copy.amber")
    definition = db.definition("n")
    db.close()
    copy = open_db("copy.amber")
    assert copy.definition("n") == definition
    assert copy.subscriber("reader").position == position
    assert len(list(copy.subscriber("reader").changes())) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_recovery_can_be_repeated(open_db: OpenDatabase, tmp_path: Path, times: int) -> None:
    db = open_db()
    db.collection("n").put_many({"id": str(n)} for n in range(5))
    for n in range(times):
        abandon(db, tmp_path / f"{n}.amber")
        db.close()
        db = open_db(f"{n}.amber")
        assert db.recovery is not None
        assert len(db.collection("n")) == 5 + n
        db.collection("n").put({"id": f"after{n}"})


def test_every_unclean_open_takes_the_next_epoch(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    db.collection("n").put({"id": "a"})
    last = db.stats()["last_lsn"]
    assert lsn_epoch(last) == 1
    abandon(db, tmp_path / "copy.amber")
    db.close()
    db = open_db("copy.amber")
    version = db.collection("n").update("a", {"x": 1})
    assert (lsn_epoch(version), lsn_number(version)) == (2, lsn_number(last) + 1)
    assert [change.lsn for change in db.changes(last)] == [version]
    db.close()
    db = open_db("copy.amber")
    assert db.recovery is None
    assert lsn_epoch(db.collection("n").update("a", {"x": 2})) == 2
    abandon(db, tmp_path / "third.amber")
    db.close()
    db = open_db("third.amber")
    assert lsn_epoch(db.collection("n").update("a", {"x": 3})) == 3


def test_torn_tail_is_cut_kept_and_told(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    notes = db.collection("n")
    notes.put({"id": "a", "x": bytes(100)})
    notes.put({"id": "b", "x": b"torn" * 50})
    copy = abandon(db, tmp_path / "copy.amber")
    db.close()
    segment = segments(copy)[-1]
    data = bytearray(segment.read_bytes())
    at = data.index(b"torn" * 50) + 60
    data[at : at + 60] = bytes(60)
    segment.write_bytes(bytes(data))
    db = open_db("copy.amber")
    assert list(db.collection("n")) == ["a"]
    assert db.recovery is not None
    assert db.recovery.cut is not None
    assert list((copy / "wal").glob("*.broken")) != []
    db.collection("n").put({"id": "c"})
    db.close()
    assert list(open_db("copy.amber").collection("n")) == ["a", "c"]


def test_damage_before_the_tail_is_refused(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    notes = db.collection("n")
    for n in range(6):
        notes.put({"id": str(n), "x": b"%d" % n * 100})
    copy = abandon(db, tmp_path / "copy.amber")
    db.close()
    segment = segments(copy)[-1]
    data = bytearray(segment.read_bytes())
    data[data.index(b"2" * 100) + 10] ^= 1
    segment.write_bytes(bytes(data))
    with pytest.raises(CorruptionError) as caught:
        open_db("copy.amber")
    assert caught.value.path == str(segment)
    assert caught.value.offset > 0
    with pytest.raises(CorruptionError):
        open_db("copy.amber")


def test_clock_after_recovery_is_not_behind_the_last_commit(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    clock = FakeClock()
    db = open_db(clock=clock)
    db.collection("n").put({"id": "a"})
    abandon(db, tmp_path / "copy.amber")
    db.close()
    clock.advance(-1000)
    db = open_db("copy.amber", clock=clock)
    db.collection("n").put({"id": "b"})
    assert db.collection("n").record("b").created_at >= db.collection("n").record("a").created_at


def test_new_ids_after_recovery_do_not_repeat(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    first = db.collection("n").put({})
    abandon(db, tmp_path / "copy.amber")
    second = open_db("copy.amber").collection("n").put({})
    assert first < second


def test_rowids_go_on_after_recovery(open_db: OpenDatabase, tmp_path: Path) -> None:
    # They decide ties, so a new document comes after all old ones.
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("x")])
    notes.put_many({"id": id, "x": 1} for id in "zyx")
    abandon(db, tmp_path / "copy.amber")
    db.close()
    notes = open_db("copy.amber").collection("n")
    notes.put({"id": "a", "x": 1})
    assert ids(notes.find({"x": 1})) == ["z", "y", "x", "a"]


def test_index_in_the_making_is_finished_after_recovery(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    db.collection("n").put_many({"id": str(n), "x": n} for n in range(9))
    db.collection("n", indexes=[Ordered("x")])
    abandon(db, tmp_path / "copy.amber")
    db.close()
    copy = open_db("copy.amber")
    assert copy.stats()["collections"]["n"]["indexes"] == {"ordered:x": "building"}
    copy.build_indexes()
    assert copy.collection("n").find({"x": 5}) == [got(copy.collection("n"), "5")]


BAD_PAYLOADS: list[Any] = [
    b"",
    b"\xc1",
    encode(5),
    encode([b"k", b"v", b"k"]),
    encode({"text": b"v"}),
    encode({b"k": 5}),
    encode([5]),
]


@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=range(len(BAD_PAYLOADS)))
def test_payload_that_is_no_effects_is_damage(payload: bytes) -> None:
    with pytest.raises(CorruptionError):
        decode_effects(payload)


def test_index_of_a_newer_version_is_refused() -> None:
    with pytest.raises(FormatError, match="unknown kind"):
        spec_from_map({"kind": "spatial"})
