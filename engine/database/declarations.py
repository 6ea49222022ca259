"""Declarations: what a program says of its collections, each made one commit of catalog entries.

    declared -> documents are migrated (engine/maintenance/migrator.py), then indexes are built
    renamed  -> nothing else to do: trees have numbers, and only the catalog knows names
    dropped  -> its trees are emptied (maintenance/index_build.py), its files in cache/ are removed

Invariants:
- A declaration takes effect with its commit, whole, and is recovered, snapshotted and backed up
  like documents. What is to be done after it can be interrupted anywhere and goes on.
- Views that began before it go on with the catalog of their own Lsn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import final

from amberdb import _failpoints as failpoints
from amberdb._errors import (
    CollectionError,
    DuplicateKeyError,
    InvalidDocumentError,
)
from amberdb.engine.commit.committer import Committer, OneCommit
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog, Declaration, listed
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.definition import CollectionDef, required_types
from amberdb.engine.schema.migration import Upgrades
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searchers import Searchers
from amberdb.index.registry import IndexSpec


@final
class Declarations:
    """Owned by the Database."""

    def __init__(
        self,
        committer: Committer,
        indexer: Indexer,
        searchers: Searchers,
        embedders: Embedders,
        options: Options,
    ) -> None:
        self._committer = committer
        self._indexer = indexer
        self._searchers = searchers
        self._embedders = embedders
        self._options = options

    def declare(self, name: str, declaration: Declaration) -> None:
        """Changes what is not so already, and returns when Unique indexes are complete, which
        brings a migration to its end first. Raises CollectionError; MigrationError, and then the
        declaration stands; DuplicateKeyError and InvalidDocumentError for a Unique index that
        cannot be built, and is dropped again."""
        committer = self._committer
        if committer.state.catalog.wanted(name, declaration, 1, is_empty=True) is not None:
            self._commit(lambda writer: self._declared(writer, name, declaration))
        committer.await_catalog()
        committer.state.catalog.schema(name).register_upgrades(declaration.upgrades)
        if self._lacks_unique(name):
            self._build_unique(name)
        if declaration.indexes is not None:
            self._embedders.attach(committer.state.catalog.schema(name), declaration.indexes)

    def adopt(self, name: str, declaration: Declaration) -> None:
        """Takes the functions of a declaration, as far as they fit what is declared by now."""
        schema = self._committer.state.catalog.schemas.get(name)
        if schema is None:
            return
        schema.register_upgrades(declaration.upgrades)
        given = {spec: spec for spec in declaration.indexes or ()}
        specs = schema.definition.specs
        self._embedders.attach(schema, [given.get(spec, spec) for spec in specs])

    def leaves_work(self, name: str) -> bool:
        """Whether a collection, as it is declared, has something to migrate, build or purge. Looks
        at no other collection: there may be many."""
        catalog = self._committer.state.catalog
        schema = catalog.schemas.get(name)
        if catalog.retired or schema is None:
            return bool(catalog.retired)
        return self._indexer.has_work(schema)

    def renew(self) -> None:
        """Declares anew what an earlier version has made: text indexes of another version of their
        analyzer, which answer until the new ones are built, and collections whose documents have
        their vectors inside."""
        for name, schema in self._committer.state.catalog.schemas.items():
            if schema.foreign or (schema.vectors and not schema.vector_prefix):
                self.declare(name, _indexes_of(schema.definition, schema.definition.specs))

    def rename(self, old: str, new: str) -> None:
        """Raises CollectionMissingError, and CollectionError when there is a `new` already."""
        self._commit(lambda batch: batch.view.catalog.rename(batch, old, new))
        self._embedders.rename(old, self._committer.state.catalog.schema(new))

    def drop(self, name: str) -> None:
        """Raises CollectionMissingError."""
        self._commit(lambda batch: batch.view.catalog.drop(batch, name))
        self._embedders.forget(name)

    # -- inside ------------------------------------------------------------------------------

    def _commit(self, change: Callable[[WriteBatch], Catalog | None]) -> None:
        """One commit: `change` adds its effects to the batch and returns the catalog after it."""
        with OneCommit(self._committer) as batch:
            batch.catalog = change(batch)
            if failpoints.on:
                failpoints.reach("schema.before-commit")
        if failpoints.on:
            failpoints.reach("schema.committed")
        self._searchers.forget(self._committer.state.catalog.retired)

    def _declared(self, writer: WriteBatch, name: str, declaration: Declaration) -> Catalog | None:
        """The catalog with the collection as it is wanted; None when another thread was faster."""
        catalog = writer.view.catalog
        known = catalog.schemas.get(name)
        is_empty = (
            known is None
            or not CollectionCounters.unpack(writer.view.get(known.counters_key)).documents
        )
        wanted = catalog.wanted(name, declaration, writer.lsn, is_empty=is_empty)
        if wanted is None:
            return None
        definition, catalog = wanted
        catalog.save(writer, definition)
        upgrades = {**({} if known is None else known.upgrades), **declaration.upgrades}
        return catalog.replaced(Schema(definition, self._options, upgrades))

    def _lacks_unique(self, name: str) -> bool:
        schema = self._committer.state.catalog.schema(name)
        if schema.migration is not None:
            return bool(schema.unique_indexes) and not schema.migration.missing
        return any(map(_is_unique, self._indexer.pending_of(schema)))

    def _build_unique(self, name: str) -> None:
        """Builds the Unique indexes of one collection, and no other: those are none of the
        caller's business, and may fail."""
        try:
            self._indexer.run(collection=name, wanted=_is_unique)
        except (DuplicateKeyError, InvalidDocumentError):
            schema = self._committer.state.catalog.schema(name)
            pending = {i.number for i in self._indexer.pending_of(schema) if i.is_unique}
            dropped = [i.spec for i in schema.definition.indexes if i.keyspace in pending]
            kept = [spec for spec in schema.definition.specs if spec not in dropped]
            without = _indexes_of(schema.definition, kept)
            self._commit(lambda writer: self._declared(writer, name, without))
            raise


def _indexes_of(definition: CollectionDef, specs: list[IndexSpec]) -> Declaration:
    """A declaration of indexes alone, by the owner of the collection."""
    return Declaration(indexes=specs, owner=definition.owner)


def _is_unique(index: AnyIndex) -> bool:
    return index.is_unique


def declaration_of(
    indexes: Sequence[IndexSpec] | None,
    expires_at: str | None,
    required: Mapping[str, type | None] | Sequence[str] | None,
    version: int | None,
    migrate: Upgrades | None,
    owner: str | None,
) -> Declaration:
    """As the catalog takes it. Raises CollectionError."""
    if version is not None and (type(version) is not int or not 0 < version < 1 << 32):
        raise CollectionError(f"version={version!r}: versions are counted from 1")
    if migrate is not None:
        if version is None:
            raise CollectionError("migrate leads to a version: say which, as version=...")
        is_map = isinstance(migrate, Mapping)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_map or not all(
            type(to) is int and callable(function) for to, function in migrate.items()
        ):
            raise CollectionError(f"migrate is a map of versions to functions, not {migrate!r}")
    return Declaration(
        indexes=None if indexes is None else listed(indexes),
        expires_at=expires_at,
        required=None if required is None else required_types(required),
        version=version,
        owner=owner,
        upgrades=dict(migrate or {}),
    )
