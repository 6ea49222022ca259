"""Runs seeds of the differential fuzzer: threads, declarations, backups, erasures, kills and a
reading process over one database, against a model.

    PYTHONPATH=tests python tests/crash/differential.py [--seeds 1-60] [--seconds 5] [--jobs 1]
        [--json PATH] [--directory DIR]

Each seed runs in a process of its own. What came of it is written to the results at once: started
again with the same results, the campaign goes on with the seeds that are not done, and repeats
those that found something. A failure prints its seed, the last actions of its threads and the
command that repeats it, and leaves its directory; the seed repeats what each thread does, while
their schedule is the machine's.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from support.differential.run import Run

HANG_S: Final = 300.0
"""How much longer than it is to take a seed may run."""
_ROOT: Final = f"{Path(__file__).parents[2]}/"
"""Results are kept in the repository, and name its files as it does."""
_FORK: Final = multiprocessing.get_context("fork")


@dataclass
class Outcome:
    """What came of one seed."""

    commit: str
    took_s: float = 0.0
    phases: dict[str, int] = field(default_factory=dict[str, int])
    operations: dict[str, int] = field(default_factory=dict[str, int])
    finding: str | None = None


class Results:
    """The seeds that are done, in a file that is complete after each of them."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._outcomes: dict[int, Outcome] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["seconds"] != seconds:
                sys.exit(f"{path} is of {kept['seconds']} s for each seed: give another --json")
            self._outcomes = {int(n): Outcome(**each) for n, each in kept["seeds"].items()}

    def is_done(self, seed: int) -> bool:
        return seed in self._outcomes and self._outcomes[seed].finding is None

    def add(self, seed: int, outcome: Outcome) -> None:
        self._outcomes[seed] = outcome
        aside = self._path.with_name(self._path.name + ".new")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(self._text())
        aside.replace(self._path)

    def line(self) -> str:
        operations = self._total("operations").total()
        return f"{len(self._outcomes)} seeds, {operations} operations, {len(self._found())} found"

    def _text(self) -> str:
        """One line for each seed."""
        summary = {
            "command": f"tests/crash/differential.py --seconds {self._seconds:g}",
            "python": platform.python_version(),
            "system": platform.platform(),
            "seconds": self._seconds,
            "commits": sorted({each.commit for each in self._outcomes.values()}),
            "seeds_done": len(self._outcomes),
            "phases": self._total("phases"),
            "operations": self._total("operations"),
            "operations_total": self._total("operations").total(),
            "findings": self._found(),
        }
        text = json.dumps(summary, indent=1, ensure_ascii=False).removesuffix("\n}")
        seeds = ",\n".join(
            f'  "{seed}": {json.dumps(asdict(self._outcomes[seed]), ensure_ascii=False)}'
            for seed in sorted(self._outcomes)
        )
        return f'{text},\n "seeds": {{\n{seeds}\n }}\n}}\n'

    def _found(self) -> list[int]:
        return sorted(n for n, each in self._outcomes.items() if each.finding is not None)

    def _total(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for outcome in self._outcomes.values():
            total.update(getattr(outcome, name))
        return Counter(dict(sorted(total.items())))


class Job:
    """The process of one seed."""

    def __init__(self, seed: int, seconds: float, commit: str, parent: Path | None) -> None:
        self.seed = seed
        self.directory = Path(tempfile.mkdtemp(prefix=f"amberdb-seed{seed}-", dir=parent))
        self._told = self.directory / "outcome.json"
        self._commit = commit
        self._deadline = time.monotonic() + seconds + HANG_S
        self.process: ForkProcess = _FORK.Process(target=self._work, args=(seconds,))
        self.process.start()

    def _work(self, seconds: float) -> None:
        os.setpgrp()  # so that its children can be ended with it
        outcome = Outcome(self._commit)
        began = time.monotonic()
        run = Run(self.directory, self.seed, seconds)
        try:
            run.run()
        except BaseException:
            outcome.finding = traceback.format_exc().replace(_ROOT, "")
        outcome.took_s = round(time.monotonic() - began, 1)
        outcome.phases, outcome.operations = dict(run.phases), dict(run.operations)
        self._told.write_text(json.dumps(asdict(outcome)))
        os._exit(0)  # threads that hang are not waited for

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def end(self) -> Outcome:
        """When the process is over, or too late."""
        late = self.process.is_alive()
        if late and self.process.pid is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        if self._told.exists():
            outcome = Outcome(**json.loads(self._told.read_text()))
        else:
            outcome = Outcome(self._commit, finding=f"ended by itself: {self.process.exitcode}")
        if late:
            outcome.finding = f"hung: {outcome.finding}"
        if outcome.finding is None:
            shutil.rmtree(self.directory)
        return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description="differential fuzzer of the whole engine")
    parser.add_argument("--seeds", default="1-60", help="like 1-60 or 3,17,40-50")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, help="the results; build/differential-<seconds>s.json")
    parser.add_argument("--directory", type=Path, help="where databases are made")
    options = parser.parse_args()
    path = options.json or Path(f"build/differential-{options.seconds:g}s.json")
    results = Results(path, options.seconds)
    commit = commit_of(Path(__file__).parent)
    left = [seed for seed in seeds_of(options.seeds) if not results.is_done(seed)]
    print(f"{len(left)} seeds to do; {path}: {results.line()}", flush=True)
    found = 0
    running: list[Job] = []
    while left or running:
        while left and len(running) < options.jobs:
            running.append(Job(left.pop(0), options.seconds, commit, options.directory))
        wait([job.process.sentinel for job in running], timeout=1.0)
        for job in [job for job in running if job.is_late or not job.process.is_alive()]:
            running.remove(job)
            outcome = job.end()
            results.add(job.seed, outcome)
            found += outcome.finding is not None
            tell(job, outcome, options.seconds)
    print(f"{path}: {results.line()}", flush=True)
    return 1 if found else 0


def tell(job: Job, outcome: Outcome, seconds: float) -> None:
    operations = sum(outcome.operations.values())
    if outcome.finding is None:
        print(f"seed {job.seed}: {operations} operations, {outcome.phases}", flush=True)
        return
    print(f"FAILED: seed {job.seed}: {job.directory}\n{outcome.finding}")
    print(f"again: make fuzz-engine SEEDS={job.seed} SECONDS={seconds:g}", flush=True)


def seeds_of(text: str) -> list[int]:
    """ "1-3,7" -> [1, 2, 3, 7]"""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def commit_of(folder: Path) -> str:
    """Of the sources, with a mark when they were changed since; "" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
