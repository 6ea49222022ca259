"""The command mcp: runs the memory server for the Model Context Protocol, or moves its file.

Invariants:
- While the server runs over stdio, nothing else is written to stdout.
- The token is not an argument, because every process of the machine can read the command line.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amberdb.cli.arguments import (
    AsJson,
    EmbedFunction,
    EmbedModel,
    EmbedName,
    EmbedUrl,
    TokenFile,
    VectorDim,
    token_of,
)
from amberdb.cli.output import emit, plain, show
from amberdb.cli.serving.embedder import embedder_of
from amberdb.cli.serving.starting import announce, needs
from amberdb.cli.verb import Exit, fail, opened, opened_read_only, say, verb

if TYPE_CHECKING:
    from amberdb.mcp import McpOptions


MemoryPath = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]",
        help="The database; by default amberdb/memory.amber in the user's data directory.",
        show_default=False,
    ),
]
Tools = Annotated[
    str,
    typer.Option(metavar="core|full", help="The nine tools of the official memory server, or all."),
]
Namespace = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Collections of its own, for a project or a user."),
]
Chars = Annotated[int, typer.Option(min=0, help="Characters of one answer; 0: no limit.")]
Http = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT", help="Streamable HTTP on a loopback address, in place of stdio."
    ),
]
Import = Annotated[
    Path | None,
    typer.Option(
        "--import", metavar="FILE", help="Store the official server's memory.jsonl, and end."
    ),
]
Export = Annotated[
    Path | None, typer.Option("--export", metavar="FILE", help="Write such a file, and end.")
]


@verb
def mcp(
    path: MemoryPath = None,
    tools: Tools = "full",
    read_only: Annotated[bool, typer.Option(help="Only the tools that read.")] = False,
    namespace: Namespace = None,
    max_chars: Chars = 40_000,
    http: Http = None,
    token_file: TokenFile = None,
    embed: EmbedFunction = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    dim: VectorDim = None,
    embed_name: EmbedName = None,
    import_file: Import = None,
    export_file: Export = None,
    as_json: AsJson = False,
) -> None:
    """Serves the memory of agents to clients of the Model Context Protocol. It speaks over stdin
    and stdout, or HTTP. A missing database is created."""
    from amberdb.mcp import McpOptions

    settings: dict[str, Any] = {
        "tools": tools,
        "read_only": read_only,
        "namespace": namespace,
        "chars_max": max_chars,
        **embedder_of(embed, embed_url, embed_model, dim, embed_name),
    }
    try:
        if http is not None:
            from amberdb.mcp.options import address_of

            host, port = address_of(http)
            settings |= {"host": host, "port": port, "token": token_of(token_file)}
        options = McpOptions(**settings)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    path = None if path is None else os.path.expanduser(path)  # clients start no shell
    if import_file is not None or export_file is not None:
        _move(path, options, import_file, export_file, as_json=as_json)
        return

    def ready(url: str) -> None:
        announce(url, f"the memory is served at {url}", as_json=as_json)

    _run(path, options, ready)


def _run(path: str | None, options: "McpOptions", ready: Callable[[str], None]) -> None:
    import asyncio
    import logging

    from amberdb.mcp import serve

    logging.basicConfig(level=logging.WARNING, format="amberdb: %(message)s")  # to stderr
    with needs("mcp", "mcp", "mcp_types", "uvicorn", "starlette", command="mcp"):
        asyncio.run(serve(path, options, ready=ready))


def _move(
    path: str | None,
    options: "McpOptions",
    source: Path | None,
    target: Path | None,
    *,
    as_json: bool,
) -> None:
    """Imports a file, exports one, or both in this order."""
    from amberdb.graph import KnowledgeGraph, export_jsonl, import_jsonl
    from amberdb.mcp import default_path
    from amberdb.mcp.store import graph_name

    if path is None:
        place = default_path()
        if source is not None:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = str(place)
    name = graph_name(options.namespace)
    bad = 0
    if source is not None:
        with opened(path, create=True) as db:
            report = import_jsonl(KnowledgeGraph(db, name=name), source)
        bad = report.bad
        for line in report.broken:
            say(f"line {line.line}: {line.reason}")
        if as_json:
            emit(plain(report))
        else:
            show(
                f"{report.entities:,} entities, {report.relations:,} relations; "
                f"{report.same:,} lines changed nothing, {bad:,} are bad"
            )
    if target is not None:
        with opened_read_only(path) as db:
            count = export_jsonl(KnowledgeGraph(db, name=name), target)
        if as_json:
            emit({"file": str(target), "lines": count})
        else:
            show(f"{count:,} lines in {target}")
    if bad:
        raise typer.Exit(Exit.INPUT)
