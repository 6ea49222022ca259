"""The command copy: a collection, or the documents of one that match a filter, to another database.

Invariants:
- The copy has the documents of one snapshot, with the times of their first and last write.
- The target gets the declaration of the source. Where it has the collection already, only indexes
  that are missing there are added.
- Run again, it copies again: documents of the same ids are replaced.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Final

import typer

from amberdb import CollectionDef, CollectionError, Database, Vector
from amberdb._jsonl.exporter import long_snapshot
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    FilterJson,
    SourcePath,
    TargetPath,
    parse_where,
)
from amberdb.cli.bars import progress_bar
from amberdb.cli.output import emit, show
from amberdb.cli.verb import opened, opened_read_only, verb
from amberdb.move.copying import batches
from amberdb.move.declaring import declare

BATCH: Final = 500


@verb
def copy(
    source: SourcePath,
    collection: CollectionName,
    target: TargetPath,
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Its name there, if not the same."),
    ] = None,
    where: FilterJson = None,
    indexes: Annotated[
        bool, typer.Option("--indexes/--no-indexes", help="With its indexes, which are built.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Copies a collection to another database, with its indexes. With --where only the documents
    that match. The target and the collection are created when they are missing."""
    query, to = parse_where(where), name or collection

    def check(db: Database) -> None:
        db[collection].explain(query)

    with (
        _both(source, target, check) as (db, other),
        long_snapshot(db) as at,
        progress_bar() as bar,
    ):
        if db is other and collection == to:
            raise CollectionError("source and target are the same: give --as, another name")
        definition = replace(db.definition(collection), name=to)
        if not indexes:  # but those of vectors, which say that an array is one
            vectors = (each for each in definition.indexes if isinstance(each.spec, Vector))
            definition = replace(definition, indexes=tuple(vectors))
        is_new = to not in other.collections()
        total = at[collection].count(query)
        if is_new:
            declare(other, definition, with_late=False)
        task = bar.add_task("documents", total=total)
        count = 0
        for batch in batches(at[collection], BATCH, where=query):
            count += len(other[to].put_records([record for record, _ in batch]))
            bar.update(task, completed=count)
        if is_new:
            declare(other, definition, with_late=True)
        else:
            _add_indexes(other, definition)
        task = bar.add_task("indexed", total=None)
        other.build_indexes(lambda _, number: bar.update(task, completed=number))
        place = other.path  # without the password of a URL
    if as_json:
        emit({"documents": count, "collection": to, "target": place})
    else:
        show(f"{count:,} documents are in {to} of {place}")


@contextmanager
def _both(
    source: str, target: str, check: Callable[[Database], None]
) -> Generator[tuple[Database, Database]]:
    """Source and target, which may be one database. The source is checked before the target is
    made, so that a wrong name leaves nothing."""
    is_same = source == target or (
        os.path.isdir(target) and os.path.isdir(source) and os.path.samefile(source, target)
    )
    if is_same:
        with opened(target) as db:
            yield db, db
        return
    with opened_read_only(source) as db:
        check(db)
        with opened(target, create=True) as other:
            yield db, other


def _add_indexes(target: Database, definition: CollectionDef) -> None:
    """Declares the indexes that a collection does not have. Raises CollectionError."""
    known = target.definition(definition.name).specs
    new = [each for each in definition.specs if each not in known]
    if new:
        target.collection(definition.name, indexes=[*known, *new])
