"""The removal of documents that have expired.

Invariants:
- Several processes may do it at once: each passes over the documents that another one has in hand.
- A batch is one transaction, and only documents that have expired by its own time are removed.
"""

from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.schema.expiry_index import time_of_entry
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Schema
from amberdb.engine.storage.view import View, schema_of
from amberdb.postgres.batch import PostgresBatch
from amberdb.postgres.connections import execute
from amberdb.postgres.session import Sessions
from amberdb.postgres.table import expiry_bound


def expire(sessions: Sessions, collection: str, grace_us: int = 0) -> int:
    """Removes what has been expired for so long in a collection; returns the number. Raises
    CollectionMissingError."""
    total, limit = 0, max(1, sessions.options.reap_batch)
    while True:
        with sessions.writing("os") as batch:
            schema = schema_of(batch.view, collection)
            expires = schema.expires_at is not None
            count = _expire_batch(batch, schema, grace_us, limit) if expires else 0
        total += count
        if count < limit:
            return total


def first_expiries_us(view: View) -> dict[str, int]:
    """By collection in which documents expire the time when the first one does, or NEVER."""
    firsts: dict[str, int] = {}
    for name, schema in view.catalog.schemas.items():
        if schema.expires_at is not None:
            first = next(view.scan(schema.expiry_prefix, end_of(schema.expiry_prefix)), None)
            firsts[name] = NEVER if first is None else time_of_entry(first[0])
    return firsts


def _expire_batch(batch: PostgresBatch, schema: Schema, grace_us: int, limit: int) -> int:
    table = batch.table(schema)
    column = table.columns[schema.expiry_prefix]
    found = (
        f"SELECT key FROM {table.name} WHERE {column} < %s "
        f"ORDER BY {column} LIMIT {limit} FOR UPDATE SKIP LOCKED"
    )
    rows = execute(
        batch.connection,
        f"DELETE FROM {table.name} WHERE key IN ({found}) RETURNING key, rowid",
        [expiry_bound(schema, batch.now_us - grace_us)],
    ).fetchall()
    keys = [row[0] for row in rows]
    for beside in (table.entries, table.values):
        execute(batch.connection, f"DELETE FROM {beside} WHERE key = ANY(%s)", [keys])
    batch.expired(table, keys)
    for index in table.searched:
        index.replace(batch.connection, [row[1] for row in rows], ())
    return len(keys)
