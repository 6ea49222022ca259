"""Imports form no circle: a module can be read, and moved, without the modules that use it.

Imports under TYPE_CHECKING and inside functions count as well: they hide a circle from the
interpreter, not from a reader.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cache

import pytest

from style.repo import LAYERS, PACKAGE_FOLDERS, modules, packages, read

FOLDERS = (*PACKAGE_FOLDERS, "bench")

BENCH_LAYERS = ("workloads", "engines", "harness", "rows")
"""The packages of bench/, from the ground up."""


def names_of(paths: Iterable[str]) -> dict[str, str]:
    """Path of a file -> the name under which it is imported."""
    folders = {folder: name for name, folder in packages().items()}
    names: dict[str, str] = {}
    for path in paths:
        folder, _, file = path.rpartition("/")
        package = folders.get(folder, folder.replace("/", "."))
        stem = file.removesuffix(".py")
        names[path] = package if stem == "__init__" else f"{package}.{stem}"
    return names


def imported(name: str, source: str, known: Set[str]) -> Iterator[str]:
    """The known modules that a module imports anywhere. `from package import name` imports the
    submodule of that name, and the package only if there is none."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*outer, *([node.module] if node.module else [])])
            wanted = [f"{base}.{alias.name}" for alias in node.names]
            wanted = [each if each in known else base for each in wanted]
        else:
            continue
        yield from (each for each in wanted if each in known and each != name)


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Name of a module -> the names that it imports."""
    return {name: set(imported(name, source, sources.keys())) for name, source in sources.items()}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(edges):
        if node not in order:
            visit(node)
    return found


@cache
def imports() -> dict[str, set[str]]:
    names = names_of(modules(*FOLDERS))
    return graph({name: read(path) for path, name in names.items()})


@cache
def circles_of_the_repository() -> list[list[str]]:
    return circles(imports())


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_imports_itself_through_others(folder: str) -> None:
    names = names_of(modules(*FOLDERS))
    inside = {name for path, name in names.items() if path.startswith(folder + "/")}
    assert inside, folder
    assert [circle for circle in circles_of_the_repository() if inside & set(circle)] == []


def test_a_package_of_bench_imports_only_itself_and_lower_ones() -> None:
    """The rest of the house has contracts for import-linter, which sees `amberdb` alone."""
    levels = {f"bench.{name}": level for level, name in enumerate(BENCH_LAYERS)}
    top = len(levels)  # the programs of bench/ stand on all packages

    def level(name: str) -> int:
        return levels.get(".".join(name.split(".")[:2]), top)

    wrong = [
        (name, other)
        for name, others in imports().items()
        for other in others
        if other.startswith("bench.") and level(other) > level(name)
    ]
    assert wrong == []
    assert "bench.workloads.texts" in imports()["bench.rows.vector"]


def test_names_are_those_of_the_imports() -> None:
    names = set(names_of(modules(*LAYERS, "src/amberdb", "bench")).values())
    wanted = {"amberdb", "amberdb.engine.jobs", "amberdb._shared.files", "amberdb.memory"}
    assert wanted | {"amberdb.memory.memory", "bench.__main__"} <= names


PLANTED = {
    "plain": {"p.a": "import p.b\n", "p.b": "from p.a import f\n"},
    "for types only": {
        "p.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import b\n",
        "p.b": "from p.a import f\n",
    },
    "inside a function": {"p.a": "def f():\n    from p.b import g\n", "p.b": "import p.a\n"},
    "through a third module": {
        "p.a": "import p.b\n",
        "p.b": "from .c import f\n",
        "p.c": "from . import a\n",
    },
    "through a package": {"p": "from p.a import f\n", "p.a": "import p\n"},
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_circle_is_seen(kind: str) -> None:
    sources = {"p": "", **PLANTED[kind], "p.z": "import p.a, os\n"}
    wanted = sorted(PLANTED[kind])
    assert circles(graph(sources)) == [wanted]


def test_a_graph_without_circles_has_none() -> None:
    sources = {"p": "from p import a\n", "p.a": "import p.b, p.c\n", "p.b": "import p.c\n"}
    assert circles(graph({**sources, "p.c": "import os\n"})) == []
