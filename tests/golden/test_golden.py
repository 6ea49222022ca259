"""Databases of every released format version open in this version with all their content.

They are made once by make.py and never again: a change that makes this test fail has changed the
format, and needs a new version or a way to read the old one.
"""

import importlib.util
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from amberdb import Ordered
from amberdb.engine.storage.manifest import FORMAT_VERSION
from support.databases import FakeClock, OpenDatabase

HERE = Path(__file__).parent
STORES = sorted(path.name for path in HERE.glob("*.tar.gz"))


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("store", STORES)
def test_it_opens_and_holds_what_it_held(tmp_path: Path, open_db: OpenDatabase, store: str) -> None:
    with tarfile.open(HERE / store) as archive:
        archive.extractall(tmp_path / "t.amber", filter="data")
    expected = json.loads((HERE / f"{store.partition('-')[0]}.json").read_text())
    clock = FakeClock(0)  # slow: with such a slack the time of the last commit counts
    for _ in range(2):  # as found, and once more as this version closed it
        db = open_db(clock=clock, clock_slack_ms=1 << 50)
        assert (db.recovery is not None) == ("killed" in store and not clock.now)
        assert maker().content(db) == expected
        assert db.check().ok
        assert db.collection("event").get("mayfly") is None
        assert db.subscriber("reader").position
        db.close()
        clock.now = 1.0
    db = open_db(clock=clock, clock_slack_ms=1 << 50)
    db.collection("event").put({"id": "new", "n": 7, "source": "new"})
    db.collection("plain", indexes=[Ordered("name")])
    db.build_indexes()
    assert db.collection("plain").find({"name": "two"})[0]["id"] == "p2"
    assert db.expire() == 1
    db.checkpoint()
    expected = maker().content(db)
    assert (db.upgrade() is not None) == store.startswith("v1")
    assert maker().content(db) == expected
    assert db.upgrade() is None


def test_there_are_golden_stores() -> None:
    assert {"v1-closed.tar.gz", "v1-killed.tar.gz", "v1.json"} <= {p.name for p in HERE.iterdir()}


def test_make_still_makes_the_same(tmp_path: Path) -> None:
    """make.py still makes databases with the content of the golden ones."""
    maker().main(tmp_path)
    name = f"v{FORMAT_VERSION}.json"
    assert json.loads((tmp_path / name).read_text()) == json.loads((HERE / name).read_text())
