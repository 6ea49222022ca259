"""What every test shares: the path of tests/support, audited databases, a clock, Hypothesis
profiles, directories in memory, and a limit on the memory of a worker.

Profiles (HYPOTHESIS_PROFILE):
    quick     few examples, while writing code: `make quick`
    default   the same examples each time: one state of the code, one verdict of `make test`
    whole     the same, and tests that are marked `sliced` in full: `make test-all`
    campaign  many random examples; `make fuzz` prints the seed of each round
"""

import ctypes
import gc
import os
import resource
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, settings

# With --import-mode=importlib nothing is put on the path; `support.xxx` and `style.repo` need this.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from amberdb import Database
    from support.databases import FakeClock, OpenDatabase

# No deadline: a shared machine may take a second for anything, and that is no fault of the code.
# The health checks left out measure time as well.
_COMMON = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("quick", _COMMON, max_examples=20, derandomize=True)
settings.register_profile("default", _COMMON, max_examples=100, derandomize=True)
settings.register_profile("whole", _COMMON, max_examples=100, derandomize=True)
settings.register_profile("campaign", _COMMON, max_examples=1000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


_MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES_MIN: Final = 2 << 30
"""Free ones; a container may have far less there."""


def pytest_configure() -> None:
    """Directories of tests are in memory where that can be: thousands of tests sync, and a disk
    takes three times as long. PYTEST_DEBUG_TEMPROOT or --basetemp name another place."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


# -- the memory of a worker ----------------------------------------------------------------------

HELD_MB_MAX: Final = 600
"""After each test: hundreds of tests fork, and every child copies or shares the memory of its
worker. Pages of files, of libraries say, are not counted. 7,650 collected tests take 208, the
dictionary of jieba 60, the packages of the server 40. The rest grows with the tests that have
run, and no single owner of it was found; 516 is the most that was seen."""
_MARGIN_MB: Final = 30
_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = resource.getpagesize()
_held_mb = 0
"""When memory was last given back."""


def _memory_mb() -> int:
    if not _STATM.exists():
        return 0
    _, resident, of_files, *_ = map(int, _STATM.read_text().split())
    return (resident - of_files) * _PAGE_BYTES >> 20


def _give_memory_back() -> int:
    """Cycles hold databases and their caches, and malloc() keeps what was freed between them."""
    global _held_mb
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _held_mb = _memory_mb()
    return _held_mb


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: what looks for garbage need not go through them."""
    _give_memory_back()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """Fails the test after which a worker holds too much memory."""
    result = yield
    margin_mb = _MARGIN_MB if _held_mb < HELD_MB_MAX - 2 * _MARGIN_MB else _MARGIN_MB // 5
    if _memory_mb() > _held_mb + margin_mb:
        held_mb = _give_memory_back()
        assert held_mb <= HELD_MB_MAX, f"{held_mb} MB are held after this test"
    return result


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> "FakeClock":
    """It stands still until the test moves it."""
    from support.databases import FakeClock

    return FakeClock()


@pytest.fixture
def open_db(tmp_path: Path) -> "Iterator[OpenDatabase]":
    """`open_db(**options)` opens tmp_path/"t.amber", or opens it again after close(); whatever is
    open at the end of the test is checked and closed."""
    from support.databases import Databases  # here, so that tests of less import no engine

    databases = Databases(tmp_path)
    yield databases.open
    databases.finish()


@pytest.fixture
def db(request: pytest.FixtureRequest, open_db: "OpenDatabase") -> "Database":
    """One open database with small options and no background work; by the test's own clock where
    it has asked for one."""
    if "clock" in request.fixturenames:
        return open_db(clock=request.getfixturevalue("clock"))
    return open_db()
