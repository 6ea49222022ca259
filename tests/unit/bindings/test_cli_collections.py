"""Verbs about collections: index, schema, collections, rename, drop, analyze, count."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import amberdb
from amberdb import Ordered, Text, Unique, Vector
from amberdb.cli.collections import analysis
from support.command_line import CommandLine


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CommandLine]:
    """On a database that the command line has made."""
    run = CommandLine(tmp_path)
    documents = [{"id": f"d{n}", "n": n, "content": f"tea number {n}"} for n in range(10)]
    run("put", "x", json.dumps(documents))
    yield run
    run.check()


# -- index -----------------------------------------------------------------------------------


def test_search_works_on_what_the_command_line_made(cli: CommandLine) -> None:
    wanted = f"amberdb index add {cli.path} x text FIELD"
    assert wanted in cli("search", "x", "tea", code=2).stderr
    cli("index add", "x", "text", "content")
    found = cli.read("search", "x", "number 7")
    assert found["hits"][0]["id"] == "d7"
    rows = cli("search", "x", "tea", "--limit", "2", "--format", "jsonl", "--fields", "n").stdout
    assert [json.loads(line).keys() for line in rows.splitlines()] == [{"id", "score", "n"}] * 2
    wanted = f"amberdb index add {cli.path} x vector FIELD --dim N"
    assert wanted in cli("search", "x", "--vector", "[1]", code=2).stderr


def test_indexes_of_every_kind_with_their_options(cli: CommandLine) -> None:
    cli("index add", "x", "ordered", "--name", "mine", "--sparse", "n,-at")
    cli("index add", "x", "ordered", "--", "-n", "content")
    cli("index add", "x", "unique", "id")
    text = ["--weight", "content=2", "--language", "french", "--no-stop-words"]
    cli("index add", "x", "text", "content", "title", *text)
    cli("index add", "x", "text", "title", "--language", "none")
    vector = ["--dim", "3", "--metric", "l2", "--multi", "--mean-of", "2", "--m", "8"]
    cli("index add", "x", "vector", "v", *vector, "--ef-construction", "64", "--ef", "32")
    with amberdb.open(cli.path, read_only=True) as db:
        assert db.definition("x").specs == [
            Ordered("n", "-at", name="mine", sparse=True),
            Ordered("-n", "content"),
            Unique("id"),
            Text("content", "title", weights={"content": 2}, language="french", stop_words=False),
            Text("title", language=None),
            Vector("v", dim=3, metric="l2", multi=True, mean_of=2, m=8, ef_construction=64, ef=32),
        ]
    listed = cli.read("index list", "x")
    assert {each["state"] for each in listed} == {"ready"}
    assert listed[0]["options"] == {"sparse": True}
    assert listed[5]["options"]["dim"] == 3
    assert "weights=[2.0, 1.0]" in cli("index list", "--format", "tsv").stdout
    cli("index drop", "x", "mine")
    assert "mine" not in cli("index list").stdout
    assert "it has ordered:-n,content" in cli("index drop", "x", "mine", code=2).stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ["x", "tree", "n"],
        ["x", "ordered", "n", "--dim", "3"],
        ["x", "text", "content", "--sparse"],
        ["x", "vector", "v"],
        ["x", "vector", "v", "w", "--dim", "2"],
        ["x", "text", "content", "--weight", "content=heavy"],
        ["x", "text", "content", "--segmenter", "other"],
        ["x", "ordered", ","],
        ["x", "ordered", "n", "n"],
        ["nowhere", "ordered", "n"],
        ["x", "vector", "v", "--embed-url", "http://127.0.0.1:1"],
        ["x", "vector", "v", "--embed-url", "http://127.0.0.1:1", "--embed-model", "m"],
    ],
)
def test_an_index_that_cannot_be_is_wrong_use(cli: CommandLine, wrong: list[str]) -> None:
    cli("index add", *wrong, code=2)
    assert cli.read("index list") == []


def test_an_index_of_the_same_name_is_not_replaced(cli: CommandLine) -> None:
    cli("index add", "x", "text", "content", "--language", "french")
    assert "drop it first" in cli("index add", "x", "text", "content", code=2).stderr
    cli("index add", "x", "text", "content", "--language", "french")
    assert len(cli.read("index list")) == 1


def test_a_unique_index_that_the_documents_violate_is_not_there(cli: CommandLine) -> None:
    cli("update", "x", '{"n": 5}', "d1")
    cli("index add", "x", "unique", "n", code=2)
    assert cli.read("index list") == []


def test_indexes_of_a_system_are_not_changed(cli: CommandLine) -> None:
    with amberdb.open(cli.path, background=False) as db:
        db.collection("memory", indexes=[Ordered("a")], owner="memory")
    assert "is one of the system" in cli("index add", "memory", "ordered", "b", code=2).stderr
    assert cli.read("collections")[0]["owner"] == "memory"


# -- collections and schema ------------------------------------------------------------------


def test_schema_and_collections_show_the_declarations(cli: CommandLine) -> None:
    with amberdb.open(cli.path, background=False) as db:
        db.collection(
            "y", indexes=[Ordered("at")], expires_at="until", required={"at": int}, version=2
        )
    (x, y) = cli.read("collections")
    assert (x["collection"], x["documents"], x["indexes"]) == ("x", 10, 0)
    assert (y["version"], y["expires_at"]) == (2, "until")
    found = cli.read("schema", "y")["y"]
    assert found["required"] == {"at": "int"}
    assert found["indexes"] == [
        {"name": "ordered:at", "kind": "ordered", "fields": ["at"], "options": {}, "state": "ready"}
    ]
    assert list(cli.read("schema")) == ["x", "y"]
    assert "until" in cli("schema").stdout
    cli("schema", "nowhere", code=2)


def test_rename_and_drop(cli: CommandLine) -> None:
    cli("rename", "x", "y")
    cli("count", "x", code=2)
    assert cli.read("count", "y") == {"count": 10}
    cli("put", "z", "{}")
    cli("rename", "z", "y", code=2)
    assert cli.read("drop", "y", "--dry-run") == {"documents": 10, "dry_run": True}
    assert "with 10 documents" in cli("drop", "y").stdout
    cli("drop", "y", code=2)
    assert [each["collection"] for each in cli.read("collections")] == ["z"]


# -- count and analyze -----------------------------------------------------------------------


def test_count(cli: CommandLine) -> None:
    assert cli("count", "x").stdout == "10\n"
    assert cli("count", "x", "--where", '{"n": {"$lt": 3}}').stdout == "3\n"
    cli("update", "x", '{"kind": "note"}', "d1", "d2")
    rows = cli("count", "x", "--by", "kind", "--format", "csv").stdout
    assert rows.splitlines() == ["value,documents", ",8", "note,2"]


def test_analyze_shows_types_shares_values_and_examples(cli: CommandLine) -> None:
    cli("put", "x", '{"id": "e", "n": "five", "tags": ["a"], "place": {"city": "Oslo"}}')
    found = cli.read("analyze", "x")
    assert (found["documents"], found["read"]) == (11, 11)
    fields = {each["field"]: each for each in found["fields"]}
    assert fields["n"]["types"] == "int:10 str:1"
    assert (fields["n"]["distinct"], fields["n"]["filled"]) == (11, "100.0%")
    assert fields["content"]["filled"] == "90.9%"
    assert fields["tags"]["types"] == "list<str>:1"
    assert fields["place.city"]["examples"] == "Oslo"
    assert fields["place"]["distinct"] is None
    assert "content" in cli("analyze", "x", "--where", '{"n": 3}').stdout
    assert cli.read("analyze", "x", "--where", '{"n": 99}')["fields"] == []


def test_analyze_of_many_documents_is_a_sample_that_is_spread(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "BATCH", 3)
    monkeypatch.setattr(analysis, "DISTINCT_MAX", 2)
    for more in ([], ["--where", '{"n": {"$gte": 0}}']):
        found = cli.read("analyze", "x", "--sample", "4", *more)
        assert (found["documents"], found["read"]) == (10, 4)
        (n,) = [each for each in found["fields"] if each["field"] == "n"]
        assert n["distinct"] == "2+"
        assert n["examples"] == "0 | 3 | 5"
    assert "a sample: 4 of 10 documents" in cli("analyze", "x", "--sample", "4").stderr


def test_analyze_has_a_limit_of_fields(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "PATHS_MAX", 2)
    assert "more than 2 fields" in cli("analyze", "x").stderr
    assert len(cli.read("analyze", "x")["fields"]) == 2
