"""Untrusted archives: every damage is refused with a BackupError, and no file is left.

Every byte is flipped and every length is cut; archives are also forged: invalid contents with
correct checksums.
"""

import os
import random
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain as chain_of
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import amberdb
from amberdb import BackupChainError, BackupDamagedError, BackupError, FormatError, Ordered, Text
from amberdb._bytes import append_crc
from amberdb._fs import OsFileSystem
from amberdb.engine.backup import archive as archives
from amberdb.engine.backup.archive import (
    BLOCK_HEAD_SIZE,
    FILE_HEAD_SIZE,
    PACKED_BYTES_MAX,
    Content,
    Header,
    Kind,
    archive_blocks,
    opened_archive,
)
from amberdb.engine.backup.pages import pairs_of
from amberdb.engine.schema.codec import encode
from amberdb.engine.schema.keyspace import (
    APPLIED,
    BUILT,
    COLLECTION_COUNTERS,
    COLLECTIONS,
    COUNTERS,
    DATABASE_ID,
    KEYS_END,
    prefix_of,
)
from support import slices
from support.damage import with_last_bit_flipped
from support.databases import SMALL, audited

FS = OsFileSystem()
Pairs = dict[Any, Any]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The smallest chain that has every kind of block and entry."""
    directory = tmp_path_factory.mktemp("chain")
    with amberdb.open(directory / "t.amber", **SMALL) as db:
        notes = db.collection("n", indexes=[Ordered("x"), Text("t")])
        notes.put({"id": "a", "x": 1, "t": "umbrella"})
        db.backup(directory / "full")
        notes.put({"id": "b", "x": 2})
        db.backup(directory / "later", base=directory / "full")
    return [directory / "full", directory / "later"]


def refused(chain: list[Path], directory: Path, kind: type[BackupError] = BackupError) -> None:
    """verify_backup() and restore() raise `kind`, and leave no file."""
    before = sorted(os.listdir(directory))
    for use in (
        lambda: amberdb.verify_backup(chain),
        lambda: amberdb.restore(chain, directory / "r.amber", **SMALL),
    ):
        with pytest.raises(kind):
            use()
    assert sorted(os.listdir(directory)) == before


def refused_by_restore(chain: list[Path], directory: Path) -> None:
    """restore() refuses a chain whose contradictions only show in the restored database."""
    before = sorted(os.listdir(directory))
    with pytest.raises(BackupDamagedError):
        amberdb.restore(chain, directory / "r.amber", **SMALL)
    assert sorted(os.listdir(directory)) == before


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("number", [0, 1])
def test_every_flipped_byte_is_refused(chain: list[Path], tmp_path: Path, number: int) -> None:
    whole = chain[number].read_bytes()
    copy = [tmp_path / path.name for path in chain]
    for path, source in zip(copy, chain, strict=True):
        path.write_bytes(source.read_bytes())
    rng = random.Random(1)
    for at in slices.every(4, range(len(whole))):
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        copy[number].write_bytes(data)
        refused(copy, tmp_path)


@pytest.mark.slow
@pytest.mark.sliced
@pytest.mark.parametrize("number", [0, 1])
def test_every_cut_and_what_follows_the_end_is_refused(
    chain: list[Path], tmp_path: Path, number: int
) -> None:
    whole = chain[number].read_bytes()
    copy = [tmp_path / path.name for path in chain]
    for path, source in zip(copy, chain, strict=True):
        path.write_bytes(source.read_bytes())
    for size in slices.every(4, range(len(whole))):
        copy[number].write_bytes(whole[:size])
        refused(copy, tmp_path, BackupDamagedError)
    for more in (b"\0", b"x" * 100, whole):
        copy[number].write_bytes(whole + more)
        refused(copy, tmp_path, BackupDamagedError)


def test_blocks_missing_doubled_or_out_of_order_are_refused(
    tmp_path: Path, chain: list[Path]
) -> None:
    header, pairs = contents_of(chain[0])
    blocks = list(archive_blocks(header, _split(pairs, 3), compress=False))
    path = tmp_path / "full"
    path.write_bytes(b"".join(blocks))
    assert amberdb.verify_backup(path)
    for wrong in (
        [*blocks[:2], *blocks[3:]],
        [*blocks[:3], blocks[2], *blocks[3:]],
        [*blocks[:2], blocks[3], blocks[2], *blocks[4:]],
        [blocks[0], *blocks[2:]],
        blocks[:2] + blocks[-1:],
        [*blocks, blocks[-1]],
    ):
        path.write_bytes(b"".join(wrong))
        refused([path], tmp_path, BackupDamagedError)


def test_a_newer_format_is_distinguished_from_damage(tmp_path: Path, chain: list[Path]) -> None:
    data = chain[0].read_bytes()
    head = data[:8] + (3).to_bytes(4, "little")
    (tmp_path / "new").write_bytes(head + append_crc(head) + data[FILE_HEAD_SIZE:])
    with pytest.raises(FormatError, match="update AmberDB"):
        amberdb.verify_backup(tmp_path / "new")
    for data in (b"", b"AMBERBAK", b"\x7fELF" * 40, bytes(1000)):
        (tmp_path / "new").write_bytes(data)
        refused([tmp_path / "new"], tmp_path, BackupDamagedError)
    with pytest.raises(BackupError, match="directory"):
        amberdb.verify_backup(tmp_path)
    with pytest.raises(BackupError, match="No such file"):
        amberdb.verify_backup(tmp_path / "missing")


# -- forgery -------------------------------------------------------------------------------------


def contents_of(path: Path) -> tuple[Header, Pairs]:
    """The header and the pairs of a full archive, for one of format 1."""
    with opened_archive(FS, str(path)) as archive:
        header = replace(archive.header, page_size=0, lmdb_version=0)
        return header, dict(chain_of.from_iterable(pairs_of(archive)))


def _split(pairs: Pairs, size: int) -> Iterator[Content]:
    items = list(pairs.items())
    for start in range(0, len(items), size):
        block = dict(items[start : start + size])
        yield Content(Kind.PAIRS, len(block), encode(block))


def forge(path: Path, header: Header, contents: Iterable[Content], compress: bool = False) -> None:
    """Writes an archive with correct checksums."""
    path.write_bytes(b"".join(archive_blocks(header, contents, compress=compress)))


def test_invalid_pairs_are_refused(tmp_path: Path, chain: list[Path]) -> None:
    header, pairs = contents_of(chain[0])
    path = tmp_path / "full"
    entries = list(pairs.items())
    late = prefix_of(99) + b"k"
    applied = header.last_lsn.to_bytes(8)
    wrong: list[Pairs] = [
        {**pairs, late: None},
        {**pairs, prefix_of(99): b"no key after the prefix"},
        {**pairs, prefix_of(99) + b"k" * 508: b""},
        {late: b"out of order", **pairs},
        dict((*entries[:-2], entries[-1], entries[-2])),
        dict(sorted({**pairs, prefix_of(2) + b"k": b"a keyspace that is not in use"}.items())),
        dict(sorted({**pairs, DATABASE_ID: b"x" * 16}.items())),
        dict(sorted({**pairs, BUILT + b"1": b"1"}.items())),
        dict(sorted({**pairs, BUILT + prefix_of(18): b"2"}.items())),
        {**pairs, APPLIED: (header.last_lsn + 1).to_bytes(8)},
        {key: value for key, value in pairs.items() if key != APPLIED},
        {**pairs, APPLIED: applied + b"\0"},
        {**pairs, late: 5},
        {**pairs, "text": b""},
    ]
    for one in wrong:
        forge(path, header, [Content(Kind.PAIRS, len(one), encode(one))])
        refused([path], tmp_path, BackupDamagedError)
    for before, after in ((entries, entries[-1:]), (entries[:-2] + entries[-1:], entries[-2:-1])):
        parts = [Content(Kind.PAIRS, len(part), encode(dict(part))) for part in (before, after)]
        forge(path, header, parts)
        refused([path], tmp_path, BackupDamagedError)
    for kind, data in (
        (Kind.PAIRS, b"\xdf\xff\xff\xff\xff"),
        (Kind.PAIRS, b"\x81\xa1"),
        (Kind.PAIRS, b"\x91" * 100_000),
        (Kind.RECORDS, encode([])),
        (Kind.HEADER, encode(header)),
        (Kind.END, encode({})),
        (Kind.END, b"\x91" * 100_000),
    ):
        forge(path, header, [*_split(pairs, 1000), Content(kind, 0, data)])
        refused([path], tmp_path, BackupDamagedError)
    forge(path, header, [content._replace(items=5) for content in _split(pairs, 1000)])
    refused([path], tmp_path, BackupDamagedError)


def test_pairs_that_contradict_each_other_are_refused(tmp_path: Path, chain: list[Path]) -> None:
    header, pairs = contents_of(chain[0])
    path = tmp_path / "full"
    head = next(key for key in pairs if key.startswith(COLLECTION_COUNTERS))
    collection = next(key for key in pairs if key.startswith(COLLECTIONS))
    document = prefix_of(16) + b"a"
    assert document in pairs
    wrong: list[Pairs] = [
        {**pairs, head: b"short"},
        {**pairs, head: bytes(16)},
        {**pairs, collection: b"not sealed"},
        {**pairs, COUNTERS: b""},
        {key: value for key, value in pairs.items() if key != document},
        {**pairs, document: with_last_bit_flipped(pairs[document])},
        dict(sorted({**pairs, COLLECTIONS + b"\xff\xfe": b""}.items())),
        dict.fromkeys(pairs, b"") | {k: v for k, v in pairs.items() if k[:4] == prefix_of(1)},
    ]
    for one in wrong:
        forge(path, header, [Content(Kind.PAIRS, len(one), encode(one))])
        assert amberdb.verify_backup(path)
        refused_by_restore([path], tmp_path)


def test_an_index_that_contradicts_its_documents_is_built_anew(
    tmp_path: Path, chain: list[Path]
) -> None:
    header, pairs = contents_of(chain[0])
    path = tmp_path / "full"
    wrong: dict[str, list[Pairs]] = {}
    for name, number in (("ordered:x", 18), ("text:t", 19)):
        entry = next(key for key in pairs if key.startswith(prefix_of(number)))
        wrong[name] = [
            {key: value for key, value in pairs.items() if key != entry},
            {**pairs, entry: b"?"},
            dict(sorted({**pairs, entry + b"x": b"a"}.items())),
        ]
    for name, forged in wrong.items():
        for one in forged:
            forge(path, header, [Content(Kind.PAIRS, len(one), encode(one))])
            report = amberdb.restore(path, tmp_path / "r.amber", **SMALL)
            assert report.rebuilt == [f"n: {name}"]
            with audited(tmp_path / "r.amber") as db:
                assert [hit.id for hit in db["n"].search("umbrella")] == ["a"]
                assert db["n"].count({"x": 1}) == 1
            shutil.rmtree(tmp_path / "r.amber")


def test_invalid_headers_are_refused(tmp_path: Path, chain: list[Path]) -> None:
    header, pairs = contents_of(chain[0])
    path = tmp_path / "full"
    facts: list[dict[str, Any]] = [
        {"id": b""},
        {"id": "text of sixteen "},
        {"database_id": b"x"},
        {"base": b"x"},
        {"base": bytes(16), "after_lsn": header.last_lsn + 1},
        {"after_lsn": 1},
        {"last_lsn": -1},
        {"last_lsn": 1 << 63},
        {"last_lsn": True},
        {"time_us": -1},
        {"time_us": 1 << 62},
        {"created_us": 1 << 62},
        {"documents": {"n": "many"}},
        {"documents": {1: 1}},
        {"documents": []},
        {"time_us": header.time_us + 1},
    ]
    for change in facts:
        forge(path, replace(header, **change), _split(pairs, 1000))
        refused([path], tmp_path, BackupDamagedError)


def test_records_that_cannot_be_are_refused(tmp_path: Path, chain: list[Path]) -> None:
    full, later = chain
    with opened_archive(FS, str(later)) as archive:
        header = archive.header
        good = [record for block in archive.records() for record in block]
    path = tmp_path / "later"
    first, *rest = good
    lsn, time_us, kind, payload = first
    far = lsn | 1 << 60
    wrong: list[list[Any]] = [
        rest,
        [first, first, *rest],
        [*reversed(good)],
        good[:-1],
        [],
        [(lsn + 1, time_us, kind, payload), *rest],
        [(lsn, time_us, 77, payload), *rest],
        [(lsn, -1, kind, payload), *rest],
        [(lsn, 1 << 62, kind, payload), *rest],
        [(lsn, time_us, kind, b"\xc1"), *rest],
        [(lsn, time_us, kind, encode({APPLIED: bytes(8)})), *rest],
        [(lsn, time_us, kind, encode({prefix_of(16): b""})), *rest],
        [(lsn, time_us, kind, encode({KEYS_END + b"0010": b""})), *rest],
        [(lsn, time_us, kind), *rest],
        [(far, time_us, kind, payload), *rest],
        [*good[:-1], (good[-1][0], good[-1][1] + 1, kind, good[-1][3])],
    ]
    for one in wrong:
        forge(path, header, [Content(Kind.RECORDS, len(one), encode(one))])
        refused([full, path], tmp_path, BackupDamagedError)


def test_a_base_that_ends_elsewhere_is_refused(tmp_path: Path, chain: list[Path]) -> None:
    full, later = chain
    with opened_archive(FS, str(later)) as archive:
        header = archive.header
        contents = [Content(Kind.RECORDS, len(b), encode(b)) for b in archive.records()]
    forge(tmp_path / "later", replace(header, after_lsn=header.after_lsn + 1), contents)
    refused([full, tmp_path / "later"], tmp_path, BackupChainError)


def test_sizes_are_compared_before_anything_is_allocated(
    tmp_path: Path, chain: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks whose head claims 4 GiB, packed or not, or less than they unpack to."""
    zstandard = pytest.importorskip("zstandard")
    header, pairs = contents_of(chain[0])
    path = tmp_path / "full"
    blocks = list(archive_blocks(header, (), compress=False))[:2]
    start = b"".join(blocks)
    chained = int.from_bytes(blocks[1][BLOCK_HEAD_SIZE - 4 : BLOCK_HEAD_SIZE], "little")
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    assert len(bomb) < 10_000
    block_head = archives._BLOCK_HEAD  # pyright: ignore[reportPrivateUsage]
    for packing, size, stored, length, message in (
        (0, (1 << 32) - 1, b"", (1 << 32) - 1, "truncated"),
        (1, (1 << 32) - 1, bomb, len(bomb), "invalid head"),
        (1, 64 << 20, bomb, len(bomb), "invalid head"),
        (1, PACKED_BYTES_MAX, bomb, len(bomb), "not that in its head"),
        (1, 100, bomb, len(bomb), "not that in its head"),
        (1, 3, b"xyz", 3, "zstd refuses"),
        (0, 4, b"xyz", 3, "invalid head"),
        (2, 3, b"xyz", 3, "invalid head"),
    ):
        head = block_head.pack(Kind.PAIRS, packing, 0, size, length)
        path.write_bytes(start + head + append_crc(head + stored, chained) + stored)
        with pytest.raises(BackupDamagedError, match=message):
            amberdb.verify_backup(path)
        refused([path], tmp_path, BackupDamagedError)
    trailing = zstandard.ZstdCompressor().compress(encode(pairs)) + b"more"
    size = len(encode(pairs))
    head = block_head.pack(Kind.PAIRS, 1, 0, size, len(trailing))
    path.write_bytes(start + head + append_crc(head + trailing, chained) + trailing)
    refused([path], tmp_path, BackupDamagedError)
    forge(path, header, _split(pairs, 1000), compress=True)
    assert amberdb.verify_backup(path)


@given(data=st.binary(max_size=300))
def test_any_content_with_correct_checksums_is_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp()
    header = Header(
        id=bytes(16),
        database_id=bytes(16),
        base=b"",
        after_lsn=0,
        last_lsn=5,
        time_us=0,
        created_us=0,
        documents={},
    )
    forge(directory / "any", header, [Content(Kind.PAIRS, 1, data)])
    refused([directory / "any"], directory, BackupDamagedError)
