"""User profiles: partial changes and counters under threads, and the way in from JSON files, some
of them broken, from SQLite, and back."""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from amberdb import (
    REMOVE,
    ClosedError,
    CollectionError,
    ConflictError,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    QueryError,
    Unique,
)
from amberdb.profiles import TransferReport, UserProfiles, export_json, import_json, import_sqlite
from support.databases import FakeClock, OpenDatabase


@pytest.fixture
def profiles(open_db: OpenDatabase, clock: FakeClock) -> UserProfiles:
    return UserProfiles(open_db(clock=clock), clock=clock)


def test_a_profile_is_made_and_changed_field_by_field(
    profiles: UserProfiles, clock: FakeClock
) -> None:
    made = datetime.fromtimestamp(clock.now, UTC)
    profiles.save("u1", user_name="小林", basic_info={"city": "杭州", "age": 30})
    clock.advance(60)
    after = profiles.save("u1", {"basic_info": {"age": 31}}, interests=["茶"])
    assert after == profiles.get("u1")
    assert after == {
        "id": "u1",
        "user_id": "u1",
        "user_name": "小林",
        "conversation_count": 0,
        "basic_info": {"city": "杭州", "age": 31},
        "personality": {},
        "life_context": {},
        "interests": ["茶"],
        "conversation_summary": "",
        "created_at": made,
        "last_updated": made + timedelta(seconds=60),
    }
    profiles.save("u1", basic_info={"age": REMOVE})
    found = profiles.get("u1")
    assert found is not None
    assert found["basic_info"] == {"city": "杭州"}
    with pytest.raises(InvalidDocumentError, match="u2"):
        profiles.save("u1", {"user_id": "u2"})
    with pytest.raises(InvalidDocumentError):
        profiles.save("u1", conversation_count="many")
    profiles.delete("u1")
    with pytest.raises(MissingKeyError):
        profiles.delete("u1")


def test_a_field_may_have_any_name(profiles: UserProfiles) -> None:
    for _ in range(2):  # made, and changed
        assert profiles.save("u1", {"e.mail": "a@b"})["e.mail"] == "a@b"


def test_facts_may_have_any_name(profiles: UserProfiles) -> None:
    profiles.save("u1", basic_info={"$age": 30, "e.mail": "a@b"})
    found = profiles.save("u1", basic_info={"$city": {"$zip": 1}})
    assert found["basic_info"] == {"$age": 30, "e.mail": "a@b", "$city": {"$zip": 1}}


def test_counters_lose_nothing_under_threads(profiles: UserProfiles) -> None:
    def count() -> None:
        for _ in range(50):
            profiles.count_conversation("u1")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert profiles.count_conversation("u1", by=0) == 200


def test_profiles_are_found_by_their_last_change(profiles: UserProfiles, clock: FakeClock) -> None:
    start = datetime.fromtimestamp(clock.now, UTC)
    for number in range(5):
        profiles.save(f"u{number}")
        clock.advance(60)
    profiles.count_conversation("u0")
    assert [each["id"] for each in profiles.recent(3)] == ["u0", "u4", "u3"]
    since, until = start + timedelta(seconds=60), start + timedelta(seconds=180)
    assert [each["id"] for each in profiles.recent(since=since, until=until)] == ["u2", "u1"]
    page = profiles.recent(2)
    assert [each["id"] for each in profiles.recent(2, after=page.cursor)] == ["u3", "u2"]
    assert len(profiles) == 5


# -- JSON files ------------------------------------------------------------------------------


def write(path: Path, text: str, age_s: float = 0) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


