"""The commands import-profiles, export-profiles and import-memories: what the systems store.

Invariants:
- Each profile or memory that was not stored is named on stderr, with the reason.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from amberdb import QueryError
from amberdb.cli.arguments import AsJson, DatabasePath, DryRun, ZoneName, is_sqlite, zone_of
from amberdb.cli.bars import progress_bar
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, fail, opened, opened_read_only, say, verb
from amberdb.memory import ImportReport, Memory, import_mem0, import_zmemory
from amberdb.profiles import TransferReport, UserProfiles, import_json, import_sqlite
from amberdb.profiles.export import export_collection
from amberdb.profiles.profiles import COLLECTION

ProfilesName = Annotated[str, typer.Option(metavar="COLLECTION", help="Where the profiles are.")]


@verb
def import_profiles(
    path: DatabasePath,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A directory of JSON files, one JSON file, JSON lines, or a SQLite database.",
            show_default=False,
        ),
    ],
    name: ProfilesName = COLLECTION,
    table: Annotated[str, typer.Option(help="The table of a SQLite database.")] = "user_memories",
    zone: ZoneName = "UTC",
    encoding: Annotated[
        str | None, typer.Option(help="Of files that are not UTF-8: gb18030, for one.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stores the user profiles of JSON files or SQLite. Running it again changes nothing."""
    of_zone = zone_of(zone)
    of_tables = is_sqlite(source)  # first, so that a wrong name does not create a database
    with opened(path, create=True, background=True) as db, progress_bar() as bar:
        task = bar.add_task("profiles", total=None)

        def progress(report: TransferReport) -> None:
            bar.update(task, completed=report.found)

        options: dict[str, Any] = {"dry_run": dry_run, "zone": of_zone, "progress": progress}
        run: Callable[..., TransferReport] = import_json
        if of_tables:
            run, options["table"] = import_sqlite, table
        else:
            options["encoding"] = encoding
        try:
            report = run(UserProfiles(db, name=name), source, **options)
        except (sqlite3.Error, LookupError, UnicodeError) as error:
            fail(f"{source}: {error}", Exit.USAGE)
    _show_profiles(report, as_json)
    if report.broken:
        raise typer.Exit(Exit.INPUT)


@verb
def export_profiles(
    path: DatabasePath,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A directory, or one file that ends in .json or .jsonl.",
            show_default=False,
        ),
    ],
    name: ProfilesName = COLLECTION,
    as_json: AsJson = False,
) -> None:
    """Writes the user profiles of one snapshot as JSON files."""
    with opened_read_only(path) as db:
        count = export_collection(db, name, target)
    if as_json:
        emit({"target": str(target), "profiles": count})
    else:
        show(f"{count:,} profiles in {target}")


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
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stores memories of Z-Memory or mem0. Running it again changes nothing."""
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
    _show_memories(report, as_json)
    if report.broken:
        raise typer.Exit(Exit.INPUT)


# -- inside --------------------------------------------------------------------------------------


def _show_profiles(report: TransferReport, as_json: bool) -> None:
    for source in report.recovered:
        say(f"read from a copy: {source}")
    for broken in report.broken:
        say(f"not imported: {broken.source}: {broken.reason}")
    if as_json:
        facts: dict[str, Any] = asdict(report)
        facts["broken"] = [broken._asdict() for broken in report.broken]
        emit(facts)
    else:
        show(
            f"{report.found:,} profiles: {report.imported:,} imported, {report.same:,} the same, "
            f"{len(report.newer):,} older than the stored one, {len(report.broken):,} broken"
        )


def _show_memories(report: ImportReport, as_json: bool) -> None:
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
