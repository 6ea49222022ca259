"""The command browse: shows a database in the terminal.

Invariants:
- It reads alone, beside an application that has the database open.
"""

import sys
import warnings

from amberdb import FullScanWarning
from amberdb.cli.arguments import DatabasePath
from amberdb.cli.serving.starting import needs
from amberdb.cli.verb import Exit, fail, opened_read_only, verb


@verb
def browse(path: DatabasePath) -> None:
    """Shows a database in the terminal: collections, documents, search. It changes nothing, and
    runs beside an application that has the database open."""
    with needs("tui", "rich", "textual", command="browse"):
        from amberdb.inspector.terminal import Browser
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("browse needs a terminal; find and search print to a file or a pipe", Exit.USAGE)
    warnings.simplefilter("ignore", FullScanWarning)  # the screen of documents shows the plan
    with opened_read_only(path) as db:
        Browser(db).run()