def profile(name: str, **more: Any) -> str:
    given: dict[str, Any] = {"user_name": name, "conversation_count": 3, **more}
    return json.dumps(given, ensure_ascii=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten files: good ones, and each way of being broken."""
    made = tmp_path / "profiles"
    made.mkdir()
    write(made / "good.json", profile("好", last_updated="2026-01-02T03:04:05"))
    write(
        made / "zoned.json", profile("z", created_at="2026-01-02T03:04:05+08:00", extra=[1, None])
    )
    write(made / "a%2Fb.json", profile("slash"))
    write(made / "other.json", profile("named", user_id="another"))
    write(made / "torn.json", profile("torn")[:10])
    write(made / "torn.json.bak", profile("from the backup"))
    write(made / "both.json", "")
    write(made / "both.json.tmp", profile("the newer"), age_s=10)
    write(made / "both.bak", profile("the older"), age_s=20)
    write(made / "gone.json.bak", profile("only a backup"))
    write(made / "lost.json", "{")
    write(made / "lost.json.bak", "[]")
    write(made / "typed.json", profile("t", interests="tea"))
    write(made / "times.json", profile("t", created_at="yesterday"))
    write(made / "count.json", profile("t", conversation_count="a few"))
    write(made / "readme.txt", "no profile")
    return made


def test_every_file_is_imported_recovered_or_listed(
    profiles: UserProfiles, source: Path, clock: FakeClock
) -> None:
    trial = import_json(profiles, source, dry_run=True)
    assert len(profiles) == 0
    report = import_json(profiles, source)
    assert (trial.found, trial.imported, trial.broken) == (
        report.found,
        report.imported,
        report.broken,
    )
    assert (report.found, report.imported, report.verified) == (11, 7, 7)
    assert {each.source for each in report.broken} == {
        "lost.json",
        "typed.json",
        "times.json",
        "count.json",
    }
    assert "interests" in next(b.reason for b in report.broken if b.source == "typed.json")
    assert "lost.json.bak" in next(b.reason for b in report.broken if b.source == "lost.json")
    assert [each.partition(" ")[0] for each in report.recovered] == [
        "both.json.tmp",
        "gone.json.bak",
        "torn.json.bak",
    ]
    names = {each["id"]: each["user_name"] for each in profiles.recent(100)}
    assert names == {
        "good": "好",
        "zoned": "z",
        "a/b": "slash",
        "another": "named",
        "torn": "from the backup",
        "both": "the newer",
        "gone": "only a backup",
    }
    good, zoned = profiles.get("good"), profiles.get("zoned")
    assert good is not None
    assert zoned is not None
    assert good["last_updated"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert zoned["created_at"] == datetime(2026, 1, 1, 19, 4, 5, tzinfo=UTC)
    assert zoned["extra"] == [1, None]


def test_what_cannot_be_stored_is_listed_and_costs_no_other(
    profiles: UserProfiles, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    values = {
        "inf": "1e999", "digits": "123456789012345678901234567890", "half": '"\\ud83d"',
        "nan": "NaN",
    }  # fmt: skip
    for name, value in values.items():
        text = f'{{"user_id": "{name}", "basic_info": {{"n": {value}}}}}'
        (made / f"{name}.json").write_text(text)
    (made / "id.json").write_text('{"user_id": "\\udfff"}')
    (made / "good.json").write_text('{"user_id": "good"}')
    trial = import_json(profiles, made, dry_run=True)
    report = import_json(profiles, made)
    assert (trial.imported, trial.broken) == (report.imported, report.broken)
    assert (report.imported, report.verified, len(report.broken)) == (1, 1, 5)
    assert all(": " in broken.reason or "JSON" in broken.reason for broken in report.broken)
    rows = sqlite3.connect(tmp_path / "rows.db")
    rows.execute("create table user_memories (user_id, conversation_count)")
    rows.execute("insert into user_memories values ('other', 1), ('many', 9e999)")
    rows.commit()
    rows.close()
    report = import_sqlite(profiles, tmp_path / "rows.db")
    assert (report.imported, len(report.broken)) == (1, 1)


def test_an_import_is_run_again(
    profiles: UserProfiles, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.profiles.transfer.BATCH", 2)

    def stop(report: TransferReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_json(profiles, source, progress=stop)
    assert len(profiles) == 2
    stored = {each["id"] for each in profiles.recent()}
    changed = stored.pop()
    profiles.save(changed, user_name="changed since")
    report = import_json(profiles, source)
    assert (report.same, report.imported, report.newer) == (1, 5, [changed])
    found = profiles.get(changed)
    assert found is not None
    assert found["user_name"] == "changed since"
    zone = timezone(timedelta(hours=8))
    again = import_json(profiles, source, zone=zone)
    assert again.same >= 5


def test_a_file_as_new_as_what_is_stored_is_imported(
    profiles: UserProfiles, tmp_path: Path
) -> None:
    """Nobody changed the profile since: it may be the half of one that was mended by hand."""
    made = tmp_path / "made"
    made.mkdir()
    for day, name, imported, newer in ((2, "first", 1, 0), (2, "mended", 1, 0), (1, "old", 0, 1)):
        write(made / "u.json", profile(name, last_updated=f"2026-01-0{day}T00:00:00Z"))
        report = import_json(profiles, made)
        assert (report.imported, len(report.newer), report.same) == (imported, newer, 0)
    found = profiles.get("u")
    assert found is not None
    assert found["user_name"] == "mended"


def test_what_is_exported_is_imported_just_so(
    profiles: UserProfiles, open_db: OpenDatabase, source: Path, tmp_path: Path
) -> None:
    import_json(profiles, source)
    profiles.save("deep", basic_info={"born": datetime(1990, 1, 1, tzinfo=UTC), "x": None})
    profiles.save("name/with:odd*signs", user_name="\u200b引用")
    assert export_json(profiles, tmp_path / "out") == 9
    plain = json.loads((tmp_path / "out" / "good.json").read_text(encoding="utf-8"))
    assert plain["last_updated"] == "2026-01-02T03:04:05Z"
    other = UserProfiles(open_db("other.amber"))
    report = import_json(other, tmp_path / "out")
    assert (report.imported, report.broken, report.verified) == (9, [], 9)
    assert sorted(profiles.recent(100), key=lambda each: each["id"]) == sorted(
        other.recent(100), key=lambda each: each["id"]
    )


# -- SQLite ----------------------------------------------------------------------------------


def test_rows_of_the_users_table(profiles: UserProfiles, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "CREATE TABLE user_memories (user_id TEXT PRIMARY KEY, user_name TEXT,"
            " conversation_count INTEGER DEFAULT 0, basic_info TEXT, personality TEXT,"
            " life_context TEXT, interests TEXT, conversation_summary TEXT,"
            " created_at TIMESTAMP, last_updated TIMESTAMP)"
        )
        rows = [
            (
                "u1",
                "小林",
                7,
                '{"city": "杭州"}',
                "{}",
                None,
                '["茶"]',
                "聊过茶",
                *["2026-01-01 08:00:00"] * 2,
            ),
            ("u2", None, None, None, None, None, None, None, None, None),
            ("u3", "torn", 1, '{"city": ', None, None, None, None, None, None),
        ]
        db.executemany(f"INSERT INTO user_memories VALUES ({','.join('?' * 10)})", rows)
        db.commit()
    report = import_sqlite(profiles, path)
    assert (report.found, report.imported, report.verified) == (3, 2, 2)
    (broken,) = report.broken
    assert broken.source == "user_memories: 'u3'"
    first = profiles.get("u1")
    assert first is not None
    assert (first["basic_info"], first["interests"]) == ({"city": "杭州"}, ["茶"])
    assert first["last_updated"] == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert import_sqlite(profiles, path).same == 2
    with pytest.raises(sqlite3.Error):
        import_sqlite(profiles, tmp_path / "none.db")


def test_profiles_stay_when_the_process_does_not(open_db: OpenDatabase) -> None:
    db: Database = open_db()
    UserProfiles(db).save("u1", user_name="kept")
    db.close()
    found = UserProfiles(open_db()).get("u1")
    assert found is not None
    assert found["user_name"] == "kept"


# -- types, operators, search ----------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"conversation_count": True}, {"conversation_count": 1.5}, {"conversation_count": REMOVE},
        {"basic_info": "x"}, {"interests": 3}, {"life_context": None}, {"user_name": 3},
        {"conversation_summary": None}, {"last_updated": 5}, {"created_at": datetime(2026, 1, 1)},
        {"id": "u2"}, {"user_id": REMOVE},
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_refused_by_its_name(
    profiles: UserProfiles, wrong: dict[str, Any]
) -> None:
    made = profiles.save("u1", user_name="x")
    (field,) = wrong
    with profiles.db.transaction() as tx:
        for user in ("u1", "new"):
            with pytest.raises(InvalidDocumentError, match=field):
                profiles.save(user, wrong, tx=tx)
            if wrong[field] is not REMOVE:
                with pytest.raises(InvalidDocumentError):
                    profiles.update(user, {"$set": wrong}, tx=tx)
        with pytest.raises(InvalidDocumentError):
            profiles.put({"user_id": "new", **wrong}, tx=tx)
    assert (profiles.get("u1"), profiles.get("new")) == (made, None)


def test_lists_and_numbers_are_changed_in_place(profiles: UserProfiles) -> None:
    profiles.update("u1", {"$push": {"interests": "茶"}, "$inc": {"basic_info.visits": 2}})
    after = profiles.update(
        "u1", {"$push": {"interests": {"$each": ["山", "水"]}}, "$inc": {"basic_info.visits": 1}}
    )
    assert (after["interests"], after["basic_info"]) == (["茶", "山", "水"], {"visits": 3})
    profiles.save("u1", personality={"calm": True})
    with pytest.raises(InvalidDocumentError):
        profiles.update("u1", {"$push": {"personality": "x"}, "user_name": "not stored"})
    assert profiles.get("u1") == {**after, **(profiles.get("u1") or {}), "user_name": None}
    assert profiles.count_conversation("u1", by=2) == 2


def test_profiles_are_found_by_filters_and_by_words(profiles: UserProfiles) -> None:
    profiles.save("u1", user_name="小林", basic_info={"city": "杭州", "likes": ["green tea"]})
    profiles.save("u2", conversation_summary="about a trip to Oslo", conversation_count=4)
    assert [each["id"] for each in profiles.find({"basic_info.city": "杭州"})] == ["u1"]
    assert [each["id"] for each in profiles.find(order_by="-conversation_count")] == ["u2", "u1"]
    page = profiles.find(order_by="user_id", limit=1)
    assert [e["id"] for e in profiles.find(order_by="user_id", after=page.cursor)] == ["u2"]
    for text, found in (("tea", "u1"), ("杭州", "u1"), ("oslo", "u2")):
        assert [hit.id for hit in profiles.search(text)] == [found]
    assert profiles.search(query="+tea +oslo") == []
    assert profiles.search("oslo tea", where={"conversation_count": 0})[0].id == "u1"
    with pytest.raises(QueryError):
        profiles.search()


# -- history ---------------------------------------------------------------------------------


@pytest.fixture
def logged(open_db: OpenDatabase, clock: FakeClock) -> Iterator[UserProfiles]:
    made = UserProfiles(open_db(clock=clock), history_days=30, clock=clock)
    yield made
    assert made.db.check().ok


def test_each_change_is_kept_with_the_fields_before_and_after(
    logged: UserProfiles, clock: FakeClock
) -> None:
    logged.save("u1", user_name="a")
    clock.advance(-1800)  # the clock steps back
    logged.save("u1", user_name="b", mood="good")
    logged.save("u1", mood=REMOVE)
    logged.save("u1", user_name="b")  # changes nothing
    logged.count_conversation("u1")
    logged.delete("u1")
    entries = logged.history("u1")
    assert [(each["action"], each["before"], each["after"]) for each in entries[1:4]] == [
        ("update", {"conversation_count": 0}, {"conversation_count": 1}),
        ("update", {"mood": "good"}, {}),
        ("update", {"user_name": "a"}, {"user_name": "b", "mood": "good"}),
    ]
    assert [each["action"] for each in entries] == ["delete", *["update"] * 3, "insert"]
    assert (entries[4]["before"], entries[0]["after"]) == (None, None)
    page = logged.history("u1", limit=2)
    assert logged.history("u1", after=page.cursor) == entries[2:]
    clock.advance(31 * 86_400)
    logged.db.collection("user_memories_log").expire()
    assert logged.history("u1") == []


def test_a_change_is_taken_back_and_that_too(logged: UserProfiles) -> None:
    def without_time(profile: Any) -> Any:
        return profile and {**profile, "last_updated": None}

    logged.save("u1", user_name="a", basic_info={"x": 1}, interests=["tea"])
    states = [None, logged.get("u1")]
    logged.save("u1", user_name="b", extra=1)
    states.append(logged.get("u1"))
    logged.delete("u1")
    states.append(None)
    (deleted, changed, made) = [each["id"] for each in logged.history("u1")]
    for entry, state in ((deleted, states[2]), (changed, states[1]), (made, None)):
        assert without_time(logged.undo(entry)) == without_time(state)
        assert without_time(logged.get("u1")) == without_time(state)
    for entry, state in zip(
        [each["id"] for each in logged.history("u1", limit=3)], states[1:], strict=True
    ):
        assert without_time(logged.undo(entry)) == without_time(state)


def test_what_came_later_is_not_taken_back(logged: UserProfiles) -> None:
    logged.save("u1", user_name="a")
    logged.save("u1", user_name="b")
    logged.save("u1", conversation_summary="of another field")
    _, named, made = logged.history("u1")
    with pytest.raises(ConflictError, match="u1"):
        logged.undo(made["id"])
    after = logged.undo(named["id"])
    assert after is not None
    assert (after["user_name"], after["conversation_summary"]) == ("a", "of another field")
    with pytest.raises(ConflictError):
        logged.undo(named["id"])
    with pytest.raises(MissingKeyError):
        logged.undo("none")


def test_without_history_days_nothing_is_kept(profiles: UserProfiles) -> None:
    profiles.save("u1")
    with pytest.raises(QueryError, match="history_days"):
        profiles.history("u1")
    with pytest.raises(QueryError, match="history_days"):
        profiles.undo("x")
    assert list(profiles.db.collections()) == ["user_memories"]


# -- beside the program's own ----------------------------------------------------------------


def test_a_collection_of_the_program_is_not_taken(open_db: OpenDatabase) -> None:
    db = open_db()
    db.collection("user_memories", indexes=[Unique("email")]).put({"id": "1", "email": "a"})
    with pytest.raises(CollectionError, match="name="):
        UserProfiles(db)
    assert UserProfiles(db, name="shop").save("u1")["id"] == "u1"
    with pytest.raises(DuplicateKeyError):
        db.collection("user_memories").put({"email": "a"})


def test_profiles_of_an_earlier_version_open_as_before(open_db: OpenDatabase) -> None:
    db = open_db()
    old = db.collection(
        "user_memories",
        indexes=[Ordered("last_updated"), Ordered("conversation_count")],
        required={"user_id": str, "conversation_count": int},
    )
    old.put({"id": "u1", "user_id": "u1", "conversation_count": 1, "basic_info": "text"})
    profiles = UserProfiles(db, history_days=1)
    assert profiles.count_conversation("u1") == 2
    assert profiles.save("u1", user_name="x")["basic_info"] == "text"
    assert [hit.id for hit in profiles.search("text")] == ["u1"]
    with pytest.raises(InvalidDocumentError):
        profiles.save("u1", basic_info="other")


def test_writes_join_the_callers_transaction(logged: UserProfiles) -> None:
    other = logged.db.collection("order")
    logged.save("kept", user_name="x")

    def fail() -> None:
        with logged.db.transaction() as tx:
            logged.save("u1", user_name="x", tx=tx)
            logged.update("u1", {"$inc": {"n": 1}}, tx=tx)
            assert logged.count_conversation("u1", tx=tx) == 1
            logged.put({"user_id": "u2"}, tx=tx)
            logged.delete("kept", tx=tx)
            tx["order"].put({"id": "1"})
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (len(logged), len(other), logged.get("u1")) == (1, 0, None)
    (made,) = logged.history("kept")
    with logged.db.transaction() as tx:
        logged.undo(made["id"], tx=tx)
        tx["order"].put({"id": "1"})
    assert (len(logged), len(other)) == (0, 1)
    with pytest.raises(ClosedError):
        logged.save("u1", tx=tx)


def test_last_updated_does_not_go_back(profiles: UserProfiles, clock: FakeClock) -> None:
    profiles.save("u1")
    first = profiles.save("u1")["last_updated"]
    clock.advance(-600)
    again = UserProfiles(profiles.db, clock=clock)  # a clock of its own, as after a restart
    assert again.save("u1", user_name="x")["last_updated"] == first


def test_ids_that_look_alike_are_two(profiles: UserProfiles) -> None:
    ids = ["\u00e9", "e\u0301", "a", "A", "a ", " a", "\uff21", "北" * 160]
    for user in ids:
        profiles.save(user, user_name=user)
    assert [(profiles.get(user) or {})["user_name"] for user in ids] == ids
    assert len(profiles) == len(ids)
