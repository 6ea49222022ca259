"""Records of conversations, and the entries that they share.

    <name>.records  {id, scope, updated_at, revision, head, branches, item | json}
    <name>.entries  {id, parent, references, item | json}

    head, branches, parent   ids of entries
    references               how many entries have this one as their parent, and how often it is the
                             head or a branch of a record
    item | json              the record, or the entry, as Pydantic writes it to JSON

Invariants:
- A stored entry's parent is stored, and so are heads and branches, but for branches that were
  missing when they were written.
- An entry without references is deleted in the commit that takes the last one, and so is its
  parent then. An entry that never had one stays.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, final

from pydantic import TypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
)
from pydantic_ai.messages import ModelMessagesTypeAdapter

from amberdb import Database, Document, Ordered, ReadableCollection, Transaction
from amberdb.integrations.json_items import item_of, stored_item
from amberdb.integrations.names import name_id

OWNER: Final = "pydantic_ai"
RECORD: Final[TypeAdapter[ConversationRecord]] = TypeAdapter(ConversationRecord)


@final
class Log:
    """The two collections."""

    def __init__(self, db: Database, name: str) -> None:
        """Raises CollectionError."""
        self._db = db
        self._records = db.collection(
            f"{name}.records",
            indexes=[Ordered("updated_at"), Ordered("scope", "updated_at")],
            owner=OWNER,
        )
        self._entries = db.collection(f"{name}.entries", owner=OWNER)

    # -- reading -----------------------------------------------------------------------------

    def record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation."""
        stored = self._records.get(name_id(conversation_id))
        return None if stored is None else RECORD.validate_python(item_of(stored))

    def records(self, scope: str | None, limit: int | None) -> list[ConversationRecord]:
        """The newest records, of a scope or of all."""
        if limit is not None and limit < 1:
            return []
        where = None if scope is None else {"scope": scope}
        found = self._records.find(where, order_by="-updated_at", limit=limit)
        return [RECORD.validate_python(item_of(stored)) for stored in found]

    def entry(self, entry_id: str) -> ConversationEntry:
        """An entry. Raises MissingKeyError."""
        return _entry(self._entries[name_id(entry_id)])

    def history(self, head_id: str | None, limit: int | None) -> list[ConversationEntry]:
        """The entries up to the head, oldest first. Raises MissingKeyError."""
        with self._db.snapshot() as at:
            stored = list(_upwards(at[self._entries.name], head_id, limit))
        return [_entry(each) for each in reversed(stored)]

    # -- writing -----------------------------------------------------------------------------

    def write(
        self,
        record: ConversationRecord,
        new_entries: Sequence[ConversationEntry],
        expected_revision: str | None,
    ) -> None:
        """Stores a record and entries, in one commit. Raises ConversationConflict."""
        documents = {name_id(entry.id): _document(entry) for entry in new_entries}
        row = _row(record)
        with self._db.transaction() as tx:
            before = self._expected(tx, record.conversation_id, expected_revision)
            entries = tx[self._entries.name]
            change = Counter(_tips(row))
            change.subtract(_tips(before))
            for stored in entries.get_many(documents):
                if stored is not None:
                    documents[stored["id"]]["references"] = stored["references"]
                    change[stored["parent"]] -= 1
            change.update(document["parent"] for document in documents.values())
            del change[None]
            needed = [row["head"], *(document["parent"] for document in documents.values())]
            for id in needed:
                if id is not None and id not in documents and id not in entries:
                    raise ConversationConflict(record.conversation_id)
            entries.put_many(documents.values())
            tx[self._records.name].put(row)
            self._refer(tx, change)

    def delete(self, conversation_id: str, expected_revision: str) -> None:
        """Deletes a record, and the entries that it alone reaches. Raises ConversationConflict."""
        with self._db.transaction() as tx:
            before = self._expected(tx, conversation_id, expected_revision)
            if before is None:
                raise ConversationConflict(conversation_id)
            tx[self._records.name].delete(before["id"])
            change: Counter[Any] = Counter()
            change.subtract(_tips(before))
            self._refer(tx, change)

    def _expected(
        self, tx: Transaction, conversation_id: str, revision: str | None
    ) -> Document | None:
        stored = tx[self._records.name].get(name_id(conversation_id))
        if (None if stored is None else stored["revision"]) != revision:
            raise ConversationConflict(conversation_id)
        return stored

    def _refer(self, tx: Transaction, change: Counter[Any]) -> None:
        """Changes numbers of references, and deletes the entries that have none left. What is added
        comes first: an entry may lose a reference and get another one."""
        entries = tx[self._entries.name]
        for id, by in sorted(change.items(), key=lambda each: -each[1]):
            while id is not None and by != 0 and (stored := entries.get(id)) is not None:
                if by > 0 or stored["references"] + by > 0:
                    entries.update(id, {"$inc": {"references": by}})
                    break
                entries.delete(id)
                id, by = stored["parent"], -1


def _upwards(
    entries: ReadableCollection, head_id: str | None, limit: int | None
) -> Iterable[Document]:
    id, count = None if head_id is None else name_id(head_id), 0
    while id is not None and (limit is None or count < limit):
        stored = entries[id]
        yield stored
        id, count = stored["parent"], count + 1


def _row(record: ConversationRecord) -> dict[str, Any]:
    return {
        "id": name_id(record.conversation_id),
        "scope": record.scope,
        "updated_at": record.updated_at,
        "revision": record.revision,
        "head": None if record.head_id is None else name_id(record.head_id),
        "branches": [name_id(branch) for branch in record.branches],
        **stored_item(RECORD.dump_python(record, mode="json")),
    }


def _tips(row: Document | None) -> list[str]:
    """The entries that a record points at, as often as it does."""
    if row is None:
        return []
    return [*([] if row["head"] is None else [row["head"]]), *row["branches"]]


def _document(entry: ConversationEntry) -> dict[str, Any]:
    (message,) = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    fields = {"id": entry.id, "parent_id": entry.parent_id, "kind": entry.kind, "message": message}
    return {
        "id": name_id(entry.id),
        "parent": None if entry.parent_id is None else name_id(entry.parent_id),
        "references": 0,
        **stored_item(fields),
    }


def _entry(stored: Document) -> ConversationEntry:
    fields: dict[str, Any] = item_of(stored)
    (message,) = ModelMessagesTypeAdapter.validate_python([fields["message"]])
    return ConversationEntry(
        id=fields["id"], parent_id=fields["parent_id"], kind=fields["kind"], message=message
    )
