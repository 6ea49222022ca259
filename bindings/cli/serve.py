"""The verb serve: the HTTP server, until a signal ends it.

Invariants:
- A token is never on the command line, where every process of the machine can read it.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amberdb.cli.output import AsJson, DatabasePath, Exit, emit, fail, say, verb

if TYPE_CHECKING:
    from amberdb.memory.types import Extractor

TOKEN_VARIABLE = "AMBERDB_TOKEN"
MODEL_KEY_VARIABLE = "AMBERDB_MODEL_KEY"
_EXTRA = {"fastapi", "starlette", "uvicorn", "pydantic"}


@verb
def serve(
    path: DatabasePath,
    host: Annotated[str, typer.Option(help="What to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"What clients send; else {TOKEN_VARIABLE} has it."),
    ] = None,
    requests_per_s: Annotated[
        float, typer.Option(help="Of one client, over time; twice as many at once.")
    ] = 500.0,
    body_bytes_max: Annotated[int, typer.Option(min=1, help="Of one request.")] = 1 << 20,
    flush_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="How often the chat buffer is flushed.")
    ] = 300.0,
    model_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"For auto_extract, its key in {MODEL_KEY_VARIABLE}; else rules do it.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of that endpoint.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serves layered memory and the chat buffer over HTTP; without a token, this machine only.
    Creates the database when it is missing. SIGTERM ends it cleanly."""
    try:
        import asyncio

        from amberdb.server.app import serve as run
        from amberdb.server.options import ServerOptions
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        fail(f'serve needs {error.name}: pip install "amberdb[cli,server]"', Exit.USAGE)
    if (model_url is None) != (model is None):
        fail("--model-url and --model come together", Exit.USAGE)
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


def _extractor(model_url: str | None, model: str | None) -> "Extractor | None":
    if model_url is None or model is None:
        return None
    from amberdb.memory.model import ChatExtractor  # the extra `models`

    return ChatExtractor(model_url, model, api_key=os.environ.get(MODEL_KEY_VARIABLE))
