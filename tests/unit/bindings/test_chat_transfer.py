"""Conversations come in from a Redis dump, a table or rows, with their times, and go out again."""

import csv
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from amberdb import Database, Document
from amberdb.chat import (
    ChatBuffer,
    CollectionSink,
    TransferReport,
    export_jsonl,
    import_json,
    import_redis,
    import_rows,
    import_sqlite,
)
from support.databases import FakeClock, OpenDatabase

NOON = datetime(2025, 10, 27, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON.timestamp() + 86_400)


@pytest.fixture
def buffer(db: Database, clock: FakeClock) -> ChatBuffer:
    return ChatBuffer(db, CollectionSink(db), clock=clock)


def turn(number: int, **more: Any) -> dict[str, Any]:
    return {
        "conversation_id": "conv_1",
        "user_id": "user_9",
        "user_message": f"问题 {number}",
        "assistant_message": f"回答 {number}",
        "created_at": (NOON + timedelta(minutes=number)).isoformat(),
        **more,
    }


def told(buffer: ChatBuffer, conversation: str = "conv_1") -> list[str]:
    return [each["user_message"] for each in buffer.load_recent_context(conversation, 100)]


def asked(*numbers: int) -> list[str]:
    return [f"问题 {number}" for number in numbers]


# -- a Redis dump ------------------------------------------------------------------------------


def text(number: int, **more: Any) -> str:
    return json.dumps(turn(number, cid=f"cid-{number}", **more), ensure_ascii=False)


DUMPS: dict[str, Any] = {
    "map": {"chat:cid-2": text(2), "chat:cid-1": text(1), "chat:cid-3": json.loads(text(3))},
    "wrapped": {
        "chat:conv_1": {"type": "list", "ttl": 99, "value": [text(3), text(1), text(2)]},
    },
    "databases": [{"chat:conv_1": [text(1), text(2)]}, {"chat:3": text(3)}],
    "hash": {"chat:conv_1": {"cid-3": text(3), "cid-2": text(2), "cid-1": text(1)}},
    "plain hash": {f"chat:cid-{n}": json.loads(text(n)) for n in (3, 2, 1)},
    "set": {
        "chat:conv_1": {
            "type": "zset",
            "value": [[text(n, created_at=None), f"{NOON.timestamp() + n}"] for n in (2, 1, 3)],
        }
    },
    "map of scores": {
        "chat:conv_1": {
            "type": "zset",
            "value": {text(n, created_at=""): NOON.timestamp() + n for n in (2, 1, 3)},
        }
    },
}


def dumped(name: str) -> bytes:
    if name == "lines":
        entries = [
            {"db": 0, "key": f"chat:{n}", "ttl": 9, "type": "string", "value": text(n), "size": 1}
            for n in (2, 3, 1)
        ]
        return "\n".join(json.dumps(each) for each in entries).encode() + b"\n"
    return b"\xef\xbb\xbf" + json.dumps(DUMPS[name], ensure_ascii=False).encode()


@pytest.mark.parametrize("name", [*DUMPS, "lines"])
def test_a_redis_dump_in_any_shape(buffer: ChatBuffer, tmp_path: Path, name: str) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(dumped(name))
    tried = import_redis(buffer, path, dry_run=True)
    assert (tried.found, tried.imported, tried.verified) == (3, 3, 0)
    assert told(buffer) == []
    report = import_redis(buffer, path)
    assert report == TransferReport(found=3, imported=3, verified=3)
    assert told(buffer) == asked(1, 2, 3)
    assert buffer.load_recent_context("conv_1")[0]["id"] == "cid-1"
    assert import_redis(buffer, path) == TransferReport(found=3, same=3)
    assert buffer.flush_redis_to_supabase()["flushed_count"] == 3


def test_the_keys_beside_turns_are_named_and_a_broken_one_costs_no_other(
    buffer: ChatBuffer, tmp_path: Path
) -> None:
    path = tmp_path / "dump.json"
    dump = {
        "pending": ["cid-1", "cid-2"],
        "counter": 7,
        "chat:1": text(1),
        "chat:conv_1": [text(1)],  # the same under two keys
        "chat:cut": '{"user_message": "half',
        "chat:half an emoji": text(2, user_message="\ud83d"),
        "chat:nobody": text(3, user_id=None),
        "chat:when": text(4, created_at="yesterday"),
        "room:conv_2": {"user_message": "without a conversation", "user_id": "user_9"},
    }
    path.write_text(json.dumps(dump))
    report = import_redis(buffer, path)
    assert report.skipped == ["pending", "counter", "chat:cut"]
    assert [each.source for each in report.broken] == [
        "chat:nobody",
        "chat:when",
        "chat:half an emoji",
    ]
    assert (report.imported, report.same, report.untimed) == (2, 1, 1)
    assert told(buffer) == asked(1)
    assert told(buffer, "conv_2") == ["without a conversation"]
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        import_redis(buffer, path)


