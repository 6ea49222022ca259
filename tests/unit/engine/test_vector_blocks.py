"""The vectors of documents in LMDB: blocks beside the documents, and whole documents for every
reader."""

# pyright: reportPrivateUsage=false

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amberdb
from amberdb import (
    AmberError,
    CorruptionError,
    Database,
    Document,
    Ordered,
    Text,
    Vector,
)
from amberdb.engine.schema.document_format import unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.split_document import places, split, whole
from amberdb.engine.schema.vector_block import (
    SLOTS_MAX,
    StoredVector,
    check_block,
    new_row,
    pack_block,
    place_of,
    row_in,
    rows_of_block,
    unpack_block,
)
from support.databases import SMALL, OpenDatabase, assert_sound
from support.older_format import older_format
from support.reference import same
from unit.engine.helpers import data_file, raw_store

DIM = 24
KEY = place_of(b"\0\0\0\x20", 0, DIM, 0, several=False).key


def vector(seed: int, dim: int = DIM) -> Any:
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


def document(number: int, **more: Any) -> Document:
    return {"id": f"d{number:03}", "n": number, "v": vector(number), **more}


def filled(db: Database, count: int = 200) -> dict[str, Document]:
    notes = db.collection("n", indexes=[Vector("v", dim=DIM), Ordered("n")])
    documents = {each["id"]: each for each in map(document, range(count))}
    notes.put_many(documents.values())
    db.checkpoint()
    return documents


def stored_blocks(db: Database) -> dict[bytes, bytes]:
    schema = db["n"]._schema()
    prefix = schema.vector_prefix
    with db["n"]._reading() as view:
        return dict(view.scan_stored(prefix, end_of(prefix)))


def stored_rows(db: Database) -> int:
    return sum(len(unpack_block(*block)) for block in stored_blocks(db).items())


def assert_same(db: Database, documents: dict[str, Document]) -> None:
    notes = db["n"]
    assert same({each["id"]: each for each in notes.documents()}, documents)
    assert all(same(notes[id], each) for id, each in documents.items())
    assert same(notes.get_many(documents), list(documents.values()))
    assert same({each["id"]: each for each in notes.find()}, documents)
    for id in list(documents)[::40]:
        hits = notes.search(vector={"v": documents[id]["v"]}, limit=1)
        assert [hit.id for hit in hits] == [id]
        assert same(hits[0].document, documents[id])


# -- blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 127, 128, 384, 1024, 1536, 8192, 16384])
def test_places_are_distinct_and_their_blocks_small(dim: int) -> None:
    slots = rows_of_block(dim, several=False)
    assert 1 <= slots <= SLOTS_MAX
    found = {place_of(b"pref", 1, dim, rowid, several=False) for rowid in range(3 * slots)}
    assert len(found) == 3 * slots
    assert len({place.key for place in found}) == 3
    data = bytes(4 * dim)
    rows = {slot: new_row(StoredVector.at(KEY, slot), data) for slot in range(slots)}
    assert slots == 1 or len(pack_block(rows)) <= (32 << 10) - 16
    assert place_of(b"pref", 1, dim, 5, several=True).dim == dim
    assert place_of(b"pref", 1, dim, 5, several=False).dim == 0


def test_a_block_gives_back_its_rows() -> None:
    rng = random.Random(3)
    for _ in range(100):
        slots = rng.sample(range(SLOTS_MAX), rng.randint(1, SLOTS_MAX))
        data = {slot: rng.randbytes(4 * DIM) for slot in slots}
        rows = {slot: new_row(StoredVector.at(KEY, slot), data[slot]) for slot in slots}
        block = pack_block(rows)
        check_block(KEY, block)
        assert unpack_block(KEY, block) == rows
        for slot in range(SLOTS_MAX):
            assert row_in(StoredVector.at(KEY, slot), block) == data.get(slot)
            assert row_in(StoredVector.at(KEY, slot), memoryview(block)) == data.get(slot)


