"""Many threads at once: writers, readers, snapshots, checkpoints, expiry, index builds, close.

Money moves between two collections, one transfer per transaction, so every snapshot must show the
same sum. The interpreter is made to switch threads at a random, short interval.
"""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from amberdb import (
    AmberError,
    ClosedError,
    CollectionMissingError,
    CommitUnknownError,
    Database,
    Document,
    DuplicateKeyError,
    Ordered,
    QueryError,
    Snapshot,
    Text,
    Transaction,
    Unique,
)
from amberdb.engine.commit import index_chunks
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.maintenance import index_build
from amberdb.engine.storage.memtable import Memtable
from support.databases import OpenDatabase
from support.faulty_fs import FaultyFileSystem
from support.inside import engine_of

ACCOUNTS = 20
TOTAL = ACCOUNTS * 2 * 100
ROUNDS = 60


@pytest.fixture(params=[1, 2])
def rng(request: pytest.FixtureRequest) -> Iterator[random.Random]:
    rng = random.Random(request.param)
    before = sys.getswitchinterval()
    sys.setswitchinterval(rng.choice((1e-6, 1e-5, 1e-4)))
    yield rng
    sys.setswitchinterval(before)


class Crowd:
    """Threads that run until told to stop; what one of them raises is raised at the end."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def start(self, job: Callable[[random.Random], None], seed: int, times: int = 0) -> None:
        """Runs `job` so many times; 0 is until stop."""

        def run() -> None:
            rng = random.Random(seed)
            done = 0
            try:
                while (done < times) if times else not self.stop.is_set():
                    job(rng)
                    done += 1
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()

    def finish(self, first: int = 0) -> None:
        for thread in self.threads[:first]:
            thread.join(120)
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]


def fill(db: Database) -> None:
    for name in ("left", "right"):
        db.collection(name, indexes=[Ordered("money")])
        db.collection(name).put_many(
            {"id": f"{number:02}", "money": 100, "moves": 0} for number in range(ACCOUNTS)
        )
    db.collection("brief", expires_at="t")


def transfer(tx: Transaction, rng: random.Random) -> None:
    source, target = rng.sample(("left", "right"), 2)
    amount = rng.randrange(5)
    for name, sign in ((source, -1), (target, 1)):
        id = f"{rng.randrange(ACCOUNTS):02}"
        doc = tx[name].get(id)
        assert doc is not None
        tx[name].update(id, {"money": doc["money"] + sign * amount, "moves": doc["moves"] + 1})


@pytest.mark.slow
def test_snapshots_stay_whole_among_writers(open_db: OpenDatabase, rng: random.Random) -> None:
    db = open_db(
        background=True,
        checkpoint_bytes=30_000,
        checkpoint_interval_ms=20,
        reap_interval_ms=5,
        reap_grace_ms=5,
    )
    fill(db)
    crowd = Crowd()
    counts = [0] * 8

    def writer(number: int) -> Callable[[random.Random], None]:
        def write(rng: random.Random) -> None:
            with db.transaction(sync=rng.choice(("always", "interval", "os"))) as tx:
                transfer(tx, rng)
            counts[number] += 1
            if rng.random() < 0.2:
                db.collection("brief").put({"t": rng.choice((1.0, None)), "n": number})

        return write

    def read(rng: random.Random) -> None:
        with db.snapshot() as at:
            id = f"{rng.randrange(ACCOUNTS):02}"
            for _ in range(2):
                found: list[list[Document]]
                found = [at[name].find(order_by="-money") for name in ("left", "right")]
                assert at["left"].get(id) in found[0]
                assert all(len(page) == ACCOUNTS for page in found)
                assert sum(doc["money"] for page in found for doc in page) == TOTAL
                moves = [doc["money"] for doc in found[0]]
                assert moves == sorted(moves, reverse=True)

    def look_after(rng: random.Random) -> None:
        what = rng.randrange(5)
        if what == 0:
            db.checkpoint()
        elif what == 1:
            db.expire()
        elif what == 2:
            chosen = [Ordered("money"), Ordered("moves"), Ordered("-moves", "money")]
            db.collection("left", indexes=chosen[: rng.randrange(1, 4)])
            db.build_indexes()
        elif what == 3:
            assert db.check().ok
        else:
            db.stats()

    for number in range(8):
        crowd.start(writer(number), rng.randrange(1000), ROUNDS)
    for _ in range(2):
        crowd.start(read, rng.randrange(1000))
    crowd.start(look_after, rng.randrange(1000))
    crowd.finish(first=8)
    assert counts == [ROUNDS] * 8
    moves = sum(doc["moves"] for name in ("left", "right") for doc in db.collection(name).find())
    assert moves == 2 * 8 * ROUNDS
    db.close()
    db = open_db()
    found = [doc["money"] for name in ("left", "right") for doc in db.collection(name).find()]
    assert sum(found) == TOTAL


@pytest.mark.slow
def test_close_among_readers_and_writers(open_db: OpenDatabase, rng: random.Random) -> None:
    for _ in range(4):
        db = open_db(background=True, checkpoint_bytes=30_000)
        if not db.collections():
            fill(db)
        crowd = Crowd()
        acknowledged: set[str] = set()
        warm = threading.Barrier(9)

        def work(rng: random.Random, db: Database = db, warm: threading.Barrier = warm) -> None:
            warm.wait(60)
            try:
                while True:
                    if rng.random() < 0.5:
                        acknowledged.add(db.collection("brief").put({"x": "y" * 200}))  # noqa: B023
                    else:
                        assert len(db.collection("left").find(order_by="money")) == ACCOUNTS
            except (ClosedError, CommitUnknownError):
                pass

        for _ in range(8):
            crowd.start(work, rng.randrange(1000), 1)
        warm.wait(60)
        enough = len(acknowledged) + rng.randrange(200)
        while len(acknowledged) < enough and not crowd.errors:
            db.stats()
        try:
            db.close()
        except AmberError as error:
            crowd.errors.append(error)
        crowd.finish()
        again = open_db()
        assert acknowledged <= set(again.collection("brief"))
        again.close()


@pytest.mark.parametrize("when", ["build", "checkpoint"])
def test_an_index_declared_during_a_build_misses_nothing(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its documents may be above the checkpoint that the build began with."""
    db = open_db()
    db.collection("a").put({"id": "1", "n": 1, "m": 1})
    db.collection("a", indexes=[Ordered("n")])
    done: list[str] = []

    def meanwhile() -> None:
        if not done:
            done.append(when)
            db.collection("a").put({"id": "2", "n": 2, "m": 2})
            db.collection("b").put({"id": "3", "m": 3})
            db.collection("b", indexes=[Ordered("m")])
            db.collection("a", indexes=[Ordered("n"), Ordered("m")])

    if when == "build":
        db.build_indexes(lambda name, documents: meanwhile())
    else:
        release_log = Checkpointer.release_log

        def late(self: Checkpointer) -> None:
            release_log(self)
            meanwhile()

        monkeypatch.setattr(Checkpointer, "release_log", late)
        db.build_indexes()
    assert done
    assert [doc["id"] for doc in db.collection("a").find({"m": {"$gte": 0}})] == ["1", "2"]
    assert [doc["id"] for doc in db.collection("b").find({"m": {"$gte": 0}})] == ["3"]


