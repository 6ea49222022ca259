"""backup, verify and restore on the command line: what they print, and their exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb.cli.__main__ import app


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a database of three documents."""
    monkeypatch.chdir(tmp_path)
    with amberdb.open("t.amber", background=False) as db:
        db.collection("x").put_many({"id": f"{n}"} for n in range(3))
    return tmp_path


def run(*arguments: str, code: int = 0) -> Any:
    """What is on stdout under --json."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return found[0] if len(found) == 1 else found


def test_a_chain_is_made_verified_and_restored(directory: Path) -> None:
    (full,) = run("backup", "t.amber", "full")["archives"]
    assert full["is_full"]
    assert full["documents"] == {"x": 3}
    run("put", "t.amber", "x", '{"id": "late"}')
    (later,) = run("backup", "t.amber", "later", "--base", "full")["archives"]
    assert later["after_lsn"] == full["lsn"]
    assert run("verify", "full", "later")["archives"] == [full, later]
    points = run("verify", "full", "later", "--points")
    assert [points[0]["lsn"], points[-1]["lsn"]] == [full["lsn"], later["lsn"]]
    assert run("restore", "all.amber", "full", "later")["documents"] == 4
    assert run("restore", "full", "later", "last.amber")["documents"] == 4
    some = run("restore", "some.amber", "full", "later", "--until", str(full["lsn"]))
    assert (some["lsn"], some["documents"]) == (full["lsn"], 3)
    some = run("restore", "time.amber", "full", "later", "--until", later["time"])
    assert some["documents"] == 4
    assert run("count", "all.amber", "x") == {"count": 4}


def test_tables_for_people(directory: Path) -> None:
    runner = CliRunner()
    made = runner.invoke(app, ["backup", "t.amber", "full"])
    assert made.exit_code == 0, made.output
    assert "full" in made.stdout
    listed = runner.invoke(app, ["verify", "full", "--points"])
    assert len(listed.stdout.split()) == 2
    assert "restored" in runner.invoke(app, ["restore", "r.amber", "full"]).stdout
    told = runner.invoke(app, ["log", "t.amber"])
    assert f"the last backup goes up to {listed.stdout.split()[0]}" in told.stderr


def test_exit_codes(directory: Path) -> None:
    run("backup", "t.amber", "full")
    run("backup", "t.amber", "full", code=2)
    run("backup", "t.amber", "later", "--base", "missing", code=2)
    run("restore", "t.amber", "full", code=2)
    run("restore", "r.amber", "full", "full", code=2)
    run("restore", "r.amber", "full", "--until", "1", code=1)
    run("restore", "r.amber", "full", "--until", "yesterday", code=2)
    run("restore", "r.amber", "full", "--until", "2026-01-01T00:00:00", code=2)
    data = Path("full").read_bytes()
    Path("full").write_bytes(data[:-1])
    run("verify", "full", code=4)
    run("restore", "r.amber", "full", code=4)
    assert not Path("r.amber").exists()
