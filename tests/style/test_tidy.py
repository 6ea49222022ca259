"""The written rules of CONTRIBUTING.md that a machine can judge.

Each rule is a function from one module to its complaints. `test_rule_sees_a_breach` plants one
breach per rule, so a rule that has gone blind is noticed as well.
"""

import ast
import re
import statistics
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest

from style.repo import PACKAGE_FOLDERS, modules, package_modules, read

MODULE_LINES_MAX = 700
MODULE_LINES_MEDIAN_MAX = 250
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

# Bytes live alone: whoever packs or unpacks them is on this list, and docs/format.md describes it.
STRUCT_MODULES = {
    "bindings/ship/sealed.py",
    "engine/backup/archive.py",
    "engine/storage/cache_file.py",
    "engine/storage/manifest.py",
    "engine/schema/counters.py",
    "engine/schema/schema.py",  # keys of the expiry index
    "engine/storage/data_file.py",  # meta pages of LMDB, read without LMDB
    "engine/storage/name_pages.py",  # the same
    "engine/integrity/lmdb_pages.py",  # pages of LMDB, read without LMDB
    "engine/storage/status.py",
    "engine/schema/document_format.py",
    "engine/schema/vector_block.py",
    "index/ordered/key_decoder.py",
    "index/ordered/keys.py",
    "index/text/packing.py",
    "index/text/text.py",
    "src/amberdb/_bytes.py",
    "wal/record.py",
    "wal/segment.py",
}

# Errors promise to survive pickling (they cross process pools), so their test has to do it.
PICKLE_MODULES = {"tests/unit/engine/test_values.py", "tests/unit/test_errors.py"}

# In halves, or this file would complain of itself.
_LEFTOVER = re.compile(r"\b(FIX" + r"ME|TO" + r"DO|X" + r"XX)\b")

_FILE_SEAM = "src/amberdb/_fs.py"
_LMDB_MODULES = {
    f"engine/storage/{name}.py" for name in ("store", "store_writer", "trees", "data_file")
}


@dataclass(frozen=True)
class Module:
    """One source file, as text and as tree."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def is_in(self, *folders: str) -> bool:
        return self.path.startswith(tuple(folder + "/" for folder in folders))


def _imports(module: Module) -> Iterator[tuple[str, int]]:
    """The top-level names of the modules that are imported anywhere in it, with their lines."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def _names(module: Module) -> Iterator[tuple[str, int]]:
    """Every `a.b`, every `from a import b` as `a.b`, and every bare call `b()`."""
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def _columns(line: str) -> int:
    if line.isascii():
        return len(line)
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in line)


# -- rules -----------------------------------------------------------------------------------


def docstring_first(module: Module) -> Iterator[str]:
    if not (ast.get_docstring(module.tree) or "").strip():
        yield f"{module.path}:1: opens without a docstring"


def module_length(module: Module) -> Iterator[str]:
    count = module.source.count("\n")
    if count > MODULE_LINES_MAX:
        yield f"{module.path}: {count} lines; split it by verb"


