"""Numbered lines of a file of JSON lines, or of standard input.

Invariants:
- Memory holds one line. Of a line over LINE_BYTES_MAX the reader returns the beginning, one byte
  longer than the limit, so its caller can reject it by its length.
- Compressed input that is damaged or ends early raises InputDamagedError after its last whole line.
"""

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, NamedTuple, cast

from amberdb import AmberError
from amberdb._jsonl.text import loads

BATCH_BYTES_MAX: Final = 8 << 20
"""Text that an import commits at once, about."""
LINE_BYTES_MAX: Final = 64 << 20
"""Text of one line; a document of 16 MiB of bytes takes 22 MiB as base64."""
BAD_LINES_KEPT: Final = 100
"""Bad lines that a report lists; it counts all of them."""

_BOM = b"\xef\xbb\xbf"


class BadLine(NamedTuple):
    """A line that was not stored, and why."""

    line: int
    reason: str


class InputDamagedError(AmberError, OSError):
    """The input is damaged or ends early; the lines before that were stored."""


class Input(NamedTuple):
    """An open input: `position` and `size` count bytes of the file as it is on disk."""

    stream: BinaryIO
    position: Callable[[], int]
    size: int | None
    """None for standard input."""


@contextmanager
def open_input(path: str) -> Generator[Input]:
    """Opens a file, decompressed when its name ends in .gz, or standard input for "-". Raises
    OSError."""
    if path == "-":
        yield Input(sys.stdin.buffer, lambda: 0, None)
        return
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        if path.endswith(".gz"):
            with gzip.open(raw, "rb") as unpacked:
                yield Input(cast(BinaryIO, unpacked), raw.tell, size)
        else:
            yield Input(raw, raw.tell, size)


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line with its line end), without a byte order mark. Raises
    InputDamagedError."""
    number = 0
    while text := _read_line(stream, LINE_BYTES_MAX + 1, number):
        number += 1
        if number == 1:
            text = text.removeprefix(_BOM)
        if len(text) > LINE_BYTES_MAX and not text.endswith(b"\n"):
            while (rest := _read_line(stream, LINE_BYTES_MAX, number)) and not rest.endswith(b"\n"):
                pass
        yield number, text


def parse_line(text: bytes) -> Any:
    """The value of a line. Raises ValueError for a line over LINE_BYTES_MAX, and as loads()."""
    if len(text) > LINE_BYTES_MAX:
        raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
    return loads(text)


def _read_line(stream: BinaryIO, size: int, number: int) -> bytes:
    """Up to `size` bytes of the line after line `number`. Raises InputDamagedError."""
    try:
        return stream.readline(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputDamagedError(
            f"the input is damaged after line {number}: {error}", line=number
        ) from None
