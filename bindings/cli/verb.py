"""How a command runs: the database that it opens, one line for an error, and the exit code.

Invariants:
- Errors and warnings go to stderr, so that stdout has only the output of the command.
- No exception of AmberDB, of files or of a closed pipe reaches the user as a traceback.
"""

import errno
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import NoReturn, ParamSpec

import typer

import amberdb
from amberdb import (
    AmberError,
    AmberWarning,
    CorruptionError,
    Database,
    LogTruncatedError,
    MissingKeyError,
    OpenError,
    QueryError,
    RestorePointError,
    StorageError,
    TransactionError,
)
from amberdb._connect import connect_or_open, is_url
from amberdb._jsonl.importer import BadLineError
from amberdb._jsonl.reader import InputDamagedError
from amberdb.cli.output import visible

P = ParamSpec("P")


class Exit(IntEnum):
    """The exit codes of every command, as in docs/cli.md and --help."""

    OK = 0
    NOTHING = 1
    """The command ran, and the answer is no: nothing found, a problem found, a proof failed."""
    USAGE = 2
    OPEN = 3
    DAMAGE = 4
    INPUT = 5
    """Lines of the input were bad."""
    STORAGE = 6
    """Not stored: disk full, a failed write or sync, the database busy."""
    INTERRUPTED = 130
    PIPE = 141


_CODES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Exit], ...] = (
    ((BadLineError, InputDamagedError), Exit.INPUT),
    ((MissingKeyError, LogTruncatedError, RestorePointError), Exit.NOTHING),
    (OpenError, Exit.OPEN),
    (CorruptionError, Exit.DAMAGE),
    ((StorageError, TransactionError), Exit.STORAGE),
    (AmberError, Exit.USAGE),
    ((FileNotFoundError, FileExistsError, PermissionError), Exit.USAGE),
    ((IsADirectoryError, NotADirectoryError), Exit.USAGE),
)
"""The first match counts."""


def exit_code(error: Exception) -> Exit:
    """The exit code for an error; STORAGE for any other OSError."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), Exit.STORAGE)


def verb(function: Callable[P, None]) -> Callable[P, None]:
    """Makes a command of a function: errors become one line on stderr and an exit code."""

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
            except BrokenPipeError:  # the reader of the output has ended and needs no message
                raise typer.Exit(Exit.PIPE) from None
            except OSError as error:
                fail(_os_message(error), exit_code(error))
            except KeyboardInterrupt:
                fail("interrupted", Exit.INTERRUPTED)

    return run


def fail(message: str, code: Exit) -> NoReturn:
    """Ends the command with an error."""
    say(f"error: {message}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """Prints one line on stderr."""
    print(visible(" ".join(message.split())), file=sys.stderr)


def place_of(path: str) -> str:
    """A path, or a URL without user, password and options, for a message."""
    if not is_url(path):
        return path
    scheme, _, rest = path.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def check_directory(path: str) -> None:
    """Raises QueryError for the URL of a server, in a command that repairs files."""
    if is_url(path):
        raise QueryError("this command is for a directory: a server has tools of its own")


@contextmanager
def opened(path: str, *, create: bool = False, background: bool = False) -> Generator[Database]:
    """The database, open for writing while the command runs, also beside an application that shares
    it. Without `background` it starts no job and removes no expired document of its own accord."""
    with connect_or_open(path, create=create, background=background) as db:
        yield db


@contextmanager
def opened_read_only(path: str, *, background: bool = False) -> Generator[Database]:
    """The database, open read-only; another process may have it open for writing. Nothing is
    recovered, removed or changed. One on a server is open as ever, and not created."""
    if is_url(path):
        with connect_or_open(path, create=False, background=False) as db:
            yield db
        return
    with amberdb.open(path, read_only=True, background=background) as db:
        yield db


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {message}")


def _os_message(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "no space left on the device: free some and run the command again"
    return f"{error.filename}: {reason}" if error.filename else reason
