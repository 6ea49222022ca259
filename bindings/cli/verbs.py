"""The application `amberdb`: every command, from the module that has it.

Invariants:
- A command that reads opens the database read-only: it runs beside a process that has it open, and
  never changes it.
"""

from typing import Annotated, Final

import typer

from amberdb.cli.group import CODES, Group
from amberdb.cli.verb import Exit

VERBS: Final[dict[str, str]] = {
    "demo": "demo:demo",
    "init": "init:init",
    "info": "status.info:info",
    "stats": "status.info:stats",
    "collections": "collections.schema:collections",
    "schema": "collections.schema:schema",
    "analyze": "collections.analysis:analyze",
    "index": "collections.indexes:index",
    "rename": "collections.schema:rename",
    "drop": "collections.schema:drop",
    "get": "documents.reading:get",
    "find": "documents.reading:find",
    "count": "documents.reading:count",
    "search": "documents.searching:search",
    "put": "documents.writing:put",
    "update": "documents.writing:update",
    "delete": "documents.writing:delete",
    "import": "transfer.lines:import_lines",
    "export": "transfer.lines:export",
    "copy": "transfer.copying:copy",
    "import-profiles": "transfer.systems:import_profiles",
    "export-profiles": "transfer.systems:export_profiles",
    "import-memories": "transfer.systems:import_memories",
    "log": "status.log:log",
    "backup": "care.backup:backup",
    "verify": "care.backup:verify",
    "diff": "care.diff:diff",
    "restore": "care.backup:restore",
    "rescue": "care.backup:rescue",
    "ship": "care.shipping:ship",
    "move": "transfer.moving:move",
    "check": "care.files:check",
    "repair": "care.files:repair",
    "compact": "care.files:compact",
    "upgrade": "care.files:upgrade",
    "erase": "care.files:erase",
    "held": "care.privacy:held",
    "forget": "care.privacy:forget",
    "ui": "serving.ui:ui",
    "browse": "serving.browse:browse",
    "serve": "serving.serve:serve",
    "mcp": "serving.mcp:mcp",
}
"""By the name of a command its module in amberdb.cli and its function, in the order of --help."""


class _Verbs(Group):
    table = VERBS


app = typer.Typer(
    name="amberdb",
    help="AmberDB: the embedded database for the memory of agents and apps.",
    epilog=CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=_Verbs,
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
