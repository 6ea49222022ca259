"""The command serve: runs the HTTP server until a signal ends it.

Invariants:
- The token is not an argument, because every process of the machine can read the command line.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Annotated, cast

import typer

from amberdb import Database
from amberdb.chat import JsonlSink, Sink
from amberdb.cli.arguments import (
    MODEL_KEY_VARIABLE,
    AsJson,
    DatabasePath,
    EmbedFunction,
    EmbedModel,
    EmbedName,
    EmbedUrl,
    TokenFile,
    VectorDim,
    positive,
    token_of,
)
from amberdb.cli.plugins import loaded
from amberdb.cli.serving.embedder import embedder_of
from amberdb.cli.serving.starting import announce, needs
from amberdb.cli.verb import Exit, fail, place_of, verb
from amberdb.memory import ChatExtractor, Extractor, Layer, Retention
from amberdb.memory.types import LAYERS

Host = Annotated[str, typer.Option(help="The address to bind to.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: a free port.")]
Rate = Annotated[
    float,
    typer.Option(
        metavar="N", callback=positive, help="Rate of one client; bursts of twice as many."
    ),
]
BodyBytes = Annotated[int, typer.Option(min=1, help="Of one request.")]
PerAddress = Annotated[
    int, typer.Option(min=1, help="Of one client, or of a proxy in front of them.")
]
Seconds = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", callback=positive, help="How often the chat buffer is flushed."
    ),
]
ModelUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"Model for auto_extract, its key in {MODEL_KEY_VARIABLE}; by default rules.",
    ),
]
ModelName = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model.")]
Prefix = Annotated[
    str | None, typer.Option(metavar="PREFIX", help="Of the names of all collections.")
]
SinkOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.jsonl|MODULE:FUNCTION",
        help="Where turns are flushed to; the function makes a Sink of the database.",
    ),
]
RetentionPairs = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER=DAYS", help="profile, event, log; never: for ever (repeatable)."),
]
CategoryPairs = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER=NAME", help="An additional category (repeatable)."),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ADDRESS",
        help="A proxy whose X-Forwarded-For names the client, or a network (repeatable).",
    ),
]


@verb
def serve(
    path: DatabasePath,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: TokenFile = None,
    requests_per_s: Rate = 500.0,
    body_bytes_max: BodyBytes = 1 << 20,
    connections_per_address: PerAddress = 100,
    trusted_proxy: Proxies = None,
    name: Prefix = None,
    flush_every: Seconds = 300.0,
    sink: SinkOption = None,
    model_url: ModelUrl = None,
    model: ModelName = None,
    embed: EmbedFunction = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    dim: VectorDim = None,
    embed_name: EmbedName = None,
    retention: RetentionPairs = None,
    category: CategoryPairs = None,
    as_json: AsJson = False,
) -> None:
    """Serves the memory systems over HTTP. Without a token it serves this machine alone. A missing
    database is created. SIGTERM shuts it down gracefully."""
    import asyncio

    with needs("server", "fastapi", "starlette", "uvicorn", "pydantic", command="serve"):
        from amberdb.server import ServerOptions, ServiceOptions
        from amberdb.server import serve as run
    if (model_url is None) != (model is None):
        fail("give --model-url and --model together", Exit.USAGE)
    vectors = embedder_of(embed, embed_url, embed_model, dim, embed_name)
    systems: ServiceOptions = {
        "extract": _extractor(model_url, model),
        "name": name,
        "embed": vectors["embed"],
        "dim": vectors["dim"],
        "model": vectors["model"],
        "retention": _retention(retention or []),
        "categories": _categories(category or []),
        "sink": _sink(sink),
    }
    try:
        options = ServerOptions(
            host=host,
            port=port,
            token=token_of(token_file),
            body_bytes_max=body_bytes_max,
            requests_per_s=requests_per_s,
            burst=max(1, round(2 * requests_per_s)),
            connections_per_address=connections_per_address,
            trusted_proxies=trusted_proxy or [],
            flush_every_s=flush_every,
        )
    except ValueError as error:
        fail(str(error), Exit.USAGE)

    def ready(url: str) -> None:
        announce(url, f"{place_of(path)} is served at {url}", as_json=as_json)

    asyncio.run(run(path, options, ready=ready, **systems))


def _extractor(model_url: str | None, model: str | None) -> Extractor | None:
    if model_url is None or model is None:
        return None
    return ChatExtractor(model_url, model, api_key=os.environ.get(MODEL_KEY_VARIABLE))


def _sink(text: str | None) -> Callable[[Database], Sink] | None:
    if text is None:
        return None
    if text.endswith(".jsonl"):
        return lambda db: JsonlSink(text)
    return loaded("--sink", text)


def _retention(pairs: list[str]) -> Retention | None:
    days: dict[str, timedelta | None] = {}
    for layer, text in _pairs("--retention", pairs, ("profile", "event", "log")):
        try:
            days[layer] = None if text == "never" else timedelta(days=float(text))
        except (ValueError, OverflowError):
            fail(f"--retention {layer}={text}: give a number of days, or never", Exit.USAGE)
    return Retention(**days) if days else None


def _categories(pairs: list[str]) -> dict[Layer, list[str]] | None:
    names: dict[Layer, list[str]] = {}
    for layer, name in _pairs("--category", pairs, LAYERS):
        names.setdefault(cast(Layer, layer), []).append(name)
    return names or None


def _pairs(option: str, pairs: list[str], layers: Sequence[str]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        layer, _, value = pair.partition("=")
        if layer not in layers or not value:
            fail(f"{option} {pair}: write {layers[0]}=..., of {', '.join(layers)}", Exit.USAGE)
        yield layer, value
