"""The answers of tools: their content, its JSON text, and the limit of their size.

Invariants:
- The text of an answer says the same as its structured content.
- What a limit leaves out is counted, and the answer says so: nothing is left out silently.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias, final

import msgspec

from amberdb._jsonl.text import iso

Item: TypeAlias = dict[str, Any]

_CUT: Final = "..."
_TEXT_CHARS_MIN: Final = 20


class ToolError(Exception):
    """A call that cannot be answered, with a message for the model."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool answers."""

    content: dict[str, Any]
    """The structured content."""
    shown: Any = None
    """What the text shows in its place: a list, or a sentence."""
    indent: int | None = None
    note: str | None = None
    """A second text for the model: what a limit left out."""

    @property
    def text(self) -> str:
        """The text of the content."""
        shown = self.content if self.shown is None else self.shown
        return shown if isinstance(shown, str) else json_text(shown, indent=self.indent)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as JavaScript writes it: with indentation, or without any space."""
    text = msgspec.json.encode(value)
    if indent is not None:
        text = msgspec.json.format(text, indent=indent)  # json indents twenty times slower
    return text.decode()


def time_text(time: datetime | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if time is None else iso(time)


@final
class Budget:
    """The characters that the lists of one answer may have."""

    def __init__(self, chars_max: int, *, indent: int | None = None) -> None:
        self._left = chars_max
        self._is_limited = chars_max > 0
        self._indent = indent

    def fitted(
        self, lists: Mapping[str, list[Item]], *, used_chars: int = 0
    ) -> tuple[dict[str, list[Item]], int]:
        """The lists as far as they fit beside `used_chars` others, in their order, and how many
        items do not. Of the first item there are always the beginnings of its texts."""
        if not self._is_limited:
            return dict(lists), 0
        kept: dict[str, list[Item]] = {name: [] for name in lists}
        self._left -= len(json_text(kept, indent=self._indent)) + used_chars
        total = count = 0
        is_full = False
        for name, items in lists.items():
            total += len(items)
            for item in items:
                if is_full or not (item_kept := self._taken(item, is_first=count == 0)):
                    is_full = True
                    break
                kept[name].append(item_kept)
                count += 1
        return kept, total - count

    def _taken(self, item: Item, *, is_first: bool) -> Item | None:
        chars = self._chars(item)
        if chars > self._left:
            if not is_first:
                return None
            share = self._left // 2
            whole = item
            while chars > self._left and share >= _TEXT_CHARS_MIN:
                item = _shortened(whole, share)
                chars = self._chars(item)
                share //= 2
        self._left -= chars
        return item

    def _chars(self, item: Item) -> int:
        """The length of its text within that of the answer."""
        text = json_text(item, indent=self._indent)
        if self._indent is None:
            return len(text) + 1
        return len(text) + 2 * self._indent * (text.count("\n") + 1) + 2


def left_out(count: int, how: str) -> str | None:
    """The note for items that did not fit."""
    if not count:
        return None
    return f"{count} more did not fit into this answer: {how}"


def _shortened(item: Item, share: int) -> Item:
    """An item with the beginnings of its texts; lists of texts have as many as fit."""
    shorter: Item = {}
    for name, value in item.items():
        if isinstance(value, str):
            shorter[name] = value if len(value) <= share else value[:share] + _CUT
        elif isinstance(value, list):
            shorter[name] = _first_texts(value, share)  # pyright: ignore[reportUnknownArgumentType]
        else:
            shorter[name] = value
    return shorter


def _first_texts(values: list[Any], chars_max: int) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not isinstance(value, str):
            kept.append(value)
            continue
        if len(value) > chars_max:
            kept.append(value[:chars_max] + _CUT)
            break
        kept.append(value)
        chars_max -= len(value)
    return kept
