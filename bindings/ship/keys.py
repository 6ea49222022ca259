"""The key of encrypted archives, and its file."""

import os
from pathlib import Path
from typing import Final

from amberdb.ship.errors import ArchiveKeyError

KEY_BYTES: Final = 32


def key_from(path: str | os.PathLike[str]) -> bytes:
    """The key in a file: 64 hex digits, as `openssl rand -hex 32` writes them, or 32 bytes.

    Keep a copy of the file elsewhere: without it no archive can be read. Raises ArchiveKeyError,
    OSError.
    """
    data = Path(path).read_bytes()
    if len(data) != KEY_BYTES:
        try:
            data = bytes.fromhex(data.decode("ascii"))
        except ValueError:
            data = b""
    return checked(data, os.fspath(path))


def checked(key: bytes, where: str = "key") -> bytes:
    """The key, if it has the right length. Raises ArchiveKeyError."""
    if len(key) != KEY_BYTES:
        raise ArchiveKeyError(
            f"{where} is no key: write one with `openssl rand -hex 32`, which is 64 hex digits"
        )
    return key
