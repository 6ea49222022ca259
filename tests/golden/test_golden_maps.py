"""The stored maps of backups and receipts: the same bytes as when the format was released."""

from dataclasses import replace
from typing import Any

import pytest

from amberdb import CorruptionError, KnownBackup
from amberdb._time import time_of
from amberdb._types import Lsn
from amberdb.engine.backup.archive import Content, Header, Kind, archive_blocks
from amberdb.engine.backup.chain import BackupReport
from amberdb.engine.backup.history import known_backups, to_entry
from amberdb.engine.maintenance.erasure import Erasure, receipts_of
from amberdb.engine.maintenance.erasure import (
    _entry as entry_of,  # pyright: ignore[reportPrivateUsage]  # what a commit stores
)
from amberdb.engine.schema.catalog import sealed_entry
from amberdb.engine.schema.codec import encode
from amberdb.engine.schema.keyspace import ERASURES, KNOWN_BACKUPS

FIRST = (1 << 48) + 7
SECOND_US = 1_700_000_001_000_000
ID = bytes(range(16))

FULL = bytes.fromhex(
    "414d42455242414b01000000d2bf8954010000009b0000009b00000053497d8788a26964c410000102030405060708"
    "090a0b0c0d0e0fab64617461626173655f6964c410101112131415161718191a1b1c1d1e1fa462617365c400a96166"
    "7465725f6c736e00a86c6173745f6c736ecf0001000000000007a774696d655f7573cf00060a2418202240aa637265"
    "617465645f7573cf00060a24182d8240a9646f63756d656e747382a56e6f74657303a2c3a9cf000000020000000002"
    "000000070000000700000063ab9e3781c4016bc4017604000000400000004000000009d66b6584a6626c6f636b7302"
    "a56974656d7301a473697a65ccd2a6736861323536c420c2e8e01d94475e048ab3e240392fade1b33eac0b364ba816"
    "7800ea6a8f8de567"
)
INCREMENTAL = bytes.fromhex(
    "414d42455242414b01000000d2bf895401000000a0000000a0000000156b002c88a26964c410ffffffffffffffffff"
    "ffffffffffffffab64617461626173655f6964c410101112131415161718191a1b1c1d1e1fa462617365c410000102"
    "030405060708090a0b0c0d0e0fa961667465725f6c736ecf0001000000000007a86c6173745f6c736ecf0001000000"
    "0000c8a774696d655f7573cf00060a24183cc480aa637265617465645f7573cf00060a24184c06c0a9646f63756d65"
    "6e747380020000000700000007000000be4fcbd881c4016bc40176040000004000000040000000d3b3049384a6626c"
    "6f636b7302a56974656d7301a473697a65ccd7a6736861323536c420329061574a11a9b8cbb9779e208e72133393a1"
    "515ee170b15088f4fb1bbe5284"
)
KNOWN = bytes.fromhex(
    "84a470617468ae2f622fc3a92e616d62657262616ba769735f66756c6cc3a36c736ecf0001000000000007aa637265"
    "617465645f7573cf00060a24182d82407cbbb7d5"
)
PENDING = bytes.fromhex(
    "89a26964b030303131323233336161626263636464aa636f6c6c656374696f6ea56e6f746573a6726561736f6ea861"
    "736b656420746fa9646f63756d656e747303a36c736ecf0001000000000009a774696d655f7573cf00060a24182022"
    "40ac636f6d706c657465645f7573c0a76261636b75707390ab737562736372696265727390963f91b6"
)
COMPLETED = bytes.fromhex(
    "89a26964b030303131323233336161626263636464aa636f6c6c656374696f6ea56e6f746573a6726561736f6ea861"
    "736b656420746fa9646f63756d656e747303a36c736ecf0001000000000009a774696d655f7573cf00060a24182022"
    "40ac636f6d706c657465645f7573cf00060a2418a79440a76261636b7570739284a470617468a42f622f78a769735f"
    "66756c6cc2a36c736ecf0001000000000008aa637265617465645f7573cf00060a24182d824084a470617468a42f62"
    "2f79a769735f66756c6cc3a36c736ecf0001000000000001aa637265617465645f757300ab73756273637269626572"
    "7392a6726561646572a67370c3a474656f4dd12a"
)

