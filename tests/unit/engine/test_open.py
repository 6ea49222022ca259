"""Opening and closing: refusals and their reasons, remains on disk, use after close()."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import amberdb
from amberdb import (
    AmberError,
    ClosedError,
    Collection,
    CorruptionError,
    Database,
    DatabaseMissingError,
    DiskFullError,
    FormatError,
    NotADatabaseError,
    OpenError,
    Ordered,
    StorageError,
    TransactionError,
    Unique,
)
from amberdb._bytes import append_crc
from amberdb._fs import OsFileSystem
from amberdb.engine.schema.keyspace import COLLECTIONS
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.manifest import SIZE
from support.damage import with_last_bit_flipped
from support.databases import SMALL, FakeClock, OpenDatabase
from support.faulty_fs import FaultyFileSystem
from unit.engine.helpers import abandon, data_file, ids, open_at, raw_store


@pytest.fixture
def made(open_db: OpenDatabase, tmp_path: Path) -> Path:
    """A closed database with one document."""
    db = open_db()
    db.collection("n", indexes=[Ordered("x")]).put({"id": "a", "x": 1})
    db.close()
    return tmp_path / "t.amber"


def is_intact(path: Path) -> bool:
    with open_at(path) as db:
        return db.collection("n").find({"x": 1}) == [{"id": "a", "x": 1}] and db.check().ok


class Killed(BaseException):
    """The end of a process, in place of it."""


def dying_at(name: str) -> FaultyFileSystem:
    """A file system whose process dies before its first change of a path that ends so."""
    is_dead = False

    def die(kind: str, path: str) -> None:
        nonlocal is_dead
        is_dead = is_dead or path.endswith(name)
        if is_dead:
            raise Killed

    return FaultyFileSystem(hook=die)


def unfinished(path: Path) -> None:
    """Leaves what a process leaves that dies when it has made the data of a new database."""
    with pytest.raises(Killed):
        open_at(path, fs=dying_at("wal"))
    assert {"CREATING", "LOCK", "data-1"} == set(os.listdir(path))


# -- paths -----------------------------------------------------------------------------------


def test_missing_database_is_created_unless_told_not_to(tmp_path: Path) -> None:
    path = tmp_path / "new.amber"
    with pytest.raises(DatabaseMissingError) as caught:
        open_at(path, create=False)
    assert caught.value.path == str(path)
    assert list(tmp_path.iterdir()) == []
    open_at(path).close()
    assert [inner.name for inner in tmp_path.iterdir()] == ["new.amber"]
    open_at(path, create=False).close()


def test_the_names_in_a_new_database_are_synced_before_it_gets_its_manifest(
    tmp_path: Path,
) -> None:
    fs = FaultyFileSystem()
    open_at(tmp_path / "t.amber", fs=fs).close()
    born = fs.calls.index(("rename", "MANIFEST"))
    for name in ("t.amber", "data-1", "wal"):
        assert ("sync_dir", name) in fs.calls[:born]
    assert fs.calls.index(("unlink", "CREATING")) > born


def test_a_name_that_a_dead_process_gave_is_made_durable_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(Killed):
        open_at(tmp_path / "t.amber", fs=dying_at(str(tmp_path)))
    fs = FaultyFileSystem()
    open_at(tmp_path / "t.amber", fs=fs, create=False).close()
    assert fs.calls[0] == ("sync_dir", tmp_path.name)


def test_lmdb_syncs_unless_it_is_for_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[bool] = []
    opened = lmdb.open

    def watched(path: str, **options: Any) -> "lmdb.Environment":
        syncs.append(options["sync"])
        return opened(path, **options)

    monkeypatch.setattr(lmdb, "open", watched)
    for _ in range(2):
        open_at(tmp_path / "t.amber").close()
    assert syncs == [True] * 3  # made, opened, and opened again
    amberdb.open(":memory:").close()
    assert not any(syncs[3:])


def test_empty_directory_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.mkdir()
    with pytest.raises(DatabaseMissingError):
        open_at(path, create=False)
    open_at(path).close()
    assert (path / "MANIFEST").exists()


def test_path_may_be_text_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with amberdb.open("here.amber/", background=False) as db:
        db.collection("n").put({"id": "a"})
        monkeypatch.chdir("/")
        db.checkpoint()
        assert db.path == str(tmp_path / "here.amber")
    with open_at(tmp_path / "here.amber") as db:
        assert "a" in db.collection("n")


def test_parent_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseMissingError, match="create it first"):
        open_at(tmp_path / "no" / "where")


def test_a_file_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(NotADatabaseError, match="is a file"):
        open_at(path)
    assert path.read_bytes() == b"mine"


def test_another_directory_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos"
    path.mkdir()
    (path / "cat.png").write_bytes(b"x")
    with pytest.raises(NotADatabaseError, match="holds other files"):
        open_at(path)
    assert [inner.name for inner in path.iterdir()] == ["cat.png"]


@pytest.mark.parametrize("name", ["LOCK", "wal", "data-1"])
def test_a_name_of_ours_alone_makes_no_database(tmp_path: Path, name: str) -> None:
    (tmp_path / "some" / name).mkdir(parents=True)
    with pytest.raises(NotADatabaseError, match="holds other files"):
        open_at(tmp_path / "some")


def test_another_manifest_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "package"
    path.mkdir()
    (path / "MANIFEST").write_bytes(b"include *.py\n" * 10)
    with pytest.raises(NotADatabaseError):
        open_at(path)


def test_what_stands_in_the_way_of_creating_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "new.amber"
    unfinished(path)
    (path / "thesis.tex").write_bytes(b"x")
    before = sorted(path.rglob("*"))
    with pytest.raises(NotADatabaseError, match="in the way"):
        open_at(path)
    assert sorted(path.rglob("*")) == before


# -- damaged directories ---------------------------------------------------------------------


def test_missing_manifest_is_damage(made: Path) -> None:
    (made / "MANIFEST").unlink()
    with pytest.raises(CorruptionError, match="MANIFEST is missing") as caught:
        open_at(made)
    assert (caught.value.path, caught.value.offset) == (str(made / "MANIFEST"), 0)


def write_manifest(path: Path, change: Callable[[bytearray], None], *, sealed: bool) -> None:
    data = bytearray((path / "MANIFEST").read_bytes())
    change(data)
    if sealed:
        data[-4:] = append_crc(bytes(data[:-4]))
    (path / "MANIFEST").write_bytes(bytes(data))


def set_byte(at: int, value: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] = value

    return change


def turn_byte(at: int) -> Callable[[bytearray], None]:
    """Changes a byte of the id, which is random."""

    def change(data: bytearray) -> None:
        data[at] ^= 0xFF

    return change


MANIFESTS: dict[str, tuple[Callable[[bytearray], None], bool, type[AmberError]]] = {
    "newer format": (set_byte(8, 99), True, FormatError),
    "much newer format": (set_byte(11, 99), True, FormatError),
    "older format": (set_byte(8, 0), True, FormatError),
    "newer format, damaged": (set_byte(8, 99), False, CorruptionError),
    "damaged magic": (set_byte(0, 0), False, CorruptionError),
    "damaged id": (turn_byte(20), False, CorruptionError),
    "unknown flag": (set_byte(15, 0x80), True, FormatError),
    "a byte where zero belongs": (set_byte(68, 1), True, FormatError),
    "another LMDB": (set_byte(67, 9), True, FormatError),
    "another id": (turn_byte(20), True, CorruptionError),
    "generation that is not there": (set_byte(32, 9), True, CorruptionError),
}


@pytest.mark.parametrize(("change", "sealed", "error"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_manifest_of_another_kind_is_refused(
    made: Path, change: Callable[[bytearray], None], sealed: bool, error: type[AmberError]
) -> None:
    before = (made / "MANIFEST").read_bytes()
    write_manifest(made, change, sealed=sealed)
    for _ in range(2):  # the first try has released everything
        with pytest.raises(error) as caught:
            open_at(made)
        assert type(caught.value) is error
        assert not isinstance(caught.value, CorruptionError) or caught.value.offset == 0
    (made / "MANIFEST").write_bytes(before)
    assert is_intact(made)


def test_a_new_manifest_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with open_at(path, clock=FakeClock(1_700_000_000.5)) as db:
        db.collection("n")
        in_use = (path / "MANIFEST").read_bytes()
        assert db.stats()["last_lsn"] == (1 << 40) + 1  # the first number of the first epoch
    clean = (path / "MANIFEST").read_bytes()
    generation = epoch = (1).to_bytes(8, "little")
    created = (1_700_000_000_500_000).to_bytes(8, "little")
    lmdb_version = manifests.read(OsFileSystem(), str(path)).lmdb_version.to_bytes(4, "little")
    for data, flag, lsn in ((in_use, 0, 0), (clean, 1, (1 << 40) + 1)):
        expected = b"AMBERDB\n" + bytes([2, 0, 0, 0, flag, 0, 0, 0]) + data[16:32]
        expected += generation + epoch + lsn.to_bytes(8, "little") + created
        expected += lmdb_version + bytes(4)
        assert data == expected + append_crc(expected)


def test_manifest_of_a_newer_format_may_have_another_size(made: Path) -> None:
    data = bytearray((made / "MANIFEST").read_bytes() + bytes(16))
    data[8:12] = (3).to_bytes(4, "little")
    (made / "MANIFEST").write_bytes(data)
    with pytest.raises(FormatError, match="format 3"):
        open_at(made)


@pytest.mark.parametrize("size", [0, 7, 8, 20, SIZE - 1, SIZE + 1])
def test_manifest_of_another_size_is_refused(made: Path, size: int) -> None:
    data = (made / "MANIFEST").read_bytes()
    (made / "MANIFEST").write_bytes((data + b"\0")[:size])
    with pytest.raises((CorruptionError, NotADatabaseError)):
        open_at(made)


def cut(size: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        os.truncate(path, size)

    return change


def zero_metas(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(8192))


def grow_then_cut(path: Path) -> None:
    with raw_store(path.parents[1]) as txn:
        for n in range(500):
            txn.put(b"\0\0\0\1zz%d" % n, bytes(500))
    os.truncate(path, 64 * 1024 + 4096)


def grow_then_zero(path: Path) -> None:
    with raw_store(path.parents[1]) as txn:
        for n in range(500):
            txn.put(b"\0\0\0\1zz%d" % n, bytes(500))
    zero_metas(path)


DATA_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": cut(0),
    "one byte": cut(1),
    "half a page": cut(2048),
    "one meta page": cut(4096),
    "both meta pages only": cut(8192),
    "truncated": cut(12288),
    "truncated further on": grow_then_cut,
    "meta pages zeroed": zero_metas,
    "meta pages of a large file zeroed": grow_then_zero,
    "another file": lambda path: path.write_bytes(b"hello" * 10_000),
}


@pytest.mark.parametrize("damage", DATA_DAMAGE.values(), ids=DATA_DAMAGE.keys())
def test_a_data_file_that_must_not_be_mapped_is_refused(
    made: Path, damage: Callable[[Path], object]
) -> None:
    kept = data_file(made).read_bytes()
    damage(data_file(made))
    for _ in range(2):
        with pytest.raises(CorruptionError, match=r"data\.mdb") as caught:
            open_at(made)
        assert caught.value.path.endswith("data.mdb")
    (made / "data-1" / "data.mdb").write_bytes(kept)
    assert is_intact(made)


def test_what_lmdb_refuses_is_an_error_of_ours(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise lmdb.VersionMismatchError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb, "open", refuse)
        with pytest.raises(OpenError, match="injected"):
            open_at(made)
    assert is_intact(made)


def test_damaged_catalog_is_refused_and_lets_go(made: Path) -> None:
    with raw_store(made) as txn:
        key, value = next(iter(txn.items(COLLECTIONS)))
        txn.put(key, with_last_bit_flipped(value))
    for _ in range(2):
        with pytest.raises(CorruptionError, match="catalog"):
            open_at(made)
    with raw_store(made) as txn:
        txn.put(key, value)
    assert is_intact(made)


def test_log_of_another_database_is_refused(made: Path, open_db: OpenDatabase) -> None:
    other = open_db("other.amber")
    other.collection("n").put({"id": "b"})
    other.close()
    shutil.rmtree(made / "wal")
    shutil.copytree(made.parent / "other.amber" / "wal", made / "wal")
    with pytest.raises(CorruptionError) as caught:
        open_at(made)
    assert ".wal" in str(caught.value)


def test_missing_log_is_refused_after_a_crash(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    db.collection("n").put({"id": "a"})
    copy = tmp_path / "copy.amber"
    abandon(db, copy)
    for segment in (copy / "wal").iterdir():
        segment.unlink()
    with pytest.raises(CorruptionError):
        open_at(copy)


# -- file systems that refuse ----------------------------------------------------------------


class ReadOnly(OsFileSystem):
    """The error of a directory without write permission."""

    def lock(self, path: str, owner: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    def mkdir(self, path: str, *, like: str | None = None) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)


@pytest.mark.parametrize("exists", [True, False])
def test_directory_that_cannot_be_written_is_refused(
    made: Path, tmp_path: Path, exists: bool
) -> None:
    path = made if exists else tmp_path / "new.amber"
    with pytest.raises(OpenError, match="cannot be opened for writing"):
        open_at(path, fs=ReadOnly())
    assert is_intact(made)


@pytest.mark.parametrize(
    ("code", "errors"),
    [(errno.EIO, (OpenError, StorageError)), (errno.ENOSPC, DiskFullError)],
    ids=["EIO", "ENOSPC"],
)
def test_creation_that_fails_anywhere_can_be_tried_again(
    tmp_path: Path, code: int, errors: type[AmberError] | tuple[type[AmberError], ...]
) -> None:
    fs = FaultyFileSystem()
    fs.arm()
    counted = open_at(tmp_path / "counted.amber", fs=fs)
    calls = fs.counted
    counted.close()
    assert calls > 10
    for at in range(1, calls + 1):
        path = tmp_path / f"{at}.amber"
        fs.arm(fail_at=at, code=code)
        with pytest.raises(errors):
            open_at(path, fs=fs)
        assert fs.failed
        fs.disarm()
        with open_at(path, fs=fs) as db:
            db.collection("n").put({"id": "a"})
            assert db.check().ok
        assert sorted(os.listdir(path)) == ["LOCK", "MANIFEST", "STATUS", "data-1", "wal"]


# -- in memory -------------------------------------------------------------------------------


def test_memory_keeps_nothing_and_removes_its_files(open_db: OpenDatabase) -> None:
    db = open_db(":memory:")
    other = open_db(":memory:")
    db.collection("n", indexes=[Ordered("x")]).put_many({"id": str(n), "x": n} for n in range(9))
    db.checkpoint()
    assert db.collection("n").count({"x": {"$gt": 4}}) == 4
    assert other.collections() == []
    parent = Path(db.path).parent
    assert parent.exists()
    db.close()
    assert not parent.exists()
    assert open_db(":memory:").collections() == []


def test_memory_that_cannot_be_opened_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = FaultyFileSystem()
    fs.arm(fail_at=1, lasting=True)
    shm = Path("/dev/shm")
    before = set(shm.glob("amberdb-*")) if shm.exists() else set[Path]()
    with pytest.raises(AmberError):
        amberdb.open(":memory:", fs=fs, **SMALL)
    if shm.exists():
        assert not [path for path in set(shm.glob("amberdb-*")) - before if not any(path.iterdir())]


# -- closing ---------------------------------------------------------------------------------


def test_leaving_the_block_closes(made: Path) -> None:
    with open_at(made) as db:
        assert "closed" not in repr(db)
        assert str(made) in repr(db)
    assert repr(db).endswith("closed>")
    with pytest.raises(ClosedError):
        db.collection("n")


def test_an_exception_in_the_block_closes_too(made: Path) -> None:
    db = open_at(made)
    with pytest.raises(KeyboardInterrupt), db:
        raise KeyboardInterrupt
    assert is_intact(made)


def test_closed_twice_is_closed(made: Path) -> None:
    db = open_at(made)
    db.close()
    db.close()
    assert is_intact(made)


def test_closed_cleanly_there_is_nothing_to_recover(made: Path) -> None:
    with open_at(made) as db:
        assert db.recovery is None
        assert db.stats()["memtable_bytes"] == 0


def test_close_inside_ones_own_transaction_is_refused(made: Path) -> None:
    db = open_at(made)
    with db.transaction() as tx:
        tx["n"].put({"id": "b", "x": 2})
        with pytest.raises(TransactionError):
            db.close()
    assert "b" in db.collection("n")
    db.close()
    assert is_intact(made)


Use = Callable[[Database, Collection], object]
USES: dict[str, Use] = {
    "collection": lambda db, notes: db.collection("n"),
    "collections": lambda db, notes: db.collections(),
    "definition": lambda db, notes: db.definition("n"),
    "rename_collection": lambda db, notes: db.rename_collection("n", "m"),
    "drop_collection": lambda db, notes: db.drop_collection("n"),
    "migrate": lambda db, notes: db.migrate(),
    "build_indexes": lambda db, notes: db.build_indexes(),
    "transaction": lambda db, notes: db.transaction().__enter__(),
    "check_transaction": lambda db, notes: db.check_transaction(db.transaction()),
    "refresh": lambda db, notes: db.refresh(),
    "snapshot": lambda db, notes: db.snapshot(),
    "changes": lambda db, notes: list(db.changes()),
    "subscriber": lambda db, notes: db.subscriber("reader"),
    "new subscriber": lambda db, notes: db.subscriber("another"),
    "expire": lambda db, notes: db.expire(),
    "accept_clock": lambda db, notes: db.accept_clock(),
    "sync": lambda db, notes: db.sync(),
    "checkpoint": lambda db, notes: db.checkpoint(),
    "check": lambda db, notes: db.check(),
    "compact": lambda db, notes: db.compact(),
    "upgrade": lambda db, notes: db.upgrade(),
    "erase": lambda db, notes: db.erase("n", {}, reason="x"),
    "erasures": lambda db, notes: db.erasures(),
    "backups": lambda db, notes: db.backups(),
    "backup": lambda db, notes: db.backup(f"{db.path}.backup"),
    "stats": lambda db, notes: db.stats(),
    "archived_lsn": lambda db, notes: db.archived_lsn,
    "get": lambda db, notes: notes.get("a"),
    "record": lambda db, notes: notes.record("a"),
    "in": lambda db, notes: "a" in notes,
    "len": lambda db, notes: len(notes),
    "iter": lambda db, notes: list(notes),
    "documents": lambda db, notes: list(notes.documents()),
    "find": lambda db, notes: notes.find(),
    "count": lambda db, notes: notes.count(),
    "get_many": lambda db, notes: notes.get_many(["a"]),
    "distinct": lambda db, notes: notes.distinct("x"),
    "count_by": lambda db, notes: notes.count_by("x"),
    "min": lambda db, notes: notes.min("x"),
    "max": lambda db, notes: notes.max("x"),
    "touch": lambda db, notes: notes.touch(["a"], None),
    "explain": lambda db, notes: notes.explain(),
    "search": lambda db, notes: notes.search("word"),
    "embed_missing": lambda db, notes: notes.embed_missing(),
    "put": lambda db, notes: notes.put({}),
    "insert": lambda db, notes: notes.insert({}),
    "run": lambda db, notes: db.run(lambda tx: tx["n"].get("a")),
    "put_many": lambda db, notes: notes.put_many([{}]),
    "put_records": lambda db, notes: notes.put_records([]),
    "update": lambda db, notes: notes.update("a", {}),
    "delete": lambda db, notes: notes.delete("a"),
    "del": lambda db, notes: notes.__delitem__("a"),
    "delete_many": lambda db, notes: notes.delete_many({}),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_use_after_close_is_an_error(made: Path, use: Use) -> None:
    db = open_at(made)
    notes = db.collection("n")
    reader = db.subscriber("reader")
    db.close()
    for _ in range(2):
        with pytest.raises(ClosedError, match="open it again"):
            use(db, notes)
    with pytest.raises(ClosedError):
        reader.acknowledge(reader.position)
    assert is_intact(made)


def test_every_public_method_of_a_closed_database_is_covered() -> None:
    public = {name for name in (*dir(Database), *dir(Collection)) if not name.startswith("_")}
    without_work = {"close", "path", "options", "recovery", "rescue", "name"}
    assert public - without_work <= set(USES)


def test_reopened_many_times_nothing_changes(made: Path) -> None:
    for n in range(5):
        with open_at(made) as db:
            db.collection("n").put({"id": f"b{n}", "x": 5})
    with open_at(made) as db:
        assert ids(db.collection("n").find({"x": 5})) == [f"b{n}" for n in range(5)]
        assert db.stats()["last_lsn"] >> 40 == 1, "no unclean open, so no new epoch"


# -- stats -----------------------------------------------------------------------------------


def test_stats_have_a_fixed_shape(made: Path) -> None:
    with open_at(made) as db:
        db.collection("n", indexes=[Ordered("x"), Unique("key", sparse=True)], expires_at=None)
        db.collection("m", expires_at="until")
        stats = db.stats().to_map()
    numbers = {name: value for name, value in stats.items() if isinstance(value, (int, float))}
    assert stats.pop("archived_lsn") is None  # no backup yet
    assert set(numbers) == {
        "last_lsn", "visible_lsn", "durable_lsn", "applied_lsn", "memtable_bytes", "checkpoints",
        "checkpoint_ms_last", "snapshots", "oldest_snapshot_ms", "live_share", "read_only",
        "clock_behind_ms",
    }  # fmt: skip
    assert set(stats) - set(numbers) == {
        "path", "log", "store", "collections", "subscribers", "backups", "compaction",
        "erasures_waiting", "failures", "minutes", "bytes", "checkpoint", "sync", "subscriber_lag",
    }  # fmt: skip
    sizes = {name: facts.pop("bytes") for name, facts in stats["collections"].items()}
    assert sizes == {"n": 8192, "m": 0}  # pages of LMDB: a document and its entry
    assert stats["collections"] == {
        "n": {
            "documents": 1,
            "version": 1,
            "migrating": None,
            "expires_at": None,
            "indexes": {"ordered:x": "ready", "unique:key": "ready"},
            "search": {},
            "embedding": {},
        },
        "m": {
            "documents": 0,
            "version": 1,
            "migrating": None,
            "expires_at": "until",
            "indexes": {},
            "search": {},
            "embedding": {},
        },
    }
    assert set(stats["log"]) >= {"segments", "bytes", "free_segments", "syncs"}
    assert set(stats["store"]) == {"file_bytes", "used_bytes", "entries", "depth", "readers"}
    assert stats["store"]["file_bytes"] >= stats["store"]["used_bytes"] > 0


def test_manifest_is_whole_or_old(made: Path) -> None:
    fs = OsFileSystem()
    manifest = manifests.read(fs, str(made))
    assert manifest.clean_lsn
    assert manifest.generation == 1
    assert len(manifest.database_id) == 16
    manifest.write(fs, str(made))
    assert manifests.read(fs, str(made)) == manifest
    assert not (made / "MANIFEST.tmp").exists()


def test_a_path_that_is_no_utf8_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    path = f"{tmp_path}/\udcff"  # a name of bytes that are no text, as os.fsdecode() has it
    with pytest.raises(OpenError, match="is not UTF-8"):
        amberdb.open(path)
    with pytest.raises(OpenError, match="is not UTF-8"):
        amberdb.connect(path)
    with amberdb.open(tmp_path / "t.amber", background=False) as db:
        with pytest.raises(amberdb.BackupError, match="is not UTF-8"):
            db.backup(path)
        db.backup(tmp_path / "full")
        assert db.check().ok
    with pytest.raises(OpenError, match="is not UTF-8"):
        amberdb.restore(tmp_path / "full", path)
    assert sorted(os.listdir(tmp_path)) == ["full", "t.amber"]
