"""A backup goes fast alone, and by small steps while others commit."""

from pathlib import Path
from unittest.mock import patch

import pytest

import amberdb
from amberdb import Ordered
from amberdb.engine.backup import traffic
from amberdb.engine.backup.traffic import Traffic
from amberdb.engine.storage import tree_file
from amberdb.engine.storage.leaves import Leaves
from support.databases import OpenDatabase, audited
from unit.engine.pages import PAGE


def test_it_is_busy_from_a_commit_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, lsn = [10.0], [5]
    monkeypatch.setattr(traffic, "monotonic", lambda: now_s[0])
    found = Traffic(lambda: lsn[0])
    assert not found.is_busy()
    lsn[0] += 1
    assert found.is_busy()
    now_s[0] += 0.09
    assert found.is_busy()
    now_s[0] += 0.02
    assert not found.is_busy()
    lsn[0] += 1
    assert found.is_busy()


@pytest.mark.parametrize("is_busy", [False, True])
def test_pages_are_read_by_small_steps_while_others_commit(
    open_db: OpenDatabase, tmp_path: Path, is_busy: bool
) -> None:
    db = open_db()
    notes = db.collection("n", indexes=[Ordered("n")])
    notes.put_many({"id": f"{n:04}", "n": n, "text": "t" * 300} for n in range(2000))
    counts: list[int] = []

    def counted(pages: bytearray, page_size: int) -> Leaves:
        counts.append(len(pages) // page_size)
        return Leaves(pages, page_size)

    def said(self: Traffic) -> bool:
        return is_busy

    with (
        patch.object(tree_file, "Leaves", counted),
        patch.object(Traffic, "is_busy", said),
    ):
        db.backup(tmp_path / "full")
    size = tree_file.PAGES_BYTES_BUSY if is_busy else tree_file.PAGES_BYTES
    assert max(counts) <= size // PAGE
    assert (max(counts) > tree_file.PAGES_BYTES_BUSY // PAGE) == (not is_busy)
    amberdb.restore(tmp_path / "full", tmp_path / "r.amber")
    with audited(tmp_path / "r.amber") as copy:
        assert len(copy["n"]) == 2000
