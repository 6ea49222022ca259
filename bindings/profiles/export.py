"""Export of user profiles to JSON: a directory with a file for each user, or one file of all.

Invariants:
- A file is replaced atomically and durably; import(export(x)) is x.
- Two users never have one file, on a file system that ignores case, or normalises names, either.
"""

import os
import re
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from amberdb import Database, Document
from amberdb._jsonl.text import dumps, iso
from amberdb._shared.files import replace_files, whole_file
from amberdb.profiles.documents import TIMES
from amberdb.profiles.profiles import UserProfiles
from amberdb.profiles.sources import LINES

AGE_MAX_MS: Final = 7 * 86_400_000
_NAME_MAX: Final = 150
"""Longer names of files end in a digest: file systems take 255 bytes, with the endings of copies
and of files that are being written."""
_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)
"""Names that Windows keeps for devices, whatever their ending."""


_CAPITALS: Final = re.compile("[A-Z]")


def export_json(profiles: UserProfiles, path: str | os.PathLike[str]) -> int:
    """Writes every profile of one snapshot to a directory, a file for each user, or to one file if
    the path ends in `.json` (a list) or `.jsonl`; how many. Raises OSError."""
    return export_collection(profiles.db, profiles.name, Path(path))


def export_collection(db: Database, name: str, path: Path) -> int:
    """export_json() of a collection of profiles, also in a database that is open read-only. Raises
    CollectionMissingError, OSError."""
    with db.snapshot(max_age_ms=AGE_MAX_MS) as at:
        documents = at[name].documents()
        if path.suffix in (".json", *LINES) and not path.is_dir():
            return _write_one(path, documents)
        return replace_files(path, map(_file, documents))


def file_name(user_id: str) -> str:
    """The name of a user's file: the id in ASCII, or its beginning and a digest where the name
    would be too long, special, or that of another id where capitals do not count."""
    plain = quote(user_id, safe="")
    is_free = (
        len(plain) <= _NAME_MAX
        and not _CAPITALS.search(user_id)
        and "~" not in plain
        and not plain.startswith(".")
        and plain.partition(".")[0] not in _DEVICES
    )
    if is_free:
        return f"{plain}.json"
    return f"{plain[:_NAME_MAX]}~{sha256(user_id.encode()).hexdigest()[:32]}.json"


def _file(document: Document) -> tuple[str, bytes]:
    text = dumps(_fields(document), indent=2)
    return file_name(document["id"]), f"{text}\n".encode()


def _write_one(path: Path, documents: Iterator[Document]) -> int:
    is_lines = path.suffix in LINES
    count = 0
    with whole_file(os.fspath(path)) as file:
        file.write("" if is_lines else "[")
        for count, document in enumerate(documents, 1):
            file.write("" if is_lines else ",\n"[count == 1 :])
            file.write(dumps(_fields(document)))
            file.write("\n" if is_lines else "")
        file.write("" if is_lines else "\n]\n")
    return count


def _fields(document: Document) -> Document:
    return {
        name: iso(value) if name in TIMES and isinstance(value, datetime) else value
        for name, value in document.items()
        if name != "id"
    }
