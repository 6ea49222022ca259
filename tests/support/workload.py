"""A workload under a recorder: a database, what it was told to do, and what it acknowledged.

Invariants:
- Commit number n leaves states[n]; every put stores n, so states with a new document differ.
- The trace's notes say what had been begun and acknowledged when: promise.py reads them.
"""

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, final
from unittest.mock import patch

import amberdb
from amberdb import Database, Ordered, Sync, Text, Unique, Vector
from amberdb._fs import FileSystem, OsFileSystem
from amberdb.engine.commit import document_flush, index_chunks
from amberdb.index.registry import IndexSpec
from amberdb.wal import segment
from support.beside import beside
from support.databases import SMALL, FakeClock
from support.older_format import older_format
from support.places import once_at
from support.reference import Doc
from support.searches import (
    DIM,
    compare_searches,
    drawn_text,
    drawn_vector,
    drawn_vectors,
    small_limits,
)
from support.trace import Note, Op, Trace, TraceBuilder
from support.upgrades import stopped_after

NAME: Final = "t.amber"
COLLECTIONS: Final = ("a", "b", "c")
OPTIONS: Final[dict[str, Any]] = {**SMALL, "segment_bytes_max": 8192, "map_bytes": 1 << 26}
Documents: TypeAlias = dict[tuple[str, str], Doc]
MigrationStep: TypeAlias = Callable[["Workload"], None]
Notes: TypeAlias = Callable[[bytes], None]
"""Puts a note into the trace."""


@dataclass
class Recording:
    """A workload that has run."""

    trace: Trace
    states: list[Documents]
    now: float
    """By its clock, at its end."""


class Recorder(Protocol):
    """Runs something, and makes a trace of it."""

    def workload(self, root: Path, seed: int, steps: list[MigrationStep]) -> Recording: ...

    def opening(self, builder: TraceBuilder, root: Path, served: int, now: float) -> Trace:
        """Of reopen_image()."""
        ...


@final
class Workload:
    """One database that is driven step by step and recorded."""

    db: Database

    def __init__(self, root: Path, seed: int, note: Notes, fs: FileSystem | None = None) -> None:
        self.note = note
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.states: list[Documents] = [{}]
        self.sync: Sync = "always"
        """The class of declarations, from the next opening on."""
        self._path = root / NAME
        self._fs = fs or OsFileSystem()
        self._numbers: dict[bytes, int] = {}
        """Of commits whose notes were made before their number was known."""

    def run(self, steps: Sequence[MigrationStep]) -> None:
        # Segments are filled in several writes, as large ones are, and indexes built in chunks.
        with (
            patch.object(segment, "_FILL_SIZE", 2048),
            patch.object(index_chunks, "CHUNK", 8),
            patch.object(index_chunks, "ROWS_CHUNK", 8),
            patch.object(document_flush, "CHUNK", 3),
            small_limits(),
            ExitStack() as self.older,
        ):
            if prepare_older in steps:
                self.older.enter_context(older_format())
            self.db = self._open()
            self.note(b"created")
            for step in steps:
                step(self)
            self.db.close()
            self.settled()

    def _open(self) -> Database:
        options: dict[str, Any] = {**OPTIONS, "sync": self.sync}
        db = amberdb.open(self._path, **options, fs=self._fs, clock=self.clock)
        give_functions(db)
        return db

    def recording(self, trace: Trace) -> Recording:
        trace.ops = [self._numbered(op) for op in trace.ops]
        return Recording(trace, self.states, self.clock.now)

    def _numbered(self, op: Op) -> Op:
        if isinstance(op, Note) and op.data in self._numbers:
            return Note(b"durable %d" % self._numbers[op.data])
        return op

    @property
    def now(self) -> Documents:
        """The state after the last commit."""
        return self.states[-1]

    # -- steps -------------------------------------------------------------------------------

    def commit(
        self, writes: Iterable[tuple[str, str, Doc | None]], sync: Sync | None = None
    ) -> None:
        """One transaction; without `sync` in a class drawn by lot."""
        number = len(self.states)
        sync = sync or self.rng.choice(("always", "os"))
        state = dict(self.states[-1])
        self.note(b"begin %d" % number)
        with self.db.transaction(sync=sync) as tx:
            for name, id, doc in writes:
                if doc is None:
                    tx[name].delete(id)
                    state.pop((name, id), None)
                else:
                    full: Doc = {"id": id, "n": number, **doc}
                    tx[name].put(full)
                    state[name, id] = full
        self.states.append(state)
        word = b"durable" if sync == "always" else b"kept"
        self.note(b"%s %d %d" % (word, number, self.db.stats()["last_lsn"]))

    def declare(self, call: Callable[[], object], state: Documents) -> None:
        """A commit of the catalog that leads to a state."""
        number = len(self.states)
        self.note(b"begin %d" % number)
        call()
        self.states.append(state)
        word = b"durable" if self.sync == "always" else b"kept"
        self.note(b"%s %d %d" % (word, number, self.db.stats()["last_lsn"]))

    def settled(self) -> None:
        """What was acknowledged so far is on the disk by now."""
        self.note(b"durable %d" % (len(self.states) - 1))

    def reopen(self) -> None:
        self.db.close()
        self.settled()
        self.reopen_closed()

    def reopen_closed(self) -> None:
        self.db = self._open()

    def crowd(self, threads: int, each: int) -> None:
        """Commits of many threads. Their order is known afterwards, by their Lsns; only then do
        the notes get their numbers."""
        first = len(self.states)
        self.note(b"begin %d" % (first + threads * each - 1))
        lsns: dict[str, int] = {}

        def write(thread: int) -> None:
            for number in range(each):
                id = f"w{first}-{thread}-{number}"
                self.db.collection("a").put({"id": id, "text": "w" * 100})
                self.note(b"crowd " + id.encode())
                lsns[id] = self.db.collection("a").record(id).version

        workers = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for id in sorted(lsns, key=lsns.__getitem__):
            self._numbers[b"crowd " + id.encode()] = len(self.states)
            self.states.append({**self.states[-1], ("a", id): {"id": id, "text": "w" * 100}})


