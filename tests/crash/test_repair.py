"""Interrupted repairs: nothing more is lost, and the repair can be run again."""

import shutil
from pathlib import Path

import pytest

import amberdb
from amberdb import AmberError, Ordered
from support.databases import SMALL, assert_sound
from support.faulty_fs import KINDS, FaultyFileSystem
from support.reference import Doc
from unit.engine.helpers import damage_inner_pages
from unit.wal.helpers import join_preparation

Documents = dict[str, Doc]


def damaged(path: Path) -> None:
    """Damages MANIFEST, data and log."""
    with amberdb.open(path, **SMALL) as db:
        notes = db.collection("n", indexes=[Ordered("x")])
        notes.put_many({"id": f"{n:03}", "x": n, "text": "y" * 100} for n in range(100))
        db.checkpoint()
        for n in range(4):
            notes.put({"id": f"late{n}", "x": n})
    join_preparation()
    (path / "MANIFEST").write_bytes(b"nonsense")
    damage_inner_pages(path)
    segment = max((path / "wal").glob("*.wal"))
    content = bytearray(segment.read_bytes())
    content[content.rindex(b"late1")] ^= 1
    segment.write_bytes(content)


def documents(path: Path) -> Documents:
    with amberdb.open(path, create=False, **SMALL) as db:
        assert_sound(db)
        return {doc["id"]: doc for doc in db.collection("n").documents()}


@pytest.mark.slow
def test_interrupted_anywhere_it_can_be_run_again(tmp_path: Path) -> None:
    source = tmp_path / "t.amber"
    damaged(source)
    whole = tmp_path / "whole.amber"
    shutil.copytree(source, whole)
    amberdb.repair(whole, apply=True, **SMALL)
    wanted = documents(whole)
    assert len(wanted) > 100
    at, is_done = 0, False
    while not is_done:
        at += 1
        copy = tmp_path / "copy.amber"
        shutil.copytree(source, copy)
        fs = FaultyFileSystem()
        fs.arm(KINDS, at, lasting=True)
        try:
            amberdb.repair(copy, apply=True, fs=fs, **SMALL)
            is_done = not fs.failed
        except AmberError:
            assert fs.failed
        amberdb.repair(copy, apply=True, **SMALL)
        assert documents(copy) == wanted, f"interrupted at call {at}: {fs.failed[:1]}"
        assert any(copy.rglob("*.broken*")), at
        shutil.rmtree(copy)
    assert at > 15
