"""Export to JSON lines: one snapshot, streamed; a file appears whole or not at all.

Invariants:
- All lines are of one Lsn, however long the export takes.
- A file gets its name only when everything is in it and on disk; until then what had the name
  before is untouched.
"""

import gzip
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import BinaryIO, TextIO, cast

from amberdb._fs import OsFileSystem
from amberdb._jsonl.text import dumps
from amberdb._shared.pages import all_pages
from amberdb._types import Where
from amberdb.engine.database.database import Database

_PAGE = 1000
_AGE_MAX_MS = 7 * 86_400_000
"""An export may take long; the default age of snapshots is for forgotten ones."""


def export_lines(db: Database, name: str, where: Where | None = None) -> Iterator[str]:
    """A line for each live document, without its end. Raises CollectionMissingError, QueryError,
    CorruptionError."""
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        collection = at[name]
        if not where:
            yield from map(dumps, collection.documents())
            return
        yield from map(dumps, all_pages(collection.find, where, limit=_PAGE))


@contextmanager
def whole_file(path: str) -> Generator[TextIO]:
    """Text to write; packed when the name ends in .gz. The file takes its name, durably, when
    the block ends well. Raises OSError."""
    aside = f"{path}.{os.getpid()}.part"
    fs = OsFileSystem()
    try:
        with open(aside, "xb") as raw:
            if path.endswith(".gz"):
                # No time and no name inside: equal documents make equal files.
                with gzip.GzipFile("", "wb", 6, raw, 0) as packed, _text(packed) as text:
                    yield text
            else:
                with _text(raw) as text:
                    yield text
        file = fs.open(aside)
        try:
            file.sync()
        finally:
            file.close()
        fs.rename(aside, path)
        fs.sync_dir(os.path.dirname(path) or ".")
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def _text(raw: BinaryIO | gzip.GzipFile) -> TextIOWrapper:
    return TextIOWrapper(cast(BinaryIO, raw), encoding="utf-8", newline="\n")
