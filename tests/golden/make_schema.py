"""Makes the golden database of a catalog with many declarations: run once, then never again.

    PYTHONPATH=tests python tests/golden/make_schema.py [TARGET]

    v1-schema.tgz   killed in the middle of a migration, and before a dropped collection was purged:
                    former names, steps, retired keyspaces, some in LMDB and some only in the log

test_golden_schema.py has its content.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import amberdb
from amberdb import Document, Ordered, Text
from golden.make import pack
from support.databases import SMALL, FakeClock
from support.upgrades import stopped_after

HERE = Path(__file__).parent
NAME = "v1-schema.tgz"
COUNT = 12


def to_2(document: Document) -> Document:
    return {**document, "n": document["n"] + 100}


def to_3(document: Document) -> Document:
    return {**document, "text": f"{document['text']} green"}


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory, copy = Path(temporary) / "db.amber", Path(temporary) / "copy"
        options: dict[str, Any] = {**SMALL, "clock": FakeClock()}
        with amberdb.open(directory, **options) as db:
            for name in ("first", "dropped"):
                notes = db.collection(name, indexes=[Ordered("n"), Text("text")])
                notes.put_many({"id": f"{n:02}", "n": n, "text": "tea"} for n in range(COUNT))
            db.rename_collection("first", "second")
            with stopped_after(2):
                db.collection("second", version=2, migrate={2: to_2})
                db.migrate()
            db.checkpoint()
            db.rename_collection("second", "third")
            with stopped_after(1):
                db.collection("third", version=3, migrate={2: to_2, 3: to_3})
                db.migrate()
            db.drop_collection("dropped")
            db.sync()
            shutil.copytree(directory, copy)
        pack(copy, target / NAME)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
