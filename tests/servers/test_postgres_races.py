"""Writers of one database on a server at the same time, in threads and in processes: nothing is
lost, nothing is doubled, and no caller has to begin again.
"""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, cast

import pytest

import amberdb
from amberdb import (
    BusyError,
    ClosedError,
    Collection,
    Database,
    Document,
    DuplicateKeyError,
    Ordered,
    Text,
    Unique,
)
from amberdb.index.registry import IndexSpec
from support.servers import PostgreSQL

ROUNDS = 200


def both(url: str, work: Callable[[Database, int, int], None]) -> None:
    """Two programs with connections of their own, round by round at once."""
    barrier = Barrier(2)

    def run(side: int) -> None:
        with amberdb.connect(url) as db:
            for number in range(ROUNDS):
                barrier.wait(60)
                work(db, side, number)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, side) for side in range(2)]:
            done.result()


def test_first_save_of_one_profile_from_two_sides(url: str) -> None:
    """Each gets what is missing, and puts: the second one sees what the first one has put."""
    with amberdb.connect(url) as db:
        db.collection("profile")

    def save(db: Database, side: int, number: int) -> None:
        with db.transaction() as tx:
            known = tx["profile"].get(f"p{number}") or {"id": f"p{number}"}
            tx["profile"].put({**known, f"fact{side}": number})

    both(url, save)
    with amberdb.connect(url) as db:
        for number in range(ROUNDS):
            wanted = {"id": f"p{number}", "fact0": number, "fact1": number}
            assert db["profile"].get(f"p{number}") == wanted


def test_increments_by_updates_and_by_transactions(url: str) -> None:
    with amberdb.connect(url) as db:
        db.collection("counter", indexes=[Ordered("n")]).put({"id": "a", "n": 0, "m": 0})

    def increase(db: Database, side: int, number: int) -> None:
        if side:
            db["counter"].update("a", {"$inc": {"n": 1, "m": 1}})
        else:
            with db.transaction() as tx:
                known = tx["counter"]["a"]
                tx["counter"].put({**known, "n": known["n"] + 1, "m": known["m"] + 1})

    both(url, increase)
    with amberdb.connect(url) as db:
        assert db["counter"].find({"n": 2 * ROUNDS}) == [
            {"id": "a", "n": 2 * ROUNDS, "m": 2 * ROUNDS}
        ]


def test_append_to_one_list_of_entries(url: str) -> None:
    """Lists of an index have entries of their own, which follow their document."""
    with amberdb.connect(url) as db:
        db.collection("session", indexes=[Ordered("turns")]).put({"id": "s", "turns": []})

    def append(db: Database, side: int, number: int) -> None:
        db["session"].update("s", {"$push": {"turns": number * 2 + side}})

    both(url, append)
    with amberdb.connect(url) as db:
        assert sorted(db["session"]["s"]["turns"]) == list(range(2 * ROUNDS))
        assert db["session"].distinct("turns") == list(range(2 * ROUNDS))


@pytest.mark.parametrize("before", [["kept", "old"], ["kept"]])
@pytest.mark.parametrize("after", [["kept", "new"], ["kept"]])
def test_find_waits_for_a_document_whose_list_keeps_the_value(
    db: Database, postgres18: PostgreSQL, url: str, before: list[str], after: list[str]
) -> None:
    """It is found as it is after the commit that was waited for, also under another rowid."""
    notes = db.collection("note", indexes=[Ordered("tags"), Ordered("tags", "-n"), Text("content")])
    notes.put({"id": "a", "tags": before, "content": "tea"})
    waits = (
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity USING (pid) "
        f"WHERE NOT granted AND datname = '{url.rpartition('/')[2]}'"
    )

    def find() -> list[Document]:
        with db.transaction() as tx:
            return tx["note"].find({"tags": "kept"})

    with ThreadPoolExecutor(1) as thread:
        with db.transaction() as tx:
            tx["note"].update("a", {"tags": after, "content": "coffee"})
            tx["note"].find({"tags": "new"})  # so the entries are sent
            found = thread.submit(find)
            while postgres18.execute(waits).strip() == "0":
                pass
        assert found.result() == [{"id": "a", "tags": after, "content": "coffee"}]
    assert notes.distinct("tags") == sorted(after)


