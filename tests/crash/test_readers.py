"""Processes that read beside the one that writes: what they see, and what they must not.

The writer is this process, or one that is killed; readers are led by pipes (support/reading.py).
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

import amberdb
from amberdb import (
    Database,
    DatabaseMissingError,
    LockedError,
    Ordered,
    ReadOnlyError,
    ReplacedError,
    Text,
    Vector,
)
from amberdb import _failpoints as failpoints
from amberdb.index.registry import IndexSpec
from support import slices
from support.databases import SMALL, OpenDatabase, assert_sound
from support.preload import compiled, why_not
from support.reading import ReadingProcess, everything

TESTS = Path(__file__).parent.parent
INDEXES: list[IndexSpec] = [Ordered("n"), Text("text"), Vector("v", dim=2)]

WRITE = """
import os, signal, sys, amberdb
from amberdb import _failpoints as failpoints
from support.databases import SMALL
db = amberdb.open(sys.argv[1], sync=sys.argv[2], **SMALL)
a = db.collection("a")
for n in range(5):
    a.put({"id": str(n), "n": n})
def reach(name):
    if name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
failpoints.install(reach)
a.put({"id": "last", "n": 5})
print("acknowledged", flush=True)
"""


CHECKPOINT = """
import ctypes, sys, amberdb
from support.databases import SMALL
db = amberdb.open(sys.argv[1], **SMALL)
db["a"].put({"id": "last", "n": 5, "text": "umbrella"})
ctypes.CDLL(None).die_after_meta()
db.checkpoint()
"""


def files(path: Path) -> dict[str, bytes]:
    """Of a directory, but LMDB's table of readers."""
    found = (file for file in path.rglob("*") if file.is_file())
    return {str(f): f.read_bytes() for f in found if f.name != "lock.mdb"}


