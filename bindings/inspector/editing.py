"""Changes that a person makes: a document is edited, deleted or erased.

Invariants:
- Every change asks for a confirmation, the id or the name of the collection as the person types it,
  and compares it before anything is written.
- An edit names the version that the person has seen: where the document has changed since, nothing
  is written (ConflictError).
- A following database refuses all of them (ReadOnlyError), whoever asks.
"""

from typing import Any, cast

from amberdb import (
    ConflictError,
    Database,
    Erasure,
    InvalidDocumentError,
    Lsn,
    MissingKeyError,
    QueryError,
    Where,
)
from amberdb._jsonl.text import loads


def check_confirmation(typed: str, wanted: str) -> None:
    """Raises QueryError unless the person has typed what was asked for."""
    if typed != wanted:
        raise QueryError("what was typed does not confirm it: nothing was changed")


def edit_document(
    db: Database, collection: str, id: str, text: str, *, version: Lsn | int, confirmed: str
) -> Lsn:
    """Replaces a document by its new JSON text; returns its new version. Raises QueryError,
    InvalidDocumentError, MissingKeyError, ConflictError, ReadOnlyError."""
    check_confirmation(confirmed, id)
    try:
        document = loads(text)
    except ValueError as error:
        raise InvalidDocumentError(f"the document: {error}") from None
    if type(document) is not dict:
        raise InvalidDocumentError("the document is not a map")
    given = cast(dict[str, Any], document)
    if given.get("id", id) != id:
        raise InvalidDocumentError("the id of a document cannot be changed: put a new document")
    with db.transaction() as tx:
        stored = tx[collection].record(id)
        if stored.version != version:
            raise ConflictError(
                "the document was changed meanwhile: load it again and repeat the edit"
            )
        tx[collection].put({**given, "id": id})
    return Lsn(tx.lsn)


def delete_document(db: Database, collection: str, id: str, *, confirmed: str) -> None:
    """Deletes a document. Raises QueryError, MissingKeyError, ReadOnlyError."""
    check_confirmation(confirmed, id)
    if not db[collection].delete(id):
        raise MissingKeyError(f"{collection!r} has no document with this id")


def erase_documents(
    db: Database, collection: str, where: Where, *, reason: str, confirmed: str
) -> Erasure:
    """Deletes the documents that match and removes them from every file of the database. What is
    typed is the name of the collection. Raises QueryError, CollectionMissingError,
    ReadOnlyError."""
    check_confirmation(confirmed, collection)
    if not reason.strip():
        raise QueryError("an erasure has a reason, which the receipt keeps: give one")
    return db.erase(collection, where, reason=reason.strip())
