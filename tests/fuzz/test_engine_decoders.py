"""Damaged bytes of the engine's own formats: a typed error or the right answer, nothing else.

MANIFEST, stored documents, catalog entries, payloads of records, cursors, the codec. Bytes are
random, or valid ones with a few places changed; where a checksum would stop all of them it is
computed again.
"""

import base64
import contextlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amberdb
from amberdb import AmberError, CorruptionError, CursorError, Database, Ordered
from amberdb._bytes import CRC_SIZE, append_crc
from amberdb._fs import OsFileSystem
from amberdb._types import Lsn
from amberdb.engine.options import Options
from amberdb.engine.schema import document_format
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import decode, decode_document, decode_effects, encode
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.keyspace import COLLECTIONS, COUNTERS
from amberdb.engine.schema.split_document import join, split
from amberdb.engine.schema.split_document import whole as whole_document
from amberdb.engine.schema.vector_block import (
    StoredVector,
    new_row,
    pack_block,
    place_of,
    row_in,
    sound_rows,
    unpack_block,
)
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.view import NEWEST, State, View
from support import drawn
from support.databases import SMALL
from support.reference import same

MANIFEST = Manifest(
    database_id=bytes(range(16)),
    generation=3,
    epoch=5,
    clean_lsn=Lsn(7 << 40 | 9),
    created_us=1_700_000_000_000_000,
    lmdb_version=0x000901,
)
BLOCK = place_of(b"\0\0\0\x20", 0, 3, 0, several=False).key
KEY = b"\0\0\0\x10id"

