"""Options of the memory server, checked before anything is opened.

Invariants:
- HTTP is served on a loopback address alone, and never without a token.
- The default path is below the data directory of the user, never inside the installed package.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

from amberdb import Embed
from amberdb._shared.local_http import is_loopback

ToolSet: TypeAlias = Literal["core", "full"]
"""The nine tools of the official memory server, or those and the tools of layered memory."""

TOOL_SETS: Final[tuple[ToolSet, ...]] = ("core", "full")
CHARS_MAX: Final = 40_000
CHARS_MIN: Final = 1_000
TOKEN_CHARS_MIN: Final = 16
NAMESPACE_CHARS_MAX: Final = 64
FILE_NAME: Final = "memory.amber"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class McpOptions:
    """Options of serve(). Raises ValueError."""

    tools: ToolSet = "full"
    read_only: bool = False
    namespace: str | None = None
    """A prefix of the names of all collections: one for each project or user of a database."""
    chars_max: int = CHARS_MAX
    """Characters of one answer; 0: no limit."""
    host: str | None = None
    """A loopback address for streamable HTTP; None: standard input and output."""
    port: int = 0
    """0: a free port."""
    token: str | None = field(default=None, repr=False)
    """HTTP clients send it as `Authorization: Bearer <token>`."""
    embed: Embed | None = None
    """Vectors for search by meaning, with `dim`, their length."""
    dim: int | None = None
    model: str | None = None
    """The name of the embedder."""

    def __post_init__(self) -> None:
        if self.tools not in TOOL_SETS:
            raise ValueError(f"tools={self.tools!r}: give core or full")
        if self.chars_max and self.chars_max < CHARS_MIN:
            raise ValueError(f"at least {CHARS_MIN} characters of an answer, or 0 for no limit")
        if self.namespace is not None:
            _check_namespace(self.namespace)
        if self.host is not None:
            _check_http(self.host, self.port, self.token)


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8765` or `[::1]:8765`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal():
        raise ValueError(f"{text!r}: give an address and a port, as 127.0.0.1:8765")
    return host.removeprefix("[").removesuffix("]"), int(port)


def default_path() -> Path:
    """The database when none is named: `amberdb/memory.amber` in the user's data directory."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        given = os.environ.get("XDG_DATA_HOME", "")
        base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
    return base / "amberdb" / FILE_NAME


def _check_namespace(name: str) -> None:
    if not name.replace("-", "_").isidentifier() or not name.isascii():
        raise ValueError(f"namespace {name!r}: use ASCII letters, digits, - and _, a letter first")
    if len(name) > NAMESPACE_CHARS_MAX:
        raise ValueError(f"namespace {name!r}: at most {NAMESPACE_CHARS_MAX} characters")


def _check_http(host: str, port: int, token: str | None) -> None:
    if not is_loopback(host):
        raise ValueError(f"other machines can reach {host}: serve 127.0.0.1, or [::1]")
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port={port}: give a number from 0 to 65535")
    if token is None:
        raise ValueError("every program of this machine can reach the port: give a token")
    if len(token) < TOKEN_CHARS_MIN or not token.isascii() or token != token.strip():
        raise ValueError(
            f"a token has at least {TOKEN_CHARS_MIN} ASCII characters, and no space around them"
        )
