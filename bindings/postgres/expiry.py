"""The removal of documents that have expired.

Invariants:
- Several processes may do it at once: each passes over the documents that another one has in hand.
- A batch is one transaction, and only documents that have expired by its own time are removed.
"""

from typing import Final

from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import schema_of
from amberdb.postgres.batch import PostgresBatch
from amberdb.postgres.connections import execute
from amberdb.postgres.session import Sessions

BATCH: Final = 500


def expire(sessions: Sessions, collection: str) -> int:
    """Removes what has expired by now in a collection; returns the number. Raises
    CollectionMissingError."""
    total = 0
    while True:
        with sessions.writing("os") as batch:
            schema = schema_of(batch.view, collection)
            count = 0 if schema.expires_at is None else _expire_batch(batch, schema)
        total += count
        if count < BATCH:
            return total


def _expire_batch(batch: PostgresBatch, schema: Schema) -> int:
    table = batch.table(schema)
    found = (
        f"SELECT key FROM {table.name} WHERE {table.columns[schema.expiry_prefix]} < %s "
        f"LIMIT {BATCH} FOR UPDATE SKIP LOCKED"
    )
    bound = schema.expiry_bound(batch.now_us)[len(schema.expiry_prefix) :]
    rows = execute(
        batch.connection,
        f"DELETE FROM {table.name} WHERE key IN ({found}) RETURNING key, rowid",
        [bound],
    ).fetchall()
    keys = [row[0] for row in rows]
    for beside in (table.entries, table.values):
        execute(batch.connection, f"DELETE FROM {beside} WHERE key = ANY(%s)", [keys])
    for index in table.searched:
        index.replace(batch.connection, [row[1] for row in rows], ())
    return len(keys)