def function_length(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > FUNCTION_LINES_MAX:
                yield f"{module.path}:{node.lineno}: {node.name} has {count} lines"


def line_length(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if _columns(line) > COLUMNS_MAX:
            yield f"{module.path}:{number}: {_columns(line)} columns"


def ascii_only(module: Module) -> Iterator[str]:
    if module.is_in(*PACKAGE_FOLDERS):
        for number, line in enumerate(module.source.splitlines(), 1):
            if not line.isascii():
                yield f"{module.path}:{number}: not ASCII; write an escape"


def nothing_left_over(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.source.splitlines(), 1):
        if found := _LEFTOVER.search(line):
            yield f"{module.path}:{number}: {found[0]} left over: do it, or put it into docs/"


def sync_behind_the_seam(module: Module) -> Iterator[str]:
    if not module.is_in(*PACKAGE_FOLDERS) or module.path == _FILE_SEAM:
        return
    for name, line in _names(module):
        if name in {"os.fsync", "os.fdatasync", "os.sync"}:
            yield f"{module.path}:{line}: {name}; use File.sync of amberdb._fs"
    for name, line in _imports(module):
        if name in {"fcntl", "msvcrt"}:
            yield f"{module.path}:{line}: imports {name}; use amberdb._fs"


def lmdb_behind_the_store(module: Module) -> Iterator[str]:
    if module.is_in(*PACKAGE_FOLDERS) and module.path not in _LMDB_MODULES:
        for name, line in _imports(module):
            if name == "lmdb":
                yield f"{module.path}:{line}: imports lmdb; only {_LMDB_MODULES} may"


def no_sleeping_tests(module: Module) -> Iterator[str]:
    if module.is_in("tests"):
        for name, line in _names(module):
            if name == "time.sleep":
                yield f"{module.path}:{line}: sleeps; wait for an event, or turn a fake clock"


def silent_layers(module: Module) -> Iterator[str]:
    if module.is_in("engine", "index", "wal", "src/amberdb"):
        for name, line in _names(module):
            if name == "print":
                yield f"{module.path}:{line}: prints; the command line is in bindings/"


def no_pickle(module: Module) -> Iterator[str]:
    if module.path not in PICKLE_MODULES:
        for name, line in _imports(module):
            if name in {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}:
                yield f"{module.path}:{line}: imports {name}; loading it can run foreign code"


def bytes_live_alone(module: Module) -> Iterator[str]:
    if module.is_in(*PACKAGE_FOLDERS) and module.path not in STRUCT_MODULES:
        for name, line in _imports(module):
            if name == "struct":
                yield f"{module.path}:{line}: imports struct; formats live in STRUCT_MODULES"


Rule = Callable[[Module], Iterator[str]]

RULES: dict[Rule, tuple[str, str]] = {
    # rule: a module that breaks it
    docstring_first: ("wal/planted.py", "import os\n"),
    module_length: ("wal/planted.py", '"""x"""\n' + "a = 1\n" * MODULE_LINES_MAX),
    function_length: ("wal/planted.py", "def f():\n" + "    a = 1\n" * FUNCTION_LINES_MAX),
    line_length: ("tests/planted.py", "# " + "\u5bbd" * 50 + "\n"),
    ascii_only: ("index/planted.py", "# \u00e9\n"),
    nothing_left_over: ("docs/planted.py", "# X" + "XX\n"),
    sync_behind_the_seam: ("wal/planted.py", "from os import fsync\n"),
    lmdb_behind_the_store: ("engine/planted.py", "def f():\n    import lmdb\n"),
    no_sleeping_tests: ("tests/planted.py", "from time import sleep\n"),
    silent_layers: ("engine/planted.py", "def f():\n    print(1)\n"),
    no_pickle: ("bench/planted.py", "import pickle\n"),
    bytes_live_alone: ("engine/planted.py", "from struct import Struct\n"),
}


@pytest.fixture(scope="module")
def complaints() -> dict[Rule, list[str]]:
    """Of each rule about all modules. One module's tree at a time: all of them are 100 MB."""
    found: dict[Rule, list[str]] = {rule: [] for rule in RULES}
    for path in modules():
        module = Module(path, read(path))
        for rule in RULES:
            found[rule] += rule(module)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds(rule: Rule, complaints: dict[Rule, list[str]]) -> None:
    assert not complaints[rule], "\n" + "\n".join(complaints[rule])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_sees_a_breach(rule: Rule) -> None:
    path, source = RULES[rule]
    assert list(rule(Module(path, source)))
    assert not list(rule(Module(path, '"""A module without fault."""\n')))


def test_median_module_is_small() -> None:
    sizes = [read(path).count("\n") for path in package_modules()]
    assert statistics.median(sizes) < MODULE_LINES_MEDIAN_MAX


def test_modules_are_found() -> None:
    # A walk that finds nothing would make every rule above pass.
    found = package_modules()
    for folder in PACKAGE_FOLDERS:
        assert any(path.startswith(f"{folder}/") for path in found)
    assert len(found) == len(set(found))
