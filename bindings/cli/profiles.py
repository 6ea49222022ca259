"""The commands import-profiles and export-profiles.

Invariants:
- Each profile that was not stored is named on stderr, with the reason.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer

from amberdb.cli.arguments import AsJson, DatabasePath
from amberdb.cli.bars import progress_bar
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, fail, opened, opened_read_only, say, verb
from amberdb.profiles import TransferReport, UserProfiles, import_json, import_sqlite
from amberdb.profiles.export import export_collection
from amberdb.profiles.profiles import COLLECTION

_SQLITE: Final = b"SQLite format 3\0"
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
    zone: Annotated[
        str, typer.Option(help="The zone of times without one: Asia/Shanghai, +08:00.")
    ] = "UTC",
    encoding: Annotated[
        str | None, typer.Option(help="Of files that are not UTF-8: gb18030, for one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only the report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stores the user profiles of JSON files or SQLite; running it again changes nothing."""
    of_zone = _zone(zone)
    is_sqlite = _is_sqlite(source)  # first, so that a wrong name does not create a database
    with opened(path, create=True, background=True) as db, progress_bar() as bar:
        task = bar.add_task("profiles", total=None)

        def progress(report: TransferReport) -> None:
            bar.update(task, completed=report.found)

        options: dict[str, Any] = {"dry_run": dry_run, "zone": of_zone, "progress": progress}
        run: Callable[..., TransferReport] = import_json
        if is_sqlite:
            run, options["table"] = import_sqlite, table
        else:
            options["encoding"] = encoding
        try:
            report = run(UserProfiles(db, name=name), source, **options)
        except (sqlite3.Error, LookupError) as error:
            fail(f"{source}: {error}", Exit.USAGE)
    _show(report, as_json)
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


# -- inside --------------------------------------------------------------------------------------


def _is_sqlite(source: Path) -> bool:
    """Raises OSError when there is no such file."""
    if source.is_dir():
        return False
    with source.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _zone(text: str) -> tzinfo:
    try:
        if text[:1] in ("+", "-"):
            zone = datetime.fromisoformat(f"2026-01-01T00:00:00{text}").tzinfo
            return zone or UTC
        return ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        fail(f"--zone {text}: give a name such as Asia/Shanghai, or +08:00", Exit.USAGE)


def _show(report: TransferReport, as_json: bool) -> None:
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
