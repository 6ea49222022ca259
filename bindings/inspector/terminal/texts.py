"""Stored text as cells and lines of a terminal.

Invariants:
- No text that is stored reaches the terminal as markup, or as a control character: a document
  cannot move the cursor, set colours or the title.
"""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.text import Text

from amberdb.inspector.values import size_text

_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control, format (also what changes the direction of text), surrogates,
separators of lines."""
_KEPT = "\u200d\u200c"
"""Joiners, without which emoji and some scripts fall apart."""


def plain(text: str, style: str = "") -> Text:
    """Stored text as one that is no markup."""
    return Text(escaped(text), style=style)


def escaped(text: str) -> str:
    """The text with escapes in place of control characters; line ends stay."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character == "\n" or character in _KEPT or not _is_control(character)
        else f"\\u{ord(character):04x}"
        for character in text
    )


def marked(parts: Sequence[tuple[str, bool]]) -> Text:
    """A snippet, with what matched in bold."""
    text = Text()
    for part, has_matched in parts:
        text.append(escaped(part), "bold" if has_matched else "")
    return text


def number(value: int) -> Text:
    """A count, aligned as numbers are."""
    return Text(f"{value:,}", justify="right")


def size(size_bytes: int | None) -> Text:
    """Bytes in a unit that a person reads; empty when the size is not known."""
    if size_bytes is None:
        return Text("")
    return Text(size_text(size_bytes), justify="right")


def instant(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in _ESCAPED
