"""The verbs of the command line, but those that have files of their own: import, export, demo,
search, serve, check, repair, compact and erase, backup, verify, restore and rescue.

Invariants:
- Only put, import and demo create a database, only put and import a collection; the others say
  that there is none.
- A verb that reads opens to read only: it runs beside an application that has the database open,
  and looking at a database changes nothing.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, cast

import typer

import amberdb.cli.backup as cli_backup
import amberdb.cli.care as cli_care
import amberdb.cli.demo as cli_demo
import amberdb.cli.lines as cli_import
import amberdb.cli.search as cli_search
import amberdb.cli.serve as cli_serve
from amberdb._errors import CollectionMissingError, InvalidDocumentError
from amberdb._jsonl.text import convert_dates, dumps, iso, loads
from amberdb._types import NO_LSN, Lsn
from amberdb.cli.output import (
    AsJson,
    CollectionName,
    DatabasePath,
    Exit,
    FilterJson,
    KeptFields,
    emit,
    grid,
    opened,
    opened_to_read,
    parse_where,
    properties,
    say,
    show,
    verb,
    words,
)
from amberdb.engine.commit.change_feed import Change
from amberdb.engine.database.database import Database

COLUMNS_MAX = 8
LIMIT = 20

_CODES = (
    "Exit codes: 0 done; 1 nothing found, check found problems, repair would have to mend some, or "
    "a proof failed; 2 wrong use; "
    "3 the database cannot be opened (missing, locked, foreign, newer); 4 damage; 5 bad lines in "
    "the input; 6 not stored (disk full, failed sync, busy); 130 interrupted; 141 the reader of "
    "the output left."
)

app = typer.Typer(
    name="amberdb",
    help="AmberDB: the embedded database for the memory of agents and apps.",
    epilog=_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"amberdb {version('amberdb')}")
        raise typer.Exit(Exit.OK)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """AmberDB: the embedded database for the memory of agents and apps."""


@verb
def info(path: DatabasePath, as_json: AsJson = False) -> None:
    """Collections, counts, sizes and Lsns."""
    with opened_to_read(path) as db:
        stats = db.stats().to_map()
    if as_json:
        emit(stats)
        return
    collections = stats.pop("collections")
    plain = {name: value for name, value in stats.items() if not isinstance(value, dict)}
    for part in ("bytes", "log", "store"):  # latencies are those of the process that writes
        plain |= {f"{part} {name}": value for name, value in stats[part].items()}
    show(properties("database", plain))
    rows = [
        (
            name,
            one["documents"],
            _version_words(one),
            one["expires_at"],
            "\n".join(_index_words(one["indexes"])),
        )
        for name, one in collections.items()
    ]
    show(grid("collections", ("name", "documents", "version", "expires at", "indexes"), rows))
    if stats["subscribers"]:
        behind = stats["subscriber_lag"]
        places = [(name, str(lsn), behind[name]) for name, lsn in stats["subscribers"].items()]
        show(grid("subscribers", ("name", "position", "commits behind"), places))


@verb
def get(
    path: DatabasePath,
    collection: CollectionName,
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    record: Annotated[
        bool, typer.Option("--record", help="With its version and the times of its writes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One document, whole."""
    with opened_to_read(path) as db, db.snapshot() as at:
        found = at[collection].record(id)
    if as_json:
        emit({**asdict(found)} if record else found.document)
        return
    if record:
        facts = {"version": str(found.version), "created": found.created_at}
        show(properties("record", {**facts, "updated": found.updated_at}))
    show(properties(id, found.document))


