"""Import of memories: the three tables of Z-Memory, as a file, a connection and rows, and mem0's
JSON; whole, twice, some of it broken, expired or older than what is stored."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database, QueryError
from amberdb.memory import ImportReport, Memory, import_mem0, import_zmemory, transfer
from support.databases import FakeClock, OpenDatabase

SCHEMA = """
CREATE TABLE profile_memories (id VARCHAR PRIMARY KEY, memory_type VARCHAR NOT NULL,
    entity_id VARCHAR NOT NULL, content TEXT NOT NULL, metadata JSON, embedding_id VARCHAR,
    created_at TIMESTAMP, updated_at TIMESTAMP);
CREATE TABLE event_memories (id VARCHAR PRIMARY KEY, memory_type VARCHAR NOT NULL,
    entity_id VARCHAR NOT NULL, content TEXT NOT NULL, metadata JSON, embedding_id VARCHAR,
    is_permanent BOOLEAN DEFAULT FALSE, expiry_date TIMESTAMP, created_at TIMESTAMP,
    updated_at TIMESTAMP);
CREATE TABLE memory_logs (id VARCHAR PRIMARY KEY, memory_id VARCHAR NOT NULL,
    memory_layer VARCHAR NOT NULL, action VARCHAR NOT NULL, reason TEXT NOT NULL, metadata JSON,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
"""
PROFILES: list[tuple[Any, ...]] = [
    ("user_lin_1700000000.5", "user", "lin", "住在杭州", '{"category": "value", "a": [1]}', "v1",
     "2026-01-02 03:04:05", "2026-02-03T04:05:06+08:00"),
    ("p2", "agent", "tutor", "is patient", None, None, 1_767_323_045, 1_767_323_045_500),
    ("p3", "user", 7, "likes tea", "", None, None, None),
]  # fmt: skip
EVENTS: list[tuple[Any, ...]] = [
    ("e1", "user", "lin", "hiking", '{"category": "action"}', None, 0, "2099-01-01", None, None),
    ("e2", "user", "lin", "married", "{}", None, 1, "2001-01-01", "2000-06-01", None),
    ("e3", "user", "lin", "no end is known", "null", None, 0, None, "2020-01-01T00:00:00Z", None),
]  # fmt: skip
LOGS: list[tuple[Any, ...]] = [
    ("l3", "user_lin_1700000000.5", "profile", "update", "moved", '{"from": "x"}', "2026-02-03"),
    ("l1", "user_lin_1700000000.5", "profile", "insert", "told", None, "2026-01-02 03:04:05"),
    ("l8", "e1", "event", "insert", "first of a second", None, "2026-02-04 00:00:00"),
    ("l9", "e1", "event", "update", "second of it", None, "2026-02-04 00:00:00"),
    ("l7", "user_wang_1600000000", "event", "delete", "gone since", None, "2026-02-04 00:00:01"),
    ("l6", "nobody", "event", "ignore", "whose?", None, None),
]  # fmt: skip
MEM0: list[dict[str, Any]] = [
    {"id": "m1", "memory": "Likes tea", "hash": "0f", "user_id": "lin", "agent_id": "tutor",
     "run_id": "r1", "metadata": {"place": "Hangzhou"}, "categories": ["drinks", "preference"],
     "created_at": "2024-07-01T05:00:00.123456-07:00", "updated_at": None},
    {"id": "m2", "memory": "Answers in rhymes", "agentId": "tutor", "metadata": None,
     "createdAt": "2024-07-02T00:00:00Z", "updatedAt": "2024-07-03T00:00:00Z", "score": 0.5},
    {"id": "m3", "memory": "Is on holiday", "user_id": "lin", "expiration_date": "2099-01-01"},
]  # fmt: skip


@pytest.fixture
def memory(db: Database) -> Memory:
    return Memory(db)


def filled(path: Path | str, logs: list[tuple[Any, ...]] = LOGS) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    for table, rows in (("profile", PROFILES), ("event", EVENTS)):
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {table}_memories VALUES ({marks})", rows)
    connection.executemany("INSERT INTO memory_logs VALUES (?, ?, ?, ?, ?, ?, ?)", logs)
    connection.commit()
    return connection


def rows_of(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    connection.row_factory = sqlite3.Row
    tables = ("profile_memories", "event_memories", "memory_logs")
    return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def state(db: Database) -> dict[str, list[Any]]:
    return {name: db.collection(name).find() for name in ("profile", "event", "log")}


def counted(report: ImportReport) -> int:
    listed = len(report.newer) + len(report.expired) + len(report.broken)
    return report.imported + report.same + listed


@pytest.mark.parametrize("kind", ["file", "connection", "rows"])
def test_the_tables_come_whole_and_twice_changes_nothing(
    memory: Memory, tmp_path: Path, kind: str
) -> None:
    with closing(filled(tmp_path / "z.db")) as connection:
        sources: dict[str, Callable[[], Any]] = {
            "file": lambda: tmp_path / "z.db",
            "connection": lambda: connection,
            "rows": lambda: rows_of(connection),
        }
        trial = import_zmemory(memory, sources[kind](), dry_run=True)
        assert state(memory.db) == {"profile": [], "event": [], "log": []}
        report = import_zmemory(memory, sources[kind]())
        assert report == trial
        before = state(memory.db)
        again = import_zmemory(memory, sources[kind]())
    assert (report.found, report.imported, report.unowned) == (12, 12, ["l6"])
    assert (again.found, again.same, again.imported) == (12, 12, 0)
    assert state(memory.db) == before
    (fact,) = memory.profile("lin")
    assert fact == {
        "id": "user_lin_1700000000.5",
        "memory_type": "user",
        "entity_id": "lin",
        "content": "住在杭州",
        "category": "value",
        "metadata": {"a": [1]},
        "embedding_id": None,
        "is_permanent": True,
        "expiry_date": None,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "updated_at": datetime(2026, 2, 2, 20, 5, 6, tzinfo=UTC),
    }
    (patient,) = memory.profile("tutor", memory_type="agent")
    assert patient["created_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert patient["updated_at"] == datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    assert [each["content"] for each in memory.profile("7")] == ["likes tea"]
    events = {each["id"]: each for each in memory.events("lin")}
    assert [events["e1"][name] for name in ("category", "is_permanent")] == ["action", False]
    assert events["e1"]["expiry_date"] == datetime(2099, 1, 1, tzinfo=UTC)
    assert (events["e2"]["is_permanent"], events["e2"]["expiry_date"]) == (True, None)
    assert (events["e3"]["is_permanent"], events["e3"]["expiry_date"]) == (False, None)
    memory.update("event", "e3", content="no end is known yet")
    updated = memory.get("event", "e3")
    assert updated is not None
    assert updated["expiry_date"] is None
    assert [hit.memory_id for hit in memory.recall("hiking", entity_id="lin")] == ["e1"]


def test_the_log_has_its_own_times_and_order_and_belongs_to_its_entities(memory: Memory) -> None:
    with closing(filled(":memory:")) as connection:
        import_zmemory(memory, connection)
    entries = memory.logs()
    assert [each["id"] for each in entries] == ["l6", "l7", "l9", "l8", "l3", "l1"]
    assert len({each["position"] for each in entries}) == 6
    assert entries[4]["created_at"] == datetime(2026, 2, 3, tzinfo=UTC)
    assert (entries[4]["reason"], entries[4]["metadata"]) == ("moved", {"from": "x"})
    fact = "user_lin_1700000000.5"
    assert [each["id"] for each in memory.history(fact)] == ["l1", "l3"]
    assert [each["id"] for each in memory.logs(entity_id="wang")] == ["l7"]
    memory.update("profile", fact, content="lives in Ningbo")
    assert memory.logs()[0]["memory_id"] == fact
    assert memory.forget("lin").logs == 5
    assert [each["reason"] for each in memory.logs(fact)] == [None, None, None]
    with closing(filled(":memory:")) as connection:
        import_zmemory(memory, {"memory_logs": rows_of(connection)["memory_logs"]})
    assert [each["reason"] for each in memory.logs(fact)] == [None, None, None]


def test_what_expired_is_listed_and_not_stored(memory: Memory) -> None:
    row = {"id": "e", "entity_id": "u", "content": "x", "expiry_date": "2020-01-01"}
    logs = [
        {"id": "l", "memory_id": "e", "memory_layer": "event", "action": "insert", "reason": ""}
    ]
    report = import_zmemory(memory, {"event_memories": [row], "memory_logs": logs})
    assert [*map(tuple, report.expired)] == [
        ("event_memories: 'e'", datetime(2020, 1, 1, tzinfo=UTC))
    ]
    assert memory.events("u") == []
    assert [each["id"] for each in memory.logs(entity_id="u")] == ["l"]


def test_times_without_a_zone_are_in_the_zone_of_the_import(memory: Memory) -> None:
    zone = timezone(timedelta(hours=8))
    naive = datetime(2026, 1, 1, 8)
    row = {"id": "e", "entity_id": "u", "content": "x", "created_at": naive, "seen": naive}
    import_zmemory(memory, {"event_memories": [row]}, zone=zone)
    (event,) = memory.events("u")
    assert event["created_at"] == event["metadata"]["seen"] == datetime(2026, 1, 1, tzinfo=UTC)


BAD: dict[str, dict[str, Any]] = {
    "id must be text": {"id": None},
    "entity_id must be text": {"entity_id": ""},
    "content must be": {"content": "  "},
    "memory_type must be one of user, agent": {"memory_type": "group"},
    "metadata: not JSON": {"metadata": "{'a': 1}"},
    "metadata must be a map": {"metadata": "[1]"},
    "is_permanent must be 0 or 1": {"is_permanent": "perhaps"},
    "expiry_date must be ISO 8601": {"expiry_date": "soon"},
    "created_at must be ISO 8601": {"created_at": 1e300},
    "surrogate": {"content": "half \ud83d"},
}


@pytest.mark.parametrize("reason", BAD)
def test_one_that_cannot_be_stored_is_listed_and_the_rest_comes(
    memory: Memory, reason: str
) -> None:
    good = [{"id": f"g{n}", "entity_id": "u", "content": f"fact {n}"} for n in range(3)]
    rows: list[Any] = [good[0], {**good[0], "id": "bad", **BAD[reason]}, *good[1:], ("no", "map")]
    logs = [
        {"id": "l", "memory_id": "g1", "memory_layer": "event", "action": "drop"},
        {"id": "m", "memory_id": "g1", "memory_layer": "event", "action": "INSERT"},
    ]
    report = import_zmemory(memory, {"event_memories": rows, "memory_logs": logs})
    assert any(reason in each.reason for each in report.broken)
    assert sorted(each["id"] for each in memory.events("u")) == ["g0", "g1", "g2"]
    assert [each["id"] for each in memory.logs("g1")] == ["m"]
    assert (report.found, report.imported) == (7, 4) == (counted(report), 4)
    assert sum("event_memories" in each.source for each in report.broken) == 2


def test_text_that_is_not_utf8_costs_its_row_alone(memory: Memory, tmp_path: Path) -> None:
    with closing(filled(tmp_path / "z.db", logs=[])) as connection:
        connection.execute(
            "UPDATE event_memories SET content = CAST(x'41ff' AS TEXT) WHERE id = 'e1'"
        )
        connection.commit()
    report = import_zmemory(memory, tmp_path / "z.db")
    assert [each.source for each in report.broken] == ["event_memories: 'e1'"]
    assert sorted(each["id"] for each in memory.events("lin")) == ["e2", "e3"]


def test_a_memory_that_was_changed_here_since_stays(memory: Memory) -> None:
    row = {"id": "p", "entity_id": "u", "content": "old", "updated_at": "2026-01-01"}
    import_zmemory(memory, {"profile_memories": [row]})
    newer = {**row, "content": "new", "updated_at": "2026-01-02"}
    report = import_zmemory(memory, {"profile_memories": [newer]})
    assert report.imported == 1
    assert [entry["after"]["content"] for entry in memory.history("p")] == ["old", "new"]
    memory.update("profile", "p", content="told here")
    report = import_zmemory(memory, {"profile_memories": [newer, row]})
    assert report.newer == ["p", "p"]
    report = import_zmemory(memory, {"profile_memories": [{**newer, "entity_id": "v"}]})
    assert "of 'u'" in report.broken[0].reason
    assert [each["content"] for each in memory.profile("u")] == ["told here"]


def test_an_interrupted_import_goes_on(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BATCH", 2)
    rows = [{"id": f"p{n}", "entity_id": "u", "content": f"fact {n}"} for n in range(5)]
    told: list[int] = []

    def stop(report: ImportReport) -> None:
        told.append(report.imported)
        if report.imported == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_zmemory(memory, {"profile_memories": rows}, progress=stop)
    assert told == [2, 4]
    assert len(memory.profile("u")) == 4
    report = import_zmemory(memory, {"profile_memories": iter(rows)})
    assert (report.same, report.imported) == (4, 1)


def test_a_source_that_is_none_is_refused(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="profile_memories"):
        import_zmemory(memory, {"profiles": []})
    with closing(sqlite3.connect(":memory:")) as empty, pytest.raises(QueryError, match="none of"):
        import_zmemory(memory, empty)
    with pytest.raises(sqlite3.OperationalError):
        import_zmemory(memory, tmp_path / "none.db")
    (tmp_path / "x.json").write_text("{")
    for source in (tmp_path / "x.json", {"results": "x"}, {}):
        with pytest.raises(QueryError, match="mem0"):
            import_mem0(memory, source)


@pytest.mark.parametrize("kind", ["file", "list", "map"])
def test_memories_of_mem0_come_whole_and_twice_changes_nothing(
    memory: Memory, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "mem0.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"results": MEM0}).encode())
    source: Any = {"file": file, "list": MEM0, "map": {"results": MEM0}}[kind]
    assert import_mem0(memory, source, dry_run=True).imported == 3
    assert len(memory.db.collection("profile")) == 0
    report = import_mem0(memory, source)
    assert (report.found, report.imported, report.broken) == (3, 3, [])
    before = state(memory.db)
    assert import_mem0(memory, source).same == 3
    assert state(memory.db) == before
    tea = memory.get("profile", "m1")
    assert tea is not None
    assert (tea["content"], tea["entity_id"], tea["category"]) == ("Likes tea", "lin", "preference")
    assert tea["created_at"] == datetime(2024, 7, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    assert tea["metadata"] == {
        "place": "Hangzhou",
        "hash": "0f",
        "agent_id": "tutor",
        "run_id": "r1",
        "categories": ["drinks", "preference"],
    }
    (rhymes,) = memory.profile("tutor", memory_type="agent")
    assert (rhymes["updated_at"], rhymes["metadata"]) == (datetime(2024, 7, 3, tzinfo=UTC), {})
    holiday = memory.get("profile", "m3")
    assert holiday is not None
    assert holiday["expiry_date"] == datetime(2099, 1, 1, tzinfo=UTC)
    (entry,) = memory.history("m1")
    assert (entry["action"], entry["reason"]) == ("insert", "imported from mem0")


def test_what_mem0_does_not_say_is_given_or_listed(memory: Memory) -> None:
    given = {
        "results": [{"id": "m", "memory": "x"}, {"id": "n"}, 5],
        "relations": [{"source": "x"}],
    }
    report = import_mem0(memory, given)
    assert [each.reason[:20] for each in report.broken] == [
        "it has no user_id an",
        "it has no user_id an",
        "a memory must be a m",
        "1 relations are not ",
    ]
    assert counted(report) == report.found == 4
    report = import_mem0(memory, given, entity_id="u", memory_layer="event")
    assert len(report.broken) == 3
    (event,) = memory.events("u")
    assert (event["content"], event["category"]) == ("x", "other")


def test_an_embedder_gets_to_them_later(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db(clock=clock)
    memory = Memory(
        db, embed=lambda texts: [[1.0, len(text)] for text in texts], dim=2, clock=clock
    )
    import_mem0(memory, MEM0)
    assert db.collection("profile").embed_missing() == 3
    assert len(memory.recall("something else", entity_id="lin")) == 2
