"""What the style tests look at: the files of the repository, without anything that is generated.

Invariants:
- Every path is relative to ROOT with forward slashes, and is listed once: links are not followed.
- A file that is not committed yet is listed too, so that the tests speak up before the commit.
"""

import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

LAYERS = ("bindings", "engine", "index", "wal")
"""The four folders that are packages inside `amberdb`."""

PACKAGE_FOLDERS = (*LAYERS, "src/amberdb")

_GENERATED = {
    ".benchmarks",
    ".git",
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".venv",
    "__pycache__",
    "build",
    "dist",
}


@cache
def files() -> tuple[str, ...]:
    """Every file of the repository, sorted."""
    found: list[str] = []
    for folder, folders, names in os.walk(ROOT):
        where = Path(folder).relative_to(ROOT)
        folders[:] = [name for name in folders if not _is_generated(where / name)]
        found += [
            (where / name).as_posix()
            for name in names
            if name != ".git" and not name.startswith(".coverage")  # a linked worktree's file
        ]
    return tuple(sorted(path for path in found if not (ROOT / path).is_symlink()))


def _is_generated(folder: Path) -> bool:
    return (
        folder.name in _GENERATED
        or folder.name.endswith((".egg-info", ".amber"))
        or folder.as_posix() == "bench/results/local"
    )


def modules(*folders: str) -> list[str]:
    """Every Python file, or those below these folders."""
    return [
        path
        for path in files()
        if path.endswith(".py")
        and (not folders or path.startswith(tuple(folder + "/" for folder in folders)))
    ]


def package_modules() -> list[str]:
    """What is installed: the four layers and the ground floor."""
    return modules(*PACKAGE_FOLDERS)


def documents() -> list[str]:
    """Every Markdown file."""
    return [path for path in files() if path.endswith(".md")]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
