"""The verbs, in process: what they print, and the exit codes that scripts rely on."""

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import amberdb
from amberdb import Database, DiskFullError, Ordered, Text, Vector
from amberdb.cli.__main__ import app
from amberdb.cli.transfer import lines as cli_lines
from support.cli_reference import commands
from support.older_format import older_format
from support.sharing import child_leads

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a verb on the test's database; asserts that nothing ended in a traceback."""

    def invoke(verb: str, *arguments: str, code: int = 0, input: str | None = None) -> Result:
        command = [verb, str(tmp_path / "t.amber"), *arguments]
        result = CliRunner().invoke(app, command, input=input)
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code not in (0, 1, 5)) or code in (1, 5)
        return result

    return invoke


@pytest.fixture
def filled(run: Run) -> Run:
    """With ten documents."""
    documents = [{"id": f"d{n}", "n": n, "entity": "ab"[n % 2]} for n in range(10)]
    run("put", "x", json.dumps(documents))
    return run


def answer(result: Result) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- put and get -----------------------------------------------------------------------------


def test_put_and_get_round_trip(run: Run) -> None:
    text = '{"id": "a", "at": {"$date": "2026-01-01T00:00:00Z"}, "b": {"$bytes": "AAE="}}'
    assert answer(run("put", "x", text, "--json")) == {"ids": ["a"]}
    assert answer(run("get", "x", "a", "--json")) == json.loads(text)
    assert "2026-01-01T00:00:00Z" in run("get", "x", "a").stdout


