"""A database that two processes share: this one, and a child that leads. Leaders that are killed
under load: tests/crash/test_sharing.py."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import amberdb
from amberdb import (
    REMOVE,
    ClosedError,
    CollectionError,
    CollectionMissingError,
    CommitUnknownError,
    ConflictError,
    DuplicateKeyError,
    InvalidDocumentError,
    LockedError,
    MissingKeyError,
    OpenError,
    Ordered,
    QueryError,
    Text,
    TransactionError,
    Unique,
    Vector,
    aio,
)
from amberdb.chat import ChatBuffer, CollectionSink
from amberdb.graph import KnowledgeGraph
from amberdb.memory import Memory
from amberdb.profiles import UserProfiles
from amberdb.remote import SharedDatabase, lane, place
from support.databases import SMALL, assert_sound
from support.page_damage import in_child
from support.sharing import Child, child_leads

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux"),
]


@pytest.fixture
def child(tmp_path: Path) -> Generator[Child]:
    with child_leads(tmp_path / "t.amber") as child:
        yield child


@pytest.fixture
def shared(tmp_path: Path, child: Child) -> Iterator[SharedDatabase]:
    db = amberdb.connect(tmp_path / "t.amber", **SMALL)
    assert not db.leads
    yield db
    db.close()
    if child.process.poll() is None:
        child.end()
    with amberdb.open(tmp_path / "t.amber", **SMALL) as left:
        assert_sound(left)


def test_writes_and_reads_are_those_of_a_collection(shared: SharedDatabase) -> None:
    notes = shared.collection(
        "note", indexes=[Ordered("n"), Unique("key", sparse=True)], expires_at="until"
    )
    until = datetime.now(UTC) + timedelta(days=1)
    first = {"id": "a", "n": 1, "key": "k", "at": until, "b": b"\0", "list": [1, None], "gone": 1}
    assert notes.put(first) == "a"
    assert notes.get("a") == first
    assert notes.put_many(({"id": str(n), "n": n} for n in range(3)), sync="os") == ["0", "1", "2"]
    version = notes.update("a", {"n": 7, "gone": REMOVE, "$inc": {"count": 2}})
    assert notes.record("a").version == version
    assert notes["a"] == {**{k: v for k, v in first.items() if k != "gone"}, "n": 7, "count": 2}
    with pytest.raises(ConflictError):
        notes.update("a", {"n": 8}, if_version=1)
    with pytest.raises(DuplicateKeyError, match="the same key"):
        notes.put({"id": "b", "key": "k"})
    with pytest.raises(DuplicateKeyError):
        notes.insert({"id": "a"})
    with pytest.raises(MissingKeyError):
        notes.update("nowhere", {"n": 1})
    with pytest.raises(MissingKeyError):
        del notes["nowhere"]
    with pytest.raises(QueryError):
        notes.delete_many({"$no": 1})
    with pytest.raises(InvalidDocumentError, match="'x'"):
        notes.put_many([{"id": "c"}, {"x": object()}])
    with pytest.raises(InvalidDocumentError):
        notes.put({"x": float("nan")})
    assert notes.touch(iter(["0", "nowhere"]), until) == 1
    assert notes.delete("0")
    assert not notes.delete("0")
    assert notes.delete_many(ids=iter(["1", "2"])) == 2
    assert notes.delete_many({"n": {"$gte": 0}}) == 1
    assert len(notes) == 0
    assert list(notes) == []
    assert shared.expire() == 0


def test_vectors_texts_and_searches(shared: SharedDatabase) -> None:
    notes = shared.collection("note", indexes=[Text("t"), Vector("v", dim=3)])
    notes.put({"id": "a", "t": "the umbrella, \u4e0b\u5348\u5f00\u4f1a", "v": [1, 2, 3]})
    notes.put({"id": "b", "t": "rain", "v": np.array([3, 2, 1], np.float32)})
    assert [hit.id for hit in notes.search("\u5f00\u4f1a")] == ["a"]
    (hit, _) = notes.search(vector=[3, 2, 1])
    assert hit.id == "b"
    assert np.array_equal(hit.document["v"], [3, 2, 1])
    with shared.transaction() as tx:
        (found,) = tx["note"].search("umbrellas", limit=1)
        assert found.document["id"] == "a"
        assert np.array_equal(found.document["v"], [1, 2, 3])


def test_large_values(shared: SharedDatabase) -> None:
    notes = shared.collection("note")
    text = "x" * (3 << 20)
    notes.put({"id": "a", "text": text})
    assert notes["a"]["text"] == text
    with shared.transaction(sync="os") as tx:
        tx["note"].put_many({"id": str(n), "text": text[n:]} for n in range(4))
        assert len(tx["note"].find({"id": {"$lt": "9"}})) == 4
    with pytest.raises(amberdb.DocumentTooLargeError):
        notes.put({"text": text * 6})
    assert len(notes) == 5


def test_a_transaction_reads_its_own_writes_and_is_whole(shared: SharedDatabase) -> None:
    shared.collection("note", indexes=[Ordered("n")])
    with shared.transaction() as tx:
        notes = tx["note"]
        notes.put_many({"id": str(n), "n": n} for n in range(600))
        notes.update("3", {"n": REMOVE, "x": 1})
        assert notes.get("3") == {"id": "3", "x": 1}
        assert notes["4"] == {"id": "4", "n": 4}
        assert len(notes) == 600
        assert "4" in notes
        assert sum(1 for _ in notes.documents()) == sum(1 for _ in notes) == 600
        page = notes.find({"n": {"$gte": 10}}, order_by="n", limit=2)
        assert [each["n"] for each in page] == [10, 11]
        assert notes.count_by("x") == {None: 599, 1: 1}
        assert shared["note"].get("3") is None
        shared.check_transaction(tx)
        with pytest.raises(DuplicateKeyError):
            notes.insert({"id": "3"})
        with pytest.raises(CollectionMissingError):
            tx["nowhere"]
    assert tx.lsn == shared["note"].record("3").version
    with pytest.raises(ClosedError):
        notes.get("3")
    with pytest.raises(TransactionError, match="has ended"):
        shared.check_transaction(tx)

    class Own(Exception):
        pass

    with pytest.raises(Own), shared.transaction() as tx:  # noqa: PT012
        tx["note"].delete_many({})
        raise Own
    assert len(shared["note"]) == 600
    with pytest.raises(amberdb.BusyError), shared.transaction(), shared.transaction(timeout_ms=50):
        pass


def test_lock_takes_names(shared: SharedDatabase) -> None:
    shared.collection("n")
    with shared.transaction() as tx:
        assert tx.runs_alone
        tx.lock("a", "b")
        with pytest.raises(ValueError, match="give names, each a str"):
            tx.lock(cast(Any, 7))
        tx["n"].put({"id": "a"})
    with pytest.raises(ClosedError):
        tx.lock("a")
    assert list(shared["n"]) == ["a"]


def test_run_is_a_transaction(shared: SharedDatabase) -> None:
    shared.collection("n").put({"id": "a", "x": 1})

    def work(tx: amberdb.Transaction) -> int:
        tx["n"].update("a", {"$inc": {"x": 1}})
        return tx["n"].count()

    assert shared.run(work) == 1
    assert shared.run(work, isolation="serializable") == 1
    assert shared["n"].get("a") == {"id": "a", "x": 3}
    with pytest.raises(ValueError, match="use 'serializable'"):
        shared.transaction(isolation=cast(Any, "snapshot"))


def test_declarations(shared: SharedDatabase) -> None:
    shared.collection("note", indexes=[Ordered("n")], required={"n": int}, owner="mine")
    assert shared.definition("note").owner == "mine"
    shared.collection("note", indexes=[Ordered("n")], required={"n": int}, owner="mine")
    with pytest.raises(CollectionError):
        shared.collection("note", indexes=[Ordered("m")], owner="another")
    shared.rename_collection("note", "notes")
    assert shared.collections() == ["notes"]
    shared.drop_collection("notes")
    with pytest.raises(CollectionMissingError):
        shared["notes"]


def test_a_snapshot_and_the_feed_are_of_all_processes(shared: SharedDatabase) -> None:
    shared.collection("note").put({"id": "a"})
    with shared.snapshot() as at:
        shared["note"].put({"id": "b"})
        assert list(at["note"]) == ["a"]
    assert [change.id for change in shared.changes()] == ["a", "b"]


def test_what_looks_after_files_runs_where_it_leads(
    shared: SharedDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = shared.collection("note", expires_at="until")
    notes.put_many({"id": str(n), "who": "lin" if n % 2 else "wu"} for n in range(20))
    told: list[object] = []

    def progress(*values: object) -> None:
        told.append(values)

    shared.sync()
    shared.checkpoint()
    assert shared.compact(progress).pairs_after
    assert shared.upgrade() is None
    monkeypatch.chdir(tmp_path)
    full = shared.backup("full.amberbak", progress=progress)
    assert full.documents == {"note": 20}
    receipt = shared.erase("note", {"who": "lin"}, reason="request 17")
    assert receipt == shared.erasures()[0]
    assert receipt.documents == 10
    assert receipt.completed
    assert [each.path for each in receipt.backups] == [str(tmp_path / "full.amberbak")]
    with pytest.raises(QueryError):
        shared.erase("note", reason="without a filter")
    with pytest.raises(amberdb.BackupExistsError):
        shared.backup(Path("full.amberbak"))
    notes.put({"id": "old", "until": 1.0})
    assert notes.expire() + shared.expire() == 1
    shared.accept_clock()
    shared.build_indexes()
    shared.migrate()
    assert told


def test_subscribers(shared: SharedDatabase, child: Child) -> None:
    notes = shared.collection("note")
    feed = shared.subscriber("s")
    for id in "abc":
        notes.put({"id": id})
    first, second, _ = feed.changes()
    feed.acknowledge(first.lsn)
    assert shared.subscriber("s").position == feed.position == first.lsn
    with pytest.raises(QueryError, match="yet"):
        feed.acknowledge(amberdb.Lsn(first.lsn + 1000))
    with pytest.raises(QueryError):
        shared.subscriber("")
    child.kill()
    feed.acknowledge(second.lsn)
    assert shared.leads
    assert [change.id for change in feed.changes()] == ["c"]
    assert [change.id for change in shared.subscriber("s").changes()] == ["c"]
    feed.remove()
    assert feed.position == 0


def _of_length(texts: list[str]) -> list[list[float]]:
    return [[len(text), 1.0] for text in texts]


def test_texts_are_embedded_where_they_are_written(shared: SharedDatabase, child: Child) -> None:
    vector = Vector("v", dim=2, source="t", embed=_of_length)
    notes = shared.collection("note", indexes=[vector])
    notes.put({"id": "a", "t": "four"})
    notes.insert({"id": "b", "t": "seventy", "v": [1, 2]})
    notes.put_many([{"id": "c", "t": "ten"}, {"id": "d"}])
    notes.put_many([{"id": "c", "t": "other"}, {"id": "e", "t": "ten"}], on_conflict="keep")
    notes.update("d", {"t": "eleven"})
    lengths = {id: notes[id]["v"].tolist() for id in "abcde"}
    assert lengths == {"a": [4, 1], "b": [1, 2], "c": [3, 1], "d": [6, 1], "e": [3, 1]}
    with shared.transaction() as tx:
        tx["note"].update("a", {"t": "fourteen"})
        assert "v" not in tx["note"]["a"]
        tx["note"].put({"id": "f", "t": "1"})
    assert "v" not in notes["f"]
    assert notes.embed_missing() == 2
    assert notes["a"]["v"].tolist() == [8, 1]
    child.kill()
    notes.put({"id": "g", "t": "1234"})
    assert shared.leads
    with shared.transaction() as tx:
        tx["note"].put({"id": "h", "t": "12345"})
    assert notes.embed_missing() == 1
    assert notes["h"]["v"].tolist() == [5, 1]


def test_an_event_loop_shares(tmp_path: Path, child: Child) -> None:
    async def work() -> None:
        async with aio.connect(tmp_path / "t.amber", **SMALL) as db:
            notes = await db.collection("note", indexes=[Ordered("n")])
            await asyncio.gather(*(notes.put({"id": str(n), "n": n}) for n in range(20)))
            async with db.transaction() as tx:
                assert await tx["note"].count() == 20
                await tx["note"].delete("0")
            assert [each["n"] for each in await notes.find(order_by="-n", limit=2)] == [19, 18]
            told = [change async for change in db.changes()]
            assert len(told) == 21
            receipt = await db.erase("note", {"n": {"$lt": 5}}, reason="asked")
            assert receipt.documents == 4

    asyncio.run(work())
    child.end()
    with amberdb.open(tmp_path / "t.amber") as db:
        assert_sound(db)
        assert len(db["note"]) == 15


def test_systems_run_on_a_shared_database(shared: SharedDatabase) -> None:
    buffer = ChatBuffer(shared, CollectionSink(shared))
    buffer.save_chat("\u4f60\u597d", "\u60a8\u597d", "conv", "user")
    assert buffer.flush()["flushed_count"] == 1
    assert len(buffer.load_recent_context("conv")) == 1
    graph = KnowledgeGraph(shared)
    graph.add_entity("lin", "person", observations=["likes tea"])
    assert graph.search("tea")
    profiles = UserProfiles(shared)
    profiles.save("u1", user_name="Lin")
    memory = Memory(shared)
    memory.remember("u1", "the umbrella is in the car", memory_layer="event")
    assert memory.recall("umbrella", entity_id="u1")


# -- leaders that end ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "kill"])
def test_the_place_of_a_leader_is_taken(shared: SharedDatabase, child: Child, how: str) -> None:
    notes = shared.collection("note")
    notes.put({"id": "a"})
    with shared.snapshot() as at:
        getattr(child, how)()
        assert notes.get("a") == {"id": "a"}
        notes.put({"id": "b"})
        assert shared.leads
        assert list(at["note"]) == ["a"]
    assert list(notes) == ["a", "b"]
    with shared.transaction() as tx:
        tx["note"].put({"id": "c"})
    assert len(notes) == 3
    shared.checkpoint()


def test_of_several_connections_of_a_process_one_makes_the_leader(
    tmp_path: Path, shared: SharedDatabase, child: Child
) -> None:
    notes = shared.collection("note")
    others = [amberdb.connect(tmp_path / "t.amber", **SMALL) for _ in range(3)]
    barrier = threading.Barrier(4)

    def put(number: int) -> None:
        db = [shared, *others][number]
        barrier.wait(30)
        db["note"].put({"id": str(number)})

    child.kill()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    # A connection that came late enough follows the leader of its own process.
    leading = [db for db in (shared, *others) if db.leads]
    leaders = {id(db.handle().engine) for db in leading}
    assert len(leaders) == 1
    assert sorted(notes) == ["0", "1", "2", "3"]
    for db in others:
        db.close()
    place.connected(shared.path).close()  # the leader serves as long as one is open


def test_a_transaction_whose_leader_ends_has_done_nothing(
    shared: SharedDatabase, child: Child
) -> None:
    notes = shared.collection("note")
    with (  # noqa: PT012
        pytest.raises(TransactionError, match="run it again"),
        shared.transaction() as tx,
    ):
        tx["note"].put({"id": "a"})
        child.kill()
        tx["note"].put({"id": "b"})
    with shared.transaction() as tx:
        tx["note"].put({"id": "c"})
    assert shared.leads
    assert list(notes) == ["c"]


def test_a_leader_that_is_stopped(
    shared: SharedDatabase, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "ANSWER_S", 0.3)
    notes = shared.collection("note")
    child.process.send_signal(signal.SIGSTOP)
    os.waitpid(child.process.pid, os.WUNTRACED)  # until it has stopped
    try:
        with pytest.raises(CommitUnknownError, match="has not answered"):
            notes.put({"id": "a"})
        assert notes.get("b") is None, "reads go on"
    finally:
        child.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(lane, "ANSWER_S", 30)
    notes.put({"id": "b"})
    assert "b" in notes


# -- who leads -----------------------------------------------------------------------------------


def test_one_process_leads_once(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 40) / "t.amber"
    path.parent.mkdir()
    first, second = amberdb.connect(path, **SMALL), amberdb.connect(path, **SMALL)
    assert first.leads
    assert second.leads
    first.collection("note").put({"id": "a"})
    first.close()
    first.close()
    with pytest.raises(ClosedError):
        first["note"]
    assert second["note"].get("a") == {"id": "a"}
    with amberdb.open(path) as third:
        assert third["note"].get("a") == {"id": "a"}
    second.close()
    assert not (path / "SOCKET").exists()


def test_a_close_inside_a_transaction_is_refused(tmp_path: Path) -> None:
    with amberdb.connect(tmp_path / "t.amber", **SMALL) as db:
        db.collection("note")
        with db.transaction() as tx:
            with pytest.raises(TransactionError):
                db.close()
            tx["note"].put({"id": "a"})
        assert list(db["note"]) == ["a"]
    assert not (tmp_path / "t.amber" / "SOCKET").exists()


def test_a_process_that_does_not_share(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    code = f"import amberdb, sys; db = amberdb.open({str(path)!r}); print(flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    owner.stdout.readline()
    with pytest.raises(LockedError, match="which does not share it") as raised:
        amberdb.connect(path)
    assert raised.value.pid == owner.pid
    owner.communicate(b"\n")


def test_a_process_that_is_about_to_serve_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    amberdb.connect(path).close()
    code = f"""if True:
        from amberdb.engine.database.open import open_to_share
        from amberdb.remote.greeting import hello_of
        from amberdb.remote.leader import Leader
        db = open_to_share({str(path)!r}, create=False, settings={{}})
        print(flush=True)
        input()
        leader = Leader({str(path)!r}, db, hello_of({{}}))
        input()
        leader.close()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    owner.stdout.readline()
    own = (path / "LOCK").read_text()
    (path / "LOCK").write_text("1 elsewhere 0123456789abcdef")  # of the owner before it
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(amberdb.connect, path)
        (path / "LOCK").write_text(own)
        owner.stdin.write(b"\n")
        owner.stdin.flush()
        with connecting.result(30) as db:
            assert not db.leads
    owner.communicate(b"\n")
    assert owner.returncode == 0


