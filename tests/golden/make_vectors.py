"""Makes the golden database of vectors in their blocks: run once, then never again.

    PYTHONPATH=tests python tests/golden/make_vectors.py [TARGET]

    v2-vectors.tgz   killed: part in LMDB, with deleted rows and an index that was dropped, and part
                     only in the log

test_golden_vectors.py has its content.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Document, Vector
from amberdb.index.registry import IndexSpec
from golden.make import pack
from support.databases import SMALL, FakeClock

HERE = Path(__file__).parent
NAME = "v2-vectors.tgz"
COUNT = 150
INDEXES: list[IndexSpec] = [
    Vector("v", dim=3, metric="l2"),
    Vector("many", dim=2, metric="ip", multi=True),
    Vector("dropped", dim=5),
]


def document(number: int) -> Document:
    """Numbers that float32 holds."""
    return {
        "id": f"{number:03}",
        "v": [number, -number / 2, 0.25],
        "many": [[number, each] for each in range(number % 4)],
        "dropped": [1.0, 2.0, 3.0, 4.0, number],
        "n": number,
    }


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory, copy = Path(temporary) / "db.amber", Path(temporary) / "copy"
        options: dict[str, Any] = {**SMALL, "clock": FakeClock()}
        with amberdb.open(directory, **options) as db:
            notes = db.collection("notes", indexes=INDEXES)
            notes.put_many(map(document, range(COUNT)))
            db.checkpoint()
            for number in range(0, COUNT, 7):
                notes.delete(f"{number:03}")
            notes.update("001", {"v": [9, 9, 9]})
            db.collection("notes", indexes=INDEXES[:2])
            notes.update("002", {"dropped": [0.5, 0.5]})
            db.checkpoint()
            notes.put(document(COUNT))
            notes.delete("003")
            db.sync()
            shutil.copytree(directory, copy)
        pack(copy, target / NAME)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
