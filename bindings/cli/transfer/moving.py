"""The command move."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Annotated

import typer

from amberdb.cli.arguments import AsJson, SourcePath, TargetPath
from amberdb.cli.bars import counting
from amberdb.cli.output import emit, grid, plain, properties, show
from amberdb.cli.verb import Exit, say, verb
from amberdb.move import MoveReport
from amberdb.move import move as moved

_SHOWN_MAX = 100
"""Differences in the table; --json has all."""


@verb
def move(
    source: SourcePath,
    target: TargetPath,
    check: Annotated[
        bool, typer.Option("--verify", help="Compare all documents at the end.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the move: the source holds no changes any more.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with changes until Ctrl-C or SIGTERM.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Moves a database to a directory or a PostgreSQL server. It copies the documents, and then the
    changes that were made meanwhile. Run again, it goes on where it was. A password is best in
    PGPASSWORD or ~/.pgpass."""
    with counting() as progress, _until_signal(follow) as until:
        report = moved(source, target, verify=check, finish=finish, until=until, progress=progress)
    _tell(report, check, as_json)
    if report.differences:
        raise typer.Exit(Exit.NOTHING)


@contextmanager
def _until_signal(follow: bool) -> Generator[Callable[[], bool] | None]:
    """With `follow`, a function that tells whether SIGTERM or Ctrl-C has come."""
    if not follow:
        yield None
        return
    ends = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ends.set()

    before = [(each, signal.signal(each, end)) for each in (signal.SIGTERM, signal.SIGINT)]
    try:
        say("it follows until Ctrl-C")
        yield ends.is_set
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _tell(report: MoveReport, check: bool, as_json: bool) -> None:
    if as_json:
        emit(plain(report))
        return
    facts = asdict(report)
    differences = facts.pop("differences")
    facts["digests"] = " ".join(f"{name}:{digest}" for name, digest in report.digests.items())
    show(properties("moved", facts))
    if differences:
        rows = [(each.collection, each.id, each.kind) for each in report.differences[:_SHOWN_MAX]]
        show(grid(f"{len(differences)} differences", ("collection", "id", "in the target"), rows))
    elif check:
        show("source and target are equal")
