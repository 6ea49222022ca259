"""What `import amberdb` and the first calls load: modules take time in every process.

Each list is of a fresh process without `site`, which loads modules of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import json, sys
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
OPENED = """
import amberdb
with amberdb.open(sys.argv[1]) as db:
    notes = db.collection("note", indexes=[{indexes}])
    notes.put({{"id": "a", "content": "umbrellas in the car", "embedding": [0.5, 0.25]}})
    {call}
    assert db.check().ok
"""

ANALYZER = {"Stemmer", "jieba", "opencc", "importlib.metadata"}
VECTORS = {
    "hnswlib",
    *(f"amberdb.engine.search.vector.{name}" for name in ("cache", "file", "index", "searcher")),
    "amberdb.engine.search.vector.gathered",
    *(f"amberdb.index.vector.{name}" for name in ("codes", "distance", "hnsw", "matrix")),
}


def loaded(code: str, *arguments: str) -> set[str]:
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE.format(code=code), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def roots(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def of_open(tmp_path: Path, indexes: str = "", call: str = "") -> set[str]:
    code = OPENED.format(indexes=indexes, call=call)
    return loaded(code, str(tmp_path / "a.amber"))


def test_import_loads_the_errors_and_nothing_else() -> None:
    modules = loaded("import amberdb")
    assert {name for name in modules if name.partition(".")[0] == "amberdb"} == {
        "amberdb",
        "amberdb._errors",
        "amberdb._public",
    }
    assert roots(modules) - sys.stdlib_module_names == {"amberdb"}
    heavy = {"asyncio", "dataclasses", "importlib.metadata", "inspect", "json", "logging", "re"}
    heavy |= {"socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "unittest"}
    # `typing` may load some of these: they are not the package's own.
    assert modules & heavy <= loaded("import importlib, typing")
    assert not modules & {"asyncio", "importlib.metadata", "logging", "ssl"}


def test_a_public_name_loads_its_own_module_alone() -> None:
    modules = loaded("import amberdb; amberdb.Text; amberdb.Lsn")
    assert "amberdb.index.text.text" in modules
    assert not {name for name in modules if name.startswith("amberdb.engine.")}
    assert not modules & ANALYZER


def test_a_database_without_search_loads_neither_numpy_nor_the_analyzer(tmp_path: Path) -> None:
    call = "notes.find({'content': 'x'}, order_by='content'); notes.delete('a')"
    modules = of_open(tmp_path, "amberdb.Ordered('content')", call)
    assert "lmdb" in modules
    assert not modules & (ANALYZER | VECTORS | {"numpy", "asyncio", "ssl", "shutil"})
    offline = {f"amberdb.engine.integrity.{name}" for name in ("offline", "repair", "salvage")}
    assert not modules & offline


def test_a_database_with_text_alone_loads_nothing_of_vectors(tmp_path: Path) -> None:
    modules = of_open(tmp_path, "amberdb.Text('content')", "assert notes.search('umbrella')")
    assert {"Stemmer", "numpy"} <= modules
    assert not modules & (VECTORS | {"jieba", "opencc", "importlib.metadata"})


def test_a_database_with_vectors_alone_loads_nothing_of_texts(tmp_path: Path) -> None:
    index = "amberdb.Vector('embedding', dim=2)"
    modules = of_open(tmp_path, index, "assert notes.search(vector=[1, 0])")
    assert {"numpy", *VECTORS} - {"hnswlib", "amberdb.index.vector.hnsw"} <= modules
    assert not modules & ANALYZER


def test_an_unknown_name_is_an_attribute_error() -> None:
    import amberdb

    with pytest.raises(AttributeError, match="module 'amberdb' has no attribute 'opne'"):
        amberdb.opne  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore


def test_every_name_is_listed_before_it_is_loaded() -> None:
    code = "import amberdb; names = set(dir(amberdb)); assert {*amberdb.__all__} <= names"
    assert "amberdb.engine" not in loaded(code)


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_a_pickle_is_read_in_a_process_that_has_loaded_nothing() -> None:
    written = run(
        "import pickle, amberdb; from amberdb.engine.database.stats import FileBytes\n"
        "print(pickle.dumps([amberdb.REMOVE, FileBytes(1, 2, 3)]).hex())"
    ).stdout
    assert b"engine" not in bytes.fromhex(written)
    read = run("import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])))", written)
    assert read.stdout.startswith("[amberdb.REMOVE, FileBytes("), read.stderr


def test_windows_is_refused_with_one_sentence() -> None:
    """It is found before: the finder of an editable installation uses pathlib."""
    code = (
        "import importlib.util, os, sys\n"
        "spec = importlib.util.find_spec('amberdb')\n"
        "sys.modules['amberdb'] = module = importlib.util.module_from_spec(spec)\n"
        "os.name = 'nt'\n"
        "spec.loader.exec_module(module)"
    )
    done = run(code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: AmberDB runs on Linux and macOS; on Windows, use it within WSL"
    )
