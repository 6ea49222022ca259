"""The commands backup, verify, restore and rescue.

Invariants:
- None of them overwrites a file.
- A key is no argument, because every process of the machine can read the command line.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

import amberdb
from amberdb import BackupReport, RollingBackups
from amberdb._jsonl.text import iso
from amberdb.cli.arguments import AsJson, DatabasePath, KeyFile, positive, time_of
from amberdb.cli.bars import counting
from amberdb.cli.output import emit, grid, plain, properties, show
from amberdb.cli.verb import check_directory, opened, verb

Archives = Annotated[
    list[str],
    typer.Argument(
        metavar="BACKUP...",
        help="A full backup, and its incremental ones in order.",
        show_default=False,
    ),
]


_LSN_DIGITS_MAX = 20
"""An Lsn has 64 bits."""


@verb
def backup(
    path: DatabasePath,
    target: Annotated[
        str, typer.Argument(metavar="BACKUP", help="The file to create.", show_default=False)
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="BACKUP", help="The backup before: write only the commits after it."),
    ] = None,
    zstd: Annotated[bool, typer.Option("--zstd", help="Compress it.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="BYTES", callback=positive, help="Bytes a second at most."),
    ] = None,
    hold_log: Annotated[
        bool, typer.Option(help="Keep the log for the next incremental backup.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Writes a backup to one file. It is verified before the file gets its name."""
    with opened(path) as db, counting() as progress:
        report = db.backup(
            target,
            base=base,
            compress="zstd" if zstd else None,
            rate_bytes_s=rate,
            hold_log=hold_log,
            progress=progress,
        )
    _show_reports([report], as_json)


@verb
def verify(
    archives: Archives,
    list_points: Annotated[
        bool, typer.Option("--points", help="List every commit that a restore can end at.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Reads a backup, or a chain, and checks every checksum. Every size is checked too."""
    with counting() as progress:
        reports = amberdb.verify_backup(archives, progress)
    if list_points:
        _show_points(amberdb.restore_points(archives), as_json)
    else:
        _show_reports(reports, as_json)


@verb
def restore(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="The database to create; may also come last.", show_default=False
        ),
    ],
    archives: Annotated[
        list[str],
        typer.Argument(
            metavar="BACKUP...",
            help="A full backup, and its incremental ones in order; or a URL that was shipped to.",
            show_default=False,
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="LSN|TIME", help="The last commit to restore; a time is ISO 8601 with a zone."
        ),
    ] = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Creates a new database from a backup or a chain. It may also be what `amberdb ship` has
    shipped to a URL."""
    if "://" in target or os.path.isfile(target):  # a database is a directory, so it comes last
        *rest, last = archives
        target, archives = last, [target, *rest]
    with counting() as progress:
        if len(archives) == 1 and "://" in archives[0]:
            from amberdb.ship import key_from, restore_from

            key = None if key_file is None else key_from(key_file)
            report = restore_from(
                archives[0], target, until=_point(until), key=key, progress=progress
            )
        else:
            report = amberdb.restore(archives, target, until=_point(until), progress=progress)
    if as_json:
        emit(plain(report))
    else:
        show(properties("restored", asdict(report)))


@verb
def rescue(
    path: DatabasePath,
    backups: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The directory of its rolling backups, if not the default."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Puts the newest rolling backup in place of a damaged database. One that is damaged beyond
    recovery is kept beside it; nothing is changed if the database can be opened."""
    check_directory(path)
    with amberdb.open(
        path,
        create=False,
        background=False,
        on_damage="restore",
        backups=RollingBackups(directory=backups),
    ) as db:
        restored = db.rescue
    if as_json:
        emit({"rescued": None if restored is None else {**plain(restored), "lost": restored.lost}})
    elif restored is None:
        show("the database can be opened: nothing was changed")
    else:
        show(properties("restored", {**plain(restored), "lost": restored.lost}))


def _point(text: str | None) -> int | datetime | None:
    """The Lsn or time of --until."""
    if text is None:
        return None
    if text.isdecimal() and len(text) <= _LSN_DIGITS_MAX:
        return int(text)
    return time_of("--until", text)


def _show_reports(reports: list[BackupReport], as_json: bool) -> None:
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


def _show_points(points: Iterable[tuple[int, datetime]], as_json: bool) -> None:
    for lsn, time in points:
        if as_json:
            emit({"lsn": lsn, "time": iso(time)})
        else:
            show(f"{lsn}  {iso(time)}")
