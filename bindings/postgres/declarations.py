"""Declarations: what a program says of its collections, each made one transaction of the server.

Invariants:
- A declaration holds the fence alone: transactions that write have ended before it, and go by the
  new catalog after it. So every document that is there then has the entries of a new index.
- A newer version of documents is one too: all of them are upgraded by the time it ends, or none.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import final

import psycopg

from amberdb.engine.schema.catalog import Catalog, Declaration
from amberdb.postgres.catalogue import Catalogues
from amberdb.postgres.connections import Connections
from amberdb.postgres.statement.functions import write_dropped
from amberdb.postgres.tables_writer import TablesWriter


@final
class Declarations:
    """The changes of one database's catalog."""

    def __init__(self, connections: Connections, catalogues: Catalogues, timeout_ms: int) -> None:
        self._connections = connections
        self._catalogues = catalogues
        self._wait_ms = max(1, timeout_ms)

    def declare(self, name: str, declaration: Declaration) -> None:
        """Changes what is not so already. Raises CollectionError, MigrationError, and for an index
        that cannot be built DuplicateKeyError and InvalidDocumentError; then nothing is changed."""

        def change(writer: "TablesWriter") -> Catalog | None:
            return self._declared(writer, name, declaration)

        self._commit(change)

    def rename(self, old: str, new: str) -> None:
        """Raises CollectionMissingError, CollectionError."""

        def change(writer: "TablesWriter") -> Catalog:
            catalog = writer.catalog.rename(writer, old, new)
            writer.tell_name("rename", old, new)
            return catalog

        self._commit(change)

    def drop(self, name: str) -> None:
        """Raises CollectionMissingError."""

        def change(writer: "TablesWriter") -> Catalog:
            table = writer.table(writer.catalog.schema(name))
            catalog = writer.catalog.drop(writer, name)
            for keyspace in catalog.retired:
                catalog = catalog.purged(keyspace)
            catalog.save_counters(writer)
            writer.execute(table.dropped())
            writer.forget(table.schema)
            writer.tell_name("drop", name, None)
            writer.execute(write_dropped(table))
            return catalog

        self._commit(change)

    def start_feed(self) -> None:
        """Lets every later commit be told to readers of the change feed."""
        self._commit(lambda writer: writer.start_feed())

    def stop_feed(self) -> None:
        """Ends that, unless there is a subscriber."""
        self._commit(lambda writer: writer.stop_feed())

    # -- inside ------------------------------------------------------------------------------

    def _commit(self, change: Callable[["TablesWriter"], Catalog | None]) -> None:
        """One transaction that holds the fence; `change` returns the catalog after it."""
        catalogues, connections = self._catalogues, self._connections
        connection, row = connections.begun(
            f"BEGIN; SET LOCAL lock_timeout = {self._wait_ms}; {catalogues.alone}"
        )
        began = catalogues.began(row)
        writer: TablesWriter | None = None
        try:
            before = catalogues.load(connection, began.version)
            writer = TablesWriter(connection, before, began.lsn, began.now_us)
            if change(writer) is not None:
                writer.save(began.version + 1)
                connection.commit()
        except psycopg.Error as error:
            is_commit = writer is not None and writer.is_saved
            raise connections.reporter.typed(error, committing=is_commit) from None
        finally:
            connections.give(connection)

    def _declared(
        self, writer: "TablesWriter", name: str, declaration: Declaration
    ) -> Catalog | None:
        known = writer.catalog.schemas.get(name)
        is_empty = known is None or writer.is_empty(known)
        wanted = writer.catalog.wanted(name, declaration, writer.lsn, is_empty=is_empty)
        if wanted is None:
            return None
        definition, catalog = wanted
        migrating = self._catalogues.schema(definition, declaration.upgrades)
        definition = replace(definition, steps=())  # all of them are taken at once
        catalog.save(writer, definition)
        schema = self._catalogues.schema(definition)
        catalog = catalog.replaced(schema)
        if schema.older:  # of another version of the analyzer; it is built anew at once
            catalog = catalog.without_older(writer, schema)
            schema = catalog.schemas[name]
        writer.change(known, schema, migrating)
        return catalog
