"""What the rows run in processes of their own: `python -m bench.child <verb> ...`.

Invariants:
- The last line on stdout is one JSON object.
- Only the standard library is imported before a verb says otherwise: memory is measured here.
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
"""Bytes at which a checkpoint would start: everything stays in the log."""
_GETS = 1_000
_SEARCHES = 100


def write(path: str, kind: str, count: str) -> None:
    """Puts `count` documents that stay in the log, says so, and waits to be killed."""
    from bench import workloads

    engine = _open_without_checkpoints(path, sync="os")
    for batch in workloads.batches(0, int(count)):
        if kind == "batch":
            engine.put_many(batch)
        else:
            for document in batch:
                engine.put(document)
    _say(acknowledged=int(count))
    sys.stdin.read()


def load(path: str, count: str) -> None:
    """The put_many that replay is compared with: durable, and also without a checkpoint."""
    from bench import workloads

    engine = _open_without_checkpoints(path, sync="always")
    batches = list(workloads.batches(0, int(count)))
    before = time.perf_counter()
    for batch in batches:
        engine.put_many(batch)
    _say(put_many_s=time.perf_counter() - before)
    engine.close()


def reopen(path: str) -> None:
    """Opens what a killed process left."""
    from bench.amber import AmberPeer

    before = time.perf_counter()
    engine = AmberPeer(Path(path))
    opened = time.perf_counter() - before
    _say(open_s=opened, documents=len(engine.events))
    engine.close()


def _open_without_checkpoints(path: str, sync: str) -> Any:
    from bench.amber import AmberPeer

    return AmberPeer(
        Path(path),
        sync=sync,
        checkpoint_bytes=_NEVER,
        memtable_bytes_max=_NEVER,
        checkpoint_interval_ms=_NEVER,
    )


def idle(path: str, seconds: str) -> None:
    """Counts how often other threads of the process wake, opened and after some writing."""
    from bench import workloads
    from bench.amber import AmberPeer

    documents = list(workloads.documents(0, workloads.BATCH_DOCUMENTS))
    engine = AmberPeer(Path(path), expiring=True)
    engine.put_many(documents)
    engine.close()
    engine = AmberPeer(Path(path), expiring=True)
    opened = _switches(float(seconds))
    for document in documents[:100]:
        engine.put(document)
    engine.settle()
    time.sleep(0.5)  # threads that were started to do this work may end
    written = _switches(float(seconds))
    _say(
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
    """Opens, gets, and tells the memory and the modules that were needed for it."""
    from bench import workloads
    from bench.amber import AmberPeer

    engine = AmberPeer(Path(path))
    rng = random.Random(workloads.SEED)
    for _ in range(_GETS):
        assert engine.get(workloads.document_id(rng.randrange(int(count)))) is not None
    tops = {name.partition(".")[0] for name in sys.modules}
    stdlib = sorted((tops & sys.stdlib_module_names) - {"__main__"})
    _say(anon_kib=_anon_kib(), stdlib=stdlib)
    engine.close()


def bare(*modules: str) -> None:
    """The memory of a process with only these modules."""
    for name in modules:
        importlib.import_module(name)
    _say(anon_kib=_anon_kib())


def modules(*watched: str) -> None:
    """Which of these come with `import amberdb`."""
    before = set(sys.modules)
    importlib.import_module("amberdb")
    _say(loaded=[name for name in watched if name in sys.modules and name not in before])


def first_answer(name: str, path: str, dim: str, width: str, number: str) -> None:
    """Opens a vector engine and asks question `number`."""
    from bench import embeddings
    from bench.fleet import ids

    question = embeddings.questions(int(number) + 1, int(dim))[-1]
    make = _vector_engine(name)
    before = time.perf_counter()
    engine = make(Path(path), dim=int(dim), width=int(width))
    found = engine.nearest(question)
    _say(answered_s=time.perf_counter() - before, found=ids(found))
    engine.close()


def vector_memory(name: str, path: str, dim: str, width: str) -> None:
    """The memory that an open vector engine takes, its graph loaded and searched."""
    from bench import embeddings
    from bench.amber_search import AmberVectors

    questions = embeddings.questions(_SEARCHES, int(dim))
    make = _vector_engine(name)
    before = _anon_kib()
    engine = make(Path(path), dim=int(dim), width=int(width))
    stats: dict[str, Any] | None = None
    if isinstance(engine, AmberVectors):
        engine.catch_up(questions[0])
    for question in questions:
        engine.nearest(question)
    if isinstance(engine, AmberVectors):
        stats = engine.stats()
    _say(anon_kib=_anon_kib() - before, stats=stats)
    engine.close()


def _vector_engine(name: str) -> Any:
    """Its class, with everything imported that it needs."""
    from bench.fleet import VECTOR_KINDS

    kind = next(kind for kind in VECTOR_KINDS if kind.name == name)
    for package in ("numpy", "lmdb", *kind.packages):
        importlib.import_module(package)
    return kind


def _anon_kib() -> int:
    return int(_status(Path("/proc/self"))["RssAnon"].split()[0])


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb
    for verb in (write, load, reopen, idle, memory, bare, modules, first_answer, vector_memory)
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
