"""One owner at a time: second opens, forks, races to create, dead owners, exits without close()."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import amberdb
from amberdb import AmberError, ClosedError, Database, ForkedError, LockedError, OpenError
from amberdb import _failpoints as failpoints
from support import slices
from support.databases import SMALL, OpenDatabase, audited
from support.inside import engine_of

TESTS = Path(__file__).parent.parent


def python(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


def race(racers: "list[subprocess.Popen[str]]") -> None:
    """Lets go of all at once when each has said that it is ready, and waits for their end."""
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

TRY = """
import sys, amberdb
try:
    amberdb.open(sys.argv[1]).close()
    print("opened")
except amberdb.AmberError as error:
    print(type(error).__name__, error.pid)
"""

TIMES = slices.size(4, 1)

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


COUNT = """
import os, random, sys, amberdb
from support.databases import SMALL
print("ready", flush=True)
sys.stdin.readline()
times, rng = 0, random.Random(sys.argv[2])
while times < int(sys.argv[3]):
    try:
        db = amberdb.open(sys.argv[1], **SMALL)
    except amberdb.LockedError:
        continue
    counters = db.collection("a")
    counters.put({"id": "x", "n": counters.get("x", {"n": 0})["n"] + 1})
    times += 1
    if rng.random() < 0.2:  # gone without close(), and started again
        left = str(int(sys.argv[3]) - times)
        again = [*sys.orig_argv[:4], str(rng.random()), left]
        os.execv(sys.executable, again)
    db.close()
"""


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


@pytest.mark.parametrize(
    "how",
    slices.parameters(5, product(("always", "interval", "os"), (False, True), (False, True))),
    ids=lambda how: "-".join(map(str, how)),
)
def test_exit_without_close_loses_nothing(tmp_path: Path, how: tuple[str, bool, bool]) -> None:
    sync, background, inside = how
    path = str(tmp_path / "t.amber")
    with python(EXIT, path, str(background), sync, str(inside)) as child:
        child.communicate("")
        assert child.returncode == 0
    with amberdb.open(path, **SMALL) as db:
        assert db.recovery is None
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
    db.close()
    assert list(open_db().collection("a")) == ["x", "y"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_reads_beside_its_parent_and_leaves_its_snapshots_alone(
    open_db: OpenDatabase,
) -> None:
    db = open_db(checkpoint_bytes=1000)
    notes = db.collection("a")
    notes.put({"id": "x", "text": "y" * 2000})
    db.checkpoint()
    at = db.snapshot()

    def child() -> bool:
        for _ in range(2):
            with amberdb.open(db.path, read_only=True) as mine:
                if list(mine["a"]) != ["x"]:
                    return False
        return raises(LockedError, lambda: amberdb.open(db.path))

    readers = db.stats()["store"]["readers"]
    assert in_fork(child)
    assert db.stats()["store"]["readers"] >= readers > 0
    for number in range(50):  # pages of the snapshot would be used again
        notes.put({"id": "x", "text": str(number) * 2000})
        db.checkpoint()
    assert at["a"]["x"]["text"] == "y" * 2000
    at.close()


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
@pytest.mark.sliced
def test_processes_race_to_create_one_path(tmp_path: Path) -> None:
    for number in range(TIMES):
        path = tmp_path / f"{number}.amber"
        race([python(RACE, str(path)) for _ in range(3)])
        with amberdb.open(path, **SMALL) as db:
            assert db.collections() == ["a"]
            assert db.check().ok
    assert sorted(os.listdir(tmp_path)) == [f"{number}.amber" for number in range(TIMES)]


@pytest.mark.slow
def test_processes_that_race_to_open_count_together(tmp_path: Path) -> None:
    """Each opens, adds one, and closes or is gone: two owners at once would lose a count."""
    path, times = str(tmp_path / "t.amber"), 8
    race([python(COUNT, path, str(seed), str(times)) for seed in range(2)])
    with amberdb.open(path, **SMALL) as db:
        assert db.collection("a").get("x") == {"id": "x", "n": 2 * times}
        assert db.check().ok


@pytest.mark.parametrize(
    "left", [b"", b"1 somewhere\n", b"999999999 here", b"\xff" * 5000], ids=lambda left: left[:9]
)
def test_what_a_lock_file_says_locks_nothing(open_db: OpenDatabase, left: bytes) -> None:
    """The kernel's lock decides; the text is for whoever finds it locked."""
    db = open_db()
    db.collection("a").put({"id": "x"})
    db.close()
    lock = Path(db.path) / "LOCK"
    lock.write_bytes(left)
    with amberdb.open(db.path, **SMALL) as again:
        assert again.collection("a").get("x") == {"id": "x"}
        with python(TRY, db.path) as other:
            assert other.communicate()[0] == f"LockedError {os.getpid()}\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "place",
    [name for name in failpoints.NAMES if name.startswith(("commit.", "checkpoint.", "rotation."))],
)
def test_a_fork_while_another_thread_commits(
    tmp_path: Path, open_db: OpenDatabase, place: str
) -> None:
    """Whatever that thread holds, the child's calls return, and the parent's commits go on."""
    there, go = threading.Event(), threading.Event()

    def reach(name: str) -> None:
        if name == place and not there.is_set():
            there.set()
            assert go.wait(60)

    db = open_db(segment_bytes_max=4096, subscriber_log_bytes_max=0)
    collection = db.collection("a")
    acknowledged: list[int] = []

    def write() -> None:
        for number in range(30):
            collection.put({"id": f"{number:02}", "text": "x" * 700})
            acknowledged.append(number)
            if number % 10 == 9:
                db.checkpoint()

    def child() -> bool:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout has one of its own
        signal.alarm(30)  # a call that hangs ends the child
        failpoints.install(None)
        answers = [
            raises(ForkedError, lambda: collection.put({"id": "z"})),
            raises(ForkedError, lambda: collection.get("00")),
            raises(ForkedError, db.checkpoint),
            raises(LockedError, lambda: amberdb.open(db.path)),
        ]
        db.close()
        with amberdb.open(tmp_path / "child.amber", **SMALL) as mine:
            mine.collection("a").put({"id": "y"})
            answers.append(mine.check().ok)
        return all(answers)

    failpoints.install(reach)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert there.wait(60), f"{place} was not reached"
        assert in_fork(child)
    finally:
        go.set()
        writer.join()
        failpoints.install(None)
    assert acknowledged == list(range(30))
    assert list(collection) == [f"{number:02}" for number in range(30)]
    db.close()
    assert list(open_db().collection("a")) == [f"{number:02}" for number in range(30)]


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


@pytest.mark.slow
def test_a_forked_child_opens_what_the_parent_has_closed_and_not_collected(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with audited(path) as db:
        db.collection("a").put({"id": "x"})
        ring: list[object] = [engine_of(db).committer.view()]
        ring.append(ring)
        gc.disable()
        del ring

    def child() -> bool:
        with amberdb.open(path, read_only=True, map_bytes=1 << 30) as reader:
            return reader["a"].get("x") == {"id": "x"}

    try:
        assert in_fork(child)
    finally:
        gc.enable()
