"""How the commands that run until they are ended begin: their extra, and the line that says where.

Invariants:
- Only a missing package of the extra is told as one: another import that fails is an error of ours.
"""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from amberdb.cli.output import emit
from amberdb.cli.verb import Exit, fail, say


@contextmanager
def needs(extra: str, *packages: str, command: str) -> Generator[None]:
    """Ends the command when its body imports one of the packages and it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in packages:
            raise
        fail(f'{command} needs {error.name}: pip install "amberdb[cli,{extra}]"', Exit.USAGE)


def announce(url: str, line: str, *, as_json: bool) -> None:
    """Reports that a server listens: a line on stderr, or `url` and `pid` as JSON on stdout."""
    if as_json:
        emit({"url": url, "pid": os.getpid()})
        sys.stdout.flush()
    else:
        say(line)