def test_each_damaged_byte_of_a_block_is_found() -> None:
    """No row is ever another one than was stored, and what the damage does not touch is read."""
    data = {slot: vector(slot).tobytes() for slot in (0, 3, 4, 63)}
    rows = {slot: new_row(StoredVector.at(KEY, slot), each) for slot, each in data.items()}
    block = pack_block(rows)
    for at in range(len(block)):
        for bit in (1, 0x80):
            damaged = block[:at] + bytes([block[at] ^ bit]) + block[at + 1 :]
            whole_rows = 0
            for slot in range(SLOTS_MAX):
                try:
                    found = row_in(StoredVector.at(KEY, slot), damaged)
                except CorruptionError:
                    continue
                assert found in (None, data.get(slot))
                whole_rows += found is not None
            assert whole_rows == len(data) - 1 if at >= 12 else whole_rows < len(data)
            with pytest.raises(CorruptionError):
                check_block(KEY, damaged)
    for size in range(len(block)):
        with pytest.raises(CorruptionError):
            check_block(KEY, block[:size])
    other = place_of(b"\0\0\0\x21", 0, DIM, 0, several=False).key
    with pytest.raises(CorruptionError):
        check_block(other, block)


def test_whole_gives_back_what_split_was_given(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Vector("v", dim=3), Vector("w", dim=2, multi=True)])
    notes.put_many(
        [
            {"id": "a", "v": [1, 2, 3], "w": [[1, 2], [3, 4]], "deep": {"v": [1.5]}},
            {"id": "b", "v": [1, 2, 3], "w": []},
            {"id": "c", "w": [[5, 6]], "list": [1, "x", None], "bytes": b"\0"},
            {"id": "d"},
        ]
    )
    schema = notes._schema()
    with notes._reading() as view:
        for key, value in view.scan(schema.prefix, end_of(schema.prefix)):
            stored, vectors = split(schema.vector_prefix, schema.vectors, key, value)
            assert places(schema.vectors, stored) == set(vectors)
            rows = {place: bytes(data) for place, data in vectors.items()}
            assert whole(key, stored, rows.get) == value
            assert whole(key, value, rows.get) is value
            unpack(key, stored)
            if vectors:
                with pytest.raises(CorruptionError, match="missing"):
                    whole(key, stored, lambda place: None)
                lost: list[str] = []
                without = whole(key, stored, lambda place: None, lost)
                assert len(lost) == len(vectors)
                assert not places(schema.vectors, without)


# -- documents -------------------------------------------------------------------------------------


def test_documents_come_back_whole(open_db: OpenDatabase) -> None:
    db = open_db()
    documents = filled(db)
    assert stored_rows(db) == len(documents)
    assert_same(db, documents)
    db.compact()
    assert_same(db, documents)
    db.close()
    db = open_db()
    assert_same(db, documents)
    with db.snapshot() as at:
        assert same(at["n"]["d007"], documents["d007"])
    with db.transaction() as tx:
        assert same(tx["n"]["d008"], documents["d008"])
    record = db["n"].record("d009")
    assert same(record.document, documents["d009"])
    (projected,) = db["n"].find({"n": 9}, fields=["v"])
    assert same(projected["v"], documents["d009"]["v"])
    (projected,) = db["n"].find({"n": 9}, fields=["n"])
    assert "v" not in projected


def test_a_document_and_its_vectors_go_together(open_db: OpenDatabase) -> None:
    db = open_db()
    documents = filled(db)
    for number in range(0, 200, 3):
        db["n"].delete(f"d{number:03}")
        del documents[f"d{number:03}"]
    db.checkpoint()
    assert stored_rows(db) == len(documents)
    assert_same(db, documents)
    assert db["n"].delete_many({"n": {"$gte": 0}}) == len(documents)
    db.checkpoint()
    assert not stored_blocks(db)


