"""The public names: what runs, what type checkers see and what the documents tell are the same."""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import amberdb
from style.repo import documents, package_modules, read

INIT = ast.parse(read("src/amberdb/__init__.py"))

# `import amberdb` binds its own packages as attributes; nobody is told to use them by these names.
_ROOT = amberdb.__name__ + "."


def bound_names() -> Iterator[str]:
    """The public names that the source of amberdb/__init__.py binds at module level."""
    for node in INIT.body:
        names: list[str] = []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def exported_names() -> list[str]:
    """`__all__` as written: type checkers follow a literal list, and nothing cleverer."""
    for node in INIT.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "__all__":
                return list(ast.literal_eval(node.value))
    pytest.fail("src/amberdb/__init__.py has no literal __all__")


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


def test_names_at_run_time_are_those_of_the_source() -> None:
    assert sorted(amberdb.__all__) == sorted(exported_names())
    assert len(set(amberdb.__all__)) == len(amberdb.__all__)
    assert {name for name in amberdb.__all__ if not hasattr(amberdb, name)} == set()


def test_checkers_see_exactly_these_names() -> None:
    public = set(exported_names()) - {"__version__"}
    assert set(bound_names()) == public


def test_nothing_else_is_public() -> None:
    stray = {
        name
        for name, value in vars(amberdb).items()
        if not name.startswith("_")
        and name not in amberdb.__all__
        and not (isinstance(value, ModuleType) and value.__name__.startswith(_ROOT))
    }
    assert stray == set()


def test_every_public_name_is_documented() -> None:
    values = documented_values()
    silent: list[str] = []
    for name in amberdb.__all__:
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
        for name in amberdb.__all__
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
    assert [name for name in amberdb.__all__ if name not in words] == []
