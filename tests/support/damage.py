"""Bytes of a database's files turned over, one at a time, and what opening it then says.

Invariants:
- Every flip starts from the same pristine files; nothing of an earlier one is left.
- DETECTED: a typed error that names a file. HARMLESS: opened, checked, and the whole answer is
  equal. CUT: only after a crash; a prefix of the commits is there, and what was cut is kept as
  `.broken`. Everything else is UNDETECTED, an untyped error included.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import amberdb
from amberdb import AmberError
from support.databases import SMALL

DOCUMENTS = 12


def with_last_bit_flipped(data: bytes) -> bytes:
    """Never equal to `data`, as bytes with a fixed last byte may be."""
    return data[:-1] + bytes([data[-1] ^ 1])


class Outcome(Enum):
    DETECTED = "detected"
    HARMLESS = "harmless"
    CUT = "cut"
    UNDETECTED = "undetected"


@dataclass
class FlipTable:
    """How often each kind of file ended how; the first few that nothing noticed."""

    counts: Counter[tuple[str, Outcome]] = field(default_factory=Counter[tuple[str, Outcome]])
    undetected: list[str] = field(default_factory=list[str])

    def add(self, kind: str, outcome: Outcome, place: str) -> None:
        self.counts[kind, outcome] += 1
        if outcome is Outcome.UNDETECTED and len(self.undetected) < 20:
            self.undetected.append(place)

    def rows(self) -> dict[str, dict[str, int]]:
        kinds = sorted({kind for kind, _ in self.counts})
        return {
            kind: {outcome.value: self.counts[kind, outcome] for outcome in Outcome}
            for kind in kinds
        }


def make_database(path: Path, copy: Path, *, clean: bool) -> None:
    """Commits of one document each; `copy` is the directory after a close, or after a crash."""
    db = amberdb.open(path, **SMALL)
    notes = db.collection("n")
    for n in range(DOCUMENTS):
        notes.put({"id": f"{n:02}", "n": n}, sync="always")
    if clean:
        db.close()
    shutil.copytree(path, copy)
    if not clean:
        db.close()


def kind_of(name: str) -> str | None:
    """The kind of a file that flips are made in; None for those that they are not."""
    if os.path.basename(name) == "MANIFEST":
        return "MANIFEST"
    return "log" if name.endswith(".wal") else None


def targets(pristine: Path) -> Iterator[tuple[str, str]]:
    """(kind, relative path)."""
    for path in sorted(pristine.rglob("*")):
        kind = kind_of(str(path))
        if kind is not None and path.is_file():
            yield kind, str(path.relative_to(pristine))


def open_flipped(
    pristine: Path, scratch: Path, name: str, offset: int, mask: int, *, clean: bool
) -> Outcome:
    """Opens a copy in which one byte differs; reads and checks all of it."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(pristine, scratch)
    with open(scratch / name, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
    return classify(scratch, clean=clean)


def classify(path: Path, *, clean: bool) -> Outcome:
    """What opening, reading and checking the database at `path` comes to."""
    try:
        with amberdb.open(path, create=False, **SMALL) as db:
            found = [(doc["id"], doc["n"]) for doc in db.collection("n").find()]
            if not db.check().ok:
                return Outcome.DETECTED
    except AmberError as error:
        return Outcome.DETECTED if str(path) in str(error) else Outcome.UNDETECTED
    except Exception:
        return Outcome.UNDETECTED
    wanted = [(f"{n:02}", n) for n in range(DOCUMENTS)]
    found.sort()
    if found == wanted:
        return Outcome.HARMLESS
    # The last sync group cannot be told from a torn tail: one commit here.
    if not clean and found == wanted[:-1] and any(path.rglob("*.broken*")):
        return Outcome.CUT
    return Outcome.UNDETECTED
