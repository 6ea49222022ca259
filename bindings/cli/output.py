"""What the verbs share: JSON or tables out, one readable line for an error, exit codes.

Invariants:
- Machine-readable output is all there is on stdout under --json; errors, warnings and progress
  go to stderr.
- What a document holds is shown without its control characters: stored text cannot drive the
  terminal.
- No exception of AmberDB, of files or of a closed pipe reaches the user as a traceback.
"""

import errno
import sys
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from amberdb._errors import (
    AmberError,
    AmberWarning,
    CorruptionError,
    LogTruncatedError,
    MissingKeyError,
    OpenError,
    QueryError,
    RestorePointError,
    StorageError,
    TransactionError,
)
from amberdb._jsonl.importer import BadLineError, InputDamagedError
from amberdb._jsonl.text import dumps, iso, loads
from amberdb._types import Where
from amberdb.demo.kill import DemoError
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_database

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CELL_CHARS_MAX = 300

P = ParamSpec("P")


class Exit(IntEnum):
    """The exit codes of every verb; docs/cli.md and --help tell them."""

    OK = 0
    NOTHING = 1
    """Ran well, and the answer is no: nothing found, check found problems, a proof failed."""
    USAGE = 2
    OPEN = 3
    DAMAGE = 4
    INPUT = 5
    """Lines of an input were bad: skipped or stopped at."""
    STORAGE = 6
    """Not stored: disk full, a failed write or sync, the database busy."""
    INTERRUPTED = 130
    PIPE = 141


DatabasePath = Annotated[
    str, typer.Argument(metavar="PATH", help="The database, a directory.", show_default=False)
]
FilterJson = Annotated[
    str | None, typer.Option(metavar="JSON", help="A filter, see docs/queries.md.")
]
KeptFields = Annotated[
    str | None, typer.Option(metavar="FIELD,...", help="What to keep of each document.")
]
CollectionName = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="Its name.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]


def exit_code(error: Exception) -> Exit:
    """The code that tells scripts what kind of failure it was."""
    families: list[tuple[type[Exception] | tuple[type[Exception], ...], Exit]] = [
        ((BadLineError, InputDamagedError), Exit.INPUT),
        ((MissingKeyError, LogTruncatedError, RestorePointError, DemoError), Exit.NOTHING),
        (OpenError, Exit.OPEN),
        (CorruptionError, Exit.DAMAGE),
        ((StorageError, TransactionError), Exit.STORAGE),
        (AmberError, Exit.USAGE),
        ((FileNotFoundError, FileExistsError, PermissionError), Exit.USAGE),
        ((IsADirectoryError, NotADirectoryError), Exit.USAGE),
    ]
    return next((code for kinds, code in families if isinstance(error, kinds)), Exit.STORAGE)


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Makes a command of a function: its errors become one line and an exit code."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always", AmberWarning)
            warnings.showwarning = _show_warning
            try:
                function(*args, **kwargs)
                sys.stdout.flush()
            except AmberError as error:
                fail(error.message, exit_code(error))
            except BrokenPipeError:  # whoever read our output has gone, and needs no message
                raise typer.Exit(Exit.PIPE) from None
            except OSError as error:
                fail(_os_message(error), exit_code(error))
            except KeyboardInterrupt:
                fail("interrupted", Exit.INTERRUPTED)

    return run


def fail(message: str, code: Exit) -> NoReturn:
    say(f"error: {message}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """One line for people, on stderr."""
    print(visible(" ".join(message.split())), file=sys.stderr)


@contextmanager
def opened(path: str, *, create: bool = False, background: bool = False) -> Generator[Database]:
    """The database, for as long as the verb runs; no other process writes meanwhile. Without
    `background` it expires nothing and starts no thread."""
    with open_database(path, create=create, background=background) as db:
        yield db


@contextmanager
def opened_to_read(path: str, *, background: bool = False) -> Generator[Database]:
    """The same for a verb that only reads: beside a process that writes, or without one. Nothing is
    recovered, expired or changed."""
    with open_database(path, read_only=True, background=background) as db:
        yield db


# -- output ------------------------------------------------------------------------------------


def emit(value: Any) -> None:
    """One JSON document, or one JSON line of a stream."""
    print(dumps(value))


def plain(report: "DataclassInstance") -> dict[str, Any]:
    """A report as JSON has it: times are text."""
    return asdict(report, dict_factory=_plain)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in pairs}


def show(table: Table | str) -> None:
    """A table, or a line of text as it is."""
    console = Console(soft_wrap=isinstance(table, str))
    console.print(Text(visible(table)) if isinstance(table, str) else table)


def grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(title=Text(visible(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def properties(title: str, values: Mapping[str, Any]) -> Table:
    """A table of two columns: name and value."""
    return grid(title, ("", ""), list(values.items()))


def cell(value: Any) -> str:
    """A value in few words."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, (dict, list)):
        text = dumps(value)
    elif isinstance(value, bytes):
        text = f"{len(value)} bytes"
    text = visible(text)
    return text if len(text) <= CELL_CHARS_MAX else text[: CELL_CHARS_MAX - 3] + "..."


def visible(text: str) -> str:
    """The text with everything that a terminal would obey written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode()
        for sign in text
    )


@contextmanager
def progress_bar() -> Generator[Progress]:
    """Drawn on stderr, and only when that is a terminal."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield progress


@contextmanager
def counting() -> Generator[Callable[[str, int], None]]:
    """A line of that bar for each thing that is counted, without an end in sight."""
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def advance(name: str, count: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], completed=count)

        yield advance


@contextmanager
def pairs_bar() -> Generator[Callable[[int, int], None]]:
    """The bar of a compaction."""
    with progress_bar() as bar:
        task = bar.add_task("pairs", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


# -- input -------------------------------------------------------------------------------------


def words(text: str | None) -> list[str]:
    """A list written with commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def parse_where(text: str | None) -> Where | None:
    """A filter given as JSON. Raises QueryError."""
    if text is None:
        return None
    try:
        value = loads(text)
    except ValueError as error:
        raise QueryError(f"--where: {error}") from None
    if not isinstance(value, dict):
        raise QueryError("--where: a filter is a JSON map, see docs/queries.md")
    return cast(Where, value)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {message}")


def _os_message(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "no space is left: free some and run it again"
    return f"{error.filename}: {reason}" if error.filename else reason
