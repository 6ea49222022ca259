"""Untrusted pages in an archive with correct checksums: refused, or as safe to map as LMDB's own.

A page that LMDB follows out of its bounds ends the process, so nothing here may reach it: what is
not refused has to pass the verifier of LMDB files, and check().
"""

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec.structs import replace

import amberdb
from amberdb import BackupDamagedError, Ordered, Text
from amberdb._fs import OsFileSystem
from amberdb.engine.backup import archive as archives
from amberdb.engine.backup.archive import Content, Header, Kind, archive_blocks, opened_archive
from amberdb.engine.schema.keyspace import DATABASE_ID, KEYS_END, LAST_TIME, LOCAL, prefix_of
from amberdb.engine.storage.data_file import verify_file
from amberdb.engine.storage.leaves import PAGES_BYTES_MAX, Leaves, node_bytes_max
from support import slices
from support.databases import SMALL, audited
from unit.engine.helpers import data_file
from unit.engine.pages import PAGE, leaves_of_pairs, page_of

FS = OsFileSystem()
PAGES_MAX = PAGES_BYTES_MAX // PAGE
Pairs = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full archive of a few pages, with a large value."""
    directory = tmp_path_factory.mktemp("full")
    with amberdb.open(directory / "t.amber", **SMALL) as db:
        notes = db.collection("n", indexes=[Ordered("x"), Text("t")])
        notes.put_many({"id": f"{n:02}", "x": n, "t": "umbrella " * (n % 9)} for n in range(80))
        notes.put({"id": "large", "x": 0.5, "t": "z" * 3 * PAGE})
        db.backup(directory / "full")
    return directory / "full"


def contents_of(path: Path) -> tuple[Header, list[Content]]:
    with opened_archive(FS, str(path)) as archive:
        blocks = [
            Content(Kind.VALUES, 0, block)
            if isinstance(block, bytes)
            else Content(Kind.PAGES, block.nodes, block.packed())
            for block in archive.pages()
        ]
        return archive.header, blocks


def forge(path: Path, header: Header, blocks: list[Content]) -> None:
    path.write_bytes(b"".join(archive_blocks(header, blocks, compress=False)))


def refused(path: Path, directory: Path) -> None:
    """verify_backup() and restore() raise BackupDamagedError, and leave no file."""
    before = sorted(os.listdir(directory))
    with pytest.raises(BackupDamagedError):
        amberdb.verify_backup(path)
    with pytest.raises(BackupDamagedError):
        amberdb.restore(path, directory / "r.amber", **SMALL)
    assert sorted(os.listdir(directory)) == before


# -- one page --------------------------------------------------------------------------------------


def word(data: bytearray, at: int, value: int | None = None) -> int:
    if value is not None:
        data[at : at + 2] = (value & 0xFFFF).to_bytes(2, "little")
    return int.from_bytes(data[at : at + 2], "little")


def node(data: bytearray, number: int) -> int:
    """The offset in whole pages of a node of the first one."""
    return word(data, 16 + 2 * number)


Damage = Callable[[bytearray], object]

DAMAGES: dict[str, Damage] = {
    "a branch page": lambda page: word(page, 10, 1),
    "an overflow page": lambda page: word(page, 10, 4),
    "a meta page": lambda page: word(page, 10, 8),
    "a dirty page": lambda page: word(page, 10, 2 | 16),
    "a page of fixed keys": lambda page: word(page, 10, 2 | 32),
    "a sub page": lambda page: word(page, 10, 2 | 64),
    "a page number": lambda page: word(page, 0, 7),
    "pad": lambda page: word(page, 8, 1),
    "lower below the header": lambda page: word(page, 12, 14),
    "lower of an empty page": lambda page: word(page, 12, 16),
    "lower odd": lambda page: word(page, 12, word(page, 12) - 1),
    "a node too few": lambda page: word(page, 12, word(page, 12) - 2),
    "a node too many": lambda page: word(page, 12, word(page, 12) + 2),
    "lower above upper": lambda page: word(page, 12, word(page, 14) + 2),
    "lower beyond the page": lambda page: word(page, 12, 0xFFFE),
    "upper beyond the page": lambda page: word(page, 14, PAGE + 2),
    "upper odd": lambda page: word(page, 14, word(page, 14) + 1),
    "upper too low": lambda page: word(page, 14, word(page, 14) - 2),
    "an offset in the header": lambda page: word(page, 18, 2),
    "an offset in the free space": lambda page: word(page, 18, word(page, 14) - 8),
    "an offset at the end": lambda page: word(page, 18, PAGE - 2),
    "an offset beyond the page": lambda page: word(page, 18, 0xFFF0),
    "an odd offset": lambda page: word(page, 18, node(page, 1) + 1),
    "two nodes at one place": lambda page: word(page, 18, node(page, 0)),
    "two nodes exchanged": lambda page: (
        first := node(page, 0),
        word(page, 16, node(page, 1)),
        word(page, 18, first),
    ),
    "a key of no bytes": lambda page: word(page, node(page, 0) + 6, 0),
    "a key without more than its keyspace": lambda page: word(page, node(page, 0) + 6, 4),
    "a key too long": lambda page: word(page, node(page, 0) + 6, 512),
    "a key beyond the page": lambda page: word(page, node(page, 0) + 6, 0xFFFF),
    "a value too long": lambda page: word(page, node(page, 0), 0xFFFF),
    "a value of gigabytes": lambda page: word(page, node(page, 0) + 2, 0xFFFF),
    "a value too short": lambda page: word(page, node(page, 0), 0),
    "a node of a tree": lambda page: word(page, node(page, 0) + 4, 2),
    "a node of duplicates": lambda page: word(page, node(page, 0) + 4, 4),
    "a node of a tree of duplicates": lambda page: word(page, node(page, 0) + 4, 6),
    "a large value that is none": lambda page: word(page, node(page, 0) + 4, 1),
    "a node with an unknown flag": lambda page: word(page, node(page, 0) + 4, 0x8000),
    "a keyspace that is not in use": lambda page: word(page, node(page, 0) + 8, 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_page_is_refused(tmp_path: Path, full: Path, name: str) -> None:
    header, blocks = contents_of(full)
    leaves = Leaves.unpacked(blocks[0].data, PAGE)
    leaves.clear()
    pages = bytearray(leaves.pages)
    DAMAGES[name](pages)
    assert pages != leaves.pages
    data = packed(bytes(pages))
    forge(tmp_path / "forged", header, [blocks[0]._replace(data=data), *blocks[1:]])
    refused(tmp_path / "forged", tmp_path)


def packed(pages: bytes) -> bytes:
    """As Leaves.packed(), of pages that may be damaged."""
    parts: list[bytes] = []
    for start in range(0, len(pages), PAGE):
        page = pages[start : start + PAGE]
        lower, upper = (int.from_bytes(page[at : at + 2], "little") for at in (12, 14))
        parts += page[:lower], page[max(lower, upper) :]
    return b"".join(parts)


def test_bytes_between_the_nodes_are_refused(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    leaves = Leaves.unpacked(blocks[0].data, PAGE)
    odd = next(
        at + 8 + len(key) + len(value)
        for number, (key, value) in enumerate(leaves.pairs())
        if value is not None
        and (len(key) + len(value)) % 2
        and (at := node(leaves.pages, number))
        and number < (word(leaves.pages, 12) - 16) // 2
    )
    pages = bytearray(leaves.pages)
    pages[odd] = 1
    forge(tmp_path / "forged", header, [blocks[0]._replace(data=packed(bytes(pages))), *blocks[1:]])
    refused(tmp_path / "forged", tmp_path)


# -- blocks ----------------------------------------------------------------------------------------


def test_pages_out_of_order_missing_or_too_many_are_refused(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    path = tmp_path / "forged"
    pages = [block for block in blocks if block.kind == Kind.PAGES]
    values = [block for block in blocks if block.kind == Kind.VALUES]
    assert len(values) == 1
    (value,) = values
    # A block may have pages of several trees: all of them here.
    block = Content(Kind.PAGES, sum(each.items for each in pages), b"".join(b.data for b in pages))
    leaves = Leaves.unpacked(block.data, PAGE)
    single = [
        packed(bytes(leaves.pages[start : start + PAGE]))
        for start in range(0, len(leaves.pages), PAGE)
    ]
    nodes = block.items
    empty = leaves_of_pairs([(b"\0\0\0\x10many", b"")]).packed()
    for forged in (
        [block],
        [value, block],
        [block, value, value],
        [block, value._replace(data=value.data[:-1])],
        [block, value._replace(data=value.data + b"x")],
        [block, value._replace(data=b"")],
        [block, value, Content(Kind.PAGES, 0, b"")],
        [block._replace(items=nodes + 1), value],
        [block, value._replace(items=1)],
        [block, block, value, value],
        [block, value, block, value],
        [Content(Kind.PAGES, nodes, b"".join(reversed(single))), value],
        [Content(Kind.PAGES, nodes, b"".join((single[1], single[0], *single[2:]))), value],
        [Content(Kind.PAGES, nodes, block.data[:-1]), value],
        [Content(Kind.PAGES, nodes, block.data[:-2]), value],
        [Content(Kind.PAGES, nodes, block.data + bytes(2)), value],
        [Content(Kind.PAGES, nodes, block.data + bytes(16)), value],
        [Content(Kind.PAGES, nodes, block.data + b"\2"), value],
        [Content(Kind.PAGES, PAGES_MAX + 1, empty * (PAGES_MAX + 1))],
        [Content(Kind.PAIRS, 0, b"\x80"), block, value],
        [],
    ):
        forge(path, header, forged)
        refused(path, tmp_path)
    for whole in (blocks, [block, value]):
        forge(path, header, whole)
        assert amberdb.verify_backup(path)
        amberdb.restore(path, tmp_path / "r.amber", **SMALL)
        with audited(tmp_path / "r.amber"):
            pass
        shutil.rmtree(tmp_path / "r.amber")


def test_pages_that_lmdb_would_not_make_are_refused(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    path = tmp_path / "forged"
    late = prefix_of(99)
    at_limit = node_bytes_max(PAGE) - 8 - len(late) - 1
    many = b"".join(page_of([(late + b"%05d" % n, b"")])[0] for n in range(PAGES_MAX + 1))
    for pages, nodes, is_right in (
        (page_of([(late + b"k", bytes(at_limit))])[0], 1, True),
        (page_of([(late + b"k", bytes(at_limit + 1))])[0], 1, False),
        (page_of([(KEYS_END + b"0010", b"")])[0], 1, False),  # as the name of a tree
        (many[PAGE:], PAGES_MAX, True),
        (many, PAGES_MAX + 1, False),
    ):
        forge(path, header, [*blocks, Content(Kind.PAGES, nodes, packed(pages))])
        if is_right:
            assert amberdb.verify_backup(path)
        else:
            refused(path, tmp_path)


def test_a_format_that_does_not_fit_is_refused(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    path = tmp_path / "forged"
    for change in (
        {"page_size": 0, "lmdb_version": 0},
        {"page_size": 2 * PAGE},
        {"page_size": PAGE - 2},
        {"page_size": 1 << 20},
        {"page_size": -1},
        {"page_size": 16},
        {"lmdb_version": -1},
        {"base": bytes(16), "after_lsn": 0},
    ):
        forge(path, replace(header, **change), blocks)
        refused(path, tmp_path)
    with patch.object(archives, "FORMAT_VERSION", 1):
        forge(path, header, blocks)
    refused(path, tmp_path)


def test_local_entries_that_a_backup_does_not_have_are_refused(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    path = tmp_path / "forged"
    leaves = Leaves.unpacked(blocks[0].data, PAGE)
    pairs: Pairs = [(key, value) for key, value in leaves.pairs() if value is not None]
    assert all(len(key) > 4 for key, _ in pairs)
    for more in ([(DATABASE_ID, b"x" * 16)], [(LOCAL + b"log", bytes(8))], [(LOCAL + b"p", b"x")]):
        changed = leaves_of_pairs(sorted(pairs + more))
        forge(path, header, [Content(Kind.PAGES, changed.nodes, changed.packed())])
        refused(path, tmp_path)
    changed = leaves_of_pairs([pair for pair in pairs if pair[0] != LAST_TIME])
    forge(path, header, [Content(Kind.PAGES, changed.nodes, changed.packed())])
    refused(path, tmp_path)


# -- any damage ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sliced
def test_what_is_not_refused_is_safe_to_map(tmp_path: Path, full: Path) -> None:
    header, blocks = contents_of(full)
    path, target = tmp_path / "forged", tmp_path / "r.amber"
    rng = random.Random(7)
    passed = 0
    for _ in range(slices.size(3000, 300)):
        forged = [*blocks]
        which = rng.choice([n for n, block in enumerate(blocks) if block.kind == Kind.PAGES])
        data = bytearray(blocks[which].data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(data))
            if rng.random() < 0.6:  # headers, offsets and the beginnings of nodes
                at %= 400
            data[at] = rng.choice((0, 1, 2, 16, 255, data[at] ^ 1, rng.randrange(256)))
        forged[which] = blocks[which]._replace(data=bytes(data))
        forge(path, header, forged)
        with contextlib.suppress(BackupDamagedError):
            amberdb.restore(path, target, **SMALL)
            passed += 1
            assert verify_file(str(data_file(target))) == []
            with audited(target) as db:
                # Its name may be another one by now.
                db.collection("n").put({"id": "one more", "x": 7})
            shutil.rmtree(target)
        assert not target.exists()
    assert passed
