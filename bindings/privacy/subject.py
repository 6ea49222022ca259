"""A person asks what a database holds of them, and that it be forgotten.

    export() -> a map of collections, or a file of JSON     forget() -> db.erase() -> one receipt

Invariants:
- An export shows one Lsn, and leaves out what is derived from a document: its vectors.
- What export() shows is what forget() removes, and besides documents that have expired.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from amberdb import Database, Document, Erasure, Snapshot, Where
from amberdb._jsonl.text import dumps
from amberdb._shared.files import whole_file
from amberdb._shared.queries import all_pages
from amberdb.privacy.held import held


def export(
    db: Database, entity_id: str, *, also: Mapping[str, Where] | None = None
) -> dict[str, list[Document]]:
    """By collection all documents of a person or an agent, in every memory system of the database;
    without their vectors. Collections without any are left out.

        everything = export(db, "lin", also={"orders": {"customer": "lin"}})

    also  filters for collections of the program

    amberdb.to_json() makes JSON of the values that it does not have. Raises
    InvalidDocumentError, CollectionMissingError.
    """
    with db.snapshot() as at:
        wheres = held(db, entity_id, also=also)
        found = {name: list(_documents(at, name, each)) for name, each in wheres.items()}
    return {name: documents for name, documents in found.items() if documents}


def export_json(
    db: Database,
    entity_id: str,
    path: str | os.PathLike[str],
    *,
    also: Mapping[str, Where] | None = None,
) -> int:
    """Writes what export() gives as a JSON file, document by document; how many. The file is for
    its owner alone, and has its name when it is complete. Raises OSError,
    InvalidDocumentError."""
    count = 0
    with db.snapshot() as at, whole_file(os.fspath(path)) as file:
        file.write("{")
        separator = "\n"
        for name, wheres in held(db, entity_id, also=also).items():
            head = f"{separator}{dumps(name)}: ["
            for document in _documents(at, name, wheres):
                file.write(f"{head}\n  {dumps(document)}")
                head, separator = ",", ",\n"
                count += 1
            if head == ",":
                file.write("\n]")
        file.write("\n}\n")
    return count


def forget(
    db: Database,
    entity_id: str,
    *,
    reason: str,
    also: Mapping[str, Where] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Erasure:
    """Removes all documents of a person or an agent from every memory system of the database, and
    from every file of its directory: db.erase(), with one receipt.

        receipt = forget(db, "lin", reason="request 17")
        receipt.collections, receipt.backups

    also      filters for collections of the program
    progress  is called with (pairs, of) while the files are rewritten

    Expired documents, and text in the log that subscribers have yet to read, are included. The
    receipt names the backups that may still hold something. After a crash the next open goes on.
    Raises as Database.erase() does.
    """
    return db.erase(held(db, entity_id, also=also), reason=reason, progress=progress)


def is_held(db: Database, entity_id: str) -> bool:
    """Whether export() would give anything. Raises as export() does."""
    with db.snapshot() as at:
        return any(
            at[name].find(where, limit=1, fields=["id"])
            for name, wheres in held(db, entity_id).items()
            for where in wheres
        )


def _documents(at: Snapshot, name: str, wheres: Sequence[Where]) -> Iterator[Document]:
    """The documents of a collection that any of the filters matches, without vectors."""
    seen: set[str] = set()
    for document in chain.from_iterable(all_pages(at[name].find, where) for where in wheres):
        if document["id"] not in seen:
            seen.add(document["id"])
            yield {key: value for key, value in document.items() if not hasattr(value, "ndim")}