def test_a_change_of_another_field_leaves_the_blocks(open_db: OpenDatabase) -> None:
    db = open_db()
    documents = filled(db)
    before = stored_blocks(db)
    for number in range(200):
        db["n"].update(f"d{number:03}", {"n": -number})
        documents[f"d{number:03}"]["n"] = -number
    db.checkpoint()
    assert stored_blocks(db) == before
    assert_same(db, documents)


def test_a_changed_vector_has_another_row(open_db: OpenDatabase) -> None:
    db = open_db()
    documents = filled(db)
    with db.snapshot() as before:
        for number in range(50):
            changed = document(number, v=vector(1000 + number))
            db["n"].put(changed)
            documents[changed["id"]] = changed
        db["n"].update("d060", {"v": amberdb.REMOVE})
        del documents["d060"]["v"]
        db.checkpoint()
        assert stored_rows(db) == 199
        # The row is gone from the newest state of the file; the snapshot reads its own.
        assert same(before["n"]["d060"]["v"], vector(60))
        assert same(before["n"]["d007"]["v"], vector(7))
    assert same(db["n"]["d007"], documents["d007"])
    assert "v" not in db["n"]["d060"]


def test_vectors_without_an_index(open_db: OpenDatabase) -> None:
    """The index is dropped: vectors stay in their blocks, and one that changes gets another row."""
    db = open_db()
    documents = filled(db, 40)
    db.collection("n", indexes=[Ordered("n")])
    db.build_indexes()
    assert stored_rows(db) == 40
    assert same({each["id"]: each for each in db["n"].documents()}, documents)
    with db.snapshot() as before:
        db["n"].put(document(5, v=vector(99)))
        db["n"].update("d006", {"v": vector(98, 7)})  # nothing asks for a length any more
        db.checkpoint()
        assert same(db["n"]["d005"]["v"], vector(99))
        assert same(db["n"]["d006"]["v"], vector(98, 7))
        assert same(before["n"]["d005"]["v"], vector(5))
    assert_sound(db)
    db["n"].delete("d006")
    documents["d005"]["v"] = vector(99)
    del documents["d006"]
    db.collection("n", indexes=[Vector("v", dim=DIM), Ordered("n")])
    db.build_indexes()
    assert_same(db, documents)
    db.drop_collection("n")
    db.build_indexes()
    assert not db.collection("n").find()


def test_several_vectors_and_several_fields(open_db: OpenDatabase) -> None:
    db = open_db()
    notes = db.collection(
        "n", indexes=[Vector("v", dim=DIM), Vector("w", dim=4, multi=True), Text("t")]
    )
    documents = {
        each["id"]: each
        for each in (
            document(n, w=np.stack([vector(n + k, 4) for k in range(n % 5)]) if n % 5 else None)
            for n in range(60)
        )
    }
    for each in documents.values():
        if each["w"] is None:
            del each["w"]
    notes.put_many(documents.values())
    db.checkpoint()
    assert stored_rows(db) == 60 + 48
    assert_same(db, documents)
    assert notes.search(vector={"w": vector(9, 4)}, limit=1)[0].id in documents
    notes.update("d003", {"t": "a text gives it another row"})
    documents["d003"]["t"] = "a text gives it another row"
    db.checkpoint()
    assert_same(db, documents)
    assert stored_rows(db) == 60 + 48


def test_documents_are_upgraded_with_their_vectors(open_db: OpenDatabase) -> None:
    db = open_db()
    documents = filled(db, 30)

    def doubled(each: Document) -> Document:
        return {**each, "v": each["v"] * 2}

    db.collection("n", version=2, migrate={2: doubled})
    wanted = {id: {**each, "v": each["v"] * 2} for id, each in documents.items()}
    assert same(db["n"]["d003"], wanted["d003"])
    db.build_indexes()
    db.checkpoint()
    assert_same(db, wanted)