RECEIPT = Erasure(
    id="00112233aabbccdd",
    collections={"notes": 3},
    reason="asked to",
    lsn=Lsn(FIRST + 2),
    time=time_of(1_700_000_000_123_456),
)
DONE = replace(
    RECEIPT,
    completed=time_of(1_700_000_009_000_000),
    backups=(
        KnownBackup("/b/x", False, Lsn(FIRST + 1), time_of(SECOND_US)),
        KnownBackup("/b/y", True, Lsn((1 << 48) + 1), time_of(0)),
    ),
    subscribers=("reader", "späte"),
)


class Entries:
    """A view with one entry."""

    def __init__(self, key: bytes, value: bytes) -> None:
        self._entry = key, value

    def scan(self, low: bytes, high: bytes) -> Any:
        assert low <= self._entry[0] < high
        yield self._entry


def archive(header: Header) -> bytes:
    contents = [Content(Kind.PAIRS, 1, encode({b"k": b"v"}))]
    return b"".join(archive_blocks(header, contents, compress=False))


def test_archives() -> None:
    full = Header(
        id=ID,
        database_id=bytes(range(16, 32)),
        base=b"",
        after_lsn=0,
        last_lsn=FIRST,
        time_us=1_700_000_000_123_456,
        created_us=SECOND_US,
        documents={"notes": 3, "é": 1 << 33},
    )
    assert archive(full) == FULL
    incremental = Header(
        id=b"\xff" * 16,
        database_id=bytes(range(16, 32)),
        base=ID,
        after_lsn=FIRST,
        last_lsn=(1 << 48) + 200,
        time_us=1_700_000_002_000_000,
        created_us=1_700_000_003_000_000,
        documents={},
    )
    assert archive(incremental) == INCREMENTAL


def test_known_backup() -> None:
    report = BackupReport(
        path="/b/é.amberbak",
        is_full=True,
        after_lsn=Lsn(0),
        lsn=Lsn(FIRST),
        time=time_of(5),
        size_bytes=9,
        items=1,
        documents={},
        id=ID.hex(),
        created=time_of(SECOND_US),
    )
    key = KNOWN_BACKUPS + SECOND_US.to_bytes(8) + ID
    assert to_entry(report) == (key, KNOWN)
    view: Any = Entries(key, KNOWN)
    assert known_backups(view) == [
        KnownBackup(report.path, is_full=True, lsn=report.lsn, created=report.created)
    ]


@pytest.mark.parametrize(("receipt", "stored"), [(RECEIPT, PENDING), (DONE, COMPLETED)])
def test_receipts(receipt: Erasure, stored: bytes) -> None:
    assert entry_of(receipt) == stored
    view: Any = Entries(ERASURES + receipt.lsn.to_bytes(8), stored)
    assert receipts_of(view) == [receipt]


@pytest.mark.parametrize("change", [{"path": 1}, {"is_full": 1}, {"lsn": "1"}, {"path": None}])
def test_map_with_a_wrong_type_is_damage(change: dict[str, Any]) -> None:
    key = KNOWN_BACKUPS + bytes(24)
    fields = {"path": "/b", "is_full": True, "lsn": 1, "created_us": 0}
    view: Any = Entries(key, sealed_entry(key, fields))
    assert [backup.path for backup in known_backups(view)] == ["/b"]
    view = Entries(key, sealed_entry(key, fields | {"more": 1}))  # of a newer version
    assert [backup.path for backup in known_backups(view)] == ["/b"]
    for wrong in (fields | change, {name: fields[name] for name in fields if name not in change}):
        view = Entries(key, sealed_entry(key, wrong))
        with pytest.raises(CorruptionError, match=next(iter(change))):
            known_backups(view)
