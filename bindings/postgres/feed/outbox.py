"""The outbox: the table in which writers leave what the change feed tells, feed.py.

    feed_commits      number    taken from the sequence when the transaction has all of its locks
                      position  the Lsn in the feed, given by the first reader that sees the row
                      time_us, bytes    its time, and about what its changes take
    feed_changes      number, place     the commit, and the order in it
                      keyspace          of the collection; null for a change of a name
                      name, op, key, document, new_name     as in Change
    feed_subscribers  name, position
    feed_start        position          what was before it is not there: pruned, or never written

Invariants:
- The catalog says whether the tables are there, so every writer knows it by the fence: each commit
  after the one that made them is in the feed.
- What is told of a document is its row at the end of the transaction, and each document once. Its
  vectors are told with it.
- Two commits that write one document have numbers in the order of their locks, and so of their
  commits. The order of transaction ids is another one: a transaction has its id from its first
  write on, and may be the last to lock the document.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, final

from amberdb._types import Document
from amberdb.engine.commit.change_feed import Op
from amberdb.engine.schema.keyspace import META
from amberdb.engine.schema.schema import Schema
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.postgres.connections import Connection, execute
from amberdb.postgres.json_text import dumps
from amberdb.postgres.table import Table

FEED: Final = META + b"f"
"""The entry of the catalog that says that there is a feed."""
_COLUMNS: Final = "number, place, keyspace, name, op, key, document, new_name"


class Written(NamedTuple):
    """A document that a transaction has written."""

    table: Table
    document: Document | None = None
    """Whole, where the row has it without its vectors."""

    @classmethod
    def of(cls, table: Table, document: Document | None) -> "Written":
        return cls(table, document if table.vectors else None)


@final
class Outbox:
    """The tables of one database's feed."""

    __slots__ = ("changes", "commits", "lsn", "start", "subscribers")

    def __init__(self, database: str) -> None:
        self.commits = f'"{database}".feed_commits'
        self.changes = f'"{database}".feed_changes'
        self.subscribers = f'"{database}".feed_subscribers'
        self.start = f'"{database}".feed_start'
        self.lsn = f'"{database}".lsn'

    def created(self) -> Iterator[str]:
        """The statements that create the tables."""
        yield (
            f"CREATE TABLE {self.commits} (number bigint PRIMARY KEY, position bigint UNIQUE, "
            "time_us bigint NOT NULL, bytes bigint NOT NULL)"
        )
        yield f"CREATE INDEX ON {self.commits} (number) WHERE position IS NULL"
        yield (
            f"CREATE TABLE {self.changes} (number bigint, place int, keyspace bytea, "
            "name bytea NOT NULL, op text NOT NULL, key bytea NOT NULL, document jsonb, "
            "new_name bytea, PRIMARY KEY (number, place))"
        )
        yield (
            f"CREATE TABLE {self.subscribers} (name bytea PRIMARY KEY, position bigint NOT NULL)"
        )
        yield f"CREATE TABLE {self.start} AS SELECT nextval('{self.lsn}') AS position"

    def dropped(self) -> str:
        """The statement that drops the tables."""
        return f"DROP TABLE {self.commits}, {self.changes}, {self.subscribers}, {self.start}"

    def write(
        self,
        connection: Connection,
        now_us: int,
        size_bytes: int,
        written: Mapping[bytes, Written],
        gone: Op,
    ) -> None:
        """Takes in the documents that a transaction has written, by their keys; the last thing that
        it writes. `gone`: what is told of a document that is not there."""
        parts: list[str] = []
        values: list[Any] = [now_us, size_bytes]
        places = {key: place for place, key in enumerate(written)}
        for table in dict.fromkeys(each.table for each in written.values()):
            keys = [key for key, each in written.items() if each.table is table]
            values += [table.schema.prefix, table.schema.name.encode(), gone]
            values += [[key[KEYSPACE_BYTES:] for key in keys], [places[key] for key in keys]]
            there, joined = "d.document", f"LEFT JOIN {table.name} d ON d.key = w.key"
            types, columns = "%s::bytea[], %s::int[]", "key, place"
            if table.vectors:  # which its rows do not have
                there, joined = "w.document::jsonb", ""
                types, columns = f"{types}, %s::text[]", f"{columns}, document"
                values.append([_text(written[key].document) for key in keys])
            parts.append(
                f"SELECT c.number, w.place, %s::bytea, %s::bytea, CASE WHEN {there} IS NULL "
                f"THEN %s ELSE 'put' END, w.key, {there}, NULL::bytea FROM c "
                f"CROSS JOIN unnest({types}) AS w({columns}) {joined}"
            )
        execute(connection, f"{self._commit} {' UNION ALL '.join(parts)}", values)

    def write_name(
        self, connection: Connection, now_us: int, op: Op, name: str, new_name: str | None
    ) -> None:
        """Takes in that a collection was renamed or dropped."""
        new = None if new_name is None else new_name.encode()
        select = "SELECT c.number, 0, NULL, %s, %s, ''::bytea, NULL, %s::bytea FROM c"
        execute(connection, f"{self._commit} {select}", [now_us, 0, name.encode(), op, new])

    def forget(self, connection: Connection, schema: Schema) -> None:
        """Removes what is to be told of the documents of a collection that is dropped."""
        sql = f"DELETE FROM {self.changes} WHERE keyspace = %s"
        execute(connection, sql, [schema.prefix])

    @property
    def _commit(self) -> str:
        return (
            f"WITH c AS (INSERT INTO {self.commits} "
            f"VALUES (nextval('{self.lsn}'), NULL, %s, %s) RETURNING number) "
            f"INSERT INTO {self.changes} ({_COLUMNS})"
        )


def _text(document: Document | None) -> str | None:
    return None if document is None else dumps(document)
