"""A reading process that a test leads by a pipe: it evaluates expressions and says what they are.

Invariants:
- An answer is whole before the next question is put: who asks after a commit asks behind it.
- An answer is a literal. An error of AmberDB is raised again where it was asked.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import amberdb
from amberdb import Database
from support.databases import SMALL

TESTS = Path(__file__).parent.parent
_SERVE = "import sys; from support.reading import serve; serve(sys.argv[1], eval(sys.argv[2]))"


class ReadingProcess:
    """`db` in its expressions is the database, opened to read only; `kept` a dictionary that
    stays."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(path), repr(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        )
        try:
            self.answer()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "ReadingProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        if self._process.poll() is None:
            self._process.communicate()
        if error is None:
            assert self._process.returncode in (0, -9)

    def ask(self, expression: str) -> Any:
        self.begin(expression)
        return self.answer()

    def begin(self, expression: str) -> None:
        """Without waiting for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        kind, _, said = self._process.stdout.readline().partition(" ")
        if kind != "answer":
            raise getattr(amberdb, kind)(said)
        return ast.literal_eval(said)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def documents(source: Any, name: str = "a") -> dict[str, Any]:
    """Those of a collection, by id; their vectors as lists."""
    found = (dict(document) for document in source[name].documents())
    return {one["id"]: {k: v.tolist() if k == "v" else v for k, v in one.items()} for one in found}


def everything(db: Database, name: str = "a") -> tuple[int, dict[str, Any]]:
    """An Lsn, and the documents there."""
    with db.snapshot() as at:
        return at.lsn, documents(at, name)


def serve(path: str, options: dict[str, Any]) -> None:
    """The child: answers until its input ends."""
    names: dict[str, Any] = {"kept": {}, "everything": everything, "documents": documents}

    def answer(expression: str) -> None:
        try:
            print("answer", repr(eval(expression, names)), flush=True)
        except amberdb.AmberError as error:
            print(type(error).__name__, repr(str(error)), flush=True)

    names["open"] = lambda: names.update(
        db=amberdb.open(path, read_only=True, **{**SMALL, **options})
    )
    answer("open()")
    for line in sys.stdin:
        answer(line)
    if "db" in names:
        names["db"].close()
