"""The command diff: what two backups, or a backup and a database, do not have alike.

Invariants:
- Nothing is changed. A backup is restored to a temporary directory, which is removed at the end.
- Both sides are read by id, side by side: memory holds one batch of each, and the first --limit
  documents that differ.
"""

import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

import amberdb
from amberdb import CollectionMissingError, Database, Document, equal
from amberdb.cli.arguments import LIMIT, AsJson, OutputFormat, PageLimit
from amberdb.cli.bars import counting
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, opened_read_only, say, verb
from amberdb.move.comparing import side_by_side
from amberdb.move.copying import batches
from amberdb.move.declaring import declared

BATCH: Final = 500
FIELDS_MAX: Final = 20
"""Fields that are named of one document."""

_COUNTS = ("collection", "added", "removed", "changed", "same", "declaration")


@verb
def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE",
            help="A backup, a chain of backups as FULL,INCREMENTAL,..., or a database.",
            show_default=False,
        ),
    ],
    after: Annotated[
        str,
        typer.Argument(metavar="AFTER", help="The other one, likewise.", show_default=False),
    ],
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this collection.")
    ] = None,
    limit: PageLimit = LIMIT,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Compares two backups, or a backup and a database. It counts the documents that were added,
    removed and changed by collection, and says of the first --limit of them which fields differ;
    the exit code is 1 when something does."""
    kind = chosen(format, as_json)
    counts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(each)) for each in (before, after)]
        progress = stack.enter_context(counting())
        names = sorted({*sides[0].collections(), *sides[1].collections()})
        if collection is not None and collection not in names:
            raise CollectionMissingError(f"there is no collection {collection!r} on either side")
        for name in names if collection is None else [collection]:
            found: dict[str, Any] = {**dict.fromkeys(_COUNTS, 0), "collection": name}
            found["declaration"] = _declaration(sides, name)
            for number, (what, id, fields) in enumerate(_documents(sides, name), 1):
                found[what] += 1
                if what != "same" and len(shown) < limit:
                    shown.append({"collection": name, "id": id, "change": what, "fields": fields})
                if not number % BATCH:
                    progress(name, number)
            counts.append(found)
    differs = any(
        each["added"] or each["removed"] or each["changed"] or each["declaration"] != "same"
        for each in counts
    )
    _show(kind, counts, shown)
    if differs:
        raise typer.Exit(Exit.NOTHING)


def _show(kind: str, counts: list[dict[str, Any]], shown: list[dict[str, Any]]) -> None:
    if kind == "json":
        emit({"collections": counts, "documents": shown})
        return
    if kind == "table":
        show_rows("collections", _COUNTS, counts, kind)
    if shown:
        show_rows("documents", ("collection", "id", "change", "fields"), shown, kind)
    elif kind == "table":
        show("no document differs")
    total = sum(each["added"] + each["removed"] + each["changed"] for each in counts)
    if len(shown) < total:
        say(f"{len(shown):,} of {total:,} documents are shown (--limit)")


# -- the sides -----------------------------------------------------------------------------------


@contextmanager
def _side(place: str) -> Generator[Database]:
    """A database, or what a backup or a chain restores to."""
    files = place.split(",")
    if not all(Path(each).is_file() for each in files):
        with opened_read_only(place) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="amberdb-diff-") as folder, counting() as progress:
        target = str(Path(folder) / "restored.amber")
        amberdb.restore(files, target, progress=progress)
        with opened_read_only(target) as db:
            yield db


def _declaration(sides: list[Database], name: str) -> str:
    found = [declared(db.definition(name)) if name in db.collections() else None for db in sides]
    if found[0] is None or found[1] is None:
        return "removed" if found[1] is None else "added"
    return "same" if found[0] == found[1] else "changed"


def _documents(sides: list[Database], name: str) -> Iterator[tuple[str, str, list[str]]]:
    """Of each document what has happened to it, its id, and the fields that differ."""
    before, after = (
        chain.from_iterable(batches(db[name], BATCH)) if name in db.collections() else iter(())
        for db in sides
    )
    for one, other in side_by_side(before, after):
        if one is None or other is None:
            kept = one or other
            assert kept is not None
            yield "removed" if other is None else "added", kept[0].id, []
            continue
        # The bytes differ also where a document was only written again.
        fields = [] if one[1] == other[1] else _fields(one[0].document, other[0].document)
        yield "changed" if fields else "same", one[0].id, fields


def _fields(one: Document, other: Document, before: str = "") -> list[str]:
    """The paths of the fields that differ, FIELDS_MAX of them."""
    found: list[str] = []
    for name in dict.fromkeys([*one, *other]):
        values: tuple[Any, Any] = (one.get(name), other.get(name))
        if name in one and name in other and equal({"": values[0]}, {"": values[1]}):
            continue
        if type(values[0]) is dict and type(values[1]) is dict:
            maps = cast(tuple[Document, Document], values)
            found += _fields(*maps, f"{before}{name}.")
        else:
            found.append(f"{before}{name}")
    return found[:FIELDS_MAX]
