"""The commands backup, verify, restore, rescue and ship.

Invariants:
- None of them overwrites a file.
- Neither a key nor a credential is an argument, because every process of the machine can read the
  command line: a key is in a file, credentials are in the environment.
"""

import signal
import threading
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer

import amberdb
import amberdb.ship
from amberdb import BackupReport, RollingBackups
from amberdb._jsonl.text import iso
from amberdb.cli.arguments import AsJson, DatabasePath, KeyFile, positive
from amberdb.cli.bars import counting
from amberdb.cli.output import emit, grid, plain, properties, show
from amberdb.cli.verb import check_directory, opened, say, verb
from amberdb.ship import Shipped, Shipper, ShipStatus, key_from, prune, restore_from, shipped

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
    if "://" in target and len(archives) == 1:
        target, archives = archives[0], [target]
    with counting() as progress:
        if len(archives) == 1 and "://" in archives[0]:
            report = restore_from(
                archives[0], target, until=_point(until), key=_key(key_file), progress=progress
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


@verb
def ship(
    path: DatabasePath,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="s3://bucket/prefix or file:///folder.", show_default=False
        ),
    ],
    every_ms: Annotated[
        float, typer.Option(metavar="MS", callback=positive, help="How often commits are shipped.")
    ] = 500,
    key_file: KeyFile = None,
    zstd: Annotated[bool, typer.Option("--zstd", help="Compress the archives.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Ship what is new, and end.")] = False,
    list_shipped: Annotated[
        bool, typer.Option("--list", help="List what is at the target; PATH is not opened.")
    ] = False,
    prune_before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Remove chains that ended before a time there; PATH is not opened.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ships incremental backups to a bucket or a folder. It runs beside applications that share the
    database, until a signal ends it. Credentials are in the environment, AWS_ACCESS_KEY_ID and so
    on; AWS_ENDPOINT_URL is the server."""
    if list_shipped:
        _show_shipped("shipped", shipped(target), as_json)
    elif prune_before is not None:
        _show_shipped("removed", prune(target, _time("--prune-before", prune_before)), as_json)
    else:
        _ship(path, target, every_ms, _key(key_file), "zstd" if zstd else None, once, as_json)


def _ship(
    path: str,
    target: str,
    every_ms: float,
    key: bytes | None,
    compress: Literal["zstd"] | None,
    once: bool,
    as_json: bool,
) -> None:
    with amberdb.ship.ship(path, target, every_ms=every_ms, key=key, compress=compress) as shipper:
        if once:
            shipper.ship_now()
        else:
            _until_signal(path, shipper)
    _tell(shipper.status(), as_json)


def _until_signal(path: str, shipper: Shipper) -> None:
    """Says what happens, until SIGTERM or Ctrl-C."""
    ends = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ends.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [(number, signal.signal(number, end)) for number in signals]
    try:
        say(f"{path} is shipped to {shipper.status().target}")
        error: str | None = None
        while not ends.wait(1.0):
            status = shipper.status()
            if status.last_error != error:
                error = status.last_error
                say("it goes on" if error is None else f"{error}; it is tried again")
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _tell(status: ShipStatus, as_json: bool) -> None:
    if as_json:
        emit(plain(status))
    elif status.lsn is not None:
        show(f"shipped up to Lsn {status.lsn} to {status.target}: {status.archives} archives")
    else:
        show(f"nothing was shipped to {status.target}: {status.last_error}")


def _show_shipped(title: str, archives: list[Shipped], as_json: bool) -> None:
    if as_json:
        emit({"archives": [plain(archive) for archive in archives]})
        return
    columns = ("chain", "kind", "to lsn", "time", "taken", "bytes")
    rows = [
        (each.chain, each.kind, str(each.lsn), each.time, each.created, each.size_bytes)
        for each in archives
    ]
    show(grid(title, columns, rows))


def _point(text: str | None) -> int | datetime | None:
    """The Lsn or time of --until."""
    if text is None:
        return None
    if text.isdecimal() and len(text) <= _LSN_DIGITS_MAX:
        return int(text)
    return _time("--until", text)


def _time(option: str, text: str) -> datetime:
    """The time of an option."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        lsn = "an Lsn, or " if option == "--until" else ""
        raise typer.BadParameter(f"{option} {text}: give {lsn}a time as ISO 8601 with a zone")
    return time


def _key(file: Path | None) -> bytes | None:
    return None if file is None else key_from(file)


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
