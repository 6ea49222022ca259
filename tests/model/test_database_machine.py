"""Random lives of a database beside a dictionary: everything the public API promises, in any order.

Two collections are written, read, declared again, migrated, renamed, dropped, checkpointed,
expired, snapshotted, reopened and killed. The model in support/model.py gives the result or the
error of each call.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import amberdb
from amberdb import (
    AmberError,
    CollectionMissingError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    ReadableCollection,
    Snapshot,
    Unique,
    WritableCollection,
)
from amberdb._types import lsn_number
from support import drawn, slices
from support.databases import SMALL, FakeClock, assert_sound
from support.model import ModelCollection, Spec, index_keys
from support.reference import Doc, same
from support.upgrades import stopped_after, upgrade_to, upgrades

NAMES = ("x", "y")
names = st.sampled_from(NAMES)
ids = st.sampled_from(drawn.IDS)
syncs = st.sampled_from([None, None, "os"])
# Seconds from the clock; None is permanent, False stands for no field.
lives = st.sampled_from([False, False, None, -5, 5, 50, 50.5])
Commit = dict[tuple[str, str], Doc | None]


class _RolledBack(Exception):
    """Leaves a transaction."""


class DatabaseMachine(RuleBasedStateMachine):
    """`held` mirrors each collection; `log` each commit, for the change feed."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.directory = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
        self.clock = FakeClock()
        self.last_us = 0
        self.model: dict[str, ModelCollection] = {name: ModelCollection() for name in NAMES}
        self.numbers = {name: number for number, name in enumerate(NAMES)}
        """By name the number of the collection; a number is never used again."""
        self.log: list[tuple[int, Commit, dict[str, int]]] = []
        self.stillborn: set[tuple[int, str, str]] = set()
        """Documents that had expired when they were put: the same commit may remove them."""
        self.snapshots: list[tuple[Snapshot, dict[str, ModelCollection], int]] = []
        self.copies = 0
        self.opened_lsn = 0
        self.agrees = True
        self.path = self.directory / "t.amber"
        self.db: Database | None = None

    # -- helpers -----------------------------------------------------------------------------

    @property
    def live_db(self) -> Database:
        assert self.db is not None
        return self.db

    @property
    def now_us(self) -> int:
        return max(int(self.clock() * 1_000_000), self.last_us)

    def last_lsn(self) -> int:
        lsn: int = self.live_db.stats()["last_lsn"]
        return lsn

    def with_life(self, doc: Doc, life: Any) -> Doc:
        if life is False:
            return doc
        return {**doc, "t": None if life is None else self.clock.now + life}

    def open(self) -> None:
        options: dict[str, Any] = {**SMALL, **self.options, "clock": self.clock}
        self.db = amberdb.open(self.path, **options)
        self.opened_lsn = self.last_lsn()
        for name in self.db.collections():  # functions are not stored
            version = self.model[name].version
            before = self.last_lsn()
            self.db.collection(name, version=version, migrate=_upgrades(version))
            self.note_commits(before)

    def write(
        self,
        real: Callable[[WritableCollection], Any],
        expected: Callable[[ModelCollection, int, int], Any],
        name: str,
    ) -> Any:
        """One call with a commit of its own, and the model: same result or same error."""
        collection = self.live_db.collection(name)

        def on_model(model: dict[str, ModelCollection], now_us: int, lsn: int) -> Any:
            result = expected(model[name], now_us, lsn)
            model[name].check_unique(now_us)
            return result

        return self.commit(lambda: real(collection), on_model)

    def commit(
        self,
        real: Callable[[], Any],
        on_model: Callable[[dict[str, ModelCollection], int, int], Any],
    ) -> Any:
        self.agrees = False
        before = self.last_lsn()
        now_us = self.now_us
        model = {name: each.copy() for name, each in self.model.items()}
        got: Any = None
        error: AmberError | None = None
        try:
            got = real()
        except AmberError as raised:
            error = raised.with_traceback(None)
        after = self.last_lsn()
        assert lsn_number(after) - lsn_number(before) in (0, 1)
        refused: AmberError | None = None
        wanted: Any = None
        try:
            wanted = on_model(model, now_us, after)
        except AmberError as raised:
            refused = raised
        if refused is not None:
            assert type(error) is type(refused), f"{refused!r} was to be raised"
            assert after == before, "a refused call has committed something"
            self.agrees = True
            return None
        if error is not None:
            raise error
        assert same(got, wanted), (got, wanted)
        done = {(name, id): doc for name, each in model.items() for id, doc in each.touched.items()}
        if after != before:
            self.last_us = now_us
            self.stillborn |= {
                (after, name, id)
                for name, id in done
                if done[name, id] is not None and model[name].get(id, now_us) is None
            }
            self.log.append((after, done, dict(self.numbers)))
        else:
            assert not any(doc is not None for doc in done.values()), "nothing was committed"
        self.model = model
        self.agrees = True
        return got

    # -- life --------------------------------------------------------------------------------

    @initialize(
        segment=st.sampled_from([4096, 65536]),
        memtable=st.sampled_from([4000, 20_000, 1 << 20]),
        expires=st.booleans(),
        specs=drawn.declarations(),
    )
    def create(self, segment: int, memtable: int, expires: bool, specs: list[Spec]) -> None:
        self.options = {
            "segment_bytes_min": 4096,
            "segment_bytes_max": segment,
            "memtable_bytes_max": memtable,
            "reap_batch": 2,
        }
        self.open()
        for name in NAMES:
            self.model[name].expires_at = "t" if expires else None
            self.live_db.collection(name, expires_at="t" if expires else None)
        self.live_db.collection("x", indexes=specs)
        self.model["x"].specs = specs
        self.live_db.subscriber("s")
        self.last_us = self.now_us

    @rule()
    def reopen(self) -> None:
        self.drop_snapshots()
        self.live_db.close()
        self.open()
        assert self.live_db.recovery is None
        assert_sound(self.live_db)

    @rule()
    def kill(self) -> None:
        """Copies the files as a process that dies now would leave them."""
        self.drop_snapshots()
        for thread in threading.enumerate():
            if thread.name == "amberdb-wal-prepare":
                thread.join()
        was_written = self.last_lsn() != self.opened_lsn
        self.copies += 1
        copy = self.directory / f"t{self.copies}.amber"
        shutil.copytree(self.path, copy)
        self.live_db.close()
        shutil.rmtree(self.path)
        self.path = copy
        self.open()
        recovery = self.live_db.recovery
        assert recovery is not None or not was_written, "an unclean end is reported"
        assert recovery is None or recovery.cut is None
        assert_sound(self.live_db)

    @rule(seconds=st.sampled_from([1, 10, 100, -1, -10, -200]))
    def turn_clock(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def checkpoint(self) -> None:
        self.live_db.checkpoint()

    @rule()
    def compact(self) -> None:
        before = self.last_lsn()
        self.live_db.compact()
        self.note_commits(before)

    @rule()
    def build_indexes(self) -> None:
        before = self.last_lsn()
        self.live_db.build_indexes()
        self.note_commits(before)

    @rule(name=names, specs=drawn.declarations())
    def declare(self, name: str, specs: list[Spec]) -> None:
        model = self.model[name]
        fresh = [spec for spec in specs if spec not in model.specs]
        try:
            for spec in fresh:
                for held in model.held.values():
                    index_keys(spec, held.doc)
        except InvalidDocumentError:
            return  # see test_index_over_documents_that_have_no_key
        before = self.last_lsn()
        taken: list[Spec] = []
        for spec in fresh:
            if isinstance(spec, Unique):
                try:
                    model.check_spec(spec, set(model.held), self.now_us)
                except DuplicateKeyError:
                    taken.append(spec)
        try:
            self.live_db.collection(name, indexes=specs)
        except DuplicateKeyError:
            assert taken
            model.specs = [cast(Spec, i.spec) for i in self.live_db.definition(name).indexes]
            assert not set(taken) & set(model.specs)
        else:
            assert not taken
            model.specs = list(specs)
        self.note_commits(before)

    @rule(name=names, batches=st.integers(0, 3))
    def migrate(self, name: str, batches: int) -> None:
        """Migrates to the next version, in this many batches; 0 is all."""
        try:
            model = self.model[name].upgraded(upgrade_to(self.model[name].version + 1))
        except (DuplicateKeyError, InvalidDocumentError):
            return
        before = self.last_lsn()
        version = model.version
        with stopped_after(batches):
            self.live_db.collection(name, version=version, migrate=_upgrades(version))
            self.live_db.migrate()
        self.model[name] = model
        self.note_commits(before)

    @rule()
    def exchange_names(self) -> None:
        before = self.last_lsn()
        for old, new in (("x", "z"), ("y", "x"), ("z", "y")):
            self.live_db.rename_collection(old, new)
        self.model["x"], self.model["y"] = self.model["y"], self.model["x"]
        self.numbers["x"], self.numbers["y"] = self.numbers["y"], self.numbers["x"]
        self.note_commits(before)

    @rule(name=names)
    def drop(self, name: str) -> None:
        """And declares another one of this name; the feed has only the drop of the old one."""
        before = self.last_lsn()
        self.live_db.drop_collection(name)
        with pytest.raises(CollectionMissingError), self.live_db.snapshot() as at:
            at[name]
        number, expires_at = self.numbers[name], self.model[name].expires_at
        for _, commit, numbers in self.log:
            for place in [place for place in commit if numbers[place[0]] == number]:
                del commit[place]
        self.live_db.collection(name, expires_at=expires_at)
        self.model[name] = ModelCollection(expires_at)
        self.numbers[name] = max(self.numbers.values()) + 1
        self.note_commits(before)

    def note_commits(self, before: int) -> None:
        """Declarations commit too, and `now` is never before the time of a commit."""
        if self.last_lsn() != before:
            self.last_us = self.now_us

    @rule()
    def expire(self) -> None:
        now_us = self.now_us
        before = self.last_lsn()
        held = {
            (name, id)
            for name, each in self.model.items()
            for id, found in each.held.items()
            if found.expires_us <= now_us
        }
        removed = self.live_db.expire()
        assert removed <= len(held)
        for name, id in held:
            del self.model[name].held[id]
        after = self.last_lsn()
        for behind in range(lsn_number(after) - lsn_number(before)):
            self.last_us = now_us
            self.log.append((after - behind, dict.fromkeys(held), dict(self.numbers)))
        assert self.live_db.expire() == 0

    # -- writing -----------------------------------------------------------------------------

    @rule(name=names, id=ids, body=drawn.bodies(), life=lives, sync=syncs)
    def put(self, name: str, id: str, body: Doc, life: Any, sync: Any) -> None:
        doc = self.with_life({"id": id, **body}, life)
        self.write(lambda c: c.put(doc, sync=sync), lambda m, now, lsn: m.put(doc, now, lsn), name)

    @rule(name=names, id=ids, body=drawn.bodies(), life=lives)
    def insert(self, name: str, id: str, body: Doc, life: Any) -> None:
        doc = self.with_life({"id": id, **body}, life)
        self.write(
            lambda c: c.insert(doc), lambda m, now, lsn: m.put(doc, now, lsn, insert=True), name
        )

    @rule(
        name=names,
        docs=st.lists(st.tuples(ids, drawn.full_bodies() | drawn.bodies(), lives), max_size=6),
        sync=syncs,
    )
    def put_many(self, name: str, docs: list[tuple[str, Doc, Any]], sync: Any) -> None:
        whole = [self.with_life({"id": id, **body}, life) for id, body, life in docs]
        self.write(
            lambda c: c.put_many(whole, sync=sync),
            lambda m, now, lsn: [m.put(doc, now, lsn) for doc in whole],
            name,
        )

    @rule(
        name=names,
        id=ids,
        patch=drawn.patches(),
        life=lives,
        version=st.sampled_from([None, None, "right", "wrong"]),
    )
    def update(self, name: str, id: str, patch: Doc, life: Any, version: str | None) -> None:
        whole = self.with_life(patch, life)
        held = self.model[name].held.get(id)
        right = held.version if held is not None else 1
        if held is not None and not right and id in self.live_db.collection(name):  # was upgraded
            right = self.live_db.collection(name).record(id).version
            self.model[name].held[id] = replace(held, version=right)
        if_version = {None: None, "right": right, "wrong": right - 1}[version]

        def on_model(model: ModelCollection, now_us: int, lsn: int) -> int:
            model.update(id, whole, if_version, now_us, lsn)
            return lsn

        self.write(lambda c: c.update(id, whole, if_version=if_version), on_model, name)

    @rule(name=names, id=ids)
    def delete(self, name: str, id: str) -> None:
        self.write(lambda c: c.delete(id), lambda m, now, _: m.delete(id, now), name)

    @rule(name=names, where=drawn.filters())
    def delete_many(self, name: str, where: Any) -> None:
        self.write(
            lambda c: c.delete_many(where), lambda m, now, _: m.delete_many(where, now), name
        )

    @rule(name=names, where=drawn.filters())
    def erase(self, name: str, where: Any) -> None:
        """A delete_many() that meets expired documents too; subscribers move past it."""
        self.agrees = False
        model, now_us = self.model[name], self.now_us
        receipt = self.live_db.erase(name, where, reason="the model")
        live = len(model.find(where, None, now_us))
        model.delete_many(where, -(1 << 62))
        assert receipt.documents >= live
        assert receipt.completed is not None
        self.live_db.subscriber("s").acknowledge(amberdb.Lsn(self.last_lsn()))
        self.last_us = self.now_us
        self.log.clear()
        self.agrees = True

    @rule(
        steps=st.lists(
            st.tuples(
                names,
                st.sampled_from(["put", "insert", "update", "delete", "delete_many", "put_many"]),
                ids,
                drawn.bodies(),
                lives,
                drawn.filters(),
            ),
            min_size=1,
            max_size=5,
        ),
        fails=st.booleans(),
    )
    def transaction(self, steps: list[tuple[str, str, str, Doc, Any, Any]], fails: bool) -> None:
        trial = {name: each.copy() for name, each in self.model.items()}
        now_us = self.now_us
        done: list[Callable[[dict[str, ModelCollection], int], Any]] = []

        def real() -> None:
            with self.live_db.transaction() as tx:
                for name, op, id, body, life, where in steps:
                    doc = self.with_life({"id": id, **body}, life)
                    step = _step(name, op, id, doc, where)
                    wanted = _outcome(lambda s=step: s[1](trial, now_us))  # type: ignore[misc]
                    got = _outcome(lambda s=step: s[0](tx[s[2]]))  # type: ignore[misc]
                    note(f"  {op} {id!r} in {name}: {got}")
                    assert same(got, wanted), (op, got, wanted)
                    done.append(step[1])
                    self.compare(tx[name], trial[name], now_us, where, None, 3)
                if fails:
                    raise _RolledBack

        def on_model(model: dict[str, ModelCollection], now_us: int, lsn: int) -> None:
            for each in done:
                _outcome(lambda e=each: e(model, now_us, lsn))  # type: ignore[misc]
            for each_model in model.values():
                each_model.check_unique(now_us)

        if fails:
            before = self.last_lsn()
            with pytest.raises(_RolledBack):
                real()
            assert self.last_lsn() == before
        else:
            self.commit(real, on_model)

    # -- reading -----------------------------------------------------------------------------

    def compare(
        self,
        real: ReadableCollection,
        model: ModelCollection,
        now_us: int,
        where: Any,
        order_by: list[str] | None,
        limit: int | None,
    ) -> None:
        wanted = model.find(where, order_by, now_us)
        assert real.count(where) == len(wanted)
        assert len(real) == len(model.live(now_us))
        found: list[Doc] = []
        after: str | None = None
        while True:
            page = real.find(where, order_by=order_by, limit=limit, after=after)
            found += page
            after = page.cursor
            if after is None:
                assert limit is None or len(page) < limit
                break
            assert len(page) == limit
            if limit is None:
                break
        if order_by is None:
            found.sort(key=lambda doc: doc["id"])
            wanted.sort(key=lambda doc: doc["id"])
        assert same(found, wanted), ([d["id"] for d in found], [d["id"] for d in wanted])

    @rule(name=names, where=drawn.filters(), order_by=drawn.orders(), limit=st.integers(1, 4))
    def find(self, name: str, where: Any, order_by: list[str] | None, limit: int) -> None:
        real = self.live_db.collection(name)
        note(str(real.explain(where, order_by=order_by)))
        self.compare(real, self.model[name], self.now_us, where, order_by, limit)
        self.compare(real, self.model[name], self.now_us, where, order_by, None)

    @rule(name=names, id=ids)
    def get(self, name: str, id: str) -> None:
        collection = self.live_db.collection(name)
        wanted = self.model[name].get(id, self.now_us)
        assert same(collection.get(id), wanted)
        assert (id in collection) == (wanted is not None)
        if wanted is not None:
            record = collection.record(id)
            assert self.model[name].held[id].version in (0, record.version)
            assert same(record.document, wanted)

    @precondition(lambda self: len(self.snapshots) < 3)
    @rule()
    def take_snapshot(self) -> None:
        model = {name: each.copy() for name, each in self.model.items()}
        self.snapshots.append((self.live_db.snapshot(), model, self.now_us))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), where=drawn.filters(), order_by=drawn.orders(), limit=st.integers(1, 4))
    def read_snapshot(
        self, data: st.DataObject, where: Any, order_by: list[str] | None, limit: int
    ) -> None:
        at, model, now_us = data.draw(st.sampled_from(self.snapshots))
        for name in NAMES:
            self.compare(at[name], model[name], now_us, where, order_by, limit)
            live = model[name].live(now_us)
            assert list(at[name]) == sorted(live, key=str.encode)
            for id in drawn.IDS:
                assert same(at[name].get(id), model[name].get(id, now_us))

    @precondition(lambda self: self.snapshots)
    @rule()
    def drop_snapshots(self) -> None:
        for at, _, _ in self.snapshots:
            at.close()
        self.snapshots.clear()

    @rule(acknowledge=st.booleans())
    def read_feed(self, acknowledge: bool) -> None:
        self.live_db.sync()
        subscriber = self.live_db.subscriber("s")
        told: dict[int, Commit] = {}
        for change in subscriber.changes():
            commit = told.setdefault(change.lsn, {})
            assert (change.collection, change.id) not in commit
            commit[change.collection, change.id] = change.document
            assert (change.op == "put") == (change.document is not None)
        assert list(told) == sorted(told)
        for lsn, wanted, _ in self.log:
            got = told.pop(lsn, {})
            for place, doc in wanted.items():
                if doc is not None and (lsn, *place) not in self.stillborn:
                    assert same(got.get(place), doc)
            gone = {place for place, doc in got.items() if doc is None}
            assert all(wanted.get(p) is None or (lsn, *p) in self.stillborn for p in gone)
        if all(model.version == 1 for model in self.model.values()):
            assert all(doc is None for commit in told.values() for doc in commit.values())
        if acknowledge and self.log:
            subscriber.acknowledge(amberdb.Lsn(self.log[-1][0]))
            self.last_us = self.now_us
            self.log.clear()

    @invariant()
    def counts_agree(self) -> None:
        if self.db is not None:
            for name in NAMES:
                live = self.model[name].live(self.now_us)
                assert len(self.db.collection(name)) == len(live)

    def teardown(self) -> None:
        try:
            if self.db is not None and self.agrees:
                self.drop_snapshots()
                for name in NAMES:
                    self.compare(
                        self.db.collection(name), self.model[name], self.now_us, {}, ["id"], None
                    )
                assert_sound(self.db)
                self.db.build_indexes()
                assert_sound(self.db)
                self.db.close()
        finally:
            if self.db is not None:
                self.db.close()
            shutil.rmtree(self.directory)


