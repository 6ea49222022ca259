"""The command line with the URL of a server in place of a directory."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from amberdb.cli.__main__ import app
from support.servers import PASSWORD


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    assert PASSWORD not in result.output
    return result.stdout or result.stderr


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_commands_take_the_url_of_a_server(url: str, tmp_path: Path) -> None:
    assert "no database" in run("find", url, "note", code=3)
    run("put", url, "note", '{"id": "a", "text": "the umbrella"}')
    lines = tmp_path / "notes.jsonl"
    lines.write_text('{"id": "b", "text": "雨伞"}\n{"id": "c", "n": 1}\n')
    run("import", url, "note", str(lines), "--index", "n")
    assert read("get", url, "note", "a")["text"] == "the umbrella"
    found = run("find", url, "note", "--where", '{"n": 1}', "--json")
    assert '"c"' in found
    assert read("info", url)["collections"]["note"]["documents"] == 3
    assert len(run("export", url, "note").splitlines()) == 3
    assert read("check", url)["ok"]
    assert "is not there on PostgreSQL" in run("compact", url, code=2)
    assert "is not there on PostgreSQL" in run("backup", url, str(tmp_path / "b"), code=2)
    for command in ("repair", "rescue"):
        assert "is for a directory" in run(command, url, code=2)


def test_verbs_about_collections_and_changes_take_the_url_of_a_server(
    url: str, tmp_path: Path
) -> None:
    notes = [{"id": f"n{n}", "n": n, "text": f"tea {n}"} for n in range(20)]
    run("put", url, "note", json.dumps(notes))
    assert "amberdb index add" in run("search", url, "note", "tea", code=2)
    run("index", "add", url, "note", "text", "text")
    run("index", "add", url, "note", "ordered", "n")
    assert len(read("search", url, "note", "tea 7")["hits"]) == 10
    assert [each["state"] for each in read("index", "list", url)] == ["ready", "ready"]
    assert read("schema", url)["note"]["documents"] == 20
    assert read("collections", url)[0]["indexes"] == 2
    assert read("analyze", url, "note", "--sample", "5")["read"] == 5
    assert read("stats", url)["documents"] == 20
    assert "ordered:n" in run("info", url)
    assert read("update", url, "note", '{"n": 100}', "--where", '{"n": {"$gte": 15}}') == {
        "updated": 5,
        "dry_run": False,
    }
    assert read("delete", url, "note", "n0", "n1")["deleted"] == 2
    assert read("count", url, "note", "--where", '{"n": 100}') == {"count": 5}
    copied = str(tmp_path / "copied.amber")
    assert read("copy", url, "note", copied)["documents"] == 18
    assert read("diff", url, copied)["documents"] == []
    run("update", copied, "note", '{"n": 0}', "n5")
    assert json.loads(run("diff", url, copied, "--json", code=1))["documents"][0]["id"] == "n5"
    assert read("copy", copied, "note", url, "--as", "again")["documents"] == 18
    run("index", "drop", url, "note", "ordered:n")
    run("rename", url, "again", "other")
    assert read("drop", url, "other")["documents"] == 18
    assert [each["collection"] for each in read("collections", url)] == ["note"]
    csv = run("export", url, "note", "--format", "csv", "--fields", "id,n")
    assert csv.splitlines()[0] == "id,n"
    assert read("check", url)["ok"]
