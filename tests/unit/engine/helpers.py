"""Short ways to read collections, and files of a database."""

import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Database, Document, ReadableCollection
from amberdb._fs import OsFileSystem
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.store_writer import StoreWriter
from support.databases import SMALL
from unit.wal.helpers import join_preparation


def got(collection: ReadableCollection, id: str) -> Document:
    """The document, which is there."""
    document: Document | None = collection.get(id)
    assert document is not None, id
    return document


def open_at(path: Path, **options: Any) -> Database:
    """With small options; the test closes and checks it."""
    return amberdb.open(path, **{**SMALL, **options})


def ids(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    return [document["id"] for document in documents]


def abandon(db: Database, copy: Path) -> Path:
    """Copies the directory as a process that died now would leave it."""
    join_preparation()  # which moves files about, and a copy is not made in one moment
    shutil.copytree(db.path, copy)
    return copy


def data_file(path: Path | str) -> Path:
    (found,) = Path(path).glob("data-*/data.mdb")
    return found


def damage_inner_pages(path: Path | str) -> None:
    """Of data.mdb: no tree of several pages can be followed any more."""
    with data_file(path).open("r+b") as file:
        data = file.read()
        for number in range(2, len(data) // 4096):
            if data[number * 4096 + 10] == 1:  # inner pages
                file.seek(number * 4096 + 16)
                file.write(bytes(4096 - 16))


@contextmanager
def raw_store(path: Path | str) -> Generator[StoreWriter]:
    """A write transaction on the data of a closed database: the way of damage into it."""
    directory = str(data_file(path).parent)
    store = Store(directory, fs=OsFileSystem(), create=False, map_bytes=1 << 30)
    try:
        with store.write() as writer:
            yield writer
    finally:
        store.close()


def all_pairs(writer: StoreWriter) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of a store, by key."""
    for prefix in writer.keyspaces():
        yield from writer.scan(prefix, end_of(prefix))