def test_two_users_of_one_name(url: str) -> None:
    with amberdb.connect(url) as db:
        db.collection("user", indexes=[Unique("name")])
    refused: list[int] = []

    def register(db: Database, side: int, number: int) -> None:
        try:
            db["user"].put({"id": f"{side}-{number}", "name": f"n{number}"})
        except DuplicateKeyError:
            refused.append(number)

    both(url, register)
    assert sorted(refused) == list(range(ROUNDS))
    with amberdb.connect(url) as db:
        assert db["user"].count() == ROUNDS
        assert db["user"].distinct("name") == sorted(f"n{number}" for number in range(ROUNDS))


def test_one_id_is_inserted_once(url: str) -> None:
    with amberdb.connect(url) as db:
        db.collection("lock")
    won: list[int] = []

    def insert(db: Database, side: int, number: int) -> None:
        many = number % 2 == 0
        try:
            if many:
                db["lock"].put_many([{"id": f"{number}"}], on_conflict="raise")
            else:
                db["lock"].insert({"id": f"{number}"})
            won.append(number)
        except DuplicateKeyError:
            pass

    both(url, insert)
    assert sorted(won) == list(range(ROUNDS))


def test_writers_of_an_older_declaration_beside_a_new_index(url: str) -> None:
    """One writes without pause; the other declares more indexes meanwhile."""
    specs: list[IndexSpec] = [
        Ordered("a"),
        Text("text"),
        Ordered("b"),
        Ordered("tags"),
        Unique("u", sparse=True),
    ]
    with amberdb.connect(url) as db:
        db.collection("note")

    def work(db: Database, side: int, number: int) -> None:
        if side == 0:
            id = f"{number:03}"
            document = {"id": id, "a": number % 5, "b": number % 3, "tags": [number, 1000]}
            db["note"].put({**document, "text": f"note {id}"})
            changes = {"u": number // 2, "text": f"again {id}", "$push": {"tags": 2000}}
            db["note"].update(f"{number // 2:03}", changes)
        elif number % 30 == 0 and number // 30 < len(specs):
            db.collection("note", indexes=specs[: number // 30 + 1])

    both(url, work)
    with amberdb.connect(url) as db:
        notes = db["note"]
        documents = list(notes.documents())
        assert len(documents) == ROUNDS
        for field in ("a", "b", "tags", "u"):
            assert notes.explain(distinct=field)["skip"] is (field != "u")  # which is sparse
            values = [doc[field] for doc in documents if field in doc]
            flat = [v for value in values for v in (set(value) if field == "tags" else [value])]
            wanted = {value: flat.count(value) for value in sorted(set(flat))}
            assert {k: v for k, v in notes.count_by(field).items() if k is not None} == wanted
        assert notes.count({"tags": 1000}) == ROUNDS
        assert [notes.count({"u": number}) for number in range(ROUNDS // 2)] == [1] * (ROUNDS // 2)
        report = db.check()
        assert report.problems == []
        assert report.documents == ROUNDS
        assert report.entries > 4 * ROUNDS
        compare_searches(notes, "note again")


def test_texts_written_from_two_sides(url: str) -> None:
    """New words of both, documents of both, and transactions of several statements."""
    with amberdb.connect(url) as db:
        db.collection("note", indexes=[Text("text")])

    def write(db: Database, side: int, number: int) -> None:
        words = [f"w{number}", f"w{number + 1}", f"w{number + 2}"]
        with db.transaction() as tx:
            for word in words if side else reversed(words):
                tx["note"].put({"text": f"tea {word}"})
                tx["note"].count()  # sends what is written
        db["note"].put({"id": f"{number % 7}", "text": f"tea of {side} {number}"})
        if number % 5 == side:
            db["note"].delete(f"{number % 7}")

    both(url, write)
    with amberdb.connect(url) as db:
        compare_searches(db["note"], "tea w17", query="w1*")


def compare_searches(notes: Collection, text: str, query: str = "not*") -> None:
    """With a directory that has the same documents, written in another order."""
    with amberdb.open(":memory:", background=False) as directory:
        same = directory.collection("note", indexes=[Text("text")])
        same.put_many(notes.documents())
        questions: list[dict[str, Any]] = [{"text": text}, {"query": query}]
        for question in questions:
            here, there = (
                {hit.id: hit.score for hit in each.search(**question, limit=2000)}
                for each in (notes, same)
            )
            assert len(here) > 10
            assert here == there


def test_threads_share_one_database(url: str) -> None:
    """More threads than connections."""
    with amberdb.connect(url + "?connections=3") as db:
        counters = db.collection("counter", indexes=[Ordered("n")])

        def work(side: int) -> None:
            for number in range(25):
                with db.transaction() as tx:
                    id = f"c{number % 4}"
                    known = tx["counter"].get(id) or {"id": id, "n": 0}
                    tx["counter"].put({**known, "n": known["n"] + 1})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert sum(each["n"] for each in counters.find(order_by="n")) == 200


def test_through_a_pooler_of_transactions(pooler_url: str) -> None:
    """Two connections to the server behind it: whatever a session keeps would be another one's."""
    with amberdb.connect(pooler_url) as db:
        indexes: list[IndexSpec] = [Ordered("n"), Unique("u", sparse=True), Text("text")]
        notes = db.collection("note", indexes=indexes)

        def work(side: int) -> None:
            for number in range(25):
                with db.transaction() as tx:
                    known = tx["note"].get("a") or {"id": "a", "n": 0}
                    tx["note"].put({**known, "n": known["n"] + 1})
                notes.put({"u": 100 * side + number, "text": f"tea {side}"})
                assert len(notes.search(f"{side}", limit=30)) == number + 1
                assert len(notes.find({"u": {"$exists": True}}, order_by="u", limit=1)) == 1

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert notes["a"]["n"] == 100
        assert notes.count() == 101
        with pytest.raises(DuplicateKeyError):
            notes.put({"u": 300})


SCRIPT = """
import sys
import amberdb

url, rounds = sys.argv[1], int(sys.argv[2])
with amberdb.connect(url) as db:
    for number in range(rounds):
        with db.transaction() as tx:
            known = tx["profile"].get(f"p{number % 20}") or {"id": f"p{number % 20}", "n": 0}
            tx["profile"].put({**known, "n": known["n"] + 1})
"""


def test_two_processes_get_then_put(url: str) -> None:
    with amberdb.connect(url) as db:
        db.collection("profile", indexes=[Ordered("n")])
        processes = [
            subprocess.Popen([sys.executable, "-c", SCRIPT, url, str(ROUNDS)]) for _ in range(2)
        ]
        assert [process.wait(120) for process in processes] == [0, 0]
        assert db["profile"].count({"n": 2 * ROUNDS // 20}) == 20


# -- lock() --------------------------------------------------------------------------------------


def test_lock_holds_names_until_the_transaction_ends(url: str) -> None:
    """Those of a call at once, whatever their order; of another schema there are others."""
    with (
        amberdb.connect(url) as db,
        amberdb.connect(url) as other,
        amberdb.connect(f"{url}?schema=other") as elsewhere,
    ):
        with db.transaction() as tx:
            assert not tx.runs_alone
            tx.lock("b", "a", "\ud800")
            tx.lock("a")
            for name in ("a", "b", "\ud800"):
                with pytest.raises(BusyError), other.transaction(timeout_ms=10) as theirs:
                    theirs.lock("c", name)
            with elsewhere.transaction(timeout_ms=10) as theirs:
                theirs.lock("a", "b")
            with pytest.raises(ValueError, match="give names, each a str"):
                tx.lock(cast(Any, 7))
        with pytest.raises(ClosedError):
            tx.lock("a")
        with pytest.raises(ValueError, match="give names"), db.transaction() as tx:
            tx.lock("a", cast(Any, None))
        with other.transaction(timeout_ms=10) as theirs:
            theirs.lock("a", "b", "c")


def test_what_is_looked_for_under_a_lock_is_put_once(url: str) -> None:
    """A transaction that has waited for a name sees what the other one has put."""
    with amberdb.connect(url) as db:
        db.collection("user", indexes=[Ordered("name")])

    def register(db: Database, side: int, number: int) -> None:
        with db.transaction() as tx:
            names = [f"n{number}", f"m{number}"]
            tx.lock(*names[:: 1 if side else -1])
            for name in names:
                if not tx["user"].find({"name": name}):
                    tx["user"].put({"name": name})

    both(url, register)
    with amberdb.connect(url) as db:
        assert db["user"].count() == len(db["user"].distinct("name")) == 2 * ROUNDS
