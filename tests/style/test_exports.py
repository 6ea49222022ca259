"""The public names: what runs, what type checkers see and what the documents tell are the same."""

import ast
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from types import ModuleType

import amberdb
from style.repo import documents, package_modules, read

NAMES: list[str] = vars(amberdb)["__all__"]  # made at run time

# `import amberdb` binds its own packages as attributes; nobody is told to use them by these names.
_ROOT = amberdb.__name__ + "."


def defined_errors() -> Iterator[str]:
    """The public classes of amberdb/_errors.py."""
    for node in ast.parse(read("src/amberdb/_errors.py")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def seen_names() -> dict[str, str]:
    """The names that type checkers see in __init__.pyi -> the modules that define them."""
    seen: dict[str, str] = {}
    for node in ast.parse(read("src/amberdb/__init__.pyi")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if alias.name == "*":
                    assert node.module == "amberdb._errors"
                    seen |= dict.fromkeys(defined_errors(), node.module)
                else:
                    assert alias.asname == alias.name  # else it is no export
                    seen[alias.name] = node.module
    return seen


def marked_names() -> set[str]:
    """The definitions under `@public`."""
    return {
        node.name
        for path in package_modules()
        for node in ast.parse(read(path)).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and any(isinstance(mark, ast.Name) and mark.id == "public" for mark in node.decorator_list)
    }


def documented_values() -> set[str]:
    """Constants and aliases that have a docstring, that is, a string as the next statement."""
    found: set[str] = set()
    for path in package_modules():
        body = ast.parse(read(path)).body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                    found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def has_own_docstring(thing: object) -> bool:
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    if isinstance(thing, type):
        own = vars(thing).get("__doc__")
        # A dataclass without a docstring is given its signature.
        return bool(own) and not text.startswith(f"{thing.__name__}(")
    return bool(text)


def test_names_at_run_time_are_those_that_checkers_see() -> None:
    assert sorted(NAMES) == sorted(seen_names())
    for name, module in seen_names().items():
        assert getattr(amberdb, name) is getattr(importlib.import_module(module), name)


def test_what_is_marked_as_public_is_public() -> None:
    marked = marked_names() - {"_Remove"}  # the class of REMOVE
    assert "Database" in marked
    assert marked <= {*NAMES}


def test_nothing_else_is_public() -> None:
    stray = {
        name
        for name, value in vars(amberdb).items()
        if not name.startswith("_")
        and name not in NAMES
        and not (isinstance(value, ModuleType) and value.__name__.startswith(_ROOT))
    }
    assert stray == set()


def test_every_public_name_is_documented() -> None:
    values = documented_values()
    silent: list[str] = []
    for name in NAMES:
        thing = getattr(amberdb, name)
        if isinstance(thing, type) or inspect.isroutine(thing) or inspect.ismodule(thing):
            if not has_own_docstring(thing):
                silent.append(name)
        elif not name.startswith("__") and name not in values:
            silent.append(name)
    assert silent == []


def test_every_public_method_is_documented() -> None:
    silent = [
        f"{name}.{member}"
        for name in NAMES
        if isinstance(kind := getattr(amberdb, name), type)
        for member, value in vars(kind).items()
        if not member.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property | classmethod | staticmethod))
        and not inspect.getdoc(getattr(kind, member))
    ]
    assert silent == []


def test_every_public_name_is_in_the_documents() -> None:
    text = "\n".join(
        read(path)
        for path in documents()
        if path == "README.md" or (path.startswith("docs/") and path.count("/") == 1)
    )
    words = set(re.findall(r"\w+", text))
    assert [name for name in NAMES if name not in words] == []
