"""Parts of a text that people can read: they begin and end between words, or between sentences.

Invariants:
- A part that a sentence begins or ends in is cut there if that is within the characters asked for.
- A word is cut only where it is longer than WORD_CHARACTERS_MAX.
- The cost does not depend on the characters outside of a part.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from amberdb.index.text.scripts import RUN

WORD_CHARACTERS_MAX: Final = 1_000
"""What is longer is no word."""
_NEAR_CHARACTERS: Final = 20
"""How far from the end of a snippet a space is looked for."""

_ends_word: Final = re.compile(rf"[\s{RUN}]").search
_ENDS: Final = ".!?\u2026\u0589\u061f\u06d4\u0964\u0965"
_WIDE_ENDS: Final = "\u3002\uff01\uff1f\uff1b\uff61"
"""Ends of sentences that nothing has to follow."""
_CLOSING: Final = "\"'\u2019\u201d)\\]\u300d\u300f\uff09"
_SENTENCE_ENDS: Final = re.compile(rf"[\n{_ENDS}{_WIDE_ENDS}][{_ENDS}{_WIDE_ENDS}{_CLOSING}]*+")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text that begins and ends between words."""

    text: str
    """With a line feed for each run of white space that has one, and a space for each other."""
    is_first: bool = True
    is_last: bool = True
    is_cut: bool = False
    """It begins inside a word, which is longer than any that is shown."""


def parts_of(joined: str, bounds: Sequence[int], start: int, end: int) -> Iterator[Part]:
    """The part from `start` to `end` of each text that is inside them. Text number i is from
    bounds[i] to bounds[i + 1] - 1 of `joined`."""
    for number in range(bisect_right(bounds, start) - 1, len(bounds) - 1):
        first, last = bounds[number], bounds[number + 1] - 1
        if first >= end:
            break
        text = joined[first:last]
        yield part_of(text, max(start - first, 0), min(end - first, len(text)))


def part_of(text: str, start: int, end: int) -> Part:
    """The part of a text from `start` to `end`, and the words that these are inside."""
    lowest = max(start - WORD_CHARACTERS_MAX, 0)
    while start > lowest and not _ends_word(text[start - 1]):
        start -= 1
    is_cut = start == lowest > 0 and not _ends_word(text[start - 1])
    ending = _ends_word(text, end, end + WORD_CHARACTERS_MAX)
    end = ending.start() if ending else min(end + WORD_CHARACTERS_MAX, len(text))
    lines = (" ".join(line.split()) for line in text[start:end].splitlines())
    return Part("\n".join(filter(None, lines)), start == 0, end == len(text), is_cut)


def widened(part: Part, first: int, last: int, characters: int) -> tuple[int, int]:
    """Start and end of the stretch from `first` to `last`, widened to `characters` and cut between
    sentences, or words."""
    text = part.text
    if len(text) <= characters:
        return 0, len(text)
    start = max(0, min(first - (characters - (last - first)) // 2, len(text) - characters))
    start = min(start, first)
    starts, ends = _sentences(part)
    near = [each for each in starts if last - characters <= each <= first]
    if near:
        start = min(near, key=lambda each: abs(each - start))
    elif start:
        space = text.find(" ", start, min(first, start + _NEAR_CHARACTERS))
        start = space + 1 if space >= 0 else start
    end = max(last, min(start + characters, len(text)))
    if end < len(text):
        after = bisect_right(ends, end) - 1
        if after >= bisect_left(ends, max(last, 1)):
            return start, ends[after]
        space = text.rfind(" ", max(last, end - _NEAR_CHARACTERS), end)
        end = space if space >= 0 else end
    return start, end


def _sentences(part: Part) -> tuple[list[int], list[int]]:
    """The places where sentences start, and where they end, ascending."""
    text = part.text
    starts = [0] if part.is_first else []
    ends: list[int] = []
    for match in _SENTENCE_ENDS.finditer(text):
        start, end = match.span()
        if text[start] == "\n":
            starts.append(start + 1)
            ends.append(start)
        elif text[start] in _WIDE_ENDS or text[end : end + 1].isspace():
            starts.append(end + text[end : end + 1].isspace())
            ends.append(end)
    return starts, ends
