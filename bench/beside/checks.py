"""The checks: each returns what was seen, as a line of text."""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.beside.stores import STORES

TEXT: Final = "下午和小王开会"
_WRITE_S: Final = 3.0
_EACH: Final = 200


def killed(name: str, path: Path) -> str:
    """Acknowledged by a writer that is killed with SIGKILL, and there afterwards."""
    with _writer(name, path, 0, 1_000_000) as process:
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline() or -1) + 1
        timer = threading.Timer(_WRITE_S, process.kill)
        timer.start()
        for line in process.stdout:
            acknowledged = int(line) + 1 if line.endswith("\n") else acknowledged
    store = STORES[name](path)
    left = store.count()
    store.close()
    return f"{acknowledged} acknowledged, {left} there"


def chinese(name: str, path: Path) -> str:
    """Which parts of a sentence find it, by words and without a model."""
    store = STORES[name](path)
    store.add(1, TEXT)
    store.add(2, "The umbrella is in the car")
    found = [words for words in ("开会", "和小王", TEXT) if TEXT in store.by_words(words)]
    store.close()
    return f"found by {', '.join(found) or 'nothing'}"


def transaction(name: str, path: Path) -> str:
    """What is left of a text and its vector when the transaction of both fails."""
    store = STORES[name](path)
    left = store.undone()
    store.close()
    return left


def processes(name: str, path: Path) -> str:
    """Two processes that have it open and write at once, and what each of them finds."""
    store = STORES[name](path)
    store.add(0, "text 0")
    store.by_vector(10)
    with _writer(name, path, 1, _EACH) as process:
        for number in range(_EACH + 1, 2 * _EACH + 1):
            store.add(number, f"text {number}")
        _, error = process.communicate()
    wanted = 2 * _EACH + 1
    seen = f"{store.count()} of {wanted} there, {store.by_vector(wanted)} found by a search"
    store.close()
    last = error.strip().rpartition("\n")[2].replace(f"{path}/", "")
    refused = last if process.returncode else ""
    return f"{seen}; the second process: {refused or 'done'}"


def deletion(name: str, path: Path) -> str:
    """The files that hold a text after it was deleted and the database was closed."""
    store = STORES[name](path)
    store.add(1, f"{TEXT} peanuts")
    store.add(2, "another one")
    store.delete(1)
    store.close()
    files = (file for file in path.rglob("*") if file.is_file())
    holding = [file.name for file in files if b"peanuts" in file.read_bytes()]
    return f"still in: {', '.join(sorted(holding)) or 'no file'}"


CHECKS: Final[dict[str, Callable[[str, Path], str]]] = {
    check.__name__: check for check in (killed, chinese, transaction, processes, deletion)
}


def run(name: str) -> dict[str, str]:
    """Every check of one system, each in a directory of its own."""
    seen: dict[str, str] = {}
    for title, check in CHECKS.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            seen[title] = check(name, Path(directory))
            print(f"{name:8} {title:12} {seen[title]}", flush=True)
    return seen


def _writer(name: str, path: Path, first: int, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.beside.writer", name, str(path), str(first), str(count)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
