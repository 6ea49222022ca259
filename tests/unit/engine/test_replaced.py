"""A database whose directory is removed, renamed or replaced while it is open: nothing is written
to what its path leads to, nothing is acknowledged, and what was renamed back is in order again."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import AmberError, Database, ReplacedError, Sync
from amberdb import _failpoints as failpoints
from amberdb._fs import DirLock, FileSystem, OsFileSystem
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.held_directory import HeldDirectory
from support.databases import SMALL, assert_sound
from unit.engine.helpers import open_at
from unit.wal.helpers import join_preparation

SYNCS: list[Sync] = ["always", "interval", "os"]


def contents(path: Path) -> dict[str, bytes]:
    return {
        each.relative_to(path).as_posix(): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.name != "lock.mdb"  # readers are registered in it
    }


def old_at(path: Path, **options: Any) -> Database:
    db = open_at(path, **{"sync_interval_ms": 0, **options})
    db.collection("n").put_many({"id": f"old{n}", "text": "x" * 200} for n in range(20))
    db.checkpoint()
    db.collection("n").put({"id": "old"})
    join_preparation()  # of a segment, whose file would be among those that a test compares
    return db


def make_new(path: Path) -> None:
    with open_at(path) as db:
        db.collection("n").put({"id": "new"})
        assert_sound(db)


def remove(path: Path) -> None:
    shutil.rmtree(path)


def rename(path: Path) -> None:
    path.rename(path.with_name("aside"))


def replace(path: Path) -> None:
    shutil.rmtree(path)
    make_new(path)


def rename_and_replace(path: Path) -> None:
    rename(path)
    make_new(path)


def restore(path: Path) -> None:
    make_new(path.with_name("source"))
    with open_at(path.with_name("source")) as db:
        db.backup(path.with_name("b"))
    shutil.rmtree(path)
    amberdb.restore(path.with_name("b"), path, **SMALL)


def put_in_place_of_the_content(path: Path) -> None:
    make_new(path.with_name("source"))
    for each in path.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.copytree(path.with_name("source"), path, dirs_exist_ok=True)


def copy_over(path: Path) -> None:
    make_new(path.with_name("source"))
    (path / "MANIFEST").write_bytes((path.with_name("source") / "MANIFEST").read_bytes())


def remove_the_lock(path: Path) -> None:
    (path / "LOCK").unlink()


CHANGES = [remove, rename, replace, rename_and_replace, restore, put_in_place_of_the_content]
change = pytest.mark.parametrize("change", [*CHANGES, remove_the_lock])
CALLS: dict[str, Callable[[Database], object]] = {
    "checkpoint": lambda db: db.checkpoint(),
    "compact": lambda db: db.compact(),
    "backup": lambda db: db.backup(Path(db.path).with_name("taken")),
    "erase": lambda db: db.erase("n", {"id": "old1"}, reason="asked"),
    "declare": lambda db: db.collection("m", indexes=[amberdb.Ordered("text")]),
    "drop": lambda db: db.drop_collection("n"),
    "delete": lambda db: db.collection("n").delete("old1"),
}


@pytest.mark.parametrize("sync", SYNCS)
@change
def test_a_write_is_refused_and_what_is_there_is_not_changed(
    tmp_path: Path, change: Callable[[Path], None], sync: Sync
) -> None:
    path = tmp_path / "t.amber"
    db = old_at(path, sync=sync)
    change(path)
    before = contents(path) if path.exists() else None
    for _ in range(3):
        with pytest.raises(ReplacedError, match="is no longer the directory that was opened"):
            db.collection("n").put({"id": "lost"})
    assert "lost" not in db.collection("n")
    assert "old" in db.collection("n")  # reads go on
    close(db)
    if change is not remove_the_lock:
        assert (contents(path) if path.exists() else None) == before
    if change not in (remove, rename):
        with open_at(path) as new:
            assert ("new" in new.collection("n")) == (change is not remove_the_lock)
            assert "lost" not in new.collection("n")
            assert_sound(new)


def close(db: Database) -> None:
    with suppress(ReplacedError):
        db.close()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", CHANGES)
def test_no_job_touches_what_is_there(
    tmp_path: Path, change: Callable[[Path], None], call: str
) -> None:
    path = tmp_path / "t.amber"
    db = old_at(path)
    change(path)
    before = contents(path) if path.exists() else None
    taken = contents(tmp_path / "aside") if (tmp_path / "aside").exists() else None
    with pytest.raises(ReplacedError):
        CALLS[call](db)
    close(db)
    assert (contents(path) if path.exists() else None) == before
    assert not (tmp_path / "taken").exists()
    if taken is not None:
        with open_at(tmp_path / "aside") as aside:
            assert {"old", "old1"} <= set(aside.collection("n"))
            assert_sound(aside)


def test_a_copy_over_the_files_is_not_written_to(tmp_path: Path) -> None:
    """The files of a copy have other content and the same names, even the same inodes."""
    path = tmp_path / "t.amber"
    db = old_at(path)
    copy_over(path)
    before = contents(path)
    for call in (db.checkpoint, db.compact, lambda: db.backup(tmp_path / "taken")):
        with pytest.raises(ReplacedError, match="MANIFEST was replaced by another program"):
            call()
    db.close()
    assert contents(path) == before


def test_an_idle_handle_closes_without_an_error_and_without_a_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.amber"
    db = old_at(path)
    replace(path)
    before = contents(path)
    db.close()
    assert contents(path) == before
    assert "is no longer the directory that was opened" in caplog.text


def test_a_close_says_so_when_acknowledged_commits_were_not_durable(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    db = old_at(path)
    db.collection("n").put({"id": "unsynced"}, sync="os")
    rename(path)
    with pytest.raises(ReplacedError):
        db.close()
    with open_at(tmp_path / "aside") as aside:  # and they were synced where they are
        assert "unsynced" in aside.collection("n")
        assert_sound(aside)


@pytest.mark.parametrize("sync", SYNCS)
def test_what_was_renamed_back_is_in_order_again(tmp_path: Path, sync: Sync) -> None:
    path, aside = tmp_path / "t.amber", tmp_path / "aside"
    db = old_at(path, sync=sync)
    for round_ in range(3):
        path.rename(aside)
        for call in (lambda: db.collection("n").put({"id": "lost"}), db.compact):
            with pytest.raises(ReplacedError):
                call()
        aside.rename(path)
        db.collection("n").put({"id": f"back{round_}"})
        db.compact()
    db.close()
    with open_at(path) as db:
        assert {"old", "back0", "back1", "back2"} <= set(db.collection("n"))
        assert db.recovery is None
        assert_sound(db)


def test_a_link_that_is_changed_leads_to_another_database(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_new(tmp_path / name)
    link = tmp_path / "link"
    link.symlink_to("first")
    db = open_at(link)
    before = contents(tmp_path / "second")
    link.unlink()
    link.symlink_to("second")
    for call in (lambda: db.collection("n").put({"id": "x"}), db.compact):
        with pytest.raises(ReplacedError):
            call()
    link.unlink()
    link.symlink_to("first")
    db.collection("n").put({"id": "y"})
    db.close()
    assert contents(tmp_path / "second") == before


def compact_and_put(db: Database) -> None:
    db.compact()
    db.collection("n").put({"id": "lost"})


STEPS = sorted(name for name in failpoints.NAMES if name.startswith(("compact.", "checkpoint.")))


@pytest.mark.parametrize("step", STEPS)
def test_a_replacement_in_the_middle_of_a_compaction_is_left_alone(
    tmp_path: Path, step: str
) -> None:
    path = tmp_path / "t.amber"
    db = old_at(path)
    before: dict[str, bytes] = {}

    def at(name: str) -> None:
        if name == step and not before:
            failpoints.install(None)
            rename_and_replace(path)
            before.update(contents(path))

    failpoints.install(at)
    try:
        with pytest.raises(AmberError):
            compact_and_put(db)
    finally:
        failpoints.install(None)
    close(db)
    assert before
    assert contents(path) == before
    with open_at(tmp_path / "aside") as aside:
        assert "old" in aside.collection("n")
        assert_sound(aside)


@pytest.mark.parametrize("step", STEPS)
def test_a_directory_that_is_away_in_the_middle_of_a_compaction_loses_nothing(
    tmp_path: Path, step: str
) -> None:
    path, aside = tmp_path / "t.amber", tmp_path / "aside"
    db = old_at(path)
    is_away = False

    def at(name: str) -> None:
        nonlocal is_away
        if name == step and not is_away:
            is_away = True
            path.rename(aside)

    failpoints.install(at)
    try:
        with pytest.raises(AmberError):
            compact_and_put(db)
    finally:
        failpoints.install(None)
    assert is_away
    aside.rename(path)
    wanted = {"old"}
    try:
        db.collection("n").put({"id": "back"})
        wanted.add("back")
        db.compact()
    except amberdb.PoisonedError:  # it cannot be known which data file MANIFEST names
        pass
    db.close()
    with open_at(path) as db:
        assert wanted <= set(db.collection("n"))
        assert_sound(db)


def test_a_reader_notices_a_copy_in_the_place_of_its_database(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    make_new(path)
    shutil.copytree(path, tmp_path / "copy")
    reader = amberdb.open(path, read_only=True, **SMALL)
    assert list(reader.collection("n")) == ["new"]
    rename(path)
    (tmp_path / "copy").rename(path)
    with pytest.raises(ReplacedError):
        list(reader.collection("n"))
    reader.close()


def test_a_manifest_that_was_only_touched_is_no_replacement(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with old_at(path) as db:
        os.utime(path / "MANIFEST", (1, 1))
        db.compact()
        assert_sound(db)


class CheckedBesideRenames(OsFileSystem):
    """Calls `check` when another thread may: just before and just after a file is renamed."""

    check: Callable[[], None]

    def rename(self, source: str, target: str) -> None:
        self.check()
        super().rename(source, target)
        self.check()


def made_and_held(path: Path, fs: FileSystem) -> tuple[HeldDirectory, DirLock]:
    """A new database, and its directory as the one that was opened."""
    make_new(path)
    lock = fs.lock(str(path / "LOCK"), "1 here")
    return HeldDirectory(fs, str(path), lock), lock


def test_a_manifest_of_our_own_is_none_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    fs = CheckedBesideRenames()
    held, lock = made_and_held(path, fs)
    fs.check = held.check_directory
    manifest = manifests.read(held, str(path))
    for generation in (2, 3):
        dataclasses.replace(manifest, generation=generation).write(held, str(path))
        held.check_directory()
    manifest.write(OsFileSystem(), str(path))  # what was ours once is not ours now
    with pytest.raises(ReplacedError):
        held.check_directory()
    lock.close()


def test_every_change_of_names_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    held, lock = made_and_held(path, OsFileSystem())
    replace(path)
    before = contents(path)
    inner = str(path / "data-1" / "data.mdb")
    for act in (
        lambda: held.open(inner),
        lambda: held.open(str(path / "x"), create=True),
        lambda: held.map_shared(inner, writable=True),
        lambda: held.mkdir(str(path / "x")),
        lambda: held.copy_access(str(tmp_path), str(path)),
        lambda: held.rmdir(str(path / "wal")),
        lambda: held.rename(inner, inner + "x"),
        lambda: held.unlink(inner),
        lambda: held.sync_dir(str(path)),
    ):
        with pytest.raises(ReplacedError):
            act()
    assert contents(path) == before
    lock.close()
