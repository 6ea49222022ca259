"""The command browse: shows a database in the terminal.

Invariants:
- It reads alone, beside an application that has the database open.
"""

import sys
import warnings

from amberdb import FullScanWarning
from amberdb.cli.arguments import DatabasePath
from amberdb.cli.verb import Exit, fail, opened_read_only, verb


@verb
def browse(path: DatabasePath) -> None:
    """Shows a database in the terminal: collections, documents, search. It changes nothing, and
    runs beside an application that has the database open."""
    try:
        from amberdb.inspector.terminal import Browser
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"rich", "textual"}:
            raise
        fail(f'browse needs {error.name}: pip install "amberdb[cli,tui]"', Exit.USAGE)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("browse needs a terminal; find and search print to a file or a pipe", Exit.USAGE)
    warnings.simplefilter("ignore", FullScanWarning)  # the screen of documents shows the plan
    with opened_read_only(path) as db:
        Browser(db).run()
