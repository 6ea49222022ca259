"""Profiles from the files that other programs write, and files that no two users share."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database
from amberdb.profiles import UserProfiles, export_json, import_json, import_sqlite
from amberdb.profiles.export import file_name
from support.databases import OpenDatabase

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def db(open_db: OpenDatabase) -> Iterator[Database]:
    made = open_db()
    yield made
    assert made.check().ok


@pytest.fixture
def profiles(db: Database) -> UserProfiles:
    return UserProfiles(db)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


def write(path: Path, value: Any, encoding: str = "utf-8") -> None:
    path.parent.mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))


def names(profiles: UserProfiles) -> dict[str, Any]:
    return {each["user_id"]: each["user_name"] for each in profiles.find(limit=None)}


# -- files of one user -----------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_makes_no_file_unreadable(
    profiles: UserProfiles, source: Path, encoding: str
) -> None:
    write(source / "lin.json", {"user_name": "林"}, encoding)
    write(source / "lin.json.bak", {"user_name": "an older copy"})
    report = import_json(profiles, source)
    assert (report.imported, report.recovered, report.broken) == (1, [], [])
    assert names(profiles) == {"lin": "林"}


def test_an_encoding_is_that_of_files_that_are_not_utf_8(
    profiles: UserProfiles, source: Path
) -> None:
    for name, encoding in (("a", "gb18030"), ("b", "utf-8"), ("c", "utf-16"), ("d", "utf-8-sig")):
        write(source / f"{name}.json", {"user_name": "林小雨"}, encoding)
    report = import_json(profiles, source)
    assert [(b.source, "not UTF-8" in b.reason) for b in report.broken] == [("a.json", True)]
    assert import_json(profiles, source, encoding="gb18030").broken == []
    assert names(profiles) == dict.fromkeys("abcd", "林小雨")
    ((_, reason),) = import_json(profiles, source, encoding="ascii").broken
    assert "ascii" in reason
    with pytest.raises(LookupError):
        import_json(profiles, source, encoding="none")


def test_the_newest_copy_is_read_in_place_of_a_broken_file(
    profiles: UserProfiles, source: Path
) -> None:
    """By the time in the profile: copying a directory changes the times of files."""
    write(source / "lin.json", "{")
    write(source / "lin.json.bak", {"user_name": "new", "last_updated": 1767323045})
    write(source / "lin.json.tmp", {"user_name": "old", "last_updated": 1767323044})
    write(source / "lin.json.amber-0123456789abcdef.tmp", "")
    os.utime(source / "lin.json.bak", (1, 1))
    report = import_json(profiles, source)
    assert (report.found, names(profiles)) == (1, {"lin": "new"})
    assert report.recovered[0].startswith("lin.json.bak")


def test_endings_in_capitals(profiles: UserProfiles, source: Path) -> None:
    write(source / "ANN.JSON", {"user_name": "a"})
    write(source / "ANN.JSON.BAK", {"user_name": "older"})
    write(source / "Bob.Json", "{")
    write(source / "Bob.Json.Bak", {"user_name": "b"})
    write(source / "ANN.json", {"user_name": "another"})
    report = import_json(profiles, source)
    assert (report.found, names(profiles)) == (3, {"ANN": "a", "Bob": "b"})
    assert [broken for broken, _ in report.broken] == ["ANN.json"]


def test_subfolders(profiles: UserProfiles, source: Path) -> None:
    write(source / "a" / "ann.json", {"user_name": "in a folder"})
    write(source / "bob" / "profile.json", {"user_name": "in the user's folder"})
    write(source / "profile.json", {"user_name": "a user of this name"})
    write(source / "c" / "x.json", {"user_id": "ann2", "user_name": "named inside"})
    report = import_json(profiles, source)
    assert (report.imported, report.broken) == (4, [])
    assert names(profiles) == {
        "ann": "in a folder",
        "bob": "in the user's folder",
        "profile": "a user of this name",
        "ann2": "named inside",
    }


@pytest.mark.parametrize("dry_run", [False, True])
def test_of_two_files_of_a_user_the_newest_counts(
    profiles: UserProfiles, source: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setattr("amberdb.profiles.transfer.BATCH", 2)
    for folder, user, name, time in (
        ("a", "up", "old", 1), ("b", "up", "new", 2),
        ("a", "down", "new", 2), ("b", "down", "old", 1),
        ("a", "same", "x", 1), ("b", "same", "x", 1),
        ("a", "torn", "one", 1), ("b", "torn", "another", 1),
    ):  # fmt: skip
        write(source / folder / f"{user}.json", {"user_name": name, "last_updated": time})
    report = import_json(profiles, source, dry_run=dry_run)
    assert (report.found, report.imported, report.same) == (8, 4, 1)
    assert sorted(report.newer) == ["down", "up"]
    ((broken, reason),) = report.broken
    assert (broken, "a/torn.json" in reason) == ("b/torn.json", True)
    if not dry_run:
        assert names(profiles) == {"up": "new", "down": "new", "same": "x", "torn": "one"}


# -- files of many users ---------------------------------------------------------------------

USERS: dict[str, Any] = {
    "u1": {"user_name": "one", "basic_info": {"city": "x"}},
    "u2": {"user_name": "two", "conversation_count": "a few"},
    "u3": {"user_name": "three"},
    "u4": "no profile",
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.json", {user: each for user, each in USERS.items() if user != "u4"}),
        ("users.json", {"version": 1, "users": USERS}),
        ("any.json", [{"user_id": user, **USERS[user]} for user in ("u1", "u2", "u3")]),
        ("users.json", [{"id": user, **USERS[user]} for user in ("u1", "u2", "u3")]),
    ],
)
@pytest.mark.parametrize("is_in_directory", [False, True])
def test_one_file_of_all_users(
    profiles: UserProfiles, source: Path, name: str, content: Any, is_in_directory: bool
) -> None:
    write(source / name, content, "utf-8-sig")
    report = import_json(profiles, source if is_in_directory else source / name)
    assert report.imported == 2
    assert report.found == 2 + len(report.broken)
    assert {reason for _, reason in report.broken} >= {
        "conversation_count must be a whole number, not 'a few'"
    }
    assert all(name in broken for broken, _ in report.broken)
    assert names(profiles) == {"u1": "one", "u3": "three"}


def test_profiles_with_fields_of_their_own_in_one_file(
    profiles: UserProfiles, source: Path
) -> None:
    write(source / "users.json", {"u1": {"age": 3}, "u2": {"age": 4}})
    write(source / "ann.json", {"prefs": {"colour": "red"}})
    import_json(profiles, source)
    found = {each["id"]: (each.get("age"), each.get("prefs")) for each in profiles.find()}
    assert found == {"u1": (3, None), "u2": (4, None), "ann": (None, {"colour": "red"})}


def test_lines(profiles: UserProfiles, source: Path) -> None:
    path = source / "all.jsonl"
    path.write_bytes(BOM + b'{"user_id": "a"}\n\n{"user_id": 7}\n{"user_id"\n{}\n')
    report = import_json(profiles, path)
    assert [broken for broken, _ in report.broken] == ["all.jsonl: line 4", "all.jsonl: line 5"]
    assert set(names(profiles)) == {"a", "7"}


@pytest.mark.parametrize("content", ["[]", "{}", "", "7", "null", '{"a": 1}'])
def test_a_file_without_profiles_is_listed(
    profiles: UserProfiles, source: Path, content: str
) -> None:
    write(source / "users.json", content)
    report = import_json(profiles, source / "users.json")
    assert (report.found, report.imported, len(report.broken)) == (1, 0, 1)


# -- values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (1767323045, MOMENT),
        (1767323045.0, MOMENT),
        ("1767323045", MOMENT),
        ("1767323045.0", MOMENT),
        (1767323045000, MOMENT),
        ("1767323045000", MOMENT),
        (1767323045000000, MOMENT),
        ("2026-01-02 03:04:05", MOMENT),
        ("2026-01-02T03:04:05Z", MOMENT),
        ("20260102", datetime(2026, 1, 2, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("", None),
        ("NULL", None),
        (None, None),
    ],
)
def test_times(profiles: UserProfiles, source: Path, given: Any, kept: datetime | None) -> None:
    write(source / "u.json", {"last_updated": given})
    assert import_json(profiles, source).broken == []
    found = profiles.get("u")
    assert found is not None
    assert found["last_updated"] == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"last_updated": True}, {"created_at": [1]}, {"last_updated": 1e300},
        {"last_updated": "yesterday"}, {"conversation_count": 7.5}, {"conversation_count": True},
        {"conversation_count": "1e999"}, {"user_id": {"$ne": 1}}, {"user_id": True},
        {"user_name": 3}, {"interests": "tea"}, {"interests": "[tea"}, {"basic_info": 1},
        {"conversation_summary": ["a"]}, {"user_id": "x" * 481},
    ],
)  # fmt: skip
def test_a_value_of_another_meaning_is_refused_by_its_field(
    profiles: UserProfiles, source: Path, wrong: dict[str, Any]
) -> None:
    write(source / "a.json", wrong)
    write(source / "b.json", {"user_name": "the next one"})
    report = import_json(profiles, source)
    ((broken, reason),) = report.broken
    assert broken == "a.json"
    assert next(iter(wrong)) in reason or "id" in reason
    assert names(profiles) == {"b": "the next one"}


def test_nothing_and_text_in_place_of_values(profiles: UserProfiles, source: Path) -> None:
    nothing: dict[str, Any] = {
        "user_id": "", "user_name": "", "conversation_count": "", "basic_info": "",
        "interests": "null", "life_context": None, "conversation_summary": None, "created_at": "",
    }  # fmt: skip
    write(source / "empty.json", nothing)
    text = {"conversation_count": "7.0", "basic_info": '{"city": "杭州"}', "interests": ' ["茶"]'}
    write(source / "text.json", text)
    assert import_json(profiles, source).broken == []
    empty, told = profiles.get("empty"), profiles.get("text")
    assert empty is not None
    assert told is not None
    assert (empty["conversation_count"], empty["basic_info"], empty["interests"]) == (0, {}, {})
    assert (told["conversation_count"], told["basic_info"]) == (7, {"city": "杭州"})
    assert told["interests"] == ["茶"]


def test_rows_that_are_not_text_or_have_no_user(profiles: UserProfiles, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    with closing(sqlite3.connect(path)) as rows:
        rows.execute("create table user_memories (user_id, user_name, basic_info, last_updated)")
        rows.executemany(
            "insert into user_memories values (?, ?, ?, ?)",
            [
                (None, "nobody", None, None),
                (5, "five", b'{"a": 1}', 1767323045000),
                ("bad", "x", None, None),
                ("ok", "", "", ""),
            ],
        )
        rows.execute("update user_memories set user_name = cast(x'ff' as text) where user_id='bad'")
        rows.commit()
    report = import_sqlite(profiles, path)
    assert [broken for broken, _ in report.broken] == [
        "user_memories: None",
        "user_memories: 'bad'",
    ]
    assert names(profiles) == {"5": "five", "ok": None}
    five = profiles.get("5")
    assert five is not None
    assert (five["basic_info"], five["last_updated"]) == ({"a": 1}, MOMENT)


def test_a_large_profile_costs_no_other(open_db: OpenDatabase, source: Path) -> None:
    """Batches are of so many profiles, and of so much text."""
    profiles = UserProfiles(open_db("small.amber", transaction_bytes_max=4 << 20))
    for n in range(6):
        write(source / f"u{n}.json", {"conversation_summary": "x" * (1 << 20)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amberdb.profiles.transfer.BATCH_CHARS", 1 << 20)
        report = import_json(profiles, source)
    assert (report.imported, report.verified) == (6, 6)


# -- export ----------------------------------------------------------------------------------

IDS = [
    "ann", "Ann", "ANN", "\u00e9", "e\u0301", "a", "a ", " a", ".", "..", ".a", "con", "nul.x",
    "a/b", "a%2Fb", "a~b", "a.json", "a.json.bak", "\x00", "北京" * 40, "x" * 480, "x" * 479,
    "\U0001f382",
]  # fmt: skip


@pytest.mark.parametrize("target", ["out", "out.json", "out.jsonl"])
def test_every_user_has_a_file_of_its_own(
    profiles: UserProfiles, open_db: OpenDatabase, tmp_path: Path, target: str
) -> None:
    for user in IDS:
        profiles.save(user, user_name=user)
    for _ in range(2):  # and the second replaces the first
        assert export_json(profiles, tmp_path / target) == len(IDS)
    if target == "out":
        files = os.listdir(tmp_path / target)
        assert len({name.lower() for name in files}) == len(IDS)
        assert all(name.isascii() and len(name) < 220 for name in files)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    other = UserProfiles(open_db("other.amber"))
    report = import_json(other, tmp_path / target)
    assert (report.imported, report.broken) == (len(IDS), [])
    assert {user: other.get(user) for user in IDS} == {user: profiles.get(user) for user in IDS}


def test_the_name_of_a_file_is_the_id_where_it_can_be() -> None:
    assert file_name("u-1_x.y") == "u-1_x.y.json"
    assert file_name("林") == "%E6%9E%97.json"
    assert file_name("Ann").startswith("Ann~")
    for other in ("con", "Ann", "x" * 480):
        own = file_name(other)
        assert file_name(own.removesuffix(".json")) != own


def test_an_export_keeps_what_is_not_its_own(profiles: UserProfiles, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "notes.txt", "mine")
    write(out / "ann.json", "{}")
    os.chmod(out / "ann.json", 0o640)
    profiles.save("ann")
    profiles.save("bob")
    export_json(profiles, out)
    assert sorted(os.listdir(out)) == ["ann.json", "bob.json", "notes.txt"]
    assert (out / "ann.json").stat().st_mode & 0o777 == 0o640
    assert (out / "bob.json").stat().st_mode & 0o777 == 0o600


def test_an_export_that_fails_leaves_no_half(
    profiles: UserProfiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        profiles.save(f"u{n}", user_name="new")
    write(tmp_path / "out" / "u1.json", "{}")
    (tmp_path / "out" / "u2.json").mkdir()  # so its rename fails
    with pytest.raises(IsADirectoryError):
        export_json(profiles, tmp_path / "out")
    assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".tmp")]
    assert json.loads((tmp_path / "out" / "u1.json").read_text())["user_name"] == "new"


def test_many_profiles_are_exported_in_the_time_of_a_few_syncs(
    profiles: UserProfiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file has its sync, but they follow one of all files, and the directory has few."""
    monkeypatch.setattr("amberdb._shared.files.GROUP_FILES", 4)
    calls: list[str] = []
    monkeypatch.setattr(os, "sync", lambda: calls.append("all"))
    with profiles.db.transaction() as tx:
        for n in range(10):
            profiles.save(f"u{n}", tx=tx)
    assert export_json(profiles, tmp_path / "out") == 10
    assert len(calls) == 3
