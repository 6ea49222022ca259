"""Values in the form in which pages show them: numbers, sizes, times, JSON with its parts marked.

Invariants:
- What is not made here of digits and fixed letters is escaped: JSON text is split into parts, and
  each is escaped by itself.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

from amberdb import CheckReport
from amberdb.inspector.values import size_text

_JSON_PART: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<word>\b(?:true|false|null)\b)"
)
_AGES: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def number(value: float | None) -> str:
    """A number with its thousands apart."""
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def size(count: float | None) -> str:
    """A number of bytes."""
    if count is None:
        return "\u2013"
    return size_text(count)


def moment(time: datetime) -> str:
    """A time in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def age(time: datetime, now: datetime | None = None) -> tuple[str, int]:
    """How long ago a time was: (key of the unit, count)."""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for length, unit in _AGES:
        if seconds >= length:
            return unit, int(seconds // length)
    return "seconds", max(0, int(seconds))


def score(value: float | None) -> str:
    """A score."""
    return "\u2013" if value is None else f"{value:.4f}"


def clock(seconds: int) -> str:
    """The time of day, in UTC, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M")


def quoted(text: str) -> str:
    """A word of a command line."""
    return shlex.quote(text)


def counts(report: CheckReport) -> list[tuple[str, int]]:
    """The counts of a report, by name."""
    named = {each.name: getattr(report, each.name) for each in fields(report)}
    return [(name, value) for name, value in named.items() if type(value) is int]


def highlighted(text: str) -> Markup:
    """JSON text with its keys, texts, numbers and words marked."""
    return Markup("").join(_parts(text))


def _parts(text: str) -> Iterator[Markup]:
    end = 0
    for found in _JSON_PART.finditer(text):
        yield escape(text[end : found.start()])
        yield Markup('<span class="j-{}">{}</span>').format(found.lastgroup, found[0])
        end = found.end()
    yield escape(text[end:])
