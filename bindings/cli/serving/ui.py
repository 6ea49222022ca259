"""The command ui: shows a database in the browser, until it is interrupted.

Invariants:
- The token is made anew for each run and is only in the URL that is printed: it is no argument,
  because every process of the machine can read the command line.
"""

import os
import sys
import warnings
import webbrowser
from typing import Annotated

import typer

from amberdb import FullScanWarning, QueryError
from amberdb.cli.arguments import AsJson, DatabasePath, EmbedFunction, EmbedModel, EmbedUrl
from amberdb.cli.embedding import endpoint_of
from amberdb.cli.plugins import loaded
from amberdb.cli.serving.starting import announce, needs
from amberdb.cli.verb import Exit, fail, place_of, verb


@verb
def ui(
    path: DatabasePath,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free port.")] = 0,
    write: Annotated[
        bool, typer.Option("--write", help="Documents can be edited, deleted and erased.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    lang: Annotated[
        str | None, typer.Option(metavar="en|zh", help="By default that of the browser.")
    ] = None,
    embed: EmbedFunction = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    as_json: AsJson = False,
) -> None:
    """Shows a database in the browser, read-only beside an application that has it open. Only this
    machine is served, and only whom the printed URL lets in."""
    import asyncio

    with needs("ui", "jinja2", "markupsafe", "starlette", "uvicorn", command="ui"):
        from amberdb.inspector.web import InspectorOptions, serve
    endpoint = endpoint_of(embed_url, embed_model)
    if endpoint is not None and embed is not None:
        raise QueryError("give --embed or --embed-url, and not both")
    try:
        options = InspectorOptions(
            port=port,
            write=write,
            language=lang,
            embed=endpoint if embed is None else loaded("--embed", embed),
        )
    except ValueError as error:
        fail(str(error), Exit.USAGE)

    def ready(url: str) -> None:
        announce(url, f"{place_of(path)} is shown at {url}", as_json=as_json)
        if browser and _has_display():
            webbrowser.open(url)

    warnings.simplefilter("ignore", FullScanWarning)  # the page of the documents shows the plan
    asyncio.run(serve(path, options, ready=ready))


def _has_display() -> bool:
    """Whether a browser would be a window of its own, and not a program in this terminal."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
