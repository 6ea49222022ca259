"""The command serve: runs the HTTP server until a signal ends it.

Invariants:
- The token is not an argument, because every process of the machine can read the command line.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from amberdb.cli.arguments import AsJson, DatabasePath
from amberdb.cli.output import emit
from amberdb.cli.verb import Exit, fail, say, verb
from amberdb.memory import ChatExtractor, Extractor

TOKEN_VARIABLE = "AMBERDB_TOKEN"
MODEL_KEY_VARIABLE = "AMBERDB_MODEL_KEY"
_EXTRA = {"fastapi", "starlette", "uvicorn", "pydantic"}


@verb
def serve(
    path: DatabasePath,
    host: Annotated[str, typer.Option(help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free port.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"The bearer token; by default from {TOKEN_VARIABLE}."),
    ] = None,
    requests_per_s: Annotated[
        float, typer.Option(help="Rate of one client; bursts of twice as many.")
    ] = 500.0,
    body_bytes_max: Annotated[int, typer.Option(min=1, help="Of one request.")] = 1 << 20,
    connections_per_address: Annotated[
        int, typer.Option(min=1, help="Of one client, or of a proxy in front of them.")
    ] = 100,
    flush_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="How often the chat buffer is flushed.")
    ] = 300.0,
    model_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"Model for auto_extract, its key in {MODEL_KEY_VARIABLE}; by default rules.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serves layered memory and the chat buffer over HTTP; without a token only to this machine.
    Creates a missing database. SIGTERM shuts it down gracefully."""
    try:
        import asyncio

        from amberdb.server import ServerOptions
        from amberdb.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        fail(f'serve needs {error.name}: pip install "amberdb[cli,server]"', Exit.USAGE)
    if (model_url is None) != (model is None):
        fail("give --model-url and --model together", Exit.USAGE)
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8").strip()
    try:
        options = ServerOptions(
            host=host,
            port=port,
            token=token,
            body_bytes_max=body_bytes_max,
            requests_per_s=requests_per_s,
            burst=max(1, round(2 * requests_per_s)),
            connections_per_address=connections_per_address,
            flush_every_s=flush_every,
        )
    except ValueError as error:
        fail(str(error), Exit.USAGE)

    def ready(url: str) -> None:
        if as_json:
            emit({"url": url, "pid": os.getpid()})
            sys.stdout.flush()
        else:
            say(f"{path} is served at {url}")

    asyncio.run(run(path, options, extract=_extractor(model_url, model), ready=ready))


def _extractor(model_url: str | None, model: str | None) -> Extractor | None:
    if model_url is None or model is None:
        return None
    return ChatExtractor(model_url, model, api_key=os.environ.get(MODEL_KEY_VARIABLE))
