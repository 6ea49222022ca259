"""The mutation run: log and recovery are changed in one place at a time, and a test must notice.

    PYTHONPATH=tests python tests/crash/mutants.py [--sample N] [--seed 0] [--jobs 1] [--only TEXT]
        [--again RESULT.json] [--tests PATH ...] [--baseline PATH] [--budget-s 60] [--json PATH]

First every test runs once, to learn how long it takes and which lines it touches (`--baseline` is
a file that keeps it for the next run). Then each mutant gets a forked process, in which the tests
that touch its lines run, fastest first, until one fails. A mutant of code that runs at import gets
a process that has imported nothing of the product yet; any other gets its function's new code put
into the functions that are there already, so that neither imports nor collecting are paid again.

A survivor that docs/mutants.md does not explain makes the run fail. `--only` takes the mutants
whose name holds that text, `--again` those that an earlier run left over.
"""

import argparse
import faulthandler
import gc
import importlib.machinery
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final, Literal, TypeAlias

import coverage
import pytest

from support.mutations import ROOT, TARGETS, Mutant, explained, mutants, mutated

TESTS: Final = (
    "tests/unit/wal",
    *(
        f"tests/unit/engine/test_{name}.py"
        for name in ("open", "recovery", "checkpoint", "snapshot", "transaction", "view")
    ),
    "tests/fuzz/test_wal_decoder.py",
    "tests/golden",
    "tests/crash/test_damage.py",
    "tests/crash/test_faults.py",
    "tests/crash/test_sweep.py::test_a_delete_of_what_is_gone",
    "tests/crash/test_bugs.py::test_without_a_bug_the_slices_pass",
)
_MEMORY_BYTES: Final = 4 << 30
_ALARM_S: Final = 5.0

_Use: TypeAlias = Callable[[Mutant, list[str]], str]
Fate: TypeAlias = Literal["failed", "hung", "crashed", "survived", "not reached"]


@dataclass
class Baseline:
    """What the tests do when nothing is changed."""

    took_s: dict[str, float] = field(default_factory=dict[str, float])
    touching: dict[str, dict[str, list[str]]] = field(
        default_factory=lambda: {path: {} for path in TARGETS}
    )
    """By path and line, which JSON keeps as text."""

    def tests(self, mutant: Mutant, budget_s: float) -> list[str]:
        lines = range(mutant.line, mutant.end_line + 1)
        found: set[str] = set()
        for line, tests in self.touching[mutant.path].items():
            if mutant.at_import or int(line) in lines:
                found.update(tests)
        chosen: list[str] = []
        for test in sorted(found, key=self.took_s.__getitem__):
            budget_s -= self.took_s[test]
            if budget_s > 0:
                chosen.append(test)
        return chosen


@dataclass
class Verdict:
    mutant: Mutant
    fate: Fate
    by: str
    """The test that noticed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="mutation run")
    parser.add_argument("--sample", type=int, help="so many of them, drawn from every module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget-s", type=float, default=60.0, help="of tests, for each mutant")
    parser.add_argument("--only")
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--again", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("HYPOTHESIS_PROFILE", "quick")
    began = time.monotonic()
    sources = {path: (ROOT / path).read_text() for path in TARGETS}
    every = [mutant for path in TARGETS for mutant in mutants(path, sources[path])]
    chosen = _sampled(every, options.sample, options.seed) if options.sample else every
    if options.only:
        chosen = [mutant for mutant in chosen if options.only in mutant.name]
    if options.again:
        left = {found["mutant"] for found in json.loads(options.again.read_text())["survivors"]}
        chosen = [mutant for mutant in chosen if mutant.name in left]
    run = _Run(sources, options.tests, options.jobs, options.budget_s, len(chosen))
    run.learn(options.baseline)
    run.judge([mutant for mutant in chosen if mutant.at_import], run.import_changed)
    pytest.main(
        [*_PYTEST, *options.tests],
        plugins=[_Loop(lambda items: run.judge_collected(chosen, items))],
    )
    shutil.rmtree(run.scratch)
    assert len(run.verdicts) == len(chosen), "the tests could not be collected"
    return run.report(every, time.monotonic() - began, options.json)


def _sampled(every: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Of each module its share, and not less than ten."""
    rng = random.Random(seed)
    found: list[Mutant] = []
    for path in TARGETS:
        own = [mutant for mutant in every if mutant.path == path]
        share = max(10, round(count * len(own) / len(every)))
        found += sorted(rng.sample(own, min(len(own), share)), key=every.index)
    return found


