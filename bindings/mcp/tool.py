"""A tool: its name, the types of its arguments and results, and the function that answers.

Invariants:
- Arguments are checked against their type before the function is called; keys that the type does
  not have are ignored, as by the official server.
- An error of a call is an answer with a message, never the end of the server.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

import msgspec

from amberdb import AmberError
from amberdb.mcp.answers import Answer, ToolError
from amberdb.mcp.store import Store

A = TypeVar("A", bound=msgspec.Struct)

_LOG: Final = logging.getLogger("amberdb.mcp")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[A]):
    """What a client can call."""

    name: str
    title: str
    description: str
    arguments: type[A]
    result: type[msgspec.Struct]
    run: Callable[[Store, A], Answer]
    writes: bool = False
    destroys: bool = False
    is_idempotent: bool = False
    """Whether the same call once more changes nothing."""

    def call(self, store: Store, arguments: Mapping[str, Any]) -> Answer:
        """Answers a call. Raises ToolError, AmberError, OSError."""
        return self.run(store, self.checked(arguments))

    def checked(self, arguments: Mapping[str, Any]) -> A:
        """The arguments in their type. Raises ToolError."""
        try:
            return msgspec.convert(arguments, self.arguments)
        except msgspec.ValidationError as error:
            raise ToolError(
                f"MCP error -32602: Input validation error: Invalid arguments for tool "
                f"{self.name}: {error}"
            ) from None


def named(tools: Iterable[Tool[Any]], name: str, *, read_only: bool) -> Tool[Any]:
    """The tool with this name. Raises ToolError."""
    for tool in tools:
        if tool.name == name:
            if read_only and tool.writes:
                raise ToolError(f"{name} writes, and the server was started with --read-only")
            return tool
    raise ToolError(f"MCP error -32602: Tool {name} not found")


def message_of(error: Exception, what: str) -> str:
    """What a client is told of an error. One that is none of the database is logged, with its
    traceback."""
    if isinstance(error, ToolError):
        return str(error)
    if isinstance(error, AmberError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    _LOG.error("%s failed", what, exc_info=error)
    return f"{what} failed: {type(error).__name__}: {error}"