def test_a_tree_dropped_during_a_purge_leaves_nothing(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entries may be above the checkpoint that the purge began with, and come down later."""
    db = open_db()
    collection = db.collection("a", indexes=[Ordered("n"), Ordered("m")])
    collection.put({"id": "1", "n": 1, "m": 1})
    db.collection("a", indexes=[Ordered("m")])
    release_log = Checkpointer.release_log
    done: list[int] = []

    def late(self: Checkpointer) -> None:
        release_log(self)
        if not done:
            done.append(1)
            collection.put({"id": "2", "n": 2, "m": 2})
            db.collection("a", indexes=[])

    monkeypatch.setattr(Checkpointer, "release_log", late)
    db.build_indexes()
    db.checkpoint()
    with open_db("other.amber") as other:
        other.collection("a").put_many([{"id": "1", "n": 1, "m": 1}, {"id": "2", "n": 2, "m": 2}])
        other.checkpoint()
        assert db.stats()["store"]["entries"] == other.stats()["store"]["entries"]


class _GatedSync(FaultyFileSystem):
    """Holds the syncs of the log while the gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def before(self, kind: str, path: str) -> None:
        if kind == "sync" and path.endswith(".wal") and not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(60)


def test_a_duplicate_that_waits_for_its_sync_is_seen_by_a_unique_build(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = _GatedSync()
    db = open_db(fs=fs)
    users = db.collection("users")
    users.put({"id": "old", "u": 1})
    build_chunk = index_chunks.build_chunk
    writer = threading.Thread(target=users.put, args=({"id": "new", "u": 1},))

    def with_a_put_before(*args: Any) -> tuple[int, bool]:
        if not fs.waiting.is_set():
            fs.gate.clear()
            writer.start()
            assert fs.waiting.wait(60)  # published, and not acknowledged
            threading.Timer(0.1, fs.gate.set).start()
        return build_chunk(*args)

    monkeypatch.setattr(index_build, "build_chunk", with_a_put_before)
    with pytest.raises(DuplicateKeyError):
        db.collection("users", indexes=[Unique("u")])
    writer.join()
    assert db.definition("users").indexes == ()
    assert len(users) == 2


def test_get_does_not_see_a_commit_that_waits_for_its_sync_while_a_checkpoint_does(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = _GatedSync()
    db = open_db(fs=fs)
    users = db.collection("users")
    users.put({"id": "x", "n": 1})
    frozen = threading.Event()
    freeze = Committer.freeze

    def told(self: Committer) -> Memtable | None:
        memtable = freeze(self)
        frozen.set()
        return memtable

    monkeypatch.setattr(Committer, "freeze", told)
    fs.gate.clear()
    writer = threading.Thread(target=users.put, args=({"id": "x", "n": 2},))
    writer.start()
    assert fs.waiting.wait(60)  # published, and not acknowledged
    checkpoint = threading.Thread(target=db.checkpoint)
    checkpoint.start()
    assert frozen.wait(60)
    found = users.get("x"), users.find()
    fs.gate.set()
    writer.join()
    checkpoint.join()
    assert found == ({"id": "x", "n": 1}, [{"id": "x", "n": 1}])
    assert users.get("x") == {"id": "x", "n": 2}


def test_a_commit_that_close_overtakes_is_acknowledged(
    open_db: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the log: ClosedError would invite to write it again."""
    db = open_db()
    users = db.collection("users")
    synced, closed = threading.Event(), threading.Event()
    make_visible = Committer.make_visible
    crowd = Crowd()

    def late(self: Committer, lsn: int) -> None:
        if threading.current_thread() in crowd.threads:
            synced.set()
            assert closed.wait(60)
        make_visible(self, lsn)

    monkeypatch.setattr(Committer, "make_visible", late)

    def write(rng: random.Random) -> None:
        users.put({"id": "x"})

    crowd.start(write, 0, times=1)
    assert synced.wait(60)
    db.close()
    closed.set()
    crowd.finish(first=1)
    assert list(open_db().collection("users")) == ["x"]


class _Waiting:
    """A declaration in a thread, published and not acknowledged: its sync waits."""

    def __init__(self, fs: _GatedSync, call: Callable[[], object]) -> None:
        self._fs = fs
        fs.waiting.clear()
        fs.gate.clear()
        self._thread = threading.Thread(target=call)
        self._thread.start()
        assert fs.waiting.wait(60)

    def end(self) -> None:
        self._fs.gate.set()
        self._thread.join()


def described(db: Database | Snapshot, *, searches: bool = True) -> dict[str, object]:
    """What each collection answers."""
    answers: dict[str, object] = {}
    for name in ("a", "b"):
        try:
            notes = db[name]
            hits = [hit.id for hit in notes.search("amber")] if searches else []
            answers[name] = (notes.get("1"), list(notes), notes.find({"n": 1}), hits)
        except CollectionMissingError:
            answers[name] = "missing"
        except QueryError:
            answers[name] = "no index"
    return answers


DECLARATIONS: dict[str, Callable[[Database], object]] = {
    "drop": lambda db: db.drop_collection("a"),
    "rename": lambda db: db.rename_collection("a", "b"),
    "index": lambda db: db.collection("a", indexes=[]),
    "migration": lambda db: db.collection("a", version=2, migrate={2: _with_n_2}),
}


def _with_n_2(document: Document) -> Document:
    return {**document, "n": 2}


@pytest.mark.parametrize("name", DECLARATIONS)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_a_declaration_that_waits_for_its_sync_is_not_seen(
    open_db: OpenDatabase, name: str, frozen: bool
) -> None:
    """A view has the catalog of its Lsn, also when a checkpoint swaps the memtables meanwhile."""
    fs = _GatedSync()
    db = open_db(fs=fs)
    db.collection("a", indexes=[Text("text")]).put({"id": "1", "n": 1, "text": "amber"})
    searches = name != "migration"  # a search waits for its end
    before = described(db, searches=searches)
    waiting = _Waiting(fs, partial(DECLARATIONS[name], db))
    try:
        if frozen:
            engine_of(db).committer.freeze()
        seen = described(db, searches=searches)
        snapshot = db.snapshot()
    finally:
        waiting.end()
    with snapshot:
        assert described(snapshot, searches=searches) == seen == before
    assert described(db, searches=searches) != before


def test_who_declares_what_another_thread_has_just_declared_can_read_it(
    open_db: OpenDatabase,
) -> None:
    fs = _GatedSync()
    db = open_db(fs=fs)
    waiting = _Waiting(fs, lambda: db.collection("a", indexes=[Text("text")]))
    counts: list[int] = []
    other = threading.Thread(
        target=lambda: counts.append(db.collection("a", indexes=[Text("text")]).count())
    )
    other.start()
    threading.Timer(0.1, fs.gate.set).start()
    other.join()
    waiting.end()
    assert counts == [0]
