"""The command log: changes of documents, from the log of the database.

Invariants:
- The output never ends inside a commit, because --since with its Lsn would skip the rest of it.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from amberdb import Change, CollectionMissingError, Database, Lsn
from amberdb._jsonl.text import dumps, iso
from amberdb.cli.arguments import LIMIT, AsJson, DatabasePath, PageLimit
from amberdb.cli.output import grid, show
from amberdb.cli.verb import Exit, opened_read_only, say, verb


@verb
def log(
    path: DatabasePath,
    since: Annotated[
        int | None, typer.Option(metavar="LSN", help="Changes after it, oldest first.")
    ] = None,
    limit: PageLimit = LIMIT,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this collection.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for more, until interrupted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the last changes of documents. With --since the first ones after that Lsn, as far back
    as the log reaches."""
    with opened_read_only(path) as db:
        if collection is not None and collection not in db.collections():
            raise CollectionMissingError(f"there is no collection {collection!r}")
        changes: Iterable[Change] = (
            change
            for change in db.changes(None if since is None else Lsn(since))
            if collection in (None, change.collection)
        )
        shown = list(deque(changes, limit) if since is None else _whole_commits(changes, limit))
        if as_json or follow:
            for change in shown:
                _show(change, as_json)
        else:
            show(grid("changes", ("lsn", "time", "", "collection", "id"), list(map(_row, shown))))
            archived = db.archived_lsn
            if archived is not None:
                say(f"the last backup goes up to {archived}: see `amberdb verify --points`")
        if follow:
            _follow(db, Lsn(shown[-1].lsn if shown else since or 0), collection, as_json)
    if not shown:
        raise typer.Exit(Exit.NOTHING)


# -- inside --------------------------------------------------------------------------------------


def _whole_commits(changes: Iterable[Change], limit: int) -> Iterator[Change]:
    """About `limit` changes: the last commit is included whole, because --since with its Lsn
    continues after all of it."""
    last = Lsn(0)
    for number, change in enumerate(changes):
        if number >= limit and change.lsn != last:
            return
        last = change.lsn
        yield change


def _row(change: Change) -> tuple[str, str, str, str, str]:
    id = change.id if change.new_name is None else f"now {change.new_name}"
    return str(change.lsn), iso(change.time), change.op, change.collection, id


def _show(change: Change, as_json: bool) -> None:
    if as_json:
        print(dumps({**asdict(change), "time": iso(change.time)}), flush=True)
    else:
        show("  ".join(_row(change)))


def _follow(db: Database, since: Lsn, collection: str | None, as_json: bool) -> None:
    for change in db.changes(since, follow=True):
        if collection in (None, change.collection):
            _show(change, as_json)
