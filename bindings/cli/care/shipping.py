"""The command ship.

Invariants:
- Neither a key nor a credential is an argument, because every process of the machine can read the
  command line: a key is in a file, credentials are in the environment.
"""

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from amberdb.cli.arguments import AsJson, DatabasePath, KeyFile, positive, time_of
from amberdb.cli.output import emit, grid, plain, show
from amberdb.cli.verb import say, verb

if TYPE_CHECKING:
    from amberdb.ship import Shipped, Shipper, ShipStatus


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
    from amberdb.ship import key_from, prune, shipped

    if list_shipped:
        _show_shipped("shipped", shipped(target), as_json)
    elif prune_before is not None:
        _show_shipped("removed", prune(target, time_of("--prune-before", prune_before)), as_json)
    else:
        key = None if key_file is None else key_from(key_file)
        _ship(path, target, every_ms, key, "zstd" if zstd else None, once, as_json)


def _ship(
    path: str,
    target: str,
    every_ms: float,
    key: bytes | None,
    compress: Literal["zstd"] | None,
    once: bool,
    as_json: bool,
) -> None:
    from amberdb.ship import ship as shipping

    with shipping(path, target, every_ms=every_ms, key=key, compress=compress) as shipper:
        if once:
            shipper.ship_now()
        else:
            _until_signal(path, shipper)
    _tell(shipper.status(), as_json)


def _until_signal(path: str, shipper: "Shipper") -> None:
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


def _tell(status: "ShipStatus", as_json: bool) -> None:
    if as_json:
        emit(plain(status))
    elif status.lsn is not None:
        show(f"shipped up to Lsn {status.lsn} to {status.target}: {status.archives} archives")
    else:
        show(f"nothing was shipped to {status.target}: {status.last_error}")


def _show_shipped(title: str, archives: "list[Shipped]", as_json: bool) -> None:
    if as_json:
        emit({"archives": [plain(archive) for archive in archives]})
        return
    columns = ("chain", "kind", "to lsn", "time", "taken", "bytes")
    rows = [
        (each.chain, each.kind, str(each.lsn), each.time, each.created, each.size_bytes)
        for each in archives
    ]
    show(grid(title, columns, rows))