def upgraded(doc: Doc) -> Doc:
    """At any newer version of the collection."""
    return {**doc, "upgraded": doc.get("upgraded", 0) + 1, "text": doc["text"][::-1]}


UPGRADES: Final = dict.fromkeys(range(2, 100), upgraded)


def give_functions(db: Database) -> None:
    """To collections that are being migrated: functions are not stored."""
    for name in db.collections():
        definition = db.definition(name)
        if definition.steps:
            db.collection(name, version=definition.version, migrate=UPGRADES)


def reopen_image(root: Path, served: int, now: float, note: Notes, fs: FileSystem) -> None:
    """Opens what a crash left, says that these commits were served, and closes."""
    with (
        small_limits(),
        amberdb.open(root / NAME, **OPTIONS, clock=FakeClock(now), fs=fs) as db,
    ):
        note(b"durable %d" % served)
        compare_searches(db, random.Random(served))


# -- the alphabet ------------------------------------------------------------------------------


def put(work: Workload) -> None:
    work.commit([("a", f"k{len(work.states)}", {"text": "x" * work.rng.choice((5, 900))})])


def overwrite(work: Workload) -> None:
    work.commit([("a", "same", {"text": "y" * 40})])


def burst(work: Workload) -> None:
    """Several commits that no sync has covered."""
    for number in range(6):
        size = work.rng.choice((20, 400, 900))
        work.commit([("a", f"b{number}", {"text": "b" * size})], "os")


def delete(work: Workload) -> None:
    work.commit([("a", "same", None)])


def transaction(work: Workload) -> None:
    work.commit([("a", "t", {"text": "z"}), ("b", "t", {"text": "z" * 600}), ("c", "t", None)])


def big_put(work: Workload) -> None:
    work.commit([("b", "big", {"text": "r" * 5000})])


def checkpoint(work: Workload) -> None:
    work.db.checkpoint()
    work.settled()


def compact(work: Workload) -> None:
    work.db.compact()
    work.settled()


def erase(work: Workload) -> None:
    """Of a document with a word of its own, which the receipt tells to who looks for it."""
    word = erased_word(len(work.states))
    work.commit([("a", "gone", {"text": f"{word} {word}"})])
    number = len(work.states)
    work.note(b"begin %d" % number)
    work.db.erase("a", {"id": "gone"}, reason=f"{ERASED} {number - 1}")
    state = dict(work.states[-1])
    del state["a", "gone"]
    work.states.append(state)
    work.note(b"durable %d %d" % (number, work.db.stats()["last_lsn"]))