def _upgrades(version: int) -> dict[int, Callable[[Doc], Doc]]:
    """All functions up to the version."""
    return upgrades(range(2, version + 1))


_Step = tuple[Callable[[WritableCollection], Any], Callable[..., Any], str]


def _step(name: str, op: str, id: str, doc: Doc, where: Any) -> _Step:
    """(on a collection, on the model, the collection's name)"""
    patch = {key: value for key, value in doc.items() if key != "id"}
    other = {**doc, "id": "b"}

    def model(models: dict[str, ModelCollection], now_us: int, lsn: int = 0) -> Any:
        target = models[name]
        if op in ("put", "insert"):
            return target.put(doc, now_us, lsn, insert=op == "insert")
        if op == "put_many":
            return [target.put(each, now_us, lsn) for each in (doc, other)]
        if op == "update":
            target.update(id, patch, None, now_us, lsn)
            return None
        return target.delete(id, now_us) if op == "delete" else target.delete_many(where, now_us)

    def real(target: WritableCollection) -> Any:
        if op == "put":
            return target.put(doc)
        if op == "insert":
            return target.insert(doc)
        if op == "put_many":
            return target.put_many([doc, other])
        if op == "update":
            target.update(id, patch)
            return None
        return target.delete(id) if op == "delete" else target.delete_many(where)

    return real, model, name


def _outcome(call: Callable[[], Any]) -> Any:
    """The result of a call, or the name of its error; the transaction continues after both."""
    try:
        return call()
    except AmberError as error:
        return type(error).__name__


TestDatabase = DatabaseMachine.TestCase
TestDatabase.settings = settings(max_examples=slices.examples(3, 0.35), stateful_step_count=40)
TestDatabase = pytest.mark.sliced(pytest.mark.slow(TestDatabase))
