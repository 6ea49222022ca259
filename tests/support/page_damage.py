"""Damage inside data.mdb, and what reads, the offline check and repair make of each copy.

Every step runs in a forked child, so that a process that LMDB ends is an outcome and no end.

Invariants:
- Each damage starts from the same pristine directory, and is drawn from the seed alone.
- The answer is everything a user can read: documents by id, through each index, by searches, their
  counts, and the position of a subscriber.
"""

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

import amberdb
from amberdb import AmberError, Collection, Database, Ordered, Text, Unique, Vector
from amberdb.engine.search.vector import file as vector_file
from support.databases import SMALL
from support.reference import Doc
from support.searches import DIM, WORDS, compare_searches, drawn_text, drawn_vector

T = TypeVar("T")
PAGE: Final = 4096
HANG_S: Final = 60
DATA: Final = "data-1/data.mdb"
NAMES: Final = ("a", "b")
Answer = dict[Any, Any]


def make(path: Path, copy: Path, *, documents: int) -> Answer:
    """A closed database with inner pages, overflow pages, free pages, lists, what expires, several
    segments, and files in cache/; its copy, and its answer."""
    rng = random.Random(documents)
    with patch.object(vector_file, "UNSAVED_ROWS", 0), amberdb.open(path, **SMALL) as db:
        for name in NAMES:
            notes = db.collection(
                name,
                indexes=[
                    Ordered("n", "-text"),
                    Ordered("tags"),
                    Unique("only", sparse=True),
                    Text("text"),
                    Vector("v", dim=DIM, metric="l2"),
                ],
                expires_at="until",
            )
            docs = [_document(rng, number) for number in range(documents)]
            notes.put_many(docs)
            db.checkpoint()
            for number in range(0, documents, 5):
                notes.delete(f"{number:05}")
            db.checkpoint()
            notes.put_many(docs[1::10])
        db.subscriber("reader").acknowledge(db.stats()["last_lsn"])
        answer = read(db)
    shutil.copytree(path, copy)
    return answer


def _document(rng: random.Random, number: int) -> Doc:
    doc: Doc = {"id": f"{number:05}", "n": number % 13, "text": "x" * rng.choice((5, 60, 300))}
    if number % 40 == 0:
        doc["text"] = "long" * 3000
    if number % 2:
        doc["text"] = drawn_text(rng)
    if number % 3 == 1:
        doc["v"] = drawn_vector(rng).tolist()
    if number % 3 == 0:
        doc["tags"] = [str(number % 7), str(number % 5)]
    if number % 4 == 0:
        doc["only"] = number
    if number % 6 == 0:
        doc["until"] = 9e9
    return doc


def read(db: Database) -> Answer:
    """Everything, in every way."""
    answer: Answer = {"reader": db.subscriber("reader").position}
    for name in NAMES:
        notes = db.collection(name)
        answer[name] = _documents(notes)
        answer[name, "count"] = len(notes)
        for order in ("n", "tags", "only"):
            found = notes.find({order: {"$gte": "" if order == "tags" else 0}}, order_by=order)
            answer[name, order] = [doc["id"] for doc in found]
        got = map(notes.get, list(answer[name])[::50])
        answer[name, "got"] = [doc and _plain(doc) for doc in got]
        near, words = [0.1, -0.2, 0.3], " ".join(WORDS[::2])
        answer[name, "near"] = [(hit.id, hit.score) for hit in notes.search(vector=near, limit=50)]
        answer[name, "words"] = [(hit.id, hit.score) for hit in notes.search(words, limit=1000)]
    return answer


def _documents(notes: Collection) -> dict[str, Doc]:
    return {doc["id"]: _plain(doc) for doc in notes.documents()}


def _plain(doc: Doc) -> Doc:
    """With lists in place of arrays, to be compared with ==."""
    return {**doc, "v": doc["v"].tolist()} if "v" in doc else doc


# -- in a child --------------------------------------------------------------------------------


def in_child(work: Callable[[], T]) -> T | None:
    """What `work` returns, as JSON, in a forked child; None when the child died or hung."""
    source, target = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where LMDB says why it aborts
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout has one of its own
            signal.alarm(HANG_S)
            with os.fdopen(target, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source) as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(data) if status == 0 and data else None


# -- damage ------------------------------------------------------------------------------------


