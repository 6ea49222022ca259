"""The commands put, update and delete.

    ids, or the matching ids of one snapshot -> BATCH documents in each commit


Invariants:
- A document that is deleted, or does not match any more, when its turn comes is left as it is.
- Only put creates a database or a collection.
- Memory holds one batch of ids, however many documents match. A command that is stopped, or fails,
  says how many documents it has changed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, cast

import typer

from amberdb import (
    AmberError,
    Collection,
    Database,
    InvalidDocumentError,
    QueryError,
    ReadableCollection,
    Transaction,
    Where,
    WritableCollection,
)
from amberdb._jsonl.exporter import long_snapshot, matching
from amberdb._jsonl.text import convert_dates, loads
from amberdb.cli.arguments import (
    AsJson,
    ChangeLimit,
    CollectionName,
    DatabasePath,
    DateFields,
    DocumentIds,
    DryRun,
    EmbedModel,
    EmbedUrl,
    FilterJson,
    OrderFields,
    one_of,
    parse_json,
    parse_where,
    words,
)
from amberdb.cli.bars import progress_bar
from amberdb.cli.embedding import embedded, endpoint_of
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, opened, opened_read_only, say, verb

BATCH: Final = 500


@verb
def put(
    path: DatabasePath,
    collection: CollectionName,
    document: Annotated[
        str | None,
        typer.Argument(metavar="[JSON]", help="A map, or a list of maps; by default from stdin."),
    ] = None,
    dates: DateFields = None,
    on_conflict: Annotated[
        str, typer.Option(metavar="replace|keep|raise", help="Where a document with the id exists.")
    ] = "replace",
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    as_json: AsJson = False,
) -> None:
    """Stores documents in one commit, and prints their ids. A document without "id" gets a new one.
    The database and the collection are created when they are missing."""
    one_of("--on-conflict", on_conflict, ("replace", "keep", "raise"))
    text = sys.stdin.buffer.read() if document is None else document
    try:
        value = loads(text)
        documents = list(cast(Sequence[Any], value)) if type(value) is list else [value]
        for entry in documents:
            if type(entry) is not dict:
                raise ValueError("a document must be a map")
            convert_dates(cast(dict[str, Any], entry), words(dates))
    except ValueError as error:
        raise InvalidDocumentError(f"the document: {error}") from None
    endpoint = endpoint_of(embed_url, embed_model)
    with opened(path, create=True) as db:
        target = db.collection(collection)
        if endpoint is not None:
            target = embedded(db, collection, endpoint)
        ids = target.put_many(documents, on_conflict=cast(Any, on_conflict))
    if as_json:
        emit({"ids": ids})
    else:
        for id in ids:
            show(id)


@verb
def update(
    path: DatabasePath,
    collection: CollectionName,
    patch: Annotated[
        str,
        typer.Argument(
            metavar="PATCH",
            help='The changes as JSON: {"done": true, "$unset": ["old"], "$inc": {"views": 1}}.',
            show_default=False,
        ),
    ],
    ids: DocumentIds = None,
    where: FilterJson = None,
    order_by: OrderFields = None,
    limit: ChangeLimit = None,
    dates: DateFields = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Changes fields of documents, by id or by a filter. Maps are merged, other values are replaced
    (docs/queries.md, changing documents)."""
    changes = parse_json("PATCH", patch)
    if not isinstance(changes, dict):
        raise QueryError("PATCH: the changes are a JSON map")
    changed = cast(dict[str, Any], changes)
    try:
        convert_dates(changed, words(dates))
    except ValueError as error:
        raise InvalidDocumentError(f"PATCH: {error}") from None
    endpoint = endpoint_of(embed_url, embed_model)

    def apply(target: WritableCollection, found: list[str]) -> int:
        for id in found:
            target.update(id, changed)
        return len(found)

    def prepare(db: Database) -> None:
        if endpoint is not None:
            embedded(db, collection, endpoint)

    def finish(target: Collection) -> None:
        if endpoint is not None:
            target.embed_missing()

    run = _Change("updated", apply, prepare, finish)
    which = _Which(ids or [], parse_where(where), words(order_by), limit)
    _run(run, path, collection, which, dry_run, as_json)


