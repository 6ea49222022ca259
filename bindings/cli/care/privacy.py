"""The commands held and forget: what a database holds of somebody.

Invariants:
- held changes nothing.
"""

from pathlib import Path
from typing import Annotated

import typer

from amberdb.cli.arguments import AsJson, DatabasePath, Reason
from amberdb.cli.bars import pairs_bar
from amberdb.cli.care.files import show_receipt
from amberdb.cli.output import emit, grid, show
from amberdb.cli.verb import Exit, opened, opened_read_only, say, verb

EntityId = Annotated[str, typer.Argument(metavar="ENTITY", help="A user, by id or by username.")]


@verb
def held(
    path: DatabasePath,
    entity: EntityId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all documents to a JSON file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Counts what every memory system holds of a person or an agent. With --json it prints the
    documents."""
    from amberdb.privacy import export, export_json

    with opened_read_only(path) as db:
        if output is not None:
            count = export_json(db, entity, output)
            say(f"{count} documents of {entity!r} are in {output}")
            return
        found = export(db, entity)
    if as_json:
        emit(found)
    else:
        rows = [(name, len(documents)) for name, documents in found.items()]
        show(grid(f"held of {entity}", ("collection", "documents"), rows))
    if not found:
        raise typer.Exit(Exit.NOTHING)


@verb
def forget(
    path: DatabasePath,
    entity: EntityId,
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Removes a person or an agent from every memory system and every file. It prints a receipt,
    which lists backups that may still hold something."""
    from amberdb.privacy import forget as forget_everywhere

    with opened(path) as db, pairs_bar() as advance:
        receipt = forget_everywhere(db, entity, reason=reason, progress=advance)
    show_receipt(receipt, as_json)
