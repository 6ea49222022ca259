"""Lines of a terminal as an animated SVG.

All lines are in one column that is taller than the window. Two animations of the same length show
the run: one moves the column up, the other moves a cover down that hides what has not come yet.

Invariants:
- Without animations (prefers-reduced-motion, a program that draws no CSS) the picture is the end
  of the run.
- No script, no link, no font of its own: an <img> of a page that trusts nobody shows it.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from tools.recording.capture import Line, Run

CELL: Final = 8.0
"""The width of a column, in pixels."""
ROW: Final = 18.0
FONT: Final = 13.0
MARGIN: Final = 16.0
BAR: Final = 30.0
"""The bar above the window, with the title."""
PAUSE_S_MIN: Final = 0.07
"""Between lines that came at once, so that an eye can follow."""
PAUSE_S_MAX: Final = 0.9
REST_S: Final = 6.0
"""How long the end stays before it begins again."""

_STYLE: Final = """\
text{font:%(font)gpx ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
fill:#d6deeb;white-space:pre}
.bold{font-weight:700;fill:#fff}.dim{fill:#8b9bb4}.red{fill:#ff6b6b}.green{fill:#7fdb8a}
.yellow{fill:#e5c07b}.blue{fill:#82aaff}.magenta{fill:#c792ea}.cyan{fill:#7fdbca}
.column{animation:scroll %(length)gs step-end infinite}
.cover{animation:reveal %(length)gs step-end infinite}
@media (prefers-reduced-motion:reduce){.column,.cover{animation:none}}
"""
_PICTURE: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 %(width)g %(height)g"
 width="%(width)g" height="%(height)g" role="img" aria-label="%(title)s">
<title>%(title)s</title>
<style>
%(style)s</style>
<rect width="%(width)g" height="%(height)g" rx="8" fill="#10151f"/>
<circle cx="18" cy="17" r="5" fill="#ff6b6b"/><circle cx="36" cy="17" r="5" fill="#e5c07b"/>
<circle cx="54" cy="17" r="5" fill="#7fdb8a"/>
<text class="dim" x="%(middle)g" y="21" text-anchor="middle">%(title)s</text>
<svg x="%(left)g" y="%(top)g" width="%(inner)g" height="%(window)g">
<g class="column" transform="translate(0 %(end)g)">
%(texts)s
<rect class="cover" width="%(inner)g" height="%(tall)g" fill="#10151f"
 transform="translate(0 %(tall)g)"/>
</g>
</svg>
</svg>
"""


def cells(text: str) -> int:
    """The columns that a text takes."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def wrapped(line: Line, columns: int) -> Iterator[Line]:
    """A line as the rows of the terminal that it fills."""
    row: list[Run] = []
    used = 0
    for run in line.runs:
        text = ""
        for sign in run.text:
            if used + cells(sign) > columns:
                yield Line(line.at_s, (*row, Run(text, run.classes)))
                row, text, used = [], "", 0
            text += sign
            used += cells(sign)
        row.append(Run(text, run.classes))
    yield Line(line.at_s, tuple(row))


def paced(lines: Sequence[Line]) -> list[float]:
    """When each line is shown: as it came, with pauses between PAUSE_S_MIN and PAUSE_S_MAX."""
    times: list[float] = []
    now_s = before_s = 0.0
    for line in lines:
        now_s += min(max(line.at_s - before_s, PAUSE_S_MIN), PAUSE_S_MAX)
        before_s = line.at_s
        times.append(now_s)
    return times


def scrolled(count: int, rows: int) -> float:
    """How far the column is up when the window has `count` rows to show."""
    return max(0, count - rows) * ROW


def keyframes(
    name: str, times: Sequence[float], length_s: float, offset: Callable[[int], float]
) -> str:
    """An animation that jumps to `offset(rows so far)` when a row comes."""
    frames = {0.0: offset(1)}
    for count, time_s in enumerate(times, 1):
        if offset(count) != list(frames.values())[-1]:
            frames[round(100 * time_s / length_s, 2)] = offset(count)
    inside = "".join(f"{at:g}%{{transform:translateY({y:g}px)}}" for at, y in frames.items())
    return f"@keyframes {name}{{{inside}}}\n"


def row_of(number: int, line: Line) -> str:
    """The text of a row: each piece at its column, as wide as its columns, whatever the font."""
    pieces: list[str] = []
    column = 0
    for run in line.runs:
        for _, group in groupby(run.text, cells):
            text = "".join(group)
            start = column + len(text) - len(text.lstrip(" "))
            width = cells(text)
            if shown := text.strip(" "):
                kind = f' class="{" ".join(sorted(run.classes))}"' if run.classes else ""
                pieces.append(
                    f'<tspan{kind} x="{start * CELL:g}" textLength="{cells(shown) * CELL:g}">'
                    f"{escape(shown)}</tspan>"
                )
            column += width
    return f'<text y="{(number + 1) * ROW - 5:g}">{"".join(pieces)}</text>'


def draw(lines: Sequence[Line], *, title: str, columns: int, rows: int) -> str:
    """The SVG. The first line is there from the beginning."""
    drawn = [row for line in lines for row in wrapped(line, columns)]
    times = paced(drawn)
    length_s = round(times[-1] + REST_S, 2)
    style = _STYLE % {"font": FONT, "length": length_s}
    style += keyframes("scroll", times, length_s, lambda count: -scrolled(count, rows))
    style += keyframes("reveal", times, length_s, lambda count: count * ROW)
    width = columns * CELL + 2 * MARGIN
    return _PICTURE % {
        "title": escape(title),
        "style": style,
        "texts": "\n".join(row_of(number, row) for number, row in enumerate(drawn) if row.runs),
        "width": width,
        "height": rows * ROW + 2 * MARGIN + BAR,
        "middle": width / 2,
        "left": MARGIN,
        "top": BAR + MARGIN,
        "inner": columns * CELL,
        "window": rows * ROW,
        "tall": len(drawn) * ROW,
        "end": -scrolled(len(drawn), rows),
    }
