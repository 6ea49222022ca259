"""Shipping and SIGKILL: what arrived is a prefix of what was acknowledged."""

import os
import sys
from pathlib import Path

import pytest

import amberdb
from amberdb.ship import restore_from, ship, shipped
from support.shipping import behind_s, killed_after

TESTS = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": paths}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 1.5])
def test_a_killed_writer_left_a_prefix_and_is_continued(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "away").mkdir()
    path, target = tmp_path / "t.amber", f"file://{tmp_path}/away"
    writer = killed_after(seconds, path, target, every_ms=100, environment=environment())
    behind_s(writer, target, tmp_path / "elsewhere.amber")
    # A file that was being written is no archive.
    (tmp_path / "away" / shipped(target)[0].chain / "x.amber-0123456789abcdef.tmp").touch()
    with amberdb.open(path) as db:
        stored = len(db["x"])
        with ship(db, target, every_ms=1e9) as shipper:
            shipper.ship_now()
    assert stored >= len(writer.acknowledged)
    assert [archive.kind for archive in shipped(target)].count("full") == 1
    restore_from(target, tmp_path / "again.amber")
    with amberdb.open(tmp_path / "again.amber") as again:
        assert len(again["x"]) == stored
    assert not list(tmp_path.glob("*.ship-*"))