def test_open_names_connect(tmp_path: Path, child: Child) -> None:
    with pytest.raises(LockedError, match=r"amberdb\.connect\(\)"):
        amberdb.open(tmp_path / "t.amber")


@pytest.mark.parametrize("leads", [True, False])
def test_a_forked_child_connects_for_itself(tmp_path: Path, leads: bool) -> None:
    path = tmp_path / "t.amber"
    with nullcontext() if leads else child_leads(path), amberdb.connect(path, **SMALL) as db:
        notes = db.collection("note")
        notes.put({"id": "a"})
        assert db.leads == leads

        def work() -> str:
            for call in (lambda: notes.put({"id": "x"}), lambda: notes.get("a"), db.snapshot):
                try:
                    call()
                except amberdb.ForkedError:
                    continue
                return "no error"
            db.close()
            with amberdb.connect(path, **SMALL) as own:
                own["note"].put({"id": "b"})
                return "followed" if not own.leads else "led"

        assert in_child(work) == "followed"
        assert sorted(notes) == ["a", "b"]
        notes.put({"id": "c"})


def test_a_database_in_memory_is_of_one_process(tmp_path: Path) -> None:
    with pytest.raises(OpenError, match="of one process"):
        amberdb.connect(":memory:")


def test_a_path_that_has_no_database(tmp_path: Path) -> None:
    with pytest.raises(amberdb.DatabaseMissingError):
        amberdb.connect(tmp_path / "t.amber", create=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OpenError):
        amberdb.connect(tmp_path / "file")


def test_a_mount_of_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "36 35 98:0 / / rw - ext4 /dev/root rw\n"
        f"37 36 0:1 / {tmp_path}/a\\040b rw shared:1 - nfs4 host:/x rw\n"
    )
    monkeypatch.setattr(place, "MOUNTS", str(mounts))
    (tmp_path / "a b").mkdir()
    with pytest.raises(OpenError, match="nfs4"):
        amberdb.connect(tmp_path / "a b" / "t.amber")
    assert not (tmp_path / "a b" / "t.amber").exists()
    amberdb.connect(tmp_path / "t.amber", **SMALL).close()


def test_the_class_of_a_commit_is_that_of_the_process_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with (
        amberdb.connect(path, sync="os", background=False) as first,
        amberdb.connect(path, sync="always") as second,
    ):
        notes = first.collection("note")
        notes.put({"id": "a"})
        before = first.stats().sync.count
        second["note"].put({"id": "b"})
        assert first.stats().sync.count == before + 1
        notes.put({"id": "c"})
        assert first.stats().sync.count == before + 1
