"""The commands collections, schema, rename and drop.

Invariants:
- collections and schema change nothing.
"""

from typing import Annotated, Any

import typer

from amberdb import Database
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    DryRun,
    OneCollection,
    OutputFormat,
)
from amberdb.cli.bars import counting
from amberdb.cli.collections.indexes import declared, in_words, index_facts
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit, properties, show
from amberdb.cli.verb import opened, opened_read_only, verb

_COLUMNS = ("collection", "documents", "indexes", "version", "expires_at", "owner")


@verb
def collections(path: DatabasePath, format: OutputFormat = None, as_json: AsJson = False) -> None:
    """Lists the collections. Of each: its documents, number of indexes, version of the documents,
    the field of their expiry, and the memory system that owns it."""
    kind = chosen(format, as_json)
    with opened_read_only(path) as db:
        facts = db.stats().collections
        rows = [_row(db, name, facts[name]["documents"]) for name in db.collections()]
    show_rows("collections", _COLUMNS, rows, kind)


@verb
def schema(
    path: DatabasePath,
    collection: OneCollection = None,
    as_json: AsJson = False,
) -> None:
    """Shows how collections are declared. That is their indexes with the options that are not the
    default, required fields, expiry, version and owner."""
    with opened_read_only(path) as db:
        names = db.collections() if collection is None else [collection]
        found = {name: _schema(db, name) for name in names}
    if as_json:
        emit(found)
        return
    for name, facts in found.items():
        indexes = facts.pop("indexes")
        show(properties(name, facts))
        columns = ("name", "kind", "fields", "options", "state")
        show_rows(f"indexes of {name}", columns, [in_words(each) for each in indexes], "table")


@verb
def rename(
    path: DatabasePath,
    collection: CollectionName,
    name: Annotated[str, typer.Argument(metavar="NEW", help="The new name.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Renames a collection. Documents and indexes stay; it is one commit."""
    with opened(path) as db:
        db.rename_collection(collection, name)
    if as_json:
        emit({"collection": name})
    else:
        show(f"{collection} is {name} now")


@verb
def drop(
    path: DatabasePath,
    collection: CollectionName,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deletes a collection with its documents and indexes. It is one commit, and its bytes are out
    of every file after `compact`."""
    with (opened_read_only if dry_run else opened)(path) as db:
        count = len(db[collection])
        if not dry_run:
            db.drop_collection(collection)
            with counting() as progress:
                db.build_indexes(progress)  # which frees its space
    if as_json:
        emit({"documents": count, "dry_run": dry_run})
    else:
        show(f"{collection} {'would be' if dry_run else 'is'} dropped, with {count:,} documents")


# -- inside --------------------------------------------------------------------------------------


def _row(db: Database, name: str, documents: int) -> dict[str, Any]:
    definition = db.definition(name)
    return {
        "collection": name,
        "documents": documents,
        "indexes": len(declared(definition)),
        "version": definition.version,
        "expires_at": definition.expires_at,
        "owner": definition.owner,
    }


def _schema(db: Database, name: str) -> dict[str, Any]:
    definition = db.definition(name)
    facts = db.stats().collections[name]
    return {
        "documents": facts["documents"],
        "version": definition.version,
        "expires_at": definition.expires_at,
        "required": dict(definition.required),
        "owner": definition.owner,
        "indexes": [
            {**index_facts(spec), "state": facts["indexes"][spec.name]}
            for spec in declared(definition)
        ],
    }
