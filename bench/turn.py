"""Runs one round of an operation, or the puts before a kill, in this process:
`python -m bench.turn call <task>`. bench/harness/measure.py and stage.py write the task.

Invariants:
- The last line on stdout is one JSON object.
- Everything is imported, and the items are made, before the clock starts.
- `put` ends only when it is killed.
"""

import gc
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any

from bench.harness.family import Family
from bench.harness.operation import Draw, Operation
from bench.harness.sampler import Sampler
from bench.harness.scale import Scale
from bench.harness.state import state_named
from bench.rows.registry import all_rows
from bench.workloads.events import BATCH_DOCUMENTS, Document


def main(arguments: list[str]) -> None:
    verb, task = arguments
    VERBS[verb](json.loads(task))


def put(task: dict[str, Any]) -> None:
    """Puts documents, reports it, and waits to be killed."""
    family = _family(task["family"])
    scale = _scale(task)
    engine = _opener(family, task)()
    for batch in family.batches(scale, task["start"], task["count"]):
        engine.put_many(batch)
    _report(acknowledged=task["count"])
    sys.stdin.read()


def call(task: dict[str, Any]) -> None:
    """The first calls of a process, and the answers to a sample of them."""
    place: int = task["place"]
    operation: Operation[Any, Any] = all_rows()[task["row"]].operations[place]
    open_engine = _opener(operation.family, task)
    draw = _draw(operation.family, task)
    items = operation.items(draw)
    _, timed = operation.contenders([task["engine"]])[task["contender"]]
    sampler = Sampler()
    gc.collect()
    gc.freeze()
    if operation.opens:
        engine = _open_and_call(sampler, open_engine, lambda opened: timed(opened, items[0]))
    else:
        engine = open_engine()
        if task["contender"] != task["engine"] or operation.is_apart:
            operation.call(engine, items[0])  # a way is timed after AmberDB's own call
        operation.time(sampler, engine, timed, items, is_first=True)
    answers: list[Any] = []
    if operation.is_checked(task["contender"]):
        answers = operation.answers(engine, items)
    engine.close()
    _report(**asdict(sampler.last_round), answers=answers)


def _open_and_call(
    sampler: Sampler, open_engine: Callable[[], Any], ask: Callable[[Any], object]
) -> Any:
    cpu, before = process_time_ns(), perf_counter_ns()
    engine = open_engine()
    ask(engine)
    elapsed, cpu = perf_counter_ns() - before, process_time_ns() - cpu
    sampler.add_round(elapsed, [elapsed], cpu_ns=cpu)
    return engine


def _opener(family: Family[Any], task: dict[str, Any]) -> Callable[[], Any]:
    """Opens the task's database; its packages are imported now."""
    kind = family.kind(task["engine"])
    for package in ("numpy", "lmdb", *kind.packages):
        importlib.import_module(package)
    return lambda: kind(Path(task["path"]), **task["options"])


def _draw(family: Family[Any], task: dict[str, Any]) -> Draw:
    """The draw that the process has which started this one."""
    scale, state = _scale(task), state_named(task["state"])
    end, fresh = family.end(scale), state.fresh(scale)
    stored = [range(family.count(scale)), range(end, end + fresh)]
    position = task["start"]

    def documents(count: int) -> list[Document]:
        nonlocal position
        found = list(family.documents(scale, position, count))
        position += -(-count // BATCH_DOCUMENTS) * BATCH_DOCUMENTS
        return found

    return Draw(
        scale=scale,
        number=0 if state.is_killed else task["number"],
        stored=tuple(numbers for numbers in stored if numbers),
        fresh=documents,
        calls_max=state.calls_max(scale),
    )


def _family(name: str) -> Family[Any]:
    operations = (one for row in all_rows().values() for one in row.operations)
    return next(one.family for one in operations if one.family.name == name)


def _scale(task: dict[str, Any]) -> Scale:
    return Scale(**task["scale"])


def _report(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


VERBS: dict[str, Callable[[dict[str, Any]], None]] = {"put": put, "call": call}

if __name__ == "__main__":
    main(sys.argv[1:])
