"""The application `amberdb`: every command, from the module that has it.

Invariants:
- A command that reads opens the database read-only: it runs beside a process that has it open, and
  never changes it.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from amberdb.cli import (
    backup,
    care,
    demo,
    documents,
    init,
    lines,
    log,
    mcp,
    moving,
    privacy,
    search,
    serve,
    systems,
)
from amberdb.cli.serving import ui
from amberdb.cli.verb import Exit

_CODES = (
    "Exit codes: 0 done; 1 nothing found, check found problems, repair is needed, or a proof "
    "failed; 2 wrong usage; 3 the database cannot be opened (missing, locked, foreign, newer); "
    "4 damage; 5 bad lines in the input; 6 not stored (disk full, failed sync, busy); "
    "130 interrupted; 141 the reader of the output ended."
)

app = typer.Typer(
    name="amberdb",
    help="AmberDB: the embedded database for the memory of agents and apps.",
    epilog=_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"amberdb {version('amberdb')}")
        raise typer.Exit(Exit.OK)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """AmberDB: the embedded database for the memory of agents and apps."""


VERBS: dict[str, Callable[..., None]] = {
    "demo": demo.demo,
    "init": init.init,
    "info": documents.info,
    "get": documents.get,
    "put": documents.put,
    "find": documents.find,
    "search": search.search,
    "import": lines.import_lines,
    "export": lines.export,
    "import-profiles": systems.import_profiles,
    "export-profiles": systems.export_profiles,
    "import-memories": systems.import_memories,
    "log": log.log,
    "backup": backup.backup,
    "verify": backup.verify,
    "restore": backup.restore,
    "rescue": backup.rescue,
    "ship": backup.ship,
    "move": moving.move,
    "check": care.check,
    "repair": care.repair,
    "compact": care.compact,
    "upgrade": care.upgrade,
    "erase": care.erase,
    "held": privacy.held,
    "forget": privacy.forget,
    "serve": serve.serve,
    "ui": ui.ui,
    "mcp": mcp.mcp,
}
for _name, _function in VERBS.items():
    app.command(_name, epilog=_CODES)(_function)
