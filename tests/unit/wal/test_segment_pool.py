"""Spare files of the log."""

import os
from pathlib import Path

from amberdb._fs import OsFileSystem
from amberdb.wal.segment_pool import SegmentPool


def test_a_spare_file_that_is_being_taken_is_not_trimmed(tmp_path: Path) -> None:
    pool = SegmentPool(OsFileSystem(), str(tmp_path), 2)
    for name in ("free-1.seg", "free-2.seg"):
        (tmp_path / name).write_bytes(bytes(4096))
        pool.adopt(name)
    path, _, _ = pool.take(4096)
    pool.trim()
    assert os.path.exists(path)
    pool.mark_used(path)
    pool.trim()
    assert pool.count() <= 1