def damage(data: bytearray, kind: str, rng: random.Random) -> str:
    """Does it to the bytes of data.mdb; says where."""
    page = rng.randrange(len(data) // PAGE)
    start = page * PAGE
    if kind == "flip":
        offset = start + rng.randrange(PAGE)
        data[offset] ^= 1 << rng.randrange(8)
        return f"bit of {offset}"
    if kind == "header":
        offset = start + rng.randrange(32)
        data[offset] ^= 1 << rng.randrange(8)
        return f"bit of {offset}"
    if kind == "zeros":
        data[start : start + PAGE] = bytes(PAGE)
    elif kind == "noise":
        data[start : start + PAGE] = rng.randbytes(PAGE)
    else:
        other = rng.randrange(len(data) // PAGE) * PAGE
        data[start : start + PAGE] = data[other : other + PAGE]
    return f"page {page}"


KINDS: Final = ("flip", "header", "zeros", "noise", "another page")


@dataclass
class PageTable:
    """How often each kind of damage ended how."""

    reads: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    checks: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    repairs: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    wrong: list[str] = field(default_factory=list[str])
    """What must not be: missed by check, a dead check, a repair that is not as it says."""

    def rows(self) -> dict[str, dict[str, dict[str, int]]]:
        parts = {"reads": self.reads, "check": self.checks, "repair": self.repairs}
        return {
            part: {
                kind: {what: n for (of, what), n in sorted(counts.items()) if of == kind}
                for kind in KINDS
            }
            for part, counts in parts.items()
        }


class PageDamage:
    """One pristine database, damaged again and again."""

    def __init__(self, scratch: Path, *, documents: int) -> None:
        self._scratch = scratch / "damaged"
        self.pristine = scratch / "pristine"
        self.answer = make(scratch / "t.amber", self.pristine, documents=documents)
        self._data = (self.pristine / DATA).read_bytes()
        self.table = PageTable()

    def one(self, kind: str, rng: random.Random) -> None:
        data = bytearray(self._data)
        where = f"{kind}: {damage(data, kind, rng)}"
        self._write(data)
        reads = in_child(self._reads) or "process died"
        self._write(data)
        problems = in_child(self._check)
        if problems is None:
            check = "process died"
        elif problems:
            check = "found"
        else:
            check = "nothing to find" if reads == "harmless" else "missed"
        self.table.reads[kind, reads] += 1
        self.table.checks[kind, check] += 1
        if check in ("process died", "missed"):
            self.table.wrong.append(f"{where}: reads {reads}, check {check}")
        if check == "found":
            repair = in_child(self._repair) or "process died"
            self.table.repairs[kind, repair] += 1
            if repair not in ("nothing lost", "lost as reported"):
                self.table.wrong.append(f"{where}: repair: {repair}")

    def _write(self, data: bytearray) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.copytree(self.pristine, self._scratch)
        (self._scratch / DATA).write_bytes(data)

    def _reads(self) -> str:
        try:
            with amberdb.open(self._scratch, create=False, **SMALL) as db:
                return "harmless" if read(db) == self.answer else "wrong answer"
        except AmberError as error:
            return "detected" if str(self._scratch) in str(error) else f"no path: {error}"
        except Exception as error:
            return f"untyped: {type(error).__name__}"

    def _check(self) -> list[str]:
        return amberdb.check(self._scratch, **SMALL).problems

    def _repair(self) -> str:
        """What is there afterwards must be what was, but for what the report says."""
        try:
            report = amberdb.repair(self._scratch, apply=True, **SMALL)
            if not amberdb.check(self._scratch, **SMALL).ok:
                return "not sound"
            with amberdb.open(self._scratch, create=False, **SMALL) as db:
                found = {name: _documents(db.collection(name)) for name in db.collections()}
                compare_searches(db, random.Random(1))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        lost = 0
        for name in NAMES:
            wanted, kept = self.answer[name], found.get(name, {})
            changed = [id for id in kept if kept[id] != wanted.get(id)]
            if len(changed) > report.doubtful:
                return f"{len(changed)} documents are not as they were, {changed[:3]}"
            gone = wanted.keys() - kept.keys()
            lost += len(gone)
            named = {id for of, id in report.lost_ids if of == name}
            if name in found and len(gone) > max(report.missing.get(name, 0), len(named)):
                return f"{len(gone)} documents of {name} are lost, and {report.missing} reported"
        return "lost as reported" if lost else "nothing lost"