msgpack = st.recursive(
    drawn.scalars | st.binary(max_size=12) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes changed, cut off, put in or repeated."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(st.integers(0, 3))
        if what == 0 and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif what == 1:
            del data[at:]
        elif what == 2:
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            data[at:at] = data[at : at + 8]
    return bytes(data)


class _Memory(OsFileSystem):
    """One file, from memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def read(self, path: str) -> bytes:
        return self.data


def manifest_bytes(directory: Path) -> bytes:
    MANIFEST.write(OsFileSystem(), str(directory))
    return (directory / manifests.NAME).read_bytes()


@given(st.data())
def test_manifest(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = manifest_bytes(tmp_path_factory.getbasetemp())
    damaged = data.draw(st.binary(max_size=90) | mutated(whole))
    if data.draw(st.booleans()):
        damaged = damaged[:-CRC_SIZE] + append_crc(damaged[:-CRC_SIZE])
    try:
        found = manifests.read(_Memory(damaged), "d")
    except AmberError:
        pass
    else:
        assert len(damaged) == manifests.SIZE
        assert found == MANIFEST or damaged != whole


@given(msgpack, st.data())
def test_codec(value: Any, data: st.DataObject) -> None:
    whole = encode(value)
    assert same(decode(whole), value)
    for damaged in (data.draw(mutated(whole)), data.draw(st.binary(max_size=40))):
        for decoder in (decode, decode_document):
            with contextlib.suppress(CorruptionError):
                decoder(damaged)


@given(st.dictionaries(st.binary(max_size=9), st.none() | st.binary(max_size=9)), st.data())
def test_payload_of_a_record(effects: dict[bytes, bytes | None], data: st.DataObject) -> None:
    whole = encode(effects)
    assert same(list(decode_effects(whole).items()), list(effects.items()))
    for damaged in (
        data.draw(mutated(whole)),
        data.draw(st.binary(max_size=40)),
        encode(data.draw(msgpack)),
    ):
        try:
            found = decode_effects(damaged)
        except CorruptionError:
            continue
        for key, value in found.items():
            assert type(key) is bytes
            assert value is None or type(value) is bytes


@given(drawn.bodies(), st.data())
def test_stored_document(body: dict[str, Any], data: st.DataObject) -> None:
    whole = document_format.pack(KEY, 5, -1, 2, document_format.NEVER, 7, encode(body))
    assert same(decode_document(document_format.unpack(KEY, whole).body), body)
    damaged = data.draw(mutated(whole) | st.binary(max_size=90))
    if damaged != whole:
        with pytest.raises(CorruptionError):
            document_format.unpack(KEY, damaged)
    with pytest.raises(CorruptionError):  # under another's key
        document_format.unpack(KEY + b"x", whole)
    forged = document_format.pack(KEY, 5, -1, 2, 3, 7, data.draw(st.binary(max_size=30)))
    with contextlib.suppress(CorruptionError):
        decode_document(document_format.unpack(KEY, forged).body)


class _Empty:
    """An empty store, its trees, and a read transaction and a cursor of it."""

    path = "data.mdb"

    @property
    def trees(self) -> "_Empty":
        return self

    def of(self, prefix: bytes) -> None: ...

    def get(self, *key: object) -> None: ...

    def begin_mapped(self) -> None: ...

    def cursor(self, *key: object) -> "_Empty":
        return self

    def set_range(self, key: bytes) -> bool:
        return False

    def abort(self) -> None: ...


def load_catalog(pairs: dict[bytes, bytes | None]) -> Catalog:
    memtable = Memtable()
    memtable.publish(1, pairs, 0, 1)
    state = State(memtable, None, frozenset(), Catalog({}))
    empty: Any = _Empty()
    return Catalog.load(View(NEWEST, state, empty, 0, empty), Options())


DEFINITION = CollectionDef(
    name="x",
    number=1,
    keyspace=16,
    expiry_keyspace=17,
    former=((3, "w"),),
    version=3,
    steps=((2, 5), (3, 7)),
).to_map()
COUNTERS_MAP = {"tree": 18, "collection": 2, "retired": [19]}


@given(st.data())
def test_catalog_entry(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([COLLECTIONS + b"x", COUNTERS]))
    content = encode(DEFINITION if key != COUNTERS else COUNTERS_MAP)
    damaged = data.draw(
        st.one_of(mutated(content), st.binary(max_size=60), msgpack.map(encode), _changed(content))
    )
    sealed = damaged + append_crc(damaged + key)
    for value in (sealed, damaged):
        with contextlib.suppress(AmberError):
            catalog = load_catalog({key: value})
            assert all(name == "x" for name in catalog.schemas)
    assert load_catalog({key: content + append_crc(content + key)}) is not None


@st.composite
def _changed(draw: st.DrawFn, content: bytes) -> bytes:
    """A field of a map is missing, or has another value."""
    fields = decode_document(content)
    name = draw(st.sampled_from(sorted(fields)))
    if draw(st.booleans()):
        del fields[name]
    else:
        fields[name] = draw(msgpack)
    return encode(fields)


@pytest.fixture(scope="module")
def db() -> Iterator[Database]:
    with amberdb.open(":memory:", **SMALL) as db:
        collection = db.collection("x", indexes=[Ordered("n"), Ordered("-s", "n")])
        collection.put_many({"id": f"{n:02}", "n": n % 5, "s": "s" * n} for n in range(20))
        yield db


QUERIES: list[tuple[Any, Any]] = [
    (None, None),
    (None, "n"),
    ({"n": {"$gt": 1}}, "-n"),
    ({"n": 2}, ["s", "-id"]),
    (None, ["-s", "n"]),
    ({"id": {"$in": ["01", "02", "03"]}}, None),
]


@given(query=st.sampled_from(QUERIES), data=st.data())
def test_cursor(db: Database, query: tuple[Any, Any], data: st.DataObject) -> None:
    where, order = query
    collection = db.collection("x")
    page = collection.find(where, order_by=order, limit=2)
    assert page.cursor is not None
    content = base64.urlsafe_b64decode(page.cursor)[:-CRC_SIZE]
    parts: list[Any] = decode(content)
    at = data.draw(st.integers(0, len(parts) - 1))
    other = [data.draw(msgpack) if here == at else part for here, part in enumerate(parts)]
    damaged = data.draw(
        st.one_of(
            mutated(content),
            st.binary(max_size=40),
            msgpack.map(encode),
            st.sampled_from([encode(other), encode([*parts, None]), encode(parts[:-1])]),
        )
    )
    for cursor in (
        base64.urlsafe_b64encode(damaged + append_crc(damaged)).decode(),
        base64.urlsafe_b64encode(damaged).decode(),
        data.draw(st.text(max_size=30)),
    ):
        with contextlib.suppress(CursorError):
            found = collection.find(where, order_by=order, limit=2, after=cursor)
            assert len(found) <= 2


def test_every_byte_of_manifest_is_guarded(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        db.collection("x").put({"id": "a", "at": datetime(2024, 1, 1, tzinfo=UTC)})
    manifest = path / "MANIFEST"
    whole = manifest.read_bytes()
    names = sorted(file.name for file in (path / "wal").iterdir())
    for at in range(len(whole)):
        for bits in (0x01, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[at] ^= bits
            manifest.write_bytes(damaged)
            with pytest.raises(AmberError) as caught:
                amberdb.open(path, **SMALL)
            assert "MANIFEST" in str(caught.value)
    for size in range(len(whole)):
        manifest.write_bytes(whole[:size])
        with pytest.raises(AmberError):
            amberdb.open(path, **SMALL)
    manifest.unlink()
    with pytest.raises(CorruptionError):
        amberdb.open(path, **SMALL)
    assert sorted(file.name for file in (path / "wal").iterdir()) == names
    manifest.write_bytes(whole)
    with amberdb.open(path, **SMALL) as db:
        assert db.collection("x").get("a") is not None


def test_the_data_file_of_another_database_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with amberdb.open(tmp_path / name, **SMALL) as db:
            db.collection(name).put({"id": name})
    for part in ("data-1/data.mdb", "MANIFEST"):
        copy = tmp_path / f"copy-{part[:4]}"
        shutil.copytree(tmp_path / "a", copy)
        shutil.copy(tmp_path / "b" / part, copy / part)
        with pytest.raises(CorruptionError, match="another database"):
            amberdb.open(copy, **SMALL)


def test_a_short_data_file_opens_exactly_when_nothing_of_it_is_missing(tmp_path: Path) -> None:
    """A page that is missing kills a process that maps it. But LMDB itself leaves free pages at the
    end unwritten, and a database without those has to open."""
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        collection = db.collection("x", indexes=[Ordered("n")])
        collection.put_many({"id": f"{n:03}", "n": n, "text": "y" * 200} for n in range(100))
        collection.put({"id": "big", "text": "z" * 100_000})
        db.checkpoint()
        collection.delete("big")  # its pages are free, and the last ones once others have moved
        for number in range(4):
            db.checkpoint()
            collection.update("000", {"text": str(number)})
    data = path / "data-1" / "data.mdb"
    whole = data.read_bytes()
    opened = refused = 0
    for size in [*range(0, len(whole), 4096), 1, 100, len(whole) - 1]:
        copy = tmp_path / f"{size}.amber"
        shutil.copytree(path, copy)
        cut = copy / "data-1" / "data.mdb"
        cut.write_bytes(whole[:size])
        try:
            with amberdb.open(copy, **SMALL) as db:
                assert len(db.collection("x")) == len(db.collection("x").find(order_by="n")) == 100
                assert db.check().ok
            opened += 1
        except CorruptionError as error:
            assert error.path == str(cut)  # noqa: PT017
            refused += 1
        shutil.rmtree(copy)
    assert opened >= 2
    assert refused >= 10


@given(st.dictionaries(st.integers(0, 63), st.binary(min_size=12, max_size=12)), st.data())
def test_block_of_vectors(vectors: dict[int, bytes], data: st.DataObject) -> None:
    rows = {at: new_row(StoredVector.at(BLOCK, at), vector) for at, vector in vectors.items()}
    whole = pack_block(rows) if rows else b""
    if rows:
        assert unpack_block(BLOCK, whole) == sound_rows(BLOCK, whole) == rows
    for damaged in (data.draw(mutated(whole)), data.draw(st.binary(max_size=60))):
        with contextlib.suppress(CorruptionError):
            for at, row in sound_rows(BLOCK, damaged).items():
                assert row == rows.get(at)
        for at in range(64):
            with contextlib.suppress(CorruptionError):
                assert row_in(StoredVector.at(BLOCK, at), damaged) in (None, vectors.get(at))


@given(
    drawn.bodies(),
    st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3), max_size=3),
)
def test_document_that_is_split(body: dict[str, Any], vectors: list[list[float]]) -> None:
    body = {**body, "v": np.array(vectors, np.float32).reshape(-1, 3)}
    if vectors:
        body["w"] = np.array(vectors[0], np.float32)
    value = document_format.pack(KEY, 5, -1, 2, document_format.NEVER, 7, encode(body))
    stored, rows = split(BLOCK[:4], ("v", "w", "other"), KEY, value)
    assert len(rows) == (2 if vectors else 0)
    found = {place: bytes(data) for place, data in rows.items()}
    assert whole_document(KEY, stored, found.get) == value
    document = decode_document(document_format.unpack(KEY, stored).body)
    assert same(join(document, ("v", "w"), found.get), decode_document(encode(body)))