ERASED: Final = "erasure"


def erased_word(number: int) -> str:
    """Of the document that was put by this commit to be erased."""
    return f"w{number:03}erased"


def expire(work: Workload) -> None:
    work.commit([("c", f"e{len(work.states)}", {"text": "e", "dies": work.clock.now + 5})])
    work.clock.advance(10)
    work.db.expire()


def reopen(work: Workload) -> None:
    work.reopen()


def index(work: Workload) -> None:
    work.db.collection("a", indexes=[Ordered("n"), Unique("id")])
    work.db.build_indexes()


def drop_index(work: Workload) -> None:
    work.db.collection("a", indexes=[])


def text_index(work: Workload) -> None:
    """Built over what is there, in chunks that are merged."""
    work.db.collection("a", indexes=[Text("text")])
    work.db.build_indexes()


def follow(work: Workload) -> None:
    subscriber = work.db.subscriber("feed")
    for change in subscriber.changes():
        subscriber.acknowledge(change.lsn)


def sync(work: Workload) -> None:
    work.db.sync()
    work.settled()


def crowd(work: Workload) -> None:
    work.crowd(threads=8, each=3)


def grow(work: Workload) -> None:
    """A checkpoint of many pages, of values that have pages of their own among them."""
    docs: list[tuple[str, str, Doc | None]] = [
        ("a", f"g{number}", {"text": "g" * work.rng.choice((100, 900))}) for number in range(40)
    ]
    work.commit([*docs, ("b", "long", {"text": "l" * work.rng.choice((9000, 30_000))})])
    checkpoint(work)


def shrink(work: Workload) -> None:
    """Pages become free, and the next checkpoint takes them again."""
    gone = [key for key in work.states[-1] if key[1].startswith("g")]
    work.commit([(*key, None) for key in gone[::2]])
    checkpoint(work)
    work.commit([(*key, {"text": "again"}) for key in gone[1::2]])
    checkpoint(work)


def purge(work: Workload) -> None:
    drop_index(work)
    work.db.build_indexes()


def crowd_at_checkpoints(work: Workload) -> None:
    """Commits and checkpoints at once, in an order that the system makes."""
    with beside(work.db.checkpoint):
        work.crowd(threads=3, each=4)


ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        put,
        overwrite,
        burst,
        delete,
        transaction,
        big_put,
        checkpoint,
        expire,
        reopen,
        index,
        drop_index,
        follow,
        sync,
    )
}


STORE_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        burst,
        transaction,
        checkpoint,
        expire,
        reopen,
        index,
        follow,
        grow,
        shrink,
        purge,
        compact,
        crowd_at_checkpoints,
    )
}
"""What makes LMDB work."""


def prepare(work: Workload) -> None:
    """What every sequence begins with, so that each step has something to change."""
    for name in COLLECTIONS:
        work.db.collection(name, expires_at="dies" if name == "c" else None)
    work.commit([("a", "same", {"text": "x"}), ("b", "t", {"text": "x"}), ("c", "t", {"n": 1})])


def prepare_older(work: Workload) -> None:
    """prepare(), by a program that knows only format 1; so are the steps before open_newer()."""
    prepare(work)


def open_newer(work: Workload) -> None:
    """The database is opened by this program."""
    work.db.close()
    work.settled()
    work.older.close()
    work.reopen_closed()


def upgrade(work: Workload) -> None:
    if work.db.upgrade() is not None:
        work.settled()


def vector_index(work: Workload) -> None:
    """Vectors; those that an older program stored inside documents are moved out of them."""
    work.db.collection("b", indexes=VECTOR_INDEXES["b"])
    work.commit([_drawn(work, "b", number) for number in range(10, 14)])
    work.db.build_indexes()


OLDER_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        *(put, burst, transaction, checkpoint, expire, index, follow, delete, reopen),
        *(open_newer, upgrade, text_index, vector_index, compact),
    )
}
"""What a database of format 1 goes through."""