# -- tables ------------------------------------------------------------------------------------


def test_a_table_of_turns(buffer: ChatBuffer, clock: FakeClock, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    with sqlite3.connect(path) as source:
        source.execute(
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, conversation_id TEXT, user_id INTEGER, "
            "user_message TEXT, assistant_message TEXT, created_at TEXT, metadata TEXT, mood TEXT)"
        )
        rows = [
            ("conv_1", 9, f"问题 {n}", None, NOON.isoformat(), '{"a": 1}', "ok") for n in range(3)
        ]
        source.executemany("INSERT INTO memories VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
    source.close()
    report = import_sqlite(buffer, path, table="memories")
    assert (report.imported, report.verified, report.broken) == (3, 3, [])
    assert told(buffer) == asked(0, 1, 2), "of one time, in the order of the table"
    first = buffer.load_recent_context("conv_1")[0]
    assert (first["created_at"], first["user_id"]) == (NOON, "9")
    assert first["metadata"] == {"a": 1, "mood": "ok"}
    assert first["token_count"] > 0
    assert import_sqlite(buffer, path, table="memories").same == 3
    with sqlite3.connect(path) as source:  # another table with the same numbers
        source.execute("CREATE TABLE later AS SELECT * FROM memories")
        source.execute("UPDATE later SET user_message = 'new ' || id")
    source.close()
    assert import_sqlite(buffer, path, table="later").imported == 3
    assert len(told(buffer)) == 6
    with pytest.raises(sqlite3.Error):
        import_sqlite(buffer, path, table="none")


def test_a_table_of_messages(buffer: ChatBuffer) -> None:
    """As chat applications have them: a row for each message, with a role."""
    call = [{"id": "t1", "type": "function", "function": {"name": "weather"}}]
    said = [
        ("system", "Be brief.", None),
        ("human", "Hello", None),
        ("ai", "Hi!", None),
        ("user", "Weather?", None),
        ("assistant", None, json.dumps(call)),
        ("tool", "rain", None),
        ("assistant", "It rains.", None),
        ("user", "Are you there?", None),
        ("user", "Hello?", None),
    ]
    rows = [
        {
            "uuid": UUID(int=number + 1),
            "session_id": "conv_1",
            "sender": role,
            "body": content,
            "tool_calls": calls,
            "tool_call_id": "t1" if role == "tool" else None,
            "ts": int((NOON.timestamp() + number) * 1000),
            "cost": Decimal("0.1"),
        }
        for number, (role, content, calls) in enumerate(said)
    ]
    rows.reverse()  # a database returns them in any order
    report = import_rows(buffer, rows, columns={"content": "body"}, user_id="lin")
    assert (report.found, report.imported, report.broken) == (9, 4, [])
    turns = buffer.load_recent_context("conv_1")
    assert [each["user_message"] for each in turns] == [
        "Hello",
        "Weather?",
        "Are you there?",
        "Hello?",
    ]
    assert turns[1]["assistant_message"] == "It rains."
    assert turns[1]["created_at"] == NOON + timedelta(seconds=3)
    assert turns[1]["metadata"] == {"cost": "0.1"}
    assert buffer.load_messages("conv_1") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "rain", "tool_call_id": "t1"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Are you there?"},
        {"role": "user", "content": "Hello?"},
    ]
    assert buffer.conversations("lin")[0]["turns"] == 4
    assert import_rows(buffer, rows, columns={"content": "body"}, user_id="lin").same == 4


def test_a_file_of_comma_separated_values_and_one_of_conversations(
    buffer: ChatBuffer, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(turn(0)))
        writer.writeheader()
        writer.writerows(
            turn(number, created_at=f"2025-10-27 2{number}:00:00+08") for number in (2, 1)
        )
    with path.open(newline="") as file:
        assert import_rows(buffer, csv.DictReader(file)).imported == 2
    assert told(buffer) == asked(1, 2)
    assert buffer.load_recent_context("conv_1")[0]["created_at"] == NOON + timedelta(hours=1)
    threads = [
        {
            "thread_id": "conv_2",
            "user_id": "lin",
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": "two"},
                "no message",
            ],
        }
    ]
    saved = tmp_path / "threads.json"
    saved.write_text(json.dumps(threads))
    report = import_json(buffer, saved)
    assert (report.found, report.imported, report.untimed, len(report.broken)) == (4, 2, 3, 1)
    assert told(buffer, "conv_2") == ["one", "two"]
    assert import_json(buffer, saved).same == 2


