"""Import of JSON lines: streaming, one commit per batch, resumable.

Invariants:
- Each line becomes an upsert. Its id depends only on the line, its number and the file's name, so
  running the same import again changes nothing but versions.
- Lines are committed in order. `report.next_line` is the first line that may not be stored: an
  import that resumes there misses nothing.
- Memory holds one batch, about BATCH_BYTES_MAX of text, however long the file.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, TypeAlias, cast, final

from amberdb import (
    AmberError,
    Collection,
    Document,
    DocumentError,
    TransactionTooLargeError,
    value_at,
)
from amberdb._jsonl.reader import (
    BAD_LINES_KEPT,
    BATCH_BYTES_MAX,
    BadLine,
    InputDamagedError,
    parse_line,
)
from amberdb._jsonl.text import convert_dates, dumps

_ID_DIGEST_SIZE = 12


class BadLineError(AmberError, ValueError):
    """A line of the input cannot be stored (`line`); the lines before it were stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    batch: int = 1000
    """Lines per commit, at most."""
    skip_bad: bool = False
    """Bad lines are counted and skipped; otherwise the first one stops the import."""
    from_line: int = 1
    """The first line to store; the lines before it are read and skipped."""
    id_from: Sequence[str] = ()
    """Dotted paths of the fields that make the id of a document without one."""
    dates: Sequence[str] = ()
    """Dotted paths of fields whose ISO 8601 text is stored as a datetime."""


@dataclass(slots=True)
class ImportReport:
    """The progress of an import, and its result."""

    lines: int = 0
    """Lines read, blank ones and those before `from_line` included."""
    stored: int = 0
    commits: int = 0
    next_line: int = 1
    bad: int = 0
    bad_lines: list[BadLine] = field(default_factory=list[BadLine])
    """The first BAD_LINES_KEPT of them."""


Line: TypeAlias = tuple[int, bytes | ValueError]
"""The number of a line, and its JSON text; an error when the input has no document there."""


class _Line(NamedTuple):
    number: int
    document: Document


@final
class Importer:
    """One run over one input. `report` is up to date at any time, also after an exception."""

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

    def run(self, lines: Iterable[Line]) -> ImportReport:
        """Stores the lines, with their numbers. Raises BadLineError, InputDamagedError, and what
        put_many() raises."""
        report, options = self.report, self._options
        batch: list[_Line] = []
        size = 0
        try:
            for number, text in lines:
                report.lines = number
                if number < options.from_line:
                    continue
                try:
                    if isinstance(text, ValueError):
                        raise text
                    if not text.strip():
                        continue
                    batch.append(_Line(number, self._parse(number, text)))
                except ValueError as error:
                    self._commit(batch)
                    self._reject(number, str(error))
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
        """The document of a line, with an id. Raises ValueError."""
        value = parse_line(text)
        if type(value) is not dict:
            raise ValueError(f"a document is a map, not {type(value).__name__}")
        document = cast(Document, value)
        if type(document.get("id")) is not str:
            id = self._id(number, text, document)
            # "id" goes first, where the engine puts the ids that it makes.
            document = {**document, "id": id} if "id" in document else {"id": id, **document}
        convert_dates(document, self._options.dates)
        return document

    def _id(self, number: int, text: bytes, document: Document) -> str:
        fields = self._options.id_from
        if document.get("id") is not None and "id" not in fields:
            raise ValueError(f"the id {document['id']!r} is not a str: use --id-from id")
        if not fields:
            # With the line number, so two equal turns of a chat stay two documents.
            return _digest(f"{self._source}\0{number}\0".encode() + text.strip())
        values = [value_at(document, path) for path in fields]
        for path, value in zip(fields, values, strict=True):
            if value is None:
                raise ValueError(f"the field {path!r}, which --id-from names, is missing")
        if len(values) == 1 and type(values[0]) in (str, int) and values[0] != "":
            return str(values[0])
        return _digest(dumps(values).encode())

    def _commit(self, batch: list[_Line]) -> None:
        """Stores the batch and empties it."""
        if batch:
            try:
                self._store(batch)
            finally:
                batch.clear()

    def _store(self, lines: list[_Line]) -> None:
        """In one commit; if a document is rejected, in halves, to find and report that one."""
        try:
            self._collection.put_many(line.document for line in lines)
        except (DocumentError, TransactionTooLargeError) as error:
            if len(lines) == 1:
                self._reject(lines[0].number, error.message)
                return
            half = len(lines) // 2
            self._store(lines[:half])
            self._store(lines[half:])
            return
        self.report.stored += len(lines)
        self.report.commits += 1
        self.report.next_line = lines[-1].number + 1
        self._on_commit(self.report)

    def _reject(self, number: int, reason: str) -> None:
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


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_ID_DIGEST_SIZE).hexdigest()