TEXT_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        *(put, overwrite, transaction, checkpoint, expire, reopen, text_index, drop_index),
        compact,
    )
}
"""What changes the segments of text indexes."""


def prepare_text(work: Workload) -> None:
    """prepare(), with text indexes from the first document on."""
    for name in COLLECTIONS:
        work.db.collection(name, indexes=[Text("text")], expires_at="dies" if name == "c" else None)
    prepare(work)


# -- declarations ------------------------------------------------------------------------------


def rename(work: Workload) -> None:
    """Two collections exchange their names."""
    for old, new in (("a", "other"), ("b", "a"), ("other", "b")):
        state = {(new if name == old else name, id): doc for (name, id), doc in work.now.items()}
        work.declare(partial(work.db.rename_collection, old, new), state)


def drop(work: Workload) -> None:
    """Of many documents in LMDB and above it; then another one of this name."""
    work.commit([("a", f"d{number}", {"text": "d" * 300}) for number in range(20)])
    work.db.checkpoint()
    work.commit([("a", "same", {"text": "late"})])
    state = {key: doc for key, doc in work.now.items() if key[0] != "a"}
    work.declare(partial(work.db.drop_collection, "a"), state)
    work.db.collection("a")
    if work.rng.random() < 0.5:
        work.db.build_indexes()


def migrate(work: Workload) -> None:
    """Of many documents, to the next version: to its end, or to its middle."""
    work.commit([("a", f"m{number}", {"text": "m" * 300}) for number in range(12)])
    work.db.checkpoint()
    work.commit([("a", "same", {"text": "late"})], "os")
    version = work.db.definition("a").version + 1
    state = {key: upgraded(doc) if key[0] == "a" else doc for key, doc in work.now.items()}
    with stopped_after(work.rng.choice((0, 0, 2))):
        declare_a = partial(work.db.collection, "a", version=version, migrate=UPGRADES)
        work.declare(declare_a, state)
        work.db.migrate()


SCHEMA_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        *(overwrite, transaction, checkpoint, reopen, text_index, follow, compact),
        *(rename, drop, migrate),
    )
}
"""What changes the catalog."""


# -- declarations beside a checkpoint ------------------------------------------------------------


def prepare_beside(work: Workload) -> None:
    """prepare_text(); from here on no sync covers a declaration, so that a crash can lose it and
    keep what was checkpointed beside it."""
    prepare_text(work)
    work.sync = "os"
    work.reopen()


def _beside(work: Workload, change: Callable[[], object]) -> None:
    """A checkpoint, and a declaration while it is on its way from the memtable to LMDB."""
    for number in range(3):
        names = ("same", f"b{number}")
        work.commit([(name, id, {"text": drawn_text(work.rng)}) for name in "ab" for id in names])
    frozen = len(work.states) - 1
    with once_at(work.rng.choice(("checkpoint.frozen", "checkpoint.in-transaction")), change):
        work.db.checkpoint()
    work.note(b"durable %d" % frozen)


def drop_index_beside(work: Workload) -> None:
    _beside(work, partial(work.db.collection, "a", indexes=[]))
    work.commit([("a", "same", {"text": drawn_text(work.rng)})], "os")


def declare_beside(work: Workload) -> None:
    """With another analyzer than before."""
    stop_words = work.rng.random() < 0.5
    _beside(work, partial(work.db.collection, "a", indexes=[Text("text", stop_words=stop_words)]))
    if work.rng.random() < 0.5:
        work.db.build_indexes()


def drop_beside(work: Workload) -> None:
    def change() -> None:
        state = {key: doc for key, doc in work.now.items() if key[0] != "a"}
        work.declare(partial(work.db.drop_collection, "a"), state)

    _beside(work, change)
    work.db.collection("a", indexes=[Text("text")])


def rename_beside(work: Workload) -> None:
    _beside(work, partial(rename, work))


def migrate_beside(work: Workload) -> None:
    def change() -> None:
        version = work.db.definition("a").version + 1
        state = {key: upgraded(doc) if key[0] == "a" else doc for key, doc in work.now.items()}
        newer = partial(work.db.collection, "a", indexes=[], version=version, migrate=UPGRADES)
        work.declare(newer, state)

    _beside(work, change)
    work.db.migrate()


