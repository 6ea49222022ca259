"""Runs a command in a pseudo terminal, and keeps its lines with the time at which each came.

Invariants:
- The output is lines of text with colours (SGR). Anything else that moves the cursor is a
  RecordingError, since the picture could not show it.
"""

import codecs
import os
import re
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_CHUNK_BYTES: Final = 65_536
_ROWS: Final = 50
_SGR = re.compile(r"\x1b\[([\d;]*)m")
_COLORS: Final = {31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "magenta", 36: "cyan"}


class RecordingError(Exception):
    """The command cannot be recorded."""


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one style."""

    text: str
    classes: frozenset[str]
    """Of "bold", "dim" and the names of colours."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output."""

    at_s: float
    """Seconds since the start of the command."""
    runs: tuple[Run, ...]


def capture(command: Sequence[str], *, columns: int, environment: Mapping[str, str]) -> list[Line]:
    """The lines of a command's output. Raises RecordingError when it fails."""
    terminal, inside = os.openpty()
    termios.tcsetwinsize(inside, (_ROWS, columns))
    began = time.monotonic()
    with subprocess.Popen(
        command, stdin=inside, stdout=inside, stderr=inside, env=environment, close_fds=True
    ) as process:
        os.close(inside)
        lines = list(_lines(terminal, began))
    os.close(terminal)
    if process.returncode != 0:
        raise RecordingError(f"{' '.join(command)} ended with {process.returncode}")
    return lines


def styled(text: str) -> tuple[Run, ...]:
    """The runs of a line. Raises RecordingError."""
    runs: list[Run] = []
    classes: frozenset[str] = frozenset()
    parts = _SGR.split(text)
    for number, part in enumerate(parts):
        if number % 2:
            classes = _restyled(classes, part)
        elif part:
            if "\x1b" in part or "\r" in part:
                raise RecordingError(f"the output moves the cursor: {part!r}")
            runs.append(Run(part, classes))
    return tuple(runs)


def _lines(terminal: int, began: float) -> Iterator[Line]:
    """Lines as they come, until the command has closed the terminal."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    while True:
        try:
            data = os.read(terminal, _CHUNK_BYTES)
        except OSError:  # EIO: nobody has the other end open any more
            data = b""
        *whole, rest = (rest + decoder.decode(data)).split("\n")
        at_s = time.monotonic() - began
        for line in whole:
            yield Line(at_s, styled(line.removesuffix("\r").rstrip()))
        if not data:
            return


def _restyled(classes: frozenset[str], codes: str) -> frozenset[str]:
    """The style after an SGR sequence. Raises RecordingError."""
    for code in map(int, codes.split(";") if codes else ["0"]):
        if code == 0:
            classes = frozenset()
        elif code in (1, 2):
            classes |= {"bold" if code == 1 else "dim"}
        elif code == 3:
            pass  # italics
        elif code in _COLORS:
            classes = (classes - set(_COLORS.values())) | {_COLORS[code]}
        else:
            raise RecordingError(f"a style that is not drawn: SGR {code}")
    return classes