def killed_writer(path: Path, sync: str, place: str) -> bool:
    """A process that dies there during its last commit; whether that was acknowledged."""
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(path), sync, place],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    return done.stdout == b"acknowledged\n"


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_commit_to_lmdb_that_was_killed_is_found_beside_a_reader(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    """The meta page is there, and LMDB's table of readers names the one before."""
    db = open_db()
    path, a = Path(db.path), db.collection("a", indexes=INDEXES)
    a.put({"id": "first", "text": "umbrella"})
    db.close()
    python_path = os.pathsep.join([str(TESTS), *sys.path])
    with ReadingProcess(path):
        done = subprocess.run(
            [sys.executable, "-c", CHECKPOINT, str(path)],
            env={**os.environ, "PYTHONPATH": python_path, "LD_PRELOAD": str(compiled(tmp_path))},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        again = open_db()
        assert again.recovery is not None
        assert again.recovery.records == 0  # they are in LMDB
        again.checkpoint()
        assert len(again["a"].search("umbrella")) == 2
        assert_sound(again)


def churn(db: Database, steps: int) -> None:
    """Commits, with segments that end, checkpoints that recycle them, and files written anew."""
    a = db.collection("a", indexes=INDEXES)
    for n in range(steps):
        document = {"n": n, "text": f"umbrella {'x' * (n * 97 % 1500)}", "v": [n, 1]}
        a.put({**document, "id": str(n % 17)})
        if n % 3 == 1:
            a.delete(str(n % 5))
        if n % 7 == 6:
            db.checkpoint()
        if n % 31 == 30:
            db.compact()


def test_what_is_acknowledged_is_seen_at_once(open_db: OpenDatabase) -> None:
    db = open_db(segment_bytes_max=4096)
    a = db.collection("a", indexes=INDEXES)
    with ReadingProcess(db.path) as reader:
        for n in range(120):
            a.put({"id": str(n % 17), "n": n, "text": "x" * (n * 97 % 1500), "v": [n, 1]})
            if n % 7 == 6:
                db.checkpoint()
            if n % 31 == 30:
                db.compact()
            assert reader.ask("everything(db)") == everything(db)
        assert reader.ask("db.check().problems") == []
        assert reader.ask("db.stats()['visible_lsn']") == db.stats()["last_lsn"]


def test_a_reader_that_slept_through_everything_goes_on(open_db: OpenDatabase) -> None:
    """Its log is gone, its file has no name any more."""
    db = open_db(segment_bytes_max=4096)
    churn(db, 3)
    with ReadingProcess(db.path) as reader:
        for _ in range(3):
            before = everything(db)
            reader.ask("kept.update(at=db.snapshot())")
            churn(db, 200)
            db.close()
            db = open_db(segment_bytes_max=4096)
            churn(db, 5)
            assert reader.ask("everything(db)") == everything(db)
            assert reader.ask("(kept['at'].lsn, documents(kept['at']))") == before
            assert reader.ask("db.check().problems") == []
            reader.ask("kept['at'].close()")


PLACES = [
    name for name in failpoints.NAMES if name.startswith("commit.") and name != "commit.visible"
]


@pytest.mark.parametrize(
    "where", slices.parameters(7, product(("always", "interval", "os"), PLACES)), ids="-".join
)
def test_nothing_is_seen_before_it_can_be_acknowledged(
    open_db: OpenDatabase, where: tuple[str, str]
) -> None:
    sync, place = where
    there, go = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == place:
            there.set()
            assert go.wait(60)

    db = open_db(sync=sync)
    a = db.collection("a")
    a.put({"id": "x", "n": 0}, sync="always")
    writer = threading.Thread(target=a.put, args=({"id": "x", "n": 1},))
    with ReadingProcess(db.path) as reader:
        failpoints.install(reach)
        try:
            writer.start()
            reached = there.wait(60 if sync == "always" or "sync" not in place else 0)
            seen = reader.ask("db.collection('a').get('x')")
        finally:
            go.set()
            writer.join()
            failpoints.install(None)
        assert not reached or seen == {"id": "x", "n": 0}
        assert reader.ask("db.collection('a').get('x')") == {"id": "x", "n": 1}


@pytest.mark.parametrize("sync", slices.parameters(2, ["always", "os"]))
@pytest.mark.parametrize("place", ["commit.before-visible", "commit.visible"])
def test_a_writer_that_was_killed_leaves_what_it_acknowledged(
    tmp_path: Path, sync: str, place: str
) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, **SMALL) as db:
        db.collection("a", indexes=[Ordered("n")])
    with ReadingProcess(path) as reader:
        assert not killed_writer(path, sync, place)
        seen = [0, 1, 2, 3, 4] + [5] * (place == "commit.visible")
        before = files(path)
        ask = "[d['n'] for d in db.collection('a').find(order_by='n')]"
        assert reader.ask(ask) == seen
        with ReadingProcess(path) as other:
            assert other.ask(ask) == seen
            assert other.ask("db.check().problems") == []
        assert files(path) == before
        with amberdb.open(path, **SMALL) as db:  # it decides: what was whole is kept
            assert reader.ask(ask) == [0, 1, 2, 3, 4, 5]
            db.collection("a").put({"n": 6})
            assert reader.ask(ask) == [0, 1, 2, 3, 4, 5, 6]
        assert reader.ask(ask) == [0, 1, 2, 3, 4, 5, 6]


def test_another_database_under_the_path_is_an_error_and_so_is_none(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = open_db()
    db.collection("a").put({"id": "x"})
    db.backup(tmp_path / "b")
    with ReadingProcess(db.path) as reader:
        assert reader.ask("len(db.collection('a'))") == 1
        reader.ask("kept.update(at=db.snapshot())")
        db.close()
        shutil.rmtree(db.path)
        with pytest.raises(DatabaseMissingError):
            reader.ask("db.collections()")
        amberdb.restore(tmp_path / "b", db.path)
        for _ in range(2):
            with pytest.raises(ReplacedError):
                reader.ask("db.collection('a')")
        assert reader.ask("list(documents(kept['at']))") == ["x"]
        with ReadingProcess(db.path) as other:
            assert other.ask("list(db.collection('a'))") == ["x"]


def test_a_dead_reader_keeps_no_pages(open_db: OpenDatabase) -> None:
    db = open_db()
    churn(db, 7)

    def size() -> int:
        """After much was written over."""
        for _ in range(10):
            churn(db, 20)
            db.checkpoint()
        return int(db.stats()["store"]["file_bytes"])

    with ReadingProcess(db.path) as reader:
        reader.ask("kept.update(at=db.snapshot())")
        held = [size(), size()]
        assert held[1] > held[0]
        reader.kill()
        freed = [size(), size(), size()]
    assert freed[2] == freed[1] < held[1] + (held[1] - held[0])


def test_readers_lock_nobody_out_and_a_second_writer_is_named(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a").put({"id": "x"})
    readers = [ReadingProcess(db.path) for _ in range(3)]
    for reader in readers:
        assert reader.ask("list(db.collection('a'))") == ["x"]
    second = f"import amberdb; amberdb.open({db.path!r})"
    said = subprocess.run(
        [sys.executable, "-c", second], capture_output=True, text=True, check=False
    ).stderr
    assert f"LockedError: {db.path} is open in process {os.getpid()} on host" in said
    db.close()
    db = open_db()
    db.collection("a").put({"id": "y"})
    for reader in readers:
        with reader:
            assert reader.ask("list(db.collection('a'))") == ["x", "y"]


def test_changes_are_followed_in_another_process(open_db: OpenDatabase) -> None:
    db = open_db(segment_bytes_max=4096)
    a = db.collection("a")
    with ReadingProcess(db.path) as reader:
        reader.ask("kept.update(feed=db.changes(since=0, follow=True))")
        for n in range(60):
            reader.begin("next(kept['feed']).id")
            a.put({"id": str(n), "text": "x" * 300})
            assert reader.answer() == str(n)
            if n == 30:
                db.collection("b").put({"id": "of a new collection"})
                assert reader.ask("next(kept['feed']).collection") == "b"


def test_writing_is_refused(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a", indexes=INDEXES).put({"id": "x"})
    with ReadingProcess(db.path) as reader:
        for call in (
            "db.collection('a').put({'n': 1})",
            "db.collection('a').delete('x')",
            "db.transaction()",
            "db.checkpoint()",
            "db.collection('a', indexes=[])",
        ):
            with pytest.raises(ReadOnlyError):
                reader.ask(call)
    assert len(db.collection("a")) == 1


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """The test's directory at another place, where it is read-only."""
    place = tmp_path / "mounted"
    place.mkdir()
    for command in (
        ["mount", "--bind", str(tmp_path), str(place)],
        ["mount", "-o", "remount,bind,ro", str(place)],
    ):
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            subprocess.run(["umount", str(place)], check=False, stderr=subprocess.DEVNULL)
            pytest.skip("this user may not mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_directory_that_is_mounted_read_only(open_db: OpenDatabase, mounted: Path) -> None:
    """LMDB cannot say there which pages are read, so there must be no writer."""
    db = open_db()
    db.collection("a").put({"id": "x"})
    with pytest.raises(LockedError, match="mounted read-only"):
        amberdb.open(mounted / "t.amber", read_only=True, **SMALL)
    with pytest.raises(LockedError, match="mounted read-only"):
        ReadingProcess(mounted / "t.amber")
    db.close()
    with ReadingProcess(mounted / "t.amber") as reader, ReadingProcess(mounted / "t.amber") as two:
        assert reader.ask("list(documents(db.snapshot()))") == ["x"]
        assert two.ask("db.check().problems") == []
        with pytest.raises(LockedError):
            open_db()
    open_db().collection("a").put({"id": "y"})