def test_put_reads_stdin_and_makes_ids(run: Run) -> None:
    made = answer(run("put", "x", "--json", input='[{"a": 1}, {"a": 2}]'))["ids"]
    assert len(set(made)) == 2
    (id,) = run(
        "put", "x", "--dates", "at", input='{"at": "2026-01-01T08:00:00+08:00"}'
    ).stdout.split()
    assert answer(run("get", "x", id, "--json"))["at"] == {"$date": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("text", ["{bad", "5", "[1]", '{"id": 5}', '{"a": {"$date": 1}}'])
def test_put_of_what_is_no_document_is_wrong_use(run: Run, text: str) -> None:
    run("put", "x", text, code=2)


def test_get_with_its_record(filled: Run) -> None:
    record = answer(filled("get", "x", "d1", "--record", "--json"))
    assert record["document"] == {"id": "d1", "n": 1, "entity": "b"}
    assert record["version"] > 0
    assert "version" in filled("get", "x", "d1", "--record").stdout


def test_missing_document_is_code_1(filled: Run) -> None:
    assert "no document 'nope'" in filled("get", "x", "nope", code=1).stderr


def test_missing_collection_is_code_2_and_is_not_created(filled: Run) -> None:
    for verb in (["get", "y", "d1"], ["find", "y"], ["export", "y"], ["log", "--collection", "y"]):
        filled(*verb, code=2)
    assert list(answer(filled("info", "--json"))["collections"]) == ["x"]


def test_stored_text_cannot_drive_the_terminal(run: Run) -> None:
    run("put", "x", json.dumps({"id": "a", "t": "\x1b]0;owned\x07 [red]plain[/red]"}))
    for verb in (["get", "x", "a"], ["find", "x"]):
        shown = run(*verb).stdout
        assert "\x1b]" not in shown
        assert "\\x1b]0;owned\\x07" in shown
        assert "[red]plain[/red]" in shown


# -- find --------------------------------------------------------------------------------------


def test_find_filters_orders_limits_and_pages(filled: Run) -> None:
    ask = ["x", "--where", '{"n": {"$gte": 4}}', "--order-by", "-n", "--limit", "4", "--json"]
    page = answer(filled("find", *ask))
    assert [one["n"] for one in page["documents"]] == [9, 8, 7, 6]
    rest = answer(filled("find", *ask, "--after", page["cursor"]))
    assert [one["n"] for one in rest["documents"]] == [5, 4]
    assert rest["cursor"] is None


def test_find_fields_count_and_explain(filled: Run) -> None:
    page = answer(filled("find", "x", "--fields", "n,id", "--limit", "1", "--json"))
    assert page["documents"] == [{"n": 0, "id": "d0"}]
    where = ["--where", '{"entity": "a"}']
    assert answer(filled("count", "x", *where, "--json")) == {"count": 5}
    assert answer(filled("find", "x", *where, "--explain", "--json"))["index"] is None
    assert "5" in filled("count", "x", *where).stdout


def test_find_counts_by_a_field(filled: Run) -> None:
    few = ["--where", '{"n": {"$lt": 5}}']
    found = answer(filled("count", "x", "--by", "entity", *few, "--json"))
    assert [(one["value"], one["documents"]) for one in found] == [("a", 3), ("b", 2)]
    assert "entity" in filled("count", "x", "--by", "entity").stdout


def test_put_where_an_id_exists(filled: Run) -> None:
    document = '{"id": "d0", "n": 100}'
    filled("put", "x", document, "--on-conflict", "raise", code=2)
    filled("put", "x", document, "--on-conflict", "keep")
    assert answer(filled("get", "x", "d0", "--json"))["n"] == 0
    filled("put", "x", document)
    assert answer(filled("get", "x", "d0", "--json"))["n"] == 100


def test_find_as_a_table_names_the_next_page(filled: Run) -> None:
    result = filled("find", "x", "--order-by", "n", "--limit", "2")
    assert "d0" in result.stdout
    assert "d2" not in result.stdout
    assert "more: --after " in result.stderr
    assert "more" not in filled("find", "x").stderr


def test_wide_documents_say_what_is_not_shown(run: Run) -> None:
    run("put", "x", json.dumps({f"field{n}": n for n in range(12)}))
    assert "field11" in run("find", "x").stderr


@pytest.fixture
def searchable(tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        x = db.collection("x", indexes=[Text("content"), Vector("v", dim=2)])
        x.put({"id": "zh", "content": "下午和小王开会", "n": 1, "v": [1, 0]})
        x.put({"id": "en", "content": "the umbrella is in the car", "n": 2, "v": [0, 1]})


@pytest.mark.usefixtures("searchable")
def test_search_by_words_by_vector_and_with_a_filter(run: Run) -> None:
    (hit,) = answer(run("search", "x", "下午的会议", "--json"))["hits"]
    assert (hit["id"], hit["document"]["n"]) == ("zh", 1)
    assert "**umbrella**" in run("search", "x", "umbrella").stdout
    near = answer(run("search", "x", "--vector", "[0.1, 1]", "--limit", "1", "--json"))
    assert [one["id"] for one in near["hits"]] == ["en"]
    both = run("search", "x", "car", "--vector", "[1, 0]", "--where", '{"n": 1}', "--json")
    assert [one["id"] for one in answer(both)["hits"]] == ["zh"]
    told = answer(run("search", "x", "car", "--explain", "--json"))
    assert set(told["how"]["indexes"]) == {"text:content"}
    nothing = answer(run("search", "x", "nowhere", "--json", code=1))
    assert nothing == {"hits": [], "cursor": None}


def test_search_shows_pages_and_the_best_of_each_group(run: Run, tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        x = db.collection("x", indexes=[Text("content")])
        for n, content in enumerate(["tea", "tea and rain", "tea and rain and late"]):
            x.put({"id": f"{n}", "content": content, "doc": "ab"[n // 2]})
    asked = ("search", "x", "tea", "--limit", "2")
    first = answer(run(*asked, "--json"))
    assert [hit["id"] for hit in first["hits"]] == ["0", "1"]
    assert f"more: --after {first['cursor']}" in run(*asked).output
    rest = answer(run(*asked, "--after", first["cursor"], "--json"))
    assert [hit["id"] for hit in rest["hits"]] == ["2"]
    assert rest["cursor"] is None
    grouped = answer(run(*asked, "--group-by", "doc", "--explain", "--json"))
    assert [hit["id"] for hit in grouped["hits"]] == ["0", "2"]
    assert grouped["how"]["group_by"] == {"field": "doc", "rows": 3}
    assert "group_by" in run(*asked, "--group-by", "doc", "--explain").stdout
    run(*asked, "--group-by", "", code=2)
    run(*asked, "--after", "nonsense", code=2)
    run(*asked, "--after", first["cursor"], "--group-by", "doc", code=2)


def test_search_with_neighbors_finds_the_answer_beside_the_question(
    run: Run, tmp_path: Path
) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        x = db.collection("x", indexes=[Text("content"), Ordered("session", "n")])
        x.put({"id": "asked", "content": "where is the umbrella", "session": "s", "n": 1})
        x.put({"id": "answer", "content": "in the car", "session": "s", "n": 2})
    alone = answer(run("search", "x", "umbrella", "--json"))
    assert [hit["id"] for hit in alone["hits"]] == ["asked"]
    asked = ("search", "x", "umbrella", "--neighbors", "session,n", "--explain")
    found = answer(run(*asked, "--json"))
    assert [hit["id"] for hit in found["hits"]] == ["asked", "answer"]
    assert found["how"]["neighbors"]["joined"] == 1
    assert "ordered:session,n" in run(*asked).stdout
    run("search", "x", "umbrella", "--neighbors", "session", code=2)
    run("search", "x", "umbrella", "--neighbors", "", code=2)
    run("search", "x", "umbrella", "--neighbors", "n,session", code=2)


@pytest.mark.usefixtures("searchable")
@pytest.mark.parametrize(
    "wrong",
    [
        ["--vector", "x"],
        ["--vector", "[1]"],
        ["--query", '"x'],
        ["x", "--query", "x"],
        ["x", "--where", "3"],
        [],
    ],
)
def test_search_for_nonsense_is_wrong_use(run: Run, wrong: list[str]) -> None:
    run("search", "x", *wrong, code=2)


@pytest.mark.usefixtures("searchable")
def test_vectors_are_exported_and_imported_without_loss(run: Run, tmp_path: Path) -> None:
    text = answer(run("get", "x", "zh", "--json"))
    assert text["v"] == {"$vector": "AACAPwAAAAA="}
    run("put", "x", json.dumps({**text, "id": "copy"}))
    with amberdb.open(tmp_path / "t.amber") as db:
        copy = db.collection("x").get("copy")
        assert copy is not None
        assert copy["v"].tolist() == [1.0, 0.0]


def test_nothing_found_is_code_1_and_still_json(filled: Run) -> None:
    result = filled("find", "x", "--where", '{"n": 99}', "--json", code=1)
    assert answer(result) == {"documents": [], "cursor": None}
    assert answer(filled("count", "x", "--where", '{"n": 99}', "--json")) == {"count": 0}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--where", "{bad"],
        ["--where", "[]"],
        ["--where", '{"n": {"$foo": 1}}'],
        ["--after", "nonsense"],
        ["--order-by", "n,n"],
    ],
)
def test_question_without_sense_is_wrong_use(filled: Run, arguments: list[str]) -> None:
    filled("find", "x", *arguments, code=2)


# -- import and export ---------------------------------------------------------------------------


def test_import_export_round_trip_over_files(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz"
    source.write_text('{"id": "a", "at": "2026-01-01T00:00:00Z", "n": 1.0}\n{"id": "b"}\n')
    options = ["--index", "n,-at", "--unique", "key:sparse", "--expires-at", "gone"]
    report = answer(run("import", "x", str(source), *options, "--dates", "at", "--json"))
    assert (report["stored"], report["complete"], report["bad"]) == (2, True, 0)
    indexes = answer(run("info", "--json"))["collections"]["x"]["indexes"]
    assert indexes == {"ordered:n,-at": "ready", "unique:key": "ready"}
    exported = run("export", "x").stdout
    assert lines(run("export", "x", "--where", '{"n": 1}')) == [
        {"id": "a", "at": {"$date": "2026-01-01T00:00:00Z"}, "n": 1.0}
    ]
    assert answer(run("export", "x", "-o", str(target), "--json"))["documents"] == 2
    run("import", "y", str(target))
    assert run("export", "y").stdout == exported
    assert "2 documents" in run("export", "y", "-o", str(target)).stdout


def test_import_adds_indexes_and_drops_none(filled: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "z"}\n')
    filled("import", "x", str(source), "--index", "n")
    filled("import", "x", str(source), "--index", "entity,n", "--index", "n")
    filled("import", "x", str(source))
    indexes = answer(filled("info", "--json"))["collections"]["x"]["indexes"]
    assert list(indexes) == ["ordered:n", "ordered:entity,n"]


def test_import_reads_stdin(run: Run) -> None:
    run("import", "x", "-", input='{"id": "a"}\n')
    assert lines(run("export", "x")) == [{"id": "a"}]


def test_import_stopped_at_a_bad_line_says_where_to_go_on(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "a"}\n{bad\n{"id": "b"}\n')
    result = run("import", "x", str(source), code=5)
    assert "line 2" in result.stderr
    assert "--from-line 2" in result.stderr
    report = answer(run("import", "x", str(source), "--json", code=5))
    assert (report["complete"], report["next_line"]) == (False, 2)
    result = run("import", "x", str(source), "--on-error", "skip", code=5)
    assert "line 2: not JSON" in result.stderr
    assert "1 lines skipped" in result.stdout
    run("import", "x", str(source), "--from-line", "3")
    assert [one["id"] for one in lines(run("export", "x"))] == ["a", "b"]


def test_interrupted_import_says_where_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_lines, "_say_bad", interrupt)
    text = '{"id": "a"}\n{bad\n{"id": "b"}\n'
    result = run("import", "x", "-", "--on-error", "skip", code=130, input=text)
    assert "1 stored, resume with --from-line 3" in result.stderr
    assert result.stderr.endswith("error: interrupted\n")


def test_expired_import_is_not_seen(run: Run) -> None:
    past = '{"id": "a", "until": "2001-01-01T00:00:00Z"}\n{"id": "b", "until": null}\n'
    run("import", "x", "-", "--expires-at", "until", input=past)
    assert [one["id"] for one in lines(run("export", "x"))] == ["b"]


def test_import_of_a_missing_file_creates_no_database(run: Run, tmp_path: Path) -> None:
    assert "nope" in run("import", "x", str(tmp_path / "nope.jsonl"), code=2).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--index", ""], ["--index", "a,a"], ["--on-error", "x"]])
def test_import_with_a_wrong_option_is_wrong_use(tmp_path: Path, option: list[str]) -> None:
    command = ["import", str(tmp_path / "t.amber"), "x", "-", *option]
    assert CliRunner().invoke(app, command, input="{}").exit_code == 2


def test_full_disk_is_code_6(filled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFullError("no space: free some")

    monkeypatch.setattr(amberdb.Collection, "put_many", full)
    filled("put", "x", "{}", code=6)
    result = filled("import", "x", "-", input='{"id": "a"}', code=6)
    assert "--from-line 1" in result.stderr


# -- log, info, check ------------------------------------------------------------------------------


def test_log_tells_the_last_changes_or_those_behind_an_lsn(filled: Run) -> None:
    filled("put", "y", '{"id": "last"}')
    told = lines(filled("log", "--limit", "2", "--json"))
    assert [one["id"] for one in told] == ["d9", "last"]
    assert told[1]["document"] == {"id": "last"}
    assert told[1]["op"] == "put"
    behind = lines(filled("log", "--since", str(told[0]["lsn"]), "--json"))
    assert [one["id"] for one in behind] == ["last"]
    assert "last" in filled("log").stdout


def test_log_by_limit_never_cuts_a_commit(filled: Run) -> None:
    filled("put", "y", '{"id": "last"}')
    told = lines(filled("log", "--since", "0", "--limit", "3", "--json"))
    assert len(told) == 10
    rest = lines(filled("log", "--since", str(told[-1]["lsn"]), "--limit", "3", "--json"))
    assert [one["id"] for one in rest] == ["last"]


def test_log_of_one_collection(filled: Run) -> None:
    filled("put", "y", '{"id": "last"}')
    assert [one["id"] for one in lines(filled("log", "--collection", "y", "--json"))] == ["last"]
    last = lines(filled("log", "--json"))[-1]["lsn"]
    filled("log", "--since", str(last), "--json", code=1)


def test_log_follows_until_it_is_interrupted(
    filled: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Database.changes
    application = amberdb.open(tmp_path / "t.amber")

    def then_interrupt(db: Database, since: Any = None, *, follow: bool = False) -> Any:
        if follow:
            application.collection("x").put({"id": "while following"})
            yield next(changes(db, since, follow=True))
            raise KeyboardInterrupt
        yield from changes(db, since)

    monkeypatch.setattr(Database, "changes", then_interrupt)
    with application:
        told = lines(filled("log", "--limit", "1", "--follow", "--json", code=130))
    assert [one["id"] for one in told] == ["d9", "while following"]


def test_log_takes_no_stats(filled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which count and read much, for an Lsn."""

    def refuse(_: Database) -> None:
        pytest.fail("stats() was called")

    monkeypatch.setattr(Database, "stats", refuse)
    assert "put" in filled("log", "--collection", "x").stdout


def test_info_as_tables(filled: Run) -> None:
    shown = filled("info").stdout
    assert "visible_lsn" in shown
    assert "x" in shown


def test_upgrade(run: Run) -> None:
    with older_format():
        run("put", "x", json.dumps({"id": "d"}))
    report = answer(run("upgrade", "--json"))
    assert report["pairs_after"] == report["pairs_before"]
    assert answer(run("upgrade", "--json")) is None
    assert "newest format" in run("upgrade").stdout
    assert answer(run("get", "x", "d", "--json")) == {"id": "d"}
    assert answer(run("check", "--json"))["ok"]


def test_compact(filled: Run) -> None:
    report = answer(filled("compact", "--json"))
    assert 0 < report["bytes_after"] <= report["bytes_before"]
    assert "compacted" in filled("compact").stdout
    assert answer(filled("check", "--json"))["ok"]


def test_erase(filled: Run, tmp_path: Path) -> None:
    filled("backup", str(tmp_path / "full"))
    receipt = answer(
        filled("erase", "x", "--where", '{"id": "d1"}', "--reason", "asked to", "--json")
    )
    assert (receipt["documents"], receipt["reason"]) == (1, "asked to")
    assert receipt["completed"].startswith("20")
    assert [one["path"] for one in receipt["backups"]] == [str(tmp_path / "full")]
    shown = filled("erase", "x", "--where", '{"id": "d1"}', "--reason", "once more").stdout
    assert "erased" in shown
    assert "backups that may still hold them" in shown
    filled("get", "x", "d1", code=1)
    filled("erase", "x", "--where", "[]", "--reason", "y", code=2)
    filled("erase", "x", "--where", "{}", "--reason", "", code=2)


def test_rescue(filled: Run, tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    with amberdb.open(path, background=False, backups=amberdb.RollingBackups()) as db:
        db.backup()
    assert answer(filled("rescue", "--json")) == {"rescued": None}
    assert "nothing was changed" in filled("rescue").stdout
    for as_json in (True, False):
        (data,) = path.glob("data-*/data.mdb")
        data.write_bytes(b"")
        assert "amberdb rescue" in filled("get", "x", "d1", code=4).stderr
        if as_json:
            found = answer(filled("rescue", "--json"))["rescued"]
            assert Path(found["damaged"]).is_dir()
            assert found["lost"] == 0, "its log is sound"
            with amberdb.open(path, background=False, backups=amberdb.RollingBackups()) as db:
                db.backup()
        else:
            assert "restored" in filled("rescue", "--backups", f"{path}.backups").stdout
        filled("get", "x", "d1")
    (data,) = path.glob("data-*/data.mdb")
    data.write_bytes(b"")
    filled("rescue", "--backups", str(tmp_path / "nowhere"), code=4)


def test_check_of_a_sound_database(filled: Run) -> None:
    report = answer(filled("check", "--json"))
    assert report["ok"] is True
    assert report["documents"] == 10
    assert "sound" in filled("check").stdout


def test_check_with_problems_is_code_1_and_names_the_file(filled: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "t.amber" / "MANIFEST"
    manifest.unlink()
    problems = answer(filled("check", "--json", code=1))["problems"]
    assert problems == [f"{manifest} is missing"]
    assert "is missing" in filled("check", code=1).stdout


def test_repair_says_what_it_would_do_and_then_does_it(filled: Run, tmp_path: Path) -> None:
    path = tmp_path / "t.amber"
    assert "nothing to repair" in filled("repair").stdout
    for segment in (path / "wal").glob("*.wal"):  # which would still have the document
        segment.unlink()
    data_file = path / "data-1" / "data.mdb"
    data = bytearray(data_file.read_bytes())
    at = data.rindex(b"entity")
    data[at] ^= 1
    data_file.write_bytes(data)
    plan = answer(filled("repair", "--json", code=1))
    assert (plan["needed"], plan["applied"], plan["documents"]) == (True, False, {"x": 9})
    assert [name for name, _ in plan["lost_ids"]] == ["x"]
    shown = filled("repair", code=1)
    assert "would be lost" in shown.stdout
    assert "--apply" in shown.stderr
    done = filled("repair", "--apply")
    told = "".join(done.stdout.split()).replace("│", "")  # a long path goes over several lines
    assert "data-1.broken" in told
    filled("check")
    assert answer(filled("count", "x", "--json"))["count"] == 9


def test_repair_of_a_manifest_loses_nothing(filled: Run, tmp_path: Path) -> None:
    filled("put", "x", '{"id": "last"}')
    (tmp_path / "t.amber" / "MANIFEST").write_bytes(b"")
    done = answer(filled("repair", "--apply", "--json"))
    assert done["lost_lsns"] == []
    assert answer(filled("get", "x", "last", "--json")) == {"id": "last"}


# -- opening -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [["info"], ["get", "x", "a"], ["find", "x"], ["export", "x"], ["log"], ["check"], ["repair"]],
)
def test_missing_database_is_code_3_and_is_not_created(
    run: Run, tmp_path: Path, verb: list[str]
) -> None:
    run(*verb, code=3)
    assert list(tmp_path.iterdir()) == []


def test_beside_an_application_reads_are_answered_and_writes_name_the_owner(
    filled: Run, tmp_path: Path
) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        db.collection("x").put({"id": "just now"})
        assert json.loads(filled("get", "x", "just now", "--json").stdout) == {"id": "just now"}
        assert json.loads(filled("count", "x", "--json").stdout) == {"count": 11}
        assert lines(filled("log", "--limit", "1", "--json"))[0]["id"] == "just now"
        assert len(filled("export", "x").stdout.splitlines()) == 11
        assert json.loads(filled("info", "--json").stdout)["collections"]["x"]["documents"] == 11
        checked = filled("check", "--json")
        assert json.loads(checked.stdout)["documents"] >= 11
        assert f"process {os.getpid()}" in checked.stderr
        for verb in (["put", "x", "{}"], ["compact"], ["repair"]):  # here in one process
            assert "this process" in filled(*verb, code=3).stderr


@pytest.mark.skipif(sys.platform != "linux", reason="sharing needs Linux")
def test_beside_an_application_that_shares_writes_go_to_it(filled: Run, tmp_path: Path) -> None:
    with child_leads(tmp_path / "t.amber") as child:
        filled("put", "x", '{"id": "just now", "entity": "c"}')
        filled("import", "y", "-", input='{"id": "a"}\n{"id": "b"}\n')
        backup = tmp_path / "b.amberbak"
        assert "b.amberbak" in filled("backup", str(backup), "--json").stdout
        erased = answer(
            filled("erase", "x", "--where", '{"entity": "c"}', "--reason", "r", "--json")
        )
        assert [each["path"] for each in erased["backups"]] == [str(backup)]
        filled("compact")
        assert "another process" not in filled("upgrade").output
        child.end()
    with amberdb.open(tmp_path / "t.amber") as db:
        assert len(db["x"]) == 10
        assert db.check().ok


def test_foreign_directory_is_code_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.amber").mkdir()
    (tmp_path / "t.amber" / "letter.txt").write_text("dear")
    run("put", "x", "{}", code=3)


def test_damage_is_code_4(filled: Run, tmp_path: Path) -> None:
    manifest = tmp_path / "t.amber" / "MANIFEST"
    data = bytearray(manifest.read_bytes())
    data[40] ^= 1
    manifest.write_bytes(data)
    assert "MANIFEST" in filled("info", code=4).stderr


def test_full_scan_is_a_warning_on_one_line(run: Run, tmp_path: Path) -> None:
    with amberdb.open(tmp_path / "t.amber") as db:
        db.collection("x", indexes=[Ordered("n")]).put_many({"m": n} for n in range(10_001))
    result = run("find", "x", "--where", '{"m": 5}', "--json")
    assert result.stderr.startswith("warning: ")
    assert result.stderr.count("\n") == 1
    assert len(answer(result)["documents"]) == 1


# -- help ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_help_tells_the_exit_codes() -> None:
    for command in ([], *(words for words, _ in commands())):
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "Exit codes" in result.stdout
        assert command in ([], ["browse"]) or "--json" in result.stdout
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("amberdb ")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["get"], ["info", "x", "--nonsense"]])
def test_wrong_command_is_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


# -- profiles --------------------------------------------------------------------------------


def test_profiles_come_from_files_and_go_back(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "users.json"
    source.write_bytes(b'\xef\xbb\xbf{"ann": {"last_updated": "2026-01-01T08:00:00"}, "bob": 7}')
    told = run("import-profiles", str(source), "--zone", "+08:00", "--dry-run", "--json", code=5)
    assert (answer(told)["imported"], len(answer(told)["broken"])) == (1, 1)
    told = run("import-profiles", str(source), "--zone", "Asia/Shanghai", code=5)
    assert "not imported: users.json: 'bob'" in told.stderr
    assert "2 profiles: 1 imported" in told.stdout
    again = run("import-profiles", str(source), "--zone", "+08:00", "--json", code=5)
    assert answer(again)["same"] == 1
    out = tmp_path / "out"
    assert answer(run("export-profiles", str(out), "--json"))["profiles"] == 1
    assert json.loads((out / "ann.json").read_text())["last_updated"] == "2026-01-01T00:00:00Z"
    assert "1 profiles" in run("export-profiles", str(tmp_path / "all.jsonl")).stdout
    for wrong in ([str(tmp_path / "none")], [str(source), "--zone", "Nowhere"]):
        run("import-profiles", *wrong, code=2)
    run("export-profiles", str(out), "--name", "other", code=2)


def test_profiles_come_from_sqlite(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table users (user_id, basic_info)")
        db.execute("""insert into users values ('ann', '{"city": "x"}')""")
        db.commit()
    assert "1 imported" in run("import-profiles", str(path), "--table", "users").stdout
    assert "no such table" in run("import-profiles", str(path), code=2).stderr


def test_memories_come_from_mem0_and_from_the_tables(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "mem0.json"
    source.write_text(
        '[{"id": "a", "memory": "likes tea", "user_id": "ann"}, {"id": "b", "memory": "is calm"},'
        ' {"id": "c", "memory": "x", "user_id": "ann", "expiration_date": "2001-01-01"}]'
    )
    told = run("import-memories", str(source), "--dry-run", "--json", code=5)
    assert (answer(told)["imported"], len(answer(told)["broken"])) == (1, 1)
    told = run("import-memories", str(source), "--entity", "bob", "--zone", "+08:00")
    assert "expired, not imported: memory 3: 'c'" in told.stderr
    assert "2 imported" in told.stdout
    path = tmp_path / "z.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table event_memories (id, entity_id, content)")
        db.execute("insert into event_memories values ('e', 'ann', 'went hiking')")
        db.commit()
    for count in ("1 imported, 0 the same", "0 imported, 1 the same"):
        assert count in run("import-memories", str(path), "--name", "z").stdout
    for wrong in (["none"], [str(source), "--zone", "Nowhere"], [str(source), "--layer", "x"]):
        run("import-memories", *wrong, code=2)


# -- somebody --------------------------------------------------------------------------------


def test_what_is_held_of_somebody_is_shown_and_forgotten(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "mem0.json"
    source.write_text('[{"id": "a", "memory": "likes tea", "user_id": "ann"}]')
    run("import-memories", str(source))
    assert "profile" in run("held", "ann").stdout
    assert answer(run("held", "ann", "--json"))["profile"][0]["content"] == "likes tea"
    out = tmp_path / "ann.json"
    assert "documents of 'ann'" in run("held", "ann", "--output", str(out)).stderr
    assert json.loads(out.read_text())["profile"][0]["id"] == "a"
    receipt = answer(run("forget", "ann", "--reason", "asked", "--json"))
    assert receipt["collections"]["profile"] == 1
    assert run("held", "ann", code=1).stdout.count("profile") == 0
    assert "erased" in run("forget", "ann", "--reason", "again").stdout
