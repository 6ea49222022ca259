"""Short ways to read collections, and files of a database."""

import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

import amberdb
from amberdb import Database, Document, ReadableCollection
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
    """Of data.mdb: no tree of it can be followed any more."""
    with data_file(path).open("r+b") as file:
        data = file.read()
        for number in range(2, len(data) // 4096):
            if data[number * 4096 + 10] == 1:  # inner pages
                file.seek(number * 4096 + 40)
                file.write(bytes(200))


@contextmanager
def raw_store(path: Path | str) -> "Generator[lmdb.Transaction[bytes]]":
    """A write transaction on the data of a closed database: the way of damage into it."""
    environment = lmdb.open(str(data_file(path).parent), map_size=1 << 30, lib_version=0)
    try:
        with environment.begin(write=True) as txn:
            yield txn
    finally:
        environment.close()