@verb
def delete(
    path: DatabasePath,
    collection: CollectionName,
    ids: DocumentIds = None,
    where: FilterJson = None,
    order_by: OrderFields = None,
    limit: ChangeLimit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deletes documents, by id or by a filter. The filter {} matches all. What must leave every
    file of the database is for `erase`."""

    def apply(target: WritableCollection, found: list[str]) -> int:
        return target.delete_many(ids=found)

    run = _Change("deleted", apply)
    which = _Which(ids or [], parse_where(where), words(order_by), limit)
    _run(run, path, collection, which, dry_run, as_json)


# -- inside --------------------------------------------------------------------------------------


def _nothing(_: Any) -> None: ...


class _Change:
    """What update and delete do to documents."""

    def __init__(
        self,
        done: str,
        apply: Callable[[WritableCollection, list[str]], int],
        prepare: Callable[[Database], None] = _nothing,
        finish: Callable[[Collection], None] = _nothing,
    ) -> None:
        self.done = done
        self.apply = apply
        """Changes the documents of these ids, which exist; how many."""
        self.prepare = prepare
        self.finish = finish


class _Which(NamedTuple):
    """Which documents: those of the ids, or those that match."""

    ids: list[str]
    where: Where | None
    order: list[str]
    limit: int | None

    def check(self) -> None:
        """Raises QueryError unless it is one of the two."""
        if (self.where is None) == (not self.ids):
            raise QueryError("give the ids of documents, or --where with a filter, and not both")
        if self.ids and (self.limit is not None or self.order):
            raise QueryError("--limit and --order-by are for --where, not for ids")

    def count(self, collection: ReadableCollection) -> int:
        """How many there are now."""
        if self.where is None:
            return sum(each is not None for each in collection.get_many(dict.fromkeys(self.ids)))
        return min(collection.count(self.where), self.limit or sys.maxsize)


def _run(
    change: _Change, path: str, name: str, which: _Which, dry_run: bool, as_json: bool
) -> None:
    """Makes a change, and reports it."""
    which.check()
    with (opened_read_only if dry_run else opened)(path) as db:
        if dry_run:
            count = which.count(db[name])
        else:
            change.prepare(db)
            count = _change(change, db, name, which)
            change.finish(db[name])
    done = f"would be {change.done}" if dry_run else change.done
    if as_json:
        emit({change.done: count, "dry_run": dry_run})
    else:
        show(f"{count:,} documents {done}")
    if count < (given := len(set(which.ids))):
        say(f"{given - count} of the ids are not there")
        raise typer.Exit(Exit.NOTHING)


def _change(change: _Change, db: Database, name: str, which: _Which) -> int:
    """Changes documents in batches; how many. Raises what a batch raised, after it has said how
    many were changed before."""
    count = 0
    try:
        with progress_bar() as bar, long_snapshot(db) as at:
            task = bar.add_task(change.done, total=which.count(at[name]))
            for ids in _batches(at[name], which):
                count += db.run(partial(_change_batch, change, name, which.where, ids))
                bar.update(task, completed=count)
    except (AmberError, OSError, KeyboardInterrupt):
        if count:
            say(f"{count:,} documents were {change.done} before")
        raise
    return count


def _change_batch(
    change: _Change, name: str, where: Where | None, ids: list[str], tx: Transaction
) -> int:
    """Changes those of the ids that are there, and match, now."""
    here: Where = {"id": {"$in": ids}}
    found = tx[name].find({"$and": [where, here]} if where else here, limit=BATCH, fields=["id"])
    return change.apply(tx[name], [each["id"] for each in found])


def _batches(collection: ReadableCollection, which: _Which) -> Iterator[list[str]]:
    """The ids, a batch at a time."""
    ids: Iterator[str] = iter(dict.fromkeys(which.ids))
    if which.where is not None:
        found = matching(collection, which.where, order_by=which.order, fields=["id"])
        ids = (each["id"] for each in islice(found, which.limit))
    while batch := list(islice(ids, BATCH)):
        yield batch