def test_times_in_any_form_order_turns(buffer: ChatBuffer, clock: FakeClock) -> None:
    east = timezone(timedelta(hours=8))
    times: list[Any] = [
        NOON,
        (NOON + timedelta(minutes=1)).timestamp(),
        int((NOON + timedelta(minutes=2)).timestamp() * 1000),
        "2025-10-27T12:03:00Z",
        "2025-10-27 20:04:00",
        str((NOON + timedelta(minutes=5)).timestamp()),
        None,
        "",
    ]
    rows = [turn(number, created_at=time) for number, time in enumerate(times)]
    report = import_rows(buffer, reversed(rows), zone=east)
    assert (report.imported, report.untimed, report.broken) == (8, 2, [])
    assert told(buffer) == asked(0, 1, 2, 3, 4, 5, 7, 6)
    assert buffer.load_recent_context("conv_1")[-1]["created_at"].timestamp() == clock.now


@pytest.mark.parametrize("number", [0, 3])
def test_one_row_that_is_broken_costs_no_other(buffer: ChatBuffer, number: int) -> None:
    rows: list[Any] = [turn(n) for n in range(4)]
    wrong: list[Any] = [
        {},
        None,
        "text",
        turn(9, conversation_id=None),
        turn(9, user_id={"$ne": 1}),
        turn(9, created_at="soon"),
        turn(9, created_at=float("inf")),
        turn(9, metadata="{cut"),
        turn(9, user_message="\ud83d"),
        turn(9, user_message={1, 2}),
        turn(9, extra={1, 2}),
        turn(9, messages=[{"content": "no role"}]),
        turn(9, id="taken"),
        turn(9, user_message=None, assistant_message=None),
        {"role": 5, "content": "x", "conversation_id": "conv_1", "user_id": "u"},
    ]
    import_rows(buffer, [turn(8, id="taken")])
    report = import_rows(buffer, [*rows[:number], *wrong, *rows[number:]])
    assert report.imported == 4
    assert len(report.broken) == len(wrong), report.broken
    assert told(buffer) == asked(0, 1, 2, 3, 8)


def test_columns_that_there_are_not_are_refused(buffer: ChatBuffer) -> None:
    with pytest.raises(ValueError, match="the fields are"):
        import_rows(buffer, [], columns={"contents": "x"})


# -- beside turns that are there ---------------------------------------------------------------


def test_imported_turns_take_their_places_among_others(
    open_db: OpenDatabase, clock: FakeClock
) -> None:
    db = open_db(clock=clock)
    buffer = ChatBuffer(db, CollectionSink(db), ttl_seconds=100, clock=clock)
    for words in ("first", "third"):
        buffer.save_chat(words, "-", "conv_1", "user_9")
        clock.advance(10)
    assert told(buffer) == ["first", "third"]
    between = datetime.fromtimestamp(clock.now - 15, UTC)
    rows = [turn(0, user_message="second", created_at=between), turn(0)]
    assert import_rows(buffer, rows).imported == 2
    # A time that is taken, in the hot tier and in the sink.
    taken = [turn(n, created_at=between, user_message=f"at once {n}") for n in range(2)]
    import_rows(buffer, taken[:1])
    buffer.flush()
    clock.advance(101)
    db.expire()
    import_rows(buffer, taken[1:])
    buffer.save_chat("last", "-", "conv_1", "user_9")
    wanted = [*asked(0), "first", "second", "at once 0", "at once 1", "third", "last"]
    assert told(buffer) == wanted
    places = [each["position"] for each in buffer.export(conversation_id="conv_1")]
    assert places == sorted(set(places))
    import_rows(buffer, rows)  # flushed, expired and imported again: there once
    buffer.flush()
    assert sorted(told(buffer)) == sorted(wanted)


def test_what_is_exported_is_what_is_imported(
    buffer: ChatBuffer, open_db: OpenDatabase, clock: FakeClock, tmp_path: Path
) -> None:
    buffer.save_chat("one", "1", "c", "lin", metadata={"a": [1]}, important=True)
    buffer.save_messages([{"role": "user", "content": ["$map"]}], "c", "lin")
    clock.advance(-5_000)
    buffer.save_chat("two", "2", "c", "mo")
    buffer.save_chat("three", "3", "d", "lin")
    path = tmp_path / "turns.jsonl"
    assert export_jsonl(buffer, path) == 4
    other = ChatBuffer(open_db("other.amber", clock=clock), clock=clock)
    report = import_json(other, path)
    assert (report.imported, report.verified) == (4, 4)

    def turns(of: ChatBuffer) -> Iterator[Document]:
        state = ("retry_at", "attempts", "refusals", "error", "flushed_at", "expires_at")
        return ({n: each[n] for n in each if n not in state} for each in of.export())

    assert list(turns(other)) == list(turns(buffer))
    assert export_jsonl(buffer, path, user_id="mo") == 1
    assert export_jsonl(buffer, path, conversation_id="c", user_id="lin") == 2
    with path.open("a") as file:
        file.write('{"cut')
    assert [each.source for each in import_json(other, path).broken] == ["3"]


def test_progress_is_told(buffer: ChatBuffer) -> None:
    counts: list[int] = []
    rows = [turn(number) for number in range(450)]
    import_rows(buffer, rows, progress=lambda report: counts.append(report.imported))
    assert counts == [200, 400, 450]
