"""Options of `amberdb ui`.

Invariants:
- The pages are for the person in front of this machine: the address is a loopback one.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

from amberdb._shared.local_http import is_loopback
from amberdb.inspector.web.languages import LANGUAGES

TOKEN_BYTES: Final = 32
BODY_BYTES_MAX: Final = 24 << 20
"""Of a form: the largest document as JSON text."""


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InspectorOptions:
    """Options of the pages. Raises ValueError for one that cannot be."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: a free port."""
    write: bool = False
    """Documents can be edited, deleted and erased."""
    language: str | None = None
    """None: that of the browser."""
    embed: Callable[[list[str]], Any] | None = None
    """Makes vectors of texts, for the search by meaning."""
    token: str = field(default_factory=new_token, repr=False)

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise ValueError(f"{self.host!r} is not an address of this machine: use 127.0.0.1")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port}: give one from 0, a free one, to 65535")
        if self.language not in (None, *LANGUAGES):
            raise ValueError(f"language {self.language!r}: use {' or '.join(LANGUAGES)}")
