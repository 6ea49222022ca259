"""One owner at a time: second opens, forks, races to create, dead owners, exits without close()."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import amberdb
from amberdb import AmberError, ClosedError, Database, ForkedError, LockedError, OpenError
from support.databases import SMALL, OpenDatabase

TESTS = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


HOLD = """
import sys, amberdb
from support.databases import SMALL
db = amberdb.open(sys.argv[1], **SMALL)
db.collection("a").put({"id": "x"})
print("open", flush=True)
sys.stdin.read()
"""

EXIT = """
import sys, amberdb
db = amberdb.open(sys.argv[1], background=sys.argv[2] == "True", map_bytes=1 << 30)
c = db.collection("a", indexes=[amberdb.Ordered("n")])
for n in range(50):
    c.put({"id": f"{n:02}", "n": n}, sync=sys.argv[3])
tx = db.transaction().__enter__() if sys.argv[4] == "True" else None
if tx is not None:
    tx["a"].put({"id": "open", "n": -1})
"""

RACE = """
import sys, amberdb
from support.databases import SMALL
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        with amberdb.open(sys.argv[1], **SMALL) as db:
            db.collection("a")
        break
    except amberdb.LockedError:
        pass
"""


def test_second_open_in_this_process_names_the_owner(open_db: OpenDatabase) -> None:
    db = open_db()
    for _ in range(2):
        with pytest.raises(LockedError) as caught:
            open_db()
        assert caught.value.pid == os.getpid()
    db.collection("a").put({"id": "x"})


def test_second_open_in_another_process_names_the_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "t.amber")
    with python(HOLD, path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(LockedError) as caught:
            amberdb.open(path)
        assert caught.value.pid == owner.pid
        assert str(owner.pid) in str(caught.value)
        owner.communicate("")


def test_a_directory_left_by_a_dead_process_opens_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "t.amber")
    with python(HOLD, path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    with amberdb.open(path, **SMALL) as db:
        assert db.recovery is not None
        assert db.collection("a").get("x") == {"id": "x"}


@pytest.mark.parametrize("sync", ["always", "interval", "os"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("inside", [False, True], ids=["idle", "in-transaction"])
def test_exit_without_close_loses_nothing(
    tmp_path: Path, sync: str, background: bool, inside: bool
) -> None:
    path = str(tmp_path / "t.amber")
    with python(EXIT, path, str(background), sync, str(inside)) as child:
        child.communicate("")
        assert child.returncode == 0
    with amberdb.open(path, **SMALL) as db:
        assert (db.recovery is None) == (not inside)
        assert [doc["n"] for doc in db.collection("a").find(order_by="n")] == list(range(50))
        assert db.check().ok


def in_fork(call: Callable[[], bool]) -> bool:
    """Whether `call` returned True in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if call() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


def raises(kind: type[AmberError], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind as error:
        return type(error) is kind
    return False


# Newer Pythons warn of any fork while threads run; that this is survived is the point here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("background", [False, True])
def test_a_forked_child_is_told_and_the_parent_goes_on(
    open_db: OpenDatabase, background: bool
) -> None:
    db = open_db(background=background, checkpoint_bytes=1000)
    collection = db.collection("a")
    collection.put({"id": "x", "text": "y" * 2000})
    at = db.snapshot()
    path = db.path

    def child() -> bool:
        answers = [
            raises(ForkedError, lambda: collection.get("x")),
            raises(ForkedError, lambda: collection.put({"id": "z"})),
            raises(ForkedError, lambda: collection.find({})),
            raises(ForkedError, lambda: db.transaction().__enter__()),
            raises(ForkedError, db.snapshot),
            raises(ForkedError, db.checkpoint),
            raises(ForkedError, db.check),
            raises(ForkedError, lambda: list(db.changes())),
            raises(LockedError, lambda: amberdb.open(path)),
        ]
        db.close()  # does nothing
        return all(answers)

    assert in_fork(child)
    assert at["a"].get("x") is not None
    at.close()
    collection.put({"id": "y"})
    db.checkpoint()
    with pytest.raises(LockedError):
        amberdb.open(path)
    db.close()
    assert list(open_db().collection("a")) == ["x", "y"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_keep_the_lock_of_a_parent_that_closes(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a").put({"id": "x"})
    reading, writing = os.pipe()
    ready_reading, ready_writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.write(ready_writing, b"x")  # it runs, so its hook has let go of the lock
        os.read(reading, 1)  # lives until the parent is done
        os._exit(0)
    os.close(reading)
    try:
        assert os.read(ready_reading, 1) == b"x"
        db.close()
        assert open_db().collection("a").get("x") == {"id": "x"}
    finally:
        os.close(writing)
        os.close(ready_reading)
        os.close(ready_writing)
        os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_opens_what_the_parent_has_closed(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("a").put({"id": "x"})
    kept = db.collection("a").find({})
    path = db.path
    db.close()

    def child() -> bool:
        with amberdb.open(path, **SMALL) as mine:
            mine.collection("a").put({"id": "y"})
            return mine.check().ok

    assert in_fork(child)
    assert list(open_db().collection("a")) == ["x", "y"]
    assert kept == [{"id": "x"}]


@pytest.mark.slow
def test_processes_race_to_create_one_path(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / f"{number}.amber"
        racers = [python(RACE, str(path)) for _ in range(3)]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        for racer in racers:
            racer.communicate()
            assert racer.returncode == 0
        with amberdb.open(path, **SMALL) as db:
            assert db.collections() == ["a"]
            assert db.check().ok
    assert sorted(os.listdir(tmp_path)) == [f"{number}.amber" for number in range(4)]


def test_open_again_after_an_open_that_failed(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = open_db()
    db.collection("a").put({"id": "x"})
    db.close()
    manifest = tmp_path / "t.amber" / "MANIFEST"
    whole = manifest.read_bytes()
    (segment,) = (tmp_path / "t.amber" / "wal").glob("*.wal")
    log = segment.read_bytes()
    for file, damaged in ((manifest, whole[:20]), (segment, bytes(len(log)))):
        was = file.read_bytes()
        file.write_bytes(damaged)
        with pytest.raises(AmberError) as kept:
            open_db()
        file.write_bytes(was)
        again = open_db()  # while the error, and all that its traceback holds, is alive
        assert again.collection("a").get("x") == {"id": "x"}
        again.close()
        assert not isinstance(kept.value, OpenError)


def test_everything_raises_once_closed(open_db: OpenDatabase) -> None:
    db: Database = open_db()
    collection = db.collection("a")
    collection.put({"id": "x"})
    at = db.snapshot()
    ids = iter(collection)
    db.close()
    db.close()
    calls: list[Callable[[], object]] = [
        lambda: collection.get("x"),
        lambda: collection.put({}),
        lambda: collection.find({}),
        lambda: next(ids),
        lambda: at["a"],
        lambda: db.collection("a"),
        db.collections,
        db.checkpoint,
        db.check,
        db.stats,
        db.sync,
        db.snapshot,
        db.expire,
        db.build_indexes,
        lambda: list(db.changes()),
        lambda: db.subscriber("s"),
        lambda: db.transaction().__enter__(),
    ]
    for number, call in enumerate(calls):
        assert raises(ClosedError, call), number
