"""The verbs that keep a database elsewhere and bring it back: backup, verify, restore and
rescue.

Invariants:
- None of them overwrites anything.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from amberdb._jsonl.text import iso
from amberdb.cli.output import (
    AsJson,
    DatabasePath,
    counting,
    emit,
    grid,
    opened,
    plain,
    properties,
    show,
    verb,
)
from amberdb.engine.backup.chain import BackupReport, points, verify_backup
from amberdb.engine.backup.restore import restore as restore_chain
from amberdb.engine.database.open import open_database
from amberdb.engine.options import RollingBackups

Archives = Annotated[
    list[str],
    typer.Argument(
        metavar="BACKUP...", help="A full backup, and those that go on from it.", show_default=False
    ),
]


@verb
def backup(
    path: DatabasePath,
    target: Annotated[
        str, typer.Argument(metavar="BACKUP", help="The file to make.", show_default=False)
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="BACKUP", help="The last backup: only what came since is written."),
    ] = None,
    zstd: Annotated[bool, typer.Option("--zstd", help="Compressed.")] = False,
    rate: Annotated[
        float | None, typer.Option(metavar="BYTES", help="Bytes a second at most.")
    ] = None,
    hold_log: Annotated[
        bool, typer.Option(help="Keep the log for the next incremental backup.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Writes a backup to one file, and reads it back before it gets its name."""
    with opened(path) as db, counting() as progress:
        report = db.backup(
            target,
            base=base,
            compress="zstd" if zstd else None,
            rate_bytes_s=rate,
            hold_log=hold_log,
            progress=progress,
        )
    _tell([report], as_json)


@verb
def verify(
    archives: Archives,
    list_points: Annotated[
        bool, typer.Option("--points", help="Every commit that a restore can end at.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Reads a backup, or a chain in its order, and compares every size and checksum."""
    with counting() as progress:
        reports = verify_backup(archives, progress)
    if list_points:
        _tell_points(points(archives), as_json)
    else:
        _tell(reports, as_json)


@verb
def restore(
    target: Annotated[
        str, typer.Argument(metavar="PATH", help="The database to make.", show_default=False)
    ],
    archives: Archives,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="LSN|TIME", help="The last commit to take; a time is ISO 8601 with a zone."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a new database of a backup, or of a chain in its order."""
    with counting() as progress:
        report = restore_chain(archives, target, until=_point(until), progress=progress)
    if as_json:
        emit(plain(report))
    else:
        show(properties("restored", asdict(report)))


@verb
def rescue(
    path: DatabasePath,
    backups: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder of its rolling backups, if elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Puts the newest rolling backup in place of a database that is damaged beyond recovery, and
    keeps what was damaged beside it. Changes nothing where it can be opened."""
    with open_database(
        path,
        create=False,
        background=False,
        on_damage="restore",
        backups=RollingBackups(directory=backups),
    ) as db:
        found = db.rescue
    if as_json:
        emit({"rescued": None if found is None else {**plain(found), "lost": found.lost}})
    elif found is None:
        show("it can be opened: nothing was changed")
    else:
        show(properties("restored", {**plain(found), "lost": found.lost}))


def _point(text: str | None) -> int | datetime | None:
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise typer.BadParameter(f"--until {text}: give an Lsn, or a time as ISO 8601 with a zone")
    return time


def _tell(reports: list[BackupReport], as_json: bool) -> None:
    if as_json:
        emit({"archives": [plain(report) for report in reports]})
        return
    columns = ("", "kind", "from lsn", "to lsn", "time", "bytes", "documents")
    rows: list[tuple[Any, ...]] = [
        (
            report.path,
            "full" if report.is_full else "incremental",
            "" if report.is_full else str(report.after_lsn),
            str(report.lsn),
            report.time,
            report.size_bytes,
            sum(report.documents.values()) if report.is_full else "",
        )
        for report in reports
    ]
    show(grid("verified", columns, rows))


def _tell_points(found: Iterable[tuple[int, datetime]], as_json: bool) -> None:
    for lsn, time in found:
        if as_json:
            emit({"lsn": lsn, "time": iso(time)})
        else:
            show(f"{lsn}  {iso(time)}")
