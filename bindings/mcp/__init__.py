"""A memory server for the Model Context Protocol: docs/mcp.md.

    amberdb mcp memory.amber                       the command line
    await serve("memory.amber", McpOptions())      the same from a program

    options    what can be chosen             store      the database, opened when it is needed
    graph_*    the nine official tools        memory_*   the tools of layered memory
    server     the protocol                   run        standard input and output, HTTP

Invariants:
- The SDK, of the extra `amberdb[mcp]`, is imported when a server runs. No other package of amberdb
  imports it.
"""

from amberdb.mcp.options import (
    McpOptions,
    ToolSet,
    default_path,
)
from amberdb.mcp.run import (
    serve,
)

__all__ = [
    "McpOptions",
    "ToolSet",
    "default_path",
    "serve",
]
