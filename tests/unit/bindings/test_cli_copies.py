"""copy, diff and stats on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import amberdb
from amberdb import Ordered, Text
from amberdb.cli.status import info
from support.command_line import CommandLine


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CommandLine]:
    run = CommandLine(tmp_path)
    with amberdb.open(run.path, background=False) as db:
        x = db.collection("x", indexes=[Ordered("n"), Text("t")], expires_at="until", version=2)
        x.put_many({"id": f"d{n:03}", "n": n, "t": f"tea {n}"} for n in range(1200))
    yield run
    run.check()


# -- copy ------------------------------------------------------------------------------------


def test_copy_has_documents_times_and_declaration(cli: CommandLine) -> None:
    other = CommandLine(cli.folder / "other")
    (cli.folder / "other").mkdir()
    report = json.loads(cli("copy", "x", other.path, "--json").stdout)
    assert report == {"documents": 1200, "collection": "x", "target": other.path}
    with amberdb.open(cli.path, read_only=True) as a, amberdb.open(other.path) as b:
        assert list(a["x"].documents()) == list(b["x"].documents())
        assert a["x"].record("d000").created_at == b["x"].record("d000").created_at
        one, two = a.definition("x"), b.definition("x")
        assert (one.specs, one.expires_at, one.version) == (two.specs, two.expires_at, two.version)
    assert other.read("search", "x", "tea 7", "--limit", "1")["hits"][0]["id"] == "d007"
    other.check()


def test_copy_of_some_under_another_name(cli: CommandLine) -> None:
    ask = ["x", cli.path, "--as", "y", "--where", '{"n": {"$lt": 7}}']
    assert "7 documents are in y" in cli("copy", *ask, "--no-indexes").stdout
    assert cli.read("index list", "y") == []
    cli("copy", *ask)  # again, with the indexes that are missing
    assert [each["name"] for each in cli.read("index list", "y")] == ["ordered:n", "text:t"]
    assert cli.read("count", "y") == {"count": 7}


def test_copy_onto_itself_or_of_nothing_is_wrong_use(cli: CommandLine) -> None:
    assert "give --as" in cli("copy", "x", cli.path, code=2).stderr
    assert "give --as" in cli("copy", "x", f"{cli.folder}/./t.amber", code=2).stderr
    other = cli.folder / "other.amber"
    cli("copy", "nowhere", str(other), code=2)
    cli("copy", "x", str(other), "--where", "[]", code=2)
    cli("copy", "x", str(other), "--where", '{"$no": 1}', code=2)
    assert not other.exists()


# -- diff ------------------------------------------------------------------------------------


def test_diff_of_backups_a_chain_and_a_database(cli: CommandLine) -> None:
    full, later = str(cli.folder / "full"), str(cli.folder / "later")
    cli("backup", full)
    cli("put", "x", '[{"id": "new", "n": 1}, {"id": "d001", "n": 1, "t": "tea 1"}]')
    cli("update", "x", '{"n": -5, "a": {"b": 1}}', "d002")
    cli("delete", "x", "d003")
    cli("put", "y", "{}")
    cli("backup", later, "--base", full)
    sides = ((full, f"{full},{later}"), (full, cli.path))
    for before, after in sides:
        result = cli.of(["diff", before, after, "--json"], code=1)
        found = json.loads(result.stdout)
        x, y = found["collections"]
        assert x == {
            "collection": "x",
            "added": 1,
            "removed": 1,
            "changed": 1,
            "same": 1198,
            "declaration": "same",
        }
        assert (y["added"], y["declaration"]) == (1, "added")
        changes = {each["id"]: (each["change"], each["fields"]) for each in found["documents"]}
        assert changes["d002"] == ("changed", ["n", "a"])
        assert changes["d003"] == ("removed", [])
        assert changes["new"] == ("added", [])
        assert "d001" not in changes
    same = cli.of(["diff", f"{full},{later}", cli.path])
    assert "no document differs" in same.stdout


def test_diff_shows_as_many_as_are_asked_for(cli: CommandLine) -> None:
    full = str(cli.folder / "full")
    cli("backup", full)
    cli("update", "x", '{"a": {"b": 2}}', "--where", '{"n": {"$lt": 10}}')
    shown = cli.of(["diff", full, cli.path, "--limit", "3"], code=1)
    assert "3 of 10 documents are shown" in shown.stderr
    rows = cli.of(["diff", full, cli.path, "--limit", "2", "--format", "csv"], code=1).stdout
    assert rows.splitlines()[1] == 'x,d000,changed,"[""a""]"'
    only = cli.of(["diff", full, cli.path, "--collection", "y", "--json"], code=2)
    assert "no collection" in only.stderr


def test_diff_of_what_is_none(cli: CommandLine) -> None:
    (cli.folder / "junk").write_bytes(b"junk")
    cli.of(["diff", str(cli.folder / "junk"), cli.path], code=4)
    cli.of(["diff", str(cli.folder / "nowhere"), cli.path], code=3)


# -- stats -----------------------------------------------------------------------------------


def test_stats_once_and_again(cli: CommandLine) -> None:
    assert cli.read("stats")["documents"] == 1200
    assert "log_bytes" in cli("stats").stdout
    ask = ["--watch", "--samples", "3", "--every-s", "0.01"]
    lines = cli("stats", *ask).stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:2] == ["time", "commits_per_s"]
    samples = [json.loads(line) for line in cli("stats", *ask, "--json").stdout.splitlines()]
    assert [each["commits_per_s"] for each in samples] == [None, 0.0, 0.0]


def test_stats_of_the_last_minutes(cli: CommandLine) -> None:
    found = cli.read("stats", "--minutes")
    assert sum(each["commits"] for each in found) == 2  # the declaration and the documents
    rows = cli("stats", "--minutes", "--format", "csv").stdout.splitlines()
    assert rows[0].startswith("time,commits,syncs")
    assert len(rows) == 1 + len(found)
    assert cli("stats", "--minutes").stdout.startswith("minutes")
    assert cli("stats", "--format", "jsonl").stdout.count("\n") == 1
    cli("stats", "--watch", "--minutes", code=2)
    cli("stats", "--watch", "--format", "csv", code=2)
    assert " minutes " not in cli("info").stdout


def test_stats_see_what_an_application_writes(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with amberdb.open(cli.path) as db:

        class Pause:
            def wait(self, _: float) -> None:
                db["x"].put_many({} for _ in range(5))

        monkeypatch.setattr(info, "_PAUSE", Pause())
        found = cli("stats", "--watch", "--samples", "2", "--json").stdout.splitlines()
    one, two = map(json.loads, found)
    assert (one["documents"], two["documents"]) == (1200, 1205)
    assert two["documents_per_s"] > two["commits_per_s"] > 0
