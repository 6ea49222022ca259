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
"""The four folders at the top. All but `bindings` are packages; its folders are."""

PACKAGE_FOLDERS = (*LAYERS, "src/amberdb")

PRIVATE_BINDINGS = ("jsonl", "shared")
"""Folders of bindings/ that only the other ones import: `amberdb._jsonl`, `amberdb._shared`."""

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


def packages() -> dict[str, str]:
    """Every folder with an __init__.py, by the name under which it is imported."""
    found: dict[str, str] = {}
    for path in package_modules():
        folder, _, name = path.rpartition("/")
        if name == "__init__.py":
            top, _, inner = folder.partition("/")
            if top == "bindings":
                inner = "_" + inner if inner in PRIVATE_BINDINGS else inner
            elif top != "src":
                inner = folder
            dotted = "" if top == "src" else "." + inner.replace("/", ".")
            found[f"amberdb{dotted}"] = folder
    return found


def package_of(path: str) -> tuple[str, str]:
    """The package that a file belongs to, and its path inside of it: the nearest folder above with
    an __init__.py. Raises ValueError for a file of none."""
    inside = [pair for pair in packages().items() if path.startswith(f"{pair[1]}/")]
    name, folder = max(inside, key=lambda pair: len(pair[1]))
    return name, path[len(folder) + 1 :]


def documents() -> list[str]:
    """Every Markdown file."""
    return [path for path in files() if path.endswith(".md")]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
