"""The command import-memories.

Invariants:
- Each memory that was not stored is named on stderr, with the reason.
"""

import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from amberdb import QueryError
from amberdb.cli.arguments import AsJson, DatabasePath, ZoneName, is_sqlite, zone_of
from amberdb.cli.bars import progress_bar
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, opened, say, verb
from amberdb.memory import ImportReport, Memory, import_mem0, import_zmemory


@verb
def import_memories(
    path: DatabasePath,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Z-Memory's SQLite database, or the JSON of mem0.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Of the collections' names.")
    ] = None,
    layer: Annotated[str, typer.Option(help="Of mem0's memories: profile or event.")] = "profile",
    entity: Annotated[
        str | None, typer.Option(metavar="ID", help="Of mem0's memories that name nobody.")
    ] = None,
    zone: ZoneName = "UTC",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stores memories of Z-Memory or mem0; running it again changes nothing."""
    of_zone = zone_of(zone)
    of_tables = is_sqlite(source)  # first, so that a wrong name does not create a database
    with opened(path, create=True, background=True) as db, progress_bar() as bar:
        task = bar.add_task("memories", total=None)

        def progress(report: ImportReport) -> None:
            bar.update(task, completed=report.found)

        memory = Memory(db, name=name)
        more: dict[str, Any] = {"zone": of_zone, "dry_run": dry_run, "progress": progress}
        if of_tables:
            try:
                report = import_zmemory(memory, source, **more)
            except sqlite3.Error as error:
                raise QueryError(f"{source}: {error}") from None
        else:
            chosen = cast(Any, layer)
            report = import_mem0(memory, source, memory_layer=chosen, entity_id=entity, **more)
    _show(report, as_json)
    if report.broken:
        raise typer.Exit(Exit.INPUT)


def _show(report: ImportReport, as_json: bool) -> None:
    for source, expiry in report.expired:
        say(f"expired, not imported: {source}: {expiry.isoformat()}")
    for source, reason in report.broken:
        say(f"not imported: {source}: {reason}")
    if as_json:
        facts: dict[str, Any] = asdict(report)
        facts["expired"] = [expired._asdict() for expired in report.expired]
        facts["broken"] = [broken._asdict() for broken in report.broken]
        emit(facts)
    else:
        show(
            f"{report.found:,} memories and log entries: {report.imported:,} imported, "
            f"{report.same:,} the same, {len(report.newer):,} older than the stored one, "
            f"{len(report.expired):,} expired, {len(report.broken):,} broken"
        )