BESIDE_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        *(drop_index_beside, declare_beside, drop_beside, rename_beside, migrate_beside),
        *(checkpoint, text_index, reopen, compact),
    )
}
"""What changes the catalog between the freeze of a memtable and its way into LMDB."""


# -- vectors -----------------------------------------------------------------------------------

VECTOR_INDEXES: Final[dict[str, list[IndexSpec]]] = {
    "a": [Text("text"), Vector("v", dim=DIM, metric="cosine")],
    "b": [Vector("v", dim=DIM, metric="l2", source="text")],
    "c": [Vector("v", dim=DIM, metric="ip", multi=True, mean_of=2), Text("text")],
}


def _drawn(work: Workload, name: str, number: int) -> tuple[str, str, Doc]:
    return name, f"v{number:02}", _document(work, name)


def _document(work: Workload, name: str) -> Doc:
    vectors = drawn_vectors if name == "c" else drawn_vector
    return {"text": drawn_text(work.rng), "v": vectors(work.rng)}


def embed(work: Workload) -> None:
    """Vectors that are new, and ones that change."""
    numbers = work.rng.sample(range(20), 5)
    work.commit([_drawn(work, name, number) for number in numbers for name in ("a", "b")])


def fresh_burst(work: Workload) -> None:
    """New rows of several commits that no sync has covered."""
    for number in range(30, 33):
        work.commit([_drawn(work, name, number) for name in COLLECTIONS], "os")


def churn(work: Workload) -> None:
    """Most rows die: documents go, or lose their vectors, or get others."""
    writes: list[tuple[str, str, Doc | None]] = []
    for name, id in sorted(work.states[-1]):
        fate = work.rng.choice(("goes", "loses", "changes", "stays"))
        if fate == "goes":
            writes.append((name, id, None))
        elif fate != "stays":
            doc = _document(work, name)
            writes.append((name, id, doc if fate == "changes" else {"text": "none"}))
    work.commit(writes)


def search(work: Workload) -> None:
    """Brings the rows into memory; the next close writes them."""
    compare_searches(work.db, work.rng)


def build(work: Workload) -> None:
    """A graph, and a file in cache/; a second one when there was one."""
    search(work)
    work.db.build_indexes()
    search(work)


def declare(work: Workload) -> None:
    """Search indexes over what is there, in place of those that were."""
    drop_index(work)
    work.db.collection("a", indexes=VECTOR_INDEXES["a"])
    build(work)


def expire_vectors(work: Workload) -> None:
    doc = _drawn(work, "c", 40)[2]
    work.commit([("c", "v40", {**doc, "dies": work.clock.now + 5})])
    search(work)
    work.clock.advance(10)
    search(work)
    work.db.expire()


VECTOR_ALPHABET: Final[dict[str, MigrationStep]] = {
    step.__name__: step
    for step in (
        embed,
        fresh_burst,
        churn,
        search,
        build,
        declare,
        drop_index,
        expire_vectors,
        checkpoint,
        reopen,
    )
}
"""What changes rows, graphs and their files."""


def prepare_vectors(work: Workload) -> None:
    """Enough rows in each collection for a graph."""
    for name, indexes in VECTOR_INDEXES.items():
        work.db.collection(name, indexes=indexes, expires_at="dies" if name == "c" else None)
    counts = {"a": 10, "b": 10, "c": 40}  # 40: the vectors are behind the file's first sector
    work.commit([_drawn(work, name, n) for name, count in counts.items() for n in range(count)])


ALPHABETS: Final[dict[str, tuple[MigrationStep, dict[str, MigrationStep]]]] = {
    "plain": (prepare, ALPHABET),
    "store": (prepare, STORE_ALPHABET),
    "older": (prepare_older, OLDER_ALPHABET),
    "text": (prepare_text, TEXT_ALPHABET),
    "schema": (prepare, SCHEMA_ALPHABET),
    "beside": (prepare_beside, BESIDE_ALPHABET),
    "vectors": (prepare_vectors, VECTOR_ALPHABET),
}
"""What each begins with, and its steps."""


def sequence(alphabet: str, names: Iterable[str]) -> list[MigrationStep]:
    begin, letters = ALPHABETS[alphabet]
    letters = {"crowd": crowd, **letters}
    return [begin, *(letters[name] for name in names)]
