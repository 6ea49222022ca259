"""The packages of bench/ form layers, and their imports no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[3]
LAYERS = ("workloads", "engines", "harness", "rows")
"""A package imports itself and the packages before it."""


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, in functions and under TYPE_CHECKING too."""
    modules = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
        for path in (ROOT / "bench").rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                inner = {f"{module}.{alias.name}" for alias in node.names} & modules.keys()
                found[name] |= inner or {module}
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
        found[name] &= modules.keys()
    return found


def test_imports_form_no_circle() -> None:
    graph = imports()
    assert graph["bench.rows.vector"] >= {"bench.rows.fleet", "bench.workloads.texts"}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_a_package_imports_only_itself_and_lower_ones() -> None:
    wrong = [
        (name, imported)
        for name, others in imports().items()
        for imported in others
        if (layer := name.split(".")[1]) in LAYERS
        and imported.split(".")[1] not in LAYERS[: LAYERS.index(layer) + 1]
    ]
    assert wrong == []
