"""Power loss while a text index that another version of its analyzer made is rebuilt: whatever is
left, every document is found, and the rebuild is completed."""

from pathlib import Path

import pytest

import amberdb
from amberdb import Text
from amberdb._fs import FileSystem
from crash.test_backup import recorded, sweep
from support.analyzers import older_analyzer
from support.databases import SMALL, assert_sound, audited

COUNT = 12


@pytest.mark.slow
@pytest.mark.sliced
def test_power_loss_at_any_step_of_a_rebuild(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with older_analyzer(), audited(root / "t.amber") as db:
        notes = db.collection("n", indexes=[Text("text", language=None)])
        notes.put_many({"id": f"d{n:02}", "text": f"amber w{n}"} for n in range(COUNT))
        db.checkpoint()

    def work(fs: FileSystem) -> None:
        with amberdb.open(root / "t.amber", **SMALL, fs=fs) as db:
            db["n"].put({"id": "d00", "text": "amber again"})
            db.build_indexes()
            db["n"].put({"id": "d01", "text": "amber anew"})

    def judge(image: Path, is_done: bool) -> bool:
        with amberdb.open(image / "t.amber", **SMALL) as db:
            is_renewed = len(db.definition("n").indexes) == 1
            assert len(db["n"].search("amber ambers", limit=99)) == COUNT
            assert_sound(db)
            db.build_indexes()
            assert len(db.definition("n").indexes) == 1
            assert len(db["n"].search("amber", limit=99)) == COUNT
            assert_sound(db)
        return is_renewed

    with_it, without = sweep(recorded(root, work), tmp_path / "image", judge, 25)
    assert with_it
    assert without