# -- tests -------------------------------------------------------------------------------------

_PYTEST: Final = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal", "--timeout=0")
"""Without the limit on a test's time: the alarm is that of this file."""


class _Loop:
    """A plugin that gives what was collected to somebody else."""

    def __init__(self, use: Callable[[list[pytest.Item]], None]) -> None:
        self._use = use

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("collecting failed")
        self._use(session.items)
        return True


def _passes(item: pytest.Item, later: pytest.Item | None) -> bool:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=later)
    return not item.session.testsfailed


def _run_until_failure(items: list[pytest.Item], tests: list[str], took: dict[str, float]) -> str:
    """The test that failed, or nothing."""
    by_id = {item.nodeid: item for item in items}
    chosen = [by_id[test] for test in tests]
    for item, later in zip(chosen, [*chosen[1:], None], strict=True):
        # No handler: it ends a process whatever that waits for.
        signal.setitimer(signal.ITIMER_REAL, _ALARM_S + 10 * took[item.nodeid])
        if not _passes(item, later):
            return item.nodeid
    return ""


# -- the run -----------------------------------------------------------------------------------


class _Run:
    """Judges mutants, each in a process of its own, a few at a time."""

    def __init__(
        self,
        sources: dict[str, str],
        tests: Sequence[str],
        jobs: int,
        budget_s: float,
        count: int,
    ) -> None:
        self.verdicts: list[Verdict] = []
        self.scratch = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        self._sources = sources
        self._tests = tests
        self._jobs = jobs
        self._budget_s = budget_s
        self._count = count
        self._baseline = Baseline()
        self._out = os.fdopen(os.dup(1), "w")
        self._said = time.monotonic()

    def say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def learn(self, kept: Path | None) -> None:
        """Runs every test once, unchanged, or reads what an earlier run kept."""
        found = kept or self.scratch / "baseline"
        if not found.exists():
            self.say("learning which test touches which line")
            os.waitpid(self._fork(lambda: self._learn(found), self.scratch / "learning"), 0)
        self._baseline = Baseline(**json.loads(found.read_text()))
        took_s = sum(self._baseline.took_s.values())
        self.say(f"{len(self._baseline.took_s)} tests pass, in {took_s:.0f} s")

    def _learn(self, path: Path) -> None:
        baseline = Baseline()
        watch = coverage.Coverage(
            data_file=None, config_file=False, include=[str(ROOT / target) for target in TARGETS]
        )

        def run(items: list[pytest.Item]) -> None:
            watch.start()
            for item, later in zip(items, [*items[1:], None], strict=True):
                watch.switch_context(item.nodeid)
                began = time.monotonic()
                if _passes(item, later):
                    baseline.took_s[item.nodeid] = time.monotonic() - began
                else:
                    self.say(f"fails without a change, left out: {item.nodeid}")
                    item.session.testsfailed = 0
            watch.stop()

        pytest.main([*_PYTEST, *self._tests], plugins=[_Loop(run)])
        data = watch.get_data()
        for file in data.measured_files():
            target = str(Path(file).resolve().relative_to(ROOT))
            baseline.touching[target] = {
                str(line): [test for test in tests if test in baseline.took_s]
                for line, tests in data.contexts_by_lineno(file).items()
            }
        path.write_text(json.dumps(asdict(baseline)))

    def judge_collected(self, chosen: list[Mutant], items: list[pytest.Item]) -> None:
        def use(mutant: Mutant, tests: list[str]) -> str:
            self._put_code(mutant)
            return _run_until_failure(items, tests, self._baseline.took_s)

        self.judge([mutant for mutant in chosen if not mutant.at_import], use)

    def judge(self, chosen: Iterable[Mutant], use: _Use) -> None:
        """`use` runs in the forked process, and returns the test that failed."""
        running: dict[int, tuple[Mutant, Path]] = {}
        for number, mutant in enumerate(chosen):
            tests = self._baseline.tests(mutant, self._budget_s)
            if not tests:
                self._add(Verdict(mutant, "not reached", ""))
                continue
            home = self.scratch / f"{mutant.at_import}{number}"
            pid = self._fork(partial(_judge, use, mutant, tests, home), home)
            running[pid] = mutant, home
            while len(running) >= self._jobs:
                self._reap(running)
        while running:
            self._reap(running)

    def _fork(self, work: Callable[[], None], home: Path) -> int:
        home.mkdir()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.setsid()
            faulthandler.disable()
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(home)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
            work()
            status = 0
        except BaseException:
            traceback.print_exc(file=self._out)
        finally:
            self._out.flush()
            os._exit(status)

    def _reap(self, running: dict[int, tuple[Mutant, Path]]) -> None:
        pid, status = os.wait()
        mutant, home = running.pop(pid)
        try:
            os.killpg(pid, signal.SIGKILL)  # what its tests have started
        except ProcessLookupError:
            pass
        if os.WIFSIGNALED(status):
            fate: Fate = "hung" if os.WTERMSIG(status) == signal.SIGALRM else "crashed"
            self._add(Verdict(mutant, fate, ""))
        else:
            by = (home / "note").read_text()  # missing: the run itself is at fault
            self._add(Verdict(mutant, "failed" if by else "survived", by))
        shutil.rmtree(home, ignore_errors=True)

    def _add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        if verdict.fate in ("survived", "not reached"):
            self.say(f"{verdict.fate}: {verdict.mutant.name} (line {verdict.mutant.line})")
        if time.monotonic() - self._said > 10 or len(self.verdicts) == self._count:
            self._said = time.monotonic()
            fates = Counter(verdict.fate for verdict in self.verdicts)
            parts = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
            self.say(f"{len(self.verdicts)}/{self._count}: {parts}")

    # -- changing the product ----------------------------------------------------------------

    def _compiled(self, mutant: Mutant, path: str) -> CodeType:
        return compile(mutated(self._sources[mutant.path], mutant), path, "exec")

    def import_changed(self, mutant: Mutant, tests: list[str]) -> str:
        """In a process that has imported nothing of the product."""
        assert "amberdb" not in sys.modules
        compiled = self._compiled
        loader = importlib.machinery.SourceFileLoader
        get_code = loader.get_code

        def changed(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
            if fullname == _module_name(mutant.path):
                return compiled(mutant, self.path)
            return get_code(self, fullname)

        setattr(loader, "get_code", changed)  # noqa: B010
        failed = ["importing it"]

        def run(items: list[pytest.Item]) -> None:
            failed[0] = _run_until_failure(items, tests, self._baseline.took_s)

        files = sorted({test.partition("::")[0] for test in tests})
        pytest.main([*_PYTEST, *files], plugins=[_Loop(run)])
        return failed[0]

    def _put_code(self, mutant: Mutant) -> None:
        """Into the functions of a module that is in use."""
        name = _module_name(mutant.path)
        file = sys.modules[name].__file__
        assert file is not None
        fresh = dict(_functions(self._compiled(mutant, file)))
        changed = 0
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename == file:
                key = (thing.__qualname__, thing.__code__.co_firstlineno)
                new = fresh.get(key)
                if new is not None and new != thing.__code__:
                    thing.__code__ = new
                    changed += 1
        assert changed, f"no function has the code of {mutant.name}"

    # -- figures -----------------------------------------------------------------------------

    def report(self, every: list[Mutant], took_s: float, path: Path | None) -> int:
        fates = Counter(verdict.fate for verdict in self.verdicts)
        known = explained()
        left = [v for v in self.verdicts if v.fate in ("survived", "not reached")]
        unknown = [v.mutant.name for v in left if v.mutant.name not in known]
        self.say(
            f"{len(self.verdicts)} of {len(every)} mutants, {len(left)} left over, "
            f"{len(unknown)} of them not explained; {took_s:.0f} s"
        )
        if path is not None:
            per_module = Counter(verdict.mutant.path for verdict in self.verdicts)
            found: dict[str, object] = {
                "command": "python " + " ".join(sys.argv),
                "took_s": round(took_s),
                "python": platform.python_version(),
                "system": platform.platform(),
                "tests": len(self._baseline.took_s),
                "mutants": len(every),
                "judged": len(self.verdicts),
                "judged_per_module": dict(sorted(per_module.items())),
                "fates": dict(sorted(fates.items())),
                "killers": dict(Counter(v.by.partition("[")[0] for v in self.verdicts)),
                "survivors": [{"mutant": v.mutant.name, "fate": v.fate} for v in left],
            }
            path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return 1 if unknown else 0


def _judge(use: _Use, mutant: Mutant, tests: list[str], home: Path) -> None:
    (home / "note").write_text(use(mutant, tests))


def _module_name(path: str) -> str:
    return "amberdb." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _functions(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """Those that a module and its classes define, by their full name and first line."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 1:  # CO_OPTIMIZED: a function; the body of a class is not
                yield (inner.co_qualname, inner.co_firstlineno), inner
            else:
                yield from _functions(inner)


if __name__ == "__main__":
    sys.exit(main())
