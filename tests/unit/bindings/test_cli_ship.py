"""ship and restore of URLs on the command line: what they print, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb.cli.__main__ import app


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder is beside a database of three documents."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "away").mkdir()
    with amberdb.open("t.amber", background=False) as db:
        db.collection("x").put_many({"id": f"{n}"} for n in range(3))
    return f"file://{tmp_path}/away"


def run(*arguments: str, code: int = 0) -> Any:
    """What is on stdout under --json."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


def test_a_database_is_shipped_and_restored(target: str) -> None:
    first = run("ship", "t.amber", target, "--once")
    run("put", "t.amber", "x", '{"id": "late"}')
    second = run("ship", "t.amber", target, "--once", "--zstd")
    assert second["lsn"] > first["lsn"]
    listed = run("ship", "t.amber", target, "--list")["archives"]
    assert [listed[0]["kind"], listed[-1]["lsn"]] == ["full", second["lsn"]]
    assert run("restore", target, "all.amber")["documents"] == 4
    some = run("restore", "some.amber", target, "--until", listed[1]["time"])
    assert some["documents"] == 3


def test_a_key_is_in_a_file(target: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0f" * 32)
    (tmp_path / "wrong").write_text("f0" * 32)
    run("ship", "t.amber", target, "--once", "--key-file", "key")
    assert "is encrypted" in run("restore", target, "r.amber", code=2)
    assert "another key" in run("restore", target, "r.amber", "--key-file", "wrong", code=2)
    assert run("restore", target, "r.amber", "--key-file", "key")["documents"] == 3


def test_old_chains_are_removed(target: str) -> None:
    run("ship", "t.amber", target, "--once")
    run("compact", "t.amber")
    run("ship", "t.amber", target, "--once")
    removed = run("ship", "t.amber", target, "--prune-before", "2100-01-01T00:00:00Z")
    assert removed["archives"][0]["kind"] == "full"
    assert run("restore", target, "r.amber")["documents"] == 3
    result = CliRunner().invoke(app, ["ship", "t.amber", target, "--prune-before", "yesterday"])
    assert result.exit_code == 2


def test_errors_are_one_line(target: str) -> None:
    assert "create the folder" in run("ship", "t.amber", f"{target}/none", "--once", code=2)
    assert "s3://bucket/prefix" in run("ship", "t.amber", "nowhere", code=2)
    assert "no database" in run("ship", "none.amber", target, code=3)
    assert "no archive" in run("restore", target, "r.amber", code=2)


def test_tables_for_people(target: str) -> None:
    runner = CliRunner()
    assert "shipped up to Lsn" in runner.invoke(app, ["ship", "t.amber", target, "--once"]).stdout
    assert "full" in runner.invoke(app, ["ship", "t.amber", target, "--list"]).stdout


@pytest.mark.slow
def test_a_signal_ends_it_in_order(target: str) -> None:
    command = [sys.executable, "-m", "amberdb.cli", "ship", "t.amber", target, "--every-ms", "20"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        assert "is shipped to" in process.stderr.readline()
        run("put", "t.amber", "x", '{"id": "beside"}')
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert run("restore", target, "r.amber")["documents"] == 4
