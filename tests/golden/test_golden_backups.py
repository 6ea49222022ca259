"""Backups of format 1 are verified and restored by this version, and a chain that begins with one.

`v1-backups.tgz` was made once by the version before format 2: a full archive of pairs with
documents n = 0 to 29 and a large one, then an increment that deletes one and adds one.
"""

import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

import amberdb
from amberdb.engine.backup.archive import opened_archive
from amberdb.engine.options import Options
from support.databases import SMALL, audited

HERE = Path(__file__).parent


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    with tarfile.open(HERE / "v1-backups.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    return [tmp_path / "v1-full", tmp_path / "v1-later"]


def test_a_full_archive_of_format_1_is_restored(chain: list[Path], tmp_path: Path) -> None:
    with opened_archive(Options().fs, str(chain[0])) as archive:
        assert (archive.header.format, archive.header.page_size) == (1, 0)
    (report,) = amberdb.verify_backup(chain[0])
    assert report.documents == {"note": 31}
    amberdb.restore(chain[0], tmp_path / "r.amber", **SMALL)
    with audited(tmp_path / "r.amber") as db:
        notes = db["note"]
        wanted = [f"{n:02}" for n in range(30)]
        assert [doc["id"] for doc in notes.find(order_by="id")] == [*wanted, "large"]
        assert notes["large"]["text"] == "a long one " * 700
        assert [doc["id"] for doc in notes.find({"source": "s7"})] == ["07"]
        assert [hit.id for hit in notes.search("number11")] == ["11"]


def test_a_chain_that_begins_with_format_1_is_restored(chain: list[Path], tmp_path: Path) -> None:
    amberdb.restore(chain, tmp_path / "r.amber", **SMALL)
    with audited(tmp_path / "r.amber") as db:
        assert "03" not in db["note"]
        assert [hit.id for hit in db["note"].search("later")] == ["late"]
    before = datetime.fromtimestamp(1_700_000_030, UTC)
    amberdb.restore(chain, tmp_path / "before.amber", until=before, **SMALL)
    with audited(tmp_path / "before.amber") as db:
        assert "03" in db["note"]
        assert "late" not in db["note"]
