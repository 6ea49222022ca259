"""Import of JSON lines: streaming, one commit per batch, resumable.

Invariants:
- Each line becomes an upsert under an id that only the line, its number and the file's name
  decide, so running the same import again changes nothing but versions.
- Lines are committed in order. `report.next_line` is the first line that is not known to be
  stored: an import from there misses nothing.
- Memory holds one batch, at most about BATCH_BYTES_MAX of text, however long the file.
"""

import gzip
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple, cast, final

from amberdb._errors import AmberError, DocumentError, TransactionTooLargeError
from amberdb._jsonl.text import convert_dates, dumps, loads
from amberdb._types import Document
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.index.registry import IndexSpec

BATCH_BYTES_MAX = 8 << 20
LINE_BYTES_MAX = 64 << 20
"""Text of one line; a document of 16 MiB of bytes takes 22 MiB as base64."""
BAD_LINES_KEPT = 100

_ID_DIGEST_SIZE = 12
_BOM = b"\xef\xbb\xbf"


class BadLine(NamedTuple):
    line: int
    reason: str


class BadLineError(AmberError, ValueError):
    """A line of the input cannot be stored (`line`); what came before it was."""


class InputDamagedError(AmberError, OSError):
    """The input ends too early or is not what its name says; what came before was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    batch: int = 1000
    """Lines per commit, at most."""
    skip_bad: bool = False
    """Bad lines are counted and left out; otherwise the first one stops the import."""
    from_line: int = 1
    id_from: Sequence[str] = ()
    dates: Sequence[str] = ()


@dataclass(slots=True)
class ImportReport:
    """What has been done so far."""

    lines: int = 0
    """Lines read, blank ones and those before `from_line` included."""
    stored: int = 0
    commits: int = 0
    next_line: int = 1
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list[BadLine])
    """The first hundred."""


class _Line(NamedTuple):
    number: int
    document: Document


@final
class Importer:
    """One run over one input. `report` is true at any time, also after an exception."""

    def __init__(
        self,
        collection: Collection,
        source: str,
        options: ImportOptions,
        *,
        on_bad: Callable[[BadLine], None] = lambda _: None,
        on_commit: Callable[[ImportReport], None] = lambda _: None,
    ) -> None:
        self.report = ImportReport(next_line=options.from_line)
        self._collection = collection
        self._source = os.path.basename(source).removesuffix(".gz")
        self._options = options
        self._on_bad = on_bad
        self._on_commit = on_commit

    def run(self, stream: BinaryIO) -> ImportReport:
        """Raises BadLineError, InputDamagedError, and what put_many() raises."""
        report, options = self.report, self._options
        batch: list[_Line] = []
        size = 0
        try:
            for number, text in numbered_lines(stream):
                report.lines = number
                if number < options.from_line or not text.strip():
                    continue
                try:
                    batch.append(_Line(number, self._parse(number, text)))
                except ValueError as error:
                    self._commit(batch)
                    self._refuse(number, str(error))
                    continue
                size += len(text)
                if len(batch) >= options.batch or size >= BATCH_BYTES_MAX:
                    self._commit(batch)
                    size = 0
        except InputDamagedError:
            self._commit(batch)
            raise
        self._commit(batch)
        report.next_line = report.lines + 1
        return report

    # -- inside ------------------------------------------------------------------------------

    def _parse(self, number: int, text: bytes) -> Document:
        if len(text) > LINE_BYTES_MAX:
            raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
        value = loads(text)
        if type(value) is not dict:
            raise ValueError(f"a document is a map, not {type(value).__name__}")
        document: Document = cast(Document, value)
        id: object = document.get("id")
        if type(id) is not str:
            made = self._id(number, text, document)
            # "id" goes first, where the engine puts the ids that it makes.
            document = {**document, "id": made} if "id" in document else {"id": made, **document}
        convert_dates(document, self._options.dates)
        return document

    def _id(self, number: int, text: bytes, document: Document) -> str:
        fields = self._options.id_from
        if document.get("id") is not None and "id" not in fields:
            raise ValueError(f"the id {document['id']!r} is not a str: use --id-from id")
        if not fields:
            # The number is part of it, so that two equal turns of a chat stay two documents.
            return _digest(f"{self._source}\0{number}\0".encode() + text.strip())
        values = [value_at(document, path) for path in fields]
        for path, value in zip(fields, values, strict=True):
            if value is None:
                raise ValueError(f"the field {path!r}, which makes the id, is missing")
        if len(values) == 1 and type(values[0]) in (str, int) and values[0] != "":
            return str(values[0])
        return _digest(dumps(values).encode())

    def _commit(self, batch: list[_Line]) -> None:
        """Stores and empties the batch."""
        if batch:
            try:
                self._store(batch)
            finally:
                batch.clear()

    def _store(self, lines: list[_Line]) -> None:
        """In one commit; when a document is refused, by halves, until it is known which."""
        try:
            self._collection.put_many(line.document for line in lines)
        except (DocumentError, TransactionTooLargeError) as error:
            if len(lines) == 1:
                self._refuse(lines[0].number, error.message)
                return
            half = len(lines) // 2
            self._store(lines[:half])
            self._store(lines[half:])
            return
        self.report.stored += len(lines)
        self.report.commits += 1
        self.report.next_line = lines[-1].number + 1
        self._on_commit(self.report)

    def _refuse(self, number: int, reason: str) -> None:
        bad = BadLine(number, reason)
        report = self.report
        report.bad += 1
        if len(report.bad_lines) < BAD_LINES_KEPT:
            report.bad_lines.append(bad)
        if not self._options.skip_bad:
            report.next_line = number
            raise BadLineError(f"line {number}: {reason}", line=number)
        report.next_line = number + 1
        self._on_bad(bad)


class Input(NamedTuple):
    """An open input: `position` and `size` count bytes of the file as it is on disk."""

    stream: BinaryIO
    position: Callable[[], int]
    size: int | None


@contextmanager
def open_input(path: str) -> Generator[Input]:
    """A file, unpacked when its name ends in .gz, or standard input for "-". Raises OSError."""
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


def declared_indexes(db: Database, name: str) -> list[IndexSpec]:
    """The indexes that a collection has; none when there is no such collection."""
    if name not in db.collections():
        return []
    return [index.spec for index in db.definition(name).indexes]


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, text); of a line over the limit only its beginning, a byte too long. Raises
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


def _read_line(stream: BinaryIO, size: int, number: int) -> bytes:
    """What is behind that line."""
    try:
        return stream.readline(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputDamagedError(
            f"the input is damaged behind line {number}: {error}", line=number
        ) from None


def value_at(document: Document, path: str) -> Any:
    """Of a dotted path through maps; None where there is nothing."""
    value: Any = document
    for name in path.split("."):
        value = cast(dict[str, Any], value).get(name) if isinstance(value, dict) else None
    return value


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_ID_DIGEST_SIZE).hexdigest()
