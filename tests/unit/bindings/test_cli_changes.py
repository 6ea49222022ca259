"""update and delete on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from amberdb import WritableCollection
from amberdb.cli.documents import writing
from support.command_line import CommandLine


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """With ten documents, changed three at a time."""
    monkeypatch.setattr(writing, "BATCH", 3)
    run = CommandLine(tmp_path)
    documents = [{"id": f"d{n}", "n": n, "place": {"city": "Oslo"}} for n in range(10)]
    run("put", "x", json.dumps(documents))
    yield run
    run.check()


def test_update_of_ids(cli: CommandLine) -> None:
    patch = '{"place": {"zip": "0150"}, "$inc": {"n": 10}, "$unset": ["gone"]}'
    assert cli.read("update", "x", patch, "d1", "d2") == {"updated": 2, "dry_run": False}
    assert cli.read("get", "x", "d1") == {
        "id": "d1",
        "n": 11,
        "place": {"city": "Oslo", "zip": "0150"},
    }
    result = cli("update", "x", '{"n": 0}', "d3", "nowhere", code=1)
    assert "1 of the ids are not there" in result.stderr
    assert cli.read("get", "x", "d3")["n"] == 0
    cli("update", "x", '{"at": "2026-01-01T00:00:00Z"}', "d4", "--dates", "at")
    assert cli.read("get", "x", "d4")["at"] == {"$date": "2026-01-01T00:00:00Z"}


def test_update_of_all_that_match(cli: CommandLine) -> None:
    where = ["--where", '{"n": {"$gte": 2}}']
    assert cli.read("update", "x", '{"n": 0}', *where, "--dry-run")["updated"] == 8
    assert cli.read("count", "x", *where) == {"count": 8}
    # It changes what the filter and the order look at, and meets each document once.
    ask = [*where, "--order-by", "-n", "--limit", "7"]
    assert cli.read("update", "x", '{"$inc": {"n": 100}}', *ask)["updated"] == 7
    assert sorted(each["n"] for each in cli.documents()) == [0, 1, 2, *range(103, 110)]


def test_a_document_that_matches_no_more_is_left(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = WritableCollection.update

    def and_another(self: WritableCollection, id: str, patch: object) -> object:
        if id == "d0":
            update(self, "d1", {"n": -1})
        return update(self, id, patch)  # type: ignore[arg-type]  # pyright: ignore

    monkeypatch.setattr(WritableCollection, "update", and_another)
    monkeypatch.setattr(writing, "BATCH", 1)
    assert cli.read("update", "x", '{"done": true}', "--where", '{"n": {"$gte": 0}}') == {
        "updated": 9,
        "dry_run": False,
    }
    assert "done" not in cli.read("get", "x", "d1")


def test_a_change_that_stops_says_what_it_did(cli: CommandLine) -> None:
    cli("put", "x", '{"id": "d8", "n": 1, "place": "text"}')
    result = cli("update", "x", '{"$inc": {"place": 1}}', "--where", '{"place": "text"}', code=2)
    assert "before" not in result.stderr
    cli("update", "x", '{"place": 5}', "--where", '{"n": {"$lt": 5}}')
    result = cli("update", "x", '{"$inc": {"place": 1}}', "--where", "{}", code=2)
    assert "3 documents were updated before" in result.stderr


def test_delete(cli: CommandLine) -> None:
    assert cli.read("delete", "x", "d1", "d2", "d1")["deleted"] == 2
    assert "1 of the ids" in cli("delete", "x", "d1", "d3", code=1).stderr
    ask = ["--where", '{"n": {"$gt": 0}}', "--order-by", "-n", "--limit", "4"]
    assert "4 documents would be deleted" in cli("delete", "x", *ask, "--dry-run").stdout
    assert "4 documents deleted" in cli("delete", "x", *ask).stdout
    assert [each["id"] for each in cli.documents()] == ["d0", "d4", "d5"]
    assert cli.read("delete", "x", "--where", "{}")["deleted"] == 3
    assert cli.read("count", "x") == {"count": 0}
    assert cli.read("delete", "x", "nowhere", "--dry-run", code=1)["deleted"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["delete", "x"],
        ["delete", "x", "d1", "--where", "{}"],
        ["delete", "x", "d1", "--limit", "1"],
        ["delete", "x", "d1", "--order-by", "n"],
        ["delete", "x", "--where", "[]"],
        ["delete", "y", "d1"],
        ["update", "x", "{}"],
        ["update", "x", "[]", "d1"],
        ["update", "x", "{bad", "d1"],
        ["update", "x", '{"id": "other"}', "d1"],
        ["update", "x", '{"$foo": 1}', "d1"],
        ["update", "x", '{"at": "yesterday"}', "d1", "--dates", "at"],
    ],
)
def test_a_change_without_sense_is_wrong_use(cli: CommandLine, wrong: list[str]) -> None:
    cli(*wrong, code=2)
    assert len(cli.documents()) == 10
