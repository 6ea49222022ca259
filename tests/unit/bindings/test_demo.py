"""The demo: it runs anywhere, and its proofs can fail."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import amberdb
from amberdb import Database
from amberdb._jsonl.importer import BadLineError
from amberdb.cli.__main__ import app
from amberdb.demo import kill
from amberdb.demo import run as demo_module
from amberdb.demo.data import DemoClock, declare, end_of, open_demo, read_turns
from amberdb.demo.kill import DemoError, Kill, aftermath, kill_writer
from amberdb.demo.memory import MemoryDemo
from amberdb.demo.writer import documents, stream_name
from amberdb.memory import Memory
from support.databases import audited

NAME = stream_name(1, 0)

pytestmark = pytest.mark.slow  # most start processes


def write(db: Database, count: int) -> None:
    for number in range(count):
        with db.transaction() as tx:
            for layer, document in zip(
                ("profile", "event", "log"), documents(NAME, number), strict=True
            ):
                tx[layer].put(document)


def kill_of(acknowledged: int) -> list[Kill]:
    return [Kill(1, {NAME: acknowledged}, 1.0)]


def test_demo_proves_everything_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = CliRunner().invoke(app, ["demo", "--kills", "2", "--seed", "7", "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["ok"] is True
    assert all(proof["ok"] for proof in report["proofs"])
    assert report["counts"]["turns"] == 437
    assert report["counts"]["acknowledged_at_kill_2"] > 0
    assert report["counts"]["expired"] > demo_module.NOTES
    assert os.listdir(tmp_path) == []


def test_demo_of_ones_own_minimal_lines_is_kept(tmp_path: Path) -> None:
    source, keep = tmp_path / "mine.jsonl", tmp_path / "kept.amber"
    source.write_text('{"speaker": "ann", "text": "hi"}\n\n{"speaker": "bob", "content": "yes"}\n')
    command = ["demo", "--input", str(source), "--keep", str(keep), "--kills", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.stdout
    assert "proofs hold" in result.stdout
    assert "killed; none is lost" in result.stdout
    with amberdb.open(keep, create=False) as db:
        said = db.collection("log").find({"entity_id": {"$in": ["ann", "bob"]}})
        assert [one["content"] for one in said] == ["hi", "yes"]
    assert CliRunner().invoke(app, command).exit_code == 2  # never over something


def test_what_the_demo_says_comes_next_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text('{"speaker": "ann", "text": "hi"}\n')
    shown = CliRunner().invoke(app, ["demo", "--input", str(source), "--kills", "1"]).stdout
    init, program, search = shown.partition("next:\n")[2].splitlines()
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, init.split()[1:]).exit_code == 0
    subprocess.run([sys.executable, *program.split()[1:]], check=True)
    found = CliRunner().invoke(app, search.split()[1:])
    assert found.exit_code == 0
    assert "umbrella" in found.stdout


@pytest.mark.parametrize("line", ["{bad", "5", "{}", '{"speaker": "a"}', '{"text": "a"}', ""])
def test_demo_of_lines_that_are_no_turns_names_the_line(tmp_path: Path, line: str) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_text(line)
    with pytest.raises(BadLineError):
        read_turns(str(source))
    result = CliRunner().invoke(app, ["demo", "--input", str(source)])
    assert result.exit_code == 5
    assert result.stderr.startswith("error: ")


def test_packaged_dialogue_has_both_layers_and_ends() -> None:
    turns = read_turns(None)
    assert {turn.layer for turn in turns} == {"profile", "event"}
    assert sum("expires_at" in turn.document for turn in turns) == 65
    assert datetime.fromtimestamp(end_of(turns), UTC).year == 2026


def test_a_real_kill_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "t.amber")
    clock = DemoClock(1_800_000_000.0)
    with open_demo(path, clock, create=True) as db:
        declare(db)
    kill = kill_writer(path, 1, clock, random.Random(1))
    assert sum(kill.acknowledged.values()) > 0
    with open_demo(path, clock) as db:
        left = aftermath(db, [kill])
        assert not left.lost + left.half + left.unexpected
        assert db.recovery is not None
        assert db.recovery.records > 0
        assert db.check().ok


def test_writer_that_ends_by_itself_is_no_kill(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="there is no database"):
        kill_writer(str(tmp_path / "none"), 1, DemoClock(0.0), random.Random(1))


# -- the proofs can fail -------------------------------------------------------------------------


def test_aftermath_accepts_all_that_a_kill_may_leave(tmp_path: Path) -> None:
    for acknowledged in (4, 5):  # the last one was not told any more, or was
        with audited(tmp_path / f"{acknowledged}.amber") as db:
            declare(db)
            write(db, 5)
            left = aftermath(db, kill_of(acknowledged))
            assert (left.acknowledged, left.found) == (acknowledged, 5)
            assert not left.lost + left.half + left.unexpected


def test_aftermath_sees_a_lost_write(tmp_path: Path) -> None:
    with audited(tmp_path / "t.amber") as db:
        declare(db)
        write(db, 4)
        assert aftermath(db, kill_of(5)).lost == [f"{NAME}-{4:07}"]


def test_aftermath_sees_more_than_one_unacknowledged_write(tmp_path: Path) -> None:
    with audited(tmp_path / "t.amber") as db:
        declare(db)
        write(db, 5)
        assert aftermath(db, kill_of(3)).unexpected == [NAME]


@pytest.mark.parametrize("layer", ["profile", "event", "log"])
@pytest.mark.parametrize("number", [2, 4])
def test_aftermath_sees_half_a_transaction(tmp_path: Path, layer: str, number: int) -> None:
    with audited(tmp_path / "t.amber") as db:
        declare(db)
        write(db, 5)
        collection = db.collection(layer)
        collection.delete(NAME if layer == "profile" else f"{NAME}-{number:07}")
        assert aftermath(db, kill_of(5)).half


@pytest.mark.parametrize("layer", ["profile", "event", "log"])
def test_aftermath_sees_a_changed_document(tmp_path: Path, layer: str) -> None:
    with audited(tmp_path / "t.amber") as db:
        declare(db)
        write(db, 5)
        id = NAME if layer == "profile" else f"{NAME}-{2:07}"
        db.collection(layer).update(id, {"content": "changed"})
        assert aftermath(db, kill_of(5)).half


def test_a_forget_that_leaves_bytes_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget = Memory.forget
    monkeypatch.setattr(Memory, "forget", partialmethod(forget, compact=False))
    held: dict[str, bool] = {}

    def prove(claim: str, ok: bool, detail: str) -> None:
        held[claim] = ok

    entries = MemoryDemo(str(tmp_path / "m.amber"), DemoClock(1.8e9), prove).run()
    assert {action for action, *_ in entries} == {"insert", "update", "ignore"}
    assert not held.pop("no file holds a memory of the forgotten person")
    assert len(held) == 4
    assert all(held.values())


def test_failed_proof_is_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_lost(db: Database, kills: list[Kill]) -> kill.Aftermath:
        left = aftermath(db, kills)
        left.lost.append("writer-1-0-0000000")
        return left

    monkeypatch.setattr(demo_module, "aftermath", one_lost)
    result = CliRunner().invoke(app, ["demo", "--kills", "1"])
    assert result.exit_code == 1
    assert "FAIL  no acknowledged write is lost" in result.stdout
    assert "none is lost" not in result.stdout
    assert "1 lost: writer-1-0-0000000" in result.stdout.replace("\n", " ")
