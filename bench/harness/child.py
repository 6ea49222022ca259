"""The verbs that rows run in separate processes: `python -m bench.harness.child <verb> ...`.

Invariants:
- The last line on stdout is one JSON object.
- Before a verb runs, only the standard library is imported: some verbs measure memory.
"""

import importlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NEVER = 1 << 40
"""A size and an interval that are never reached, so that no checkpoint runs."""
_GETS = 1_000
_SEARCHES = 100


def write(path: str, kind: str, count: str) -> None:
    """Puts `count` documents, which stay in the log, reports it, and waits to be killed."""
    from bench.workloads import events

    engine = _open_without_checkpoints(path, sync="os")
    for batch in events.batches(0, int(count)):
        if kind == "batch":
            engine.put_many(batch)
        else:
            for document in batch:
                engine.put(document)
    _report(acknowledged=int(count))
    sys.stdin.read()


def load(path: str, count: str) -> None:
    """Times the put_many that replay is compared with: durable, and without a checkpoint."""
    from bench.workloads import events

    engine = _open_without_checkpoints(path, sync="always")
    batches = list(events.batches(0, int(count)))
    before = time.perf_counter()
    for batch in batches:
        engine.put_many(batch)
    _report(put_many_s=time.perf_counter() - before)
    engine.close()


def reopen(path: str) -> None:
    """Times the opening of a killed process's database."""
    from bench.engines.amber import AmberEngine

    before = time.perf_counter()
    engine = AmberEngine(Path(path))
    opened = time.perf_counter() - before
    _report(open_s=opened, documents=len(engine.events))
    engine.close()


def _open_without_checkpoints(path: str, sync: str) -> Any:
    from bench.engines.amber import AmberEngine

    return AmberEngine(
        Path(path),
        sync=sync,
        checkpoint_bytes=_NEVER,
        memtable_bytes_max=_NEVER,
        checkpoint_interval_ms=_NEVER,
    )


def idle(path: str, seconds: str) -> None:
    """Counts the wake-ups of the database's threads, after opening and after some writes."""
    from bench.engines.amber import AmberEngine
    from bench.workloads import events

    documents = list(events.documents(0, events.BATCH_DOCUMENTS))
    engine = AmberEngine(Path(path), expiring=True)
    engine.put_many(documents)
    engine.close()
    engine = AmberEngine(Path(path), expiring=True)
    opened = _switches(float(seconds))
    for document in documents[:100]:
        engine.put(document)
    engine.settle()
    time.sleep(0.5)  # lets threads end that were started for this work
    written = _switches(float(seconds))
    _report(
        opened={"title": "just opened", **opened},
        written={"title": "after 100 puts and a checkpoint", **written},
    )
    engine.close()


def _switches(seconds: float) -> dict[str, int]:
    before = _switches_by_thread()
    time.sleep(seconds)
    after = _switches_by_thread()
    grown = {thread: after[thread] - before.get(thread, 0) for thread in after}
    return {"switches": sum(grown.values()), "threads": len(grown)}


def _switches_by_thread() -> dict[str, int]:
    """Voluntary context switches of every thread but the main one."""
    counts: dict[str, int] = {}
    tasks = Path("/proc/self/task")
    main = Path("/proc/self").resolve().name
    for task in tasks.iterdir():
        if task.name != main:
            counts[task.name] = int(_status(task)["voluntary_ctxt_switches"])
    return counts


def memory(path: str, count: str) -> None:
    """Opens and gets; reports the memory used and the modules loaded."""
    from bench.engines.amber import AmberEngine
    from bench.workloads import events

    engine = AmberEngine(Path(path))
    rng = random.Random(events.SEED)
    for _ in range(_GETS):
        assert engine.get(events.document_id(rng.randrange(int(count)))) is not None
    tops = {name.partition(".")[0] for name in sys.modules}
    stdlib = sorted((tops & sys.stdlib_module_names) - {"__main__"})
    _report(anon_kib=_anon_kib(), stdlib=stdlib)
    engine.close()


def load_memory(path: str, count: str, dim: str) -> None:
    """Reports the most memory used while documents are put; `path` "-": while they are made.

    With a `dim` the documents have texts and vectors, and are indexed by them.
    """
    from bench.engines.amber import AmberEngine
    from bench.engines.amber_search import AmberHybrid
    from bench.workloads import events, vectors

    make: Any = AmberHybrid if int(dim) else AmberEngine
    options = {"dim": int(dim), "ef": 1} if int(dim) else {}
    engine = None if path == "-" else make(Path(path), **options)
    made: Any = events.documents(0, int(count))
    if int(dim):
        made = vectors.documents(0, int(count), int(dim))
    most = 0
    for batch in events.in_batches(made):
        if engine is not None:
            engine.put_many(batch)
        most = max(most, _anon_kib())
    _report(anon_kib=most)
    if engine is not None:
        engine.close()


def bare(*modules: str) -> None:
    """Reports the memory of a process that imports only these modules."""
    for name in modules:
        importlib.import_module(name)
    _report(anon_kib=_anon_kib())


def modules(*watched: str) -> None:
    """Reports which of these modules `import amberdb` loads."""
    before = set(sys.modules)
    importlib.import_module("amberdb")
    _report(loaded=[name for name in watched if name in sys.modules and name not in before])


def vector_memory(name: str, path: str, dim: str, ef: str) -> None:
    """Reports the memory that opening and searching a vector engine adds, its graph loaded."""
    from bench.engines.amber_search import AmberVectors
    from bench.workloads import vectors

    questions = vectors.questions(_SEARCHES, int(dim))
    make = _vector_engine(name)
    before = _anon_kib()
    engine = make(Path(path), dim=int(dim), ef=int(ef))
    stats: dict[str, Any] | None = None
    if isinstance(engine, AmberVectors):
        engine.catch_up(questions[0])
    for question in questions:
        engine.nearest(question)
    if isinstance(engine, AmberVectors):
        stats = engine.stats()
    _report(anon_kib=_anon_kib() - before, stats=stats)
    engine.close()


def _vector_engine(name: str) -> Any:
    """The engine's class, with every package that it needs imported."""
    from bench.engines.kinds import VECTOR_ENGINES

    kind = next(kind for kind in VECTOR_ENGINES if kind.name == name)
    for package in ("numpy", "lmdb", *kind.packages):
        importlib.import_module(package)
    return kind


def _anon_kib() -> int:
    return int(_status(Path("/proc/self"))["RssAnon"].split()[0])


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _report(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb
    for verb in (
        *(write, load, reopen, idle, memory, load_memory),
        *(bare, modules, vector_memory),
    )
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