def test_expired_documents_take_their_vectors_with_them(open_db: OpenDatabase) -> None:
    now = [1e9]
    db = open_db(clock=lambda: now[0])
    notes = db.collection("n", indexes=[Vector("v", dim=DIM)], expires_at="until")
    notes.put_many([document(n, until=1e9 + n) for n in range(40)])
    db.checkpoint()
    now[0] += 20
    db.expire()
    db.checkpoint()
    assert stored_rows(db) == len(notes.find()) == 19


def test_an_erased_vector_is_in_no_file(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    filled(db)
    gone = [vector(number).tobytes() for number in (0, 50, 199)]
    kept = vector(1).tobytes()
    db.erase("n", {"n": {"$in": [0, 50, 199]}}, reason="asked")
    db.close()
    contents = b"".join(
        path.read_bytes() for path in (tmp_path / "t.amber").rglob("*") if path.is_file()
    )
    assert kept in contents
    assert not any(each in contents for each in gone)
    open_db()


# -- from whole documents --------------------------------------------------------------------------


@pytest.mark.parametrize("is_declared_again", [True, False])
def test_documents_of_format_1_are_split(
    tmp_path: Path, open_db: OpenDatabase, is_declared_again: bool
) -> None:
    path = tmp_path / "t.amber"
    with older_format(), amberdb.open(path, **SMALL) as db:
        notes = db.collection("n", indexes=[Vector("v", dim=DIM), Ordered("n")])
        documents = {each["id"]: each for each in map(document, range(2500))}
        notes.put_many(documents.values())
    db = open_db()
    if is_declared_again:
        db.collection("n", indexes=[Vector("v", dim=DIM), Ordered("n")])
        assert same(db["n"]["d007"], documents["d007"])
        done: list[tuple[str, int]] = []
        db.build_indexes(lambda name, count: done.append((name, count)))
        assert ("n", 2000) in done
        assert stored_rows(db) == 2500
    db["n"].delete("d100")
    del documents["d100"]
    db.checkpoint()
    assert_same(db, documents)
    db.close()
    db = open_db()
    assert_same(db, documents)
    db.close()
    size = data_file(path).stat().st_size
    db = open_db()
    db.compact()
    db.close()
    assert data_file(path).stat().st_size <= size
    open_db()


def test_a_declaration_over_documents_with_lists(open_db: OpenDatabase) -> None:
    """A list is no array: it stays in its document until that is written again."""
    db = open_db()
    notes = db.collection("n")
    notes.put_many([{**document(n), "v": vector(n).tolist()} for n in range(20)])
    db.checkpoint()
    db.collection("n", indexes=[Vector("v", dim=DIM)])
    db.build_indexes()
    assert stored_rows(db) == 0
    assert type(notes["d003"]["v"]) is list
    assert [hit.id for hit in notes.search(vector=vector(3), limit=1)] == ["d003"]
    for n in range(20):
        notes.update(f"d{n:03}", {"n": 1})
    db.checkpoint()
    assert stored_rows(db) == 20
    assert same(notes["d003"]["v"], vector(3))
    assert [hit.id for hit in notes.search(vector=vector(3), limit=1)] == ["d003"]


# -- backups and damage ----------------------------------------------------------------------------


def test_backup_and_restore(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    documents = filled(db)
    db.backup(tmp_path / "full.amberbak")
    db["n"].put(document(500))
    documents["d500"] = document(500)
    db["n"].delete("d000")
    db.backup(tmp_path / "next.amberbak", base=tmp_path / "full.amberbak")
    amberdb.restore(
        [tmp_path / "full.amberbak", tmp_path / "next.amberbak"], tmp_path / "back.amber"
    )
    del documents["d000"]
    assert_same(open_db("back.amber"), documents)


def damaged_block_of(path: Path, place: StoredVector, at: int = -1) -> None:
    """Changes the last byte of a block, or the byte `at`."""
    with raw_store(path) as store:
        value = store.get(place.key)
        assert value is not None
        at %= len(value)
        store.put(place.key, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])


@pytest.fixture
def damaged(open_db: OpenDatabase, tmp_path: Path) -> tuple[Path, str, dict[str, Document]]:
    """A database, closed, without a log, with one damaged vector; and the id of its document."""
    db = open_db()
    documents = filled(db)
    db.compact()
    schema = db["n"]._schema()
    key, value = max(stored_blocks(db).items())
    slot = max(unpack_block(key, value))
    place = StoredVector.at(key, slot)
    with db["n"]._reading() as view:
        stored = view.scan_stored(schema.prefix, end_of(schema.prefix))
        (id,) = (k[4:].decode() for k, v in stored if place in places(schema.vectors, v))
    path = Path(db.path)
    db.close()
    damaged_block_of(path, place)
    return path, id, documents


def test_a_damaged_vector_is_never_returned(
    damaged: tuple[Path, str, dict[str, Document]], tmp_path: Path
) -> None:
    path, id, documents = damaged
    with amberdb.open(path, **SMALL) as db:
        for read in (
            lambda: db["n"].get(id),
            lambda: db["n"].find({"n": documents[id]["n"]}),
            lambda: db["n"].update(id, {"n": 1}),
            lambda: db["n"].search(vector=vector(1), limit=200),
        ):
            with pytest.raises(CorruptionError, match="block of vectors") as caught:
                read()
            assert "data.mdb" in str(caught.value)
        others = [each for each in documents if each != id]
        assert all(same(db["n"][each], documents[each]) for each in others)
        problems = db.check().problems
        assert any("slot" in each and "checksum" in each for each in problems), problems
        with pytest.raises(CorruptionError):
            db.backup(tmp_path / "b.amberbak")
    assert not amberdb.check(path, **SMALL).ok


def test_a_damaged_document_is_never_made_sound(open_db: OpenDatabase) -> None:
    """By nothing that writes or reads it with another body."""
    db = open_db()
    filled(db)
    db.compact()
    schema = db["n"]._schema()
    path, key = Path(db.path), schema.key("d007")
    db.close()
    with raw_store(path) as store:
        value = store.get(key)
        assert value is not None
        at = value.index(b"\xa1n") + 2
        store.put(key, value[:at] + b"\x08" + value[at + 1 :])
    with amberdb.open(path, **SMALL) as db:
        db["n"].put(document(300))
        reads: list[Callable[[], object]] = [
            lambda: db["n"].get("d007"),
            lambda: list(db["n"].documents()),
            lambda: db["n"].find(),
            lambda: db["n"].update("d007", {"n": 1}),
            db.collection("n", version=2, migrate={2: lambda each: each}).find,
        ]
        for read in reads:
            with pytest.raises(CorruptionError, match="d007"):
                read()
        assert any("d007" in each for each in db.check().problems)
        with pytest.raises(AmberError):
            db.build_indexes()
        assert any("d007" in each for each in db.check().problems)


def test_repair_keeps_a_document_without_its_damaged_vector(
    damaged: tuple[Path, str, dict[str, Document]], open_db: OpenDatabase
) -> None:
    path, id, documents = damaged
    report = amberdb.repair(path, apply=True, **SMALL)
    assert report.lost_vectors == [("n", id)]
    assert not report.missing
    del documents[id]["v"]
    db = open_db(path)
    assert same({each["id"]: each for each in db["n"].documents()}, documents)
    assert stored_rows(db) == len(documents) - 1


def test_rows_that_are_missing_or_too_many_are_found(open_db: OpenDatabase) -> None:
    db = open_db()
    filled(db)
    key, value = min(stored_blocks(db).items())
    path = Path(db.path)
    db.close()
    rows = unpack_block(key, value)
    del rows[1]
    rows[SLOTS_MAX - 1] = new_row(StoredVector.at(key, SLOTS_MAX - 1), bytes(4 * DIM))
    with raw_store(path) as store:
        store.put(key, pack_block(rows))
    with amberdb.open(path, **SMALL) as db:
        problems = db.check().problems
        assert any("are missing" in each for each in problems), problems
        db.close()
    with raw_store(path) as store:
        store.put(key, value)
    open_db(path)
