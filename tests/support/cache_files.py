"""Files in cache/ that are as a writer would have made them, and do not tell the truth.

Invariants:
- What forge() writes passes every checksum; only what it says is changed.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from amberdb._fs import OsFileSystem
from amberdb._types import Lsn
from amberdb.engine.storage.cache_file import SECTIONS_MAX, Cached, CacheFolder, Label

NAMES = ("rowids", "vectors", "places", "levels", "base", "upper", "codes")
_DTYPES = (np.int64, np.float32, np.int64, np.int32, np.uint32, np.uint32, np.uint8)
_ID = slice(16, 32)
_NEWEST = Lsn((1 << 63) - 1)


@dataclass
class Parts:
    """Of one file."""

    label: Label
    rowids: NDArray[Any]
    vectors: NDArray[Any]
    places: NDArray[Any]
    levels: NDArray[Any]
    base: NDArray[Any]
    upper: NDArray[Any]
    codes: NDArray[Any]

    def relabel(self, **changes: Any) -> None:
        self.label = replace(self.label, **changes)


Lie: TypeAlias = Callable[[Parts], None]


def forge(file: Path, lie: Lie) -> None:
    """Writes the file again, with its parts as `lie` leaves them; the arrays are flat."""
    data = file.read_bytes()
    cached = Cached(memoryview(data), data[_ID])
    arrays = [
        np.frombuffer(bytes(cached.section(number)), dtype).copy()
        for number, dtype in enumerate(_DTYPES)
    ]
    assert len(arrays) == SECTIONS_MAX
    parts = Parts(cached.label, *arrays)
    lie(parts)
    told: list[Any] = [getattr(parts, name) for name in NAMES]
    aside = file.parent.with_name("forged")
    aside.mkdir()
    folder = CacheFolder(OsFileSystem(), str(aside), data[_ID], _NEWEST, ())
    folder.write(parts.label, [[memoryview(array)] for array in told])
    (made,) = (aside / "cache").iterdir()
    shutil.move(made, file)
    shutil.rmtree(aside)
