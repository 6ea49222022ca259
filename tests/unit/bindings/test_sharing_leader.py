"""The process that leads, as its clients meet it: each request is done once, whatever is lost, and
others are refused."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import (
    OpenError,
    QueryError,
    TransactionError,
    Vector,
)
from amberdb.engine.schema.catalog import Declaration
from amberdb.remote import greeting, place, session
from amberdb.remote.connection import Connection
from amberdb.remote.declaration import sent_declaration
from amberdb.remote.greeting import hello_of
from amberdb.remote.lane import Lane
from amberdb.remote.leader import Leader
from amberdb.remote.messages import LeaderGoneError
from amberdb.remote.requests import forget_old
from support.databases import SMALL, assert_sound

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux"),
]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Leader]:
    path = str(tmp_path / "t.amber")
    db = amberdb.open(path, **SMALL)
    db.collection("note")
    made = Leader(path, db, hello_of({}))
    yield made
    assert_sound(made.db)
    made.close()


PATCH: dict[str, Any] = {"args": ["a", {"$inc": {"n": 1}}], "kwargs": {}}


def _put(**document: Any) -> dict[str, Any]:
    return {
        "collection": "note",
        "method": "update",
        "args": ["a", {"$inc": {"n": 1}}],
        "kwargs": document,
        "sync": None,
        "is_again": False,
    }


def test_a_request_that_is_sent_again_is_done_once(own: Leader) -> None:
    own.db["note"].put({"id": "a"})
    client = b"c" * 16
    version = own.write(client, 1, _put())
    for _ in range(2):
        assert own.write(client, 1, {**_put(), "is_again": True}) == version
    assert own.db["note"]["a"]["n"] == 1
    own.write(client, 2, {**_put(), "is_again": True})
    assert own.db["note"]["a"]["n"] == 2, "it had not been done"
    assert own.write(b"d" * 16, 2, {**_put(), "is_again": True}) != version


def test_a_large_request_that_is_sent_again_is_done_once(own: Leader) -> None:
    documents = [{"n": n} for n in range(3)]
    again = {**_put(), "is_again": True}
    put: dict[str, Any] = {"method": "put_many", "args": [documents], "kwargs": {}}
    ids = own.write(b"c" * 16, 1, {**_put(), **put})
    assert own.write(b"c" * 16, 1, {**again, **put}) == ids
    delete: dict[str, Any] = {"method": "delete_many", "args": [{"n": {"$gte": 1}}], "kwargs": {}}
    for _ in range(2):
        assert own.write(b"c" * 16, 2, {**again, **delete}) == 2
    assert len(own.db["note"]) == 1


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_connection_is_lost(own: Leader, arrives: bool) -> None:
    client = Lane(own.path, hello_of({}))
    client.begin("os", None)
    client.inside({"collection": "note", "method": "put", "args": [{"id": "a"}], "kwargs": {}})
    send, cut = Connection.send_frame, threading.Event()

    def losing(connection: Connection, frame: bytes) -> None:
        if threading.current_thread() is threading.main_thread() and not cut.is_set():
            cut.set()
            if arrives:
                send(connection, frame)
                connection.receive()
            raise LeaderGoneError("cut off")
        send(connection, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "send_frame", losing)
        if arrives:
            assert client.commit(lambda is_lost: None) == own.db["note"].record("a").version
        else:
            with pytest.raises(TransactionError, match="run it again"):
                client.commit(lambda is_lost: None)
            assert "a" not in own.db["note"]
    client.drop()


def test_an_answer_that_is_lost_with_its_connection_is_given_again(own: Leader) -> None:
    own.db["note"].put({"id": "a"})
    client = Lane(own.path, hello_of({}))
    sent = {"call": "write", **_put()}
    assert client.write(sent, lambda is_lost: None)
    cut: list[int] = []

    receive = Connection.receive

    def losing(connection: Connection) -> dict[str, Any]:
        answer = receive(connection)
        if not cut and answer.get("value") not in (None,) and "protocol" not in str(answer):
            cut.append(1)
            raise LeaderGoneError("cut off")
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "receive", losing)
        client.write(sent, lambda is_lost: None)
    assert cut
    assert own.db["note"]["a"]["n"] == 2
    client.drop()


def test_entries_of_ended_clients_are_dropped(own: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    own.db["note"].put({"id": "a"})
    own.write(b"c" * 16, 1, _put())
    assert forget_old(own.db) == 0
    monkeypatch.setattr("amberdb.remote.requests.KEPT_US", -1)
    assert forget_old(own.db) == 1


def test_a_client_that_is_silent_in_a_transaction(
    own: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IDLE_S", 0.1)
    client = Lane(own.path, hello_of({}))
    client.begin(None, None)
    client.inside({"collection": "note", "method": "put", "args": [{"id": "a"}], "kwargs": {}})
    with own.db.transaction(timeout_ms=20_000) as tx:  # waits until it was rolled back
        assert list(tx["note"]) == []
    with pytest.raises(TransactionError, match="run it again"):
        client.inside({"collection": "note", "method": "get", "args": ["a"], "kwargs": {}})
    client.drop()


def test_a_hundred_clients(own: Leader) -> None:
    own.db["note"].put({"id": "a", "n": 0})
    barrier = threading.Barrier(100)

    def work() -> None:
        client = Lane(own.path, hello_of({}))
        barrier.wait(60)
        for _ in range(5):
            client.write({"call": "write", **_put(), "sync": "os"}, lambda is_lost: None)
        client.begin("os", None)
        client.inside({"collection": "note", "method": "update", **PATCH})
        client.commit(lambda is_lost: None)
        client.drop()

    with ThreadPoolExecutor(100) as pool:
        for done in [pool.submit(work) for _ in range(100)]:
            done.result(60)
    assert own.db["note"]["a"]["n"] == 600


def test_a_transaction_ends_with_its_connection(own: Leader) -> None:
    client = Lane(own.path, hello_of({}))
    put: dict[str, Any] = {
        "collection": "note",
        "method": "put",
        "args": [{"id": "a"}],
        "kwargs": {},
    }
    for end in (client.roll_back, partial(client.commit, lambda is_lost: None)):
        client.begin(None, None)
        client.inside(put)
        client.drop()
        with pytest.raises(TransactionError, match="run it again"):
            client.inside(put)
        with nullcontext() if end == client.roll_back else pytest.raises(TransactionError):
            end()
    assert "a" not in own.db["note"]


def test_calls_that_there_are_not(own: Leader) -> None:
    client = Lane(own.path, hello_of({}))
    for request in ({"call": "close"}, {"call": "write", "client": b"", "number": 1}):
        with pytest.raises(QueryError):
            client.ask(request)
    with pytest.raises(QueryError, match="no such call"):
        own.write(b"c" * 16, 1, {**_put(), "method": "embed_missing"})
    client.begin(None, None)
    with pytest.raises(QueryError, match="no such call"):
        client.inside({"collection": "note", "method": "__class__", "args": [], "kwargs": {}})
    client.roll_back()
    client.drop()


def test_what_is_no_message_ends_the_connection(own: Leader) -> None:
    for data in (
        b"\0\0\0\1\xc1",
        b"\0\0\0\4\x93\1\2\3",
        b"\xff\xff\xff\xffx",
        b"GET / HTTP/1.1\r\n",
    ):
        connection = place.connected(own.path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
    connection = place.connected(own.path)
    client = Connection(connection)
    client.send({"protocols": [1, 99]})
    answer = client.receive()
    assert answer["error"][0] == "OpenError"
    assert "speaks protocol 2" in answer["error"][1]
    connection.close()


def test_another_user_is_refused(own: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.stat(os.path.join(own.path, "SOCKET")).st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionError, match="the other end is of user"):
        place.connected(own.path)


def test_options_that_two_processes_give_are_equal(own: Leader) -> None:
    own.hello = hello_of({"reap_batch": 7, "sync": "os"})
    with pytest.raises(amberdb.OptionsDifferError, match="reap_batch=7, not 8") as raised:
        greeting.greeted(own.path, hello_of({"reap_batch": 8}), 10)
    assert raised.value.option == "reap_batch"
    for alike in hello_of({"reap_batch": 7, "sync": "always"}), hello_of({"compact": "auto"}):
        greeting.greeted(own.path, alike, 10).close()


def test_another_container_is_refused(own: Leader) -> None:
    theirs = hello_of({})
    with pytest.raises(OpenError, match="in another container"):
        greeting.greeted(own.path, {**theirs, "container": 1}, 10)


def test_work_whose_progress_raises_ends(
    own: Leader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_PROGRESS_S", 0)
    own.db["note"].put_many({"n": n, "text": "x" * 1000} for n in range(500))

    class Own(Exception):
        pass

    def progress(*values: Any) -> None:
        raise Own

    client = Lane(own.path, hello_of({}))
    request = {"call": "backup", "args": [str(tmp_path / "b")], "kwargs": {"rate_bytes_s": 1000.0}}
    with pytest.raises(Own):
        client.ask(request, progress, is_long=True)
    client.drop()
    while any(name.startswith("b") for name in os.listdir(tmp_path)):
        threading.Event().wait(0.01)


def _of_length(texts: list[str]) -> list[list[float]]:
    return [[len(text), 1.0] for text in texts]


def test_a_leader_embeds_what_others_cannot(own: Leader) -> None:
    vector = Vector("v", dim=2, source="t", embed=_of_length)
    own.db.collection("own", indexes=[vector])
    without = Vector("v", dim=2, source="t")
    request = {"call": "declare", "name": "own", "declaration": None}
    declaration = Declaration(indexes=[without])
    own.do({**request, "declaration": sent_declaration(declaration)}, None)
    write = {**_put(), "collection": "own", "method": "put", "args": [{"id": "a", "t": "four"}]}
    own.write(b"c" * 16, 1, write)
    assert own.db["own"]["a"]["v"].tolist() == [4, 1]