@verb
def put(
    path: DatabasePath,
    collection: CollectionName,
    document: Annotated[
        str | None,
        typer.Argument(metavar="JSON", help="A map, or a list of maps; without it, from stdin."),
    ] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="Fields whose ISO text is a date.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stores documents under their "id", in one commit; replaces what was there."""
    text = sys.stdin.buffer.read() if document is None else document
    try:
        value = loads(text)
        documents = list(cast(Sequence[Any], value)) if type(value) is list else [value]
        for one in documents:
            if type(one) is not dict:
                raise ValueError("a document is a map")
            convert_dates(cast(dict[str, Any], one), words(dates))
    except ValueError as error:
        raise InvalidDocumentError(f"the document: {error}") from None
    with opened(path, create=True) as db:
        ids = db.collection(collection).put_many(documents)
    if as_json:
        emit({"ids": ids})
    else:
        for id in ids:
            show(id)


@verb
def find(
    path: DatabasePath,
    collection: CollectionName,
    where: FilterJson = None,
    order_by: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="With - in front: descending.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents on one page.")] = LIMIT,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Where the page before ended.")
    ] = None,
    fields: KeptFields = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Only how it would be answered.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Documents that match, a page at a time."""
    question = parse_where(where)
    order = words(order_by) or None
    with opened_to_read(path) as db, db.snapshot() as at:
        source = at[collection]
        if explain or count:
            found: dict[str, Any] = (
                source.explain(question, order_by=order)
                if explain
                else {"count": source.count(question)}
            )
            emit(found) if as_json else show(properties(collection, found))
            return
        kept = words(fields) or None
        page = source.find(question, order_by=order, limit=limit, after=after, fields=kept)
    if as_json:
        emit({"documents": [dict(document) for document in page], "cursor": page.cursor})
    elif page:
        _show_documents(collection, [dict(document) for document in page])
        if page.cursor is not None:
            say(f"more: --after {page.cursor}")
    else:
        say("nothing found")
    if not page:
        raise typer.Exit(Exit.NOTHING)


@verb
def log(
    path: DatabasePath,
    since: Annotated[
        int | None, typer.Option(metavar="LSN", help="Changes behind it, oldest first.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Changes at most; the last commit is told whole.")
    ] = LIMIT,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this collection.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for more, until interrupted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The last changes, or those behind --since, as far back as the log reaches."""
    with opened_to_read(path) as db:
        if collection is not None and collection not in db.collections():
            raise CollectionMissingError(f"there is no collection {collection!r}")
        changes: Iterable[Change] = (
            change
            for change in db.changes(None if since is None else Lsn(since))
            if collection in (None, change.collection)
        )
        told = list(deque(changes, limit) if since is None else _whole_commits(changes, limit))
        if as_json or follow:
            for change in told:
                _tell(change, as_json)
        else:
            show(grid("changes", ("lsn", "time", "", "collection", "id"), list(map(_row, told))))
            archived = db.archived_lsn
            if archived is not None:
                say(f"the last backup goes up to {archived}: `amberdb verify` lists its points")
        if follow:
            _follow(db, told[-1].lsn if told else since or NO_LSN, collection, as_json)
    if not told:
        raise typer.Exit(Exit.NOTHING)


VERBS: dict[str, Callable[..., None]] = {
    "demo": cli_demo.demo,
    "info": info,
    "get": get,
    "put": put,
    "find": find,
    "search": cli_search.search,
    "import": cli_import.import_lines,
    "export": cli_import.export,
    "log": log,
    "backup": cli_backup.backup,
    "verify": cli_backup.verify,
    "restore": cli_backup.restore,
    "rescue": cli_backup.rescue,
    "check": cli_care.check,
    "repair": cli_care.repair,
    "compact": cli_care.compact,
    "erase": cli_care.erase,
    "serve": cli_serve.serve,
}
for _name, _function in VERBS.items():
    app.command(_name, epilog=_CODES)(_function)


# -- inside --------------------------------------------------------------------------------------


def _version_words(collection: dict[str, Any]) -> str:
    migrating = "" if collection.get("migrating") is None else " (migrating)"
    return f"{collection['version']}{migrating}"


def _index_words(indexes: dict[str, str]) -> list[str]:
    return [name if state == "ready" else f"{name} ({state})" for name, state in indexes.items()]


def _show_documents(title: str, documents: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(["id", *(name for one in documents for name in one)]))
    if not any("id" in one for one in documents):
        names.remove("id")
    kept = names[:COLUMNS_MAX]
    show(grid(title, kept, [[one.get(name) for name in kept] for one in documents]))
    if len(names) > COLUMNS_MAX:
        say(f"not shown: {', '.join(names[COLUMNS_MAX:])} (choose with --fields, or use --json)")


def _whole_commits(changes: Iterable[Change], limit: int) -> Iterator[Change]:
    """About `limit` changes: a commit that was begun is told to its end, because --since with its
    Lsn goes on behind all of it."""
    last = NO_LSN
    for number, change in enumerate(changes):
        if number >= limit and change.lsn != last:
            return
        last = change.lsn
        yield change


def _row(change: Change) -> tuple[str, str, str, str, str]:
    id = change.id if change.new_name is None else f"now {change.new_name}"
    return str(change.lsn), iso(change.time), change.op, change.collection, id


def _tell(change: Change, as_json: bool) -> None:
    if as_json:
        print(dumps({**asdict(change), "time": iso(change.time)}), flush=True)
    else:
        show("  ".join(_row(change)))


def _follow(db: Database, since: int, collection: str | None, as_json: bool) -> None:
    for change in db.changes(Lsn(since), follow=True):
        if collection in (None, change.collection):
            _tell(change, as_json)
