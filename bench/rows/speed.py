"""Rows about event documents: calls that are timed in each state.

Invariants:
- Durable rows put each document once per engine, the same documents in the same order.
- An answer is compared by a digest of the whole documents, datetimes included.
"""

import hashlib
import json
import random
from datetime import datetime
from typing import Any

from bench.engines.engine import Engine
from bench.harness.line import Budget
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.harness.state import ALTERNATING, KILLED, OPENED, STATES
from bench.rows.families import DAYS, EVENTS, EXPIRING, day
from bench.rows.find import events_of
from bench.workloads import events
from bench.workloads.events import BATCH_DOCUMENTS, NEWEST, SEED, WRITER_THREADS, Document

_ALONE = tuple(state for state in STATES if state is not ALTERNATING)
"""For puts: one before each put is no other state."""


def digest(answer: Any) -> str:
    """Equal for equal documents."""
    text = json.dumps(answer, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def random_of(draw: Draw, row: str) -> random.Random:
    return random.Random(f"{SEED}:{row}:{draw.number}")


def ids_of(draw: Draw, row: str, count: int) -> list[str]:
    """Ids of stored documents."""
    rng = random_of(draw, row)
    return [events.document_id(draw.place(rng.random())) for _ in range(count)]


def _gets(draw: Draw) -> list[str]:
    return ids_of(draw, "get", draw.count(draw.scale.gets))


def _batches_of_ids(draw: Draw) -> list[list[str]]:
    count = draw.count(draw.scale.batched_gets)
    found = ids_of(draw, "get_many", count * _IDS)
    return [found[start : start + _IDS] for start in range(0, len(found), _IDS)]


def _entities(draw: Draw) -> list[str]:
    rng = random_of(draw, "newest")
    count = draw.count(draw.scale.finds)
    return [events.entity_id(draw.place(rng.random())) for _ in range(count)]


def _updates(draw: Draw) -> list[tuple[str, float]]:
    # Six digits: SQLite's json_set keeps 15, and the engines' answers are compared.
    rng = random_of(draw, "update")
    found = ids_of(draw, "update", draw.count(draw.scale.puts))
    return [(one, round(rng.random(), 6)) for one in found]


def _puts(draw: Draw) -> list[Document]:
    return draw.fresh(draw.count(draw.scale.puts))


def _threads_puts(draw: Draw) -> list[Document]:
    return draw.fresh(draw.count(WRITER_THREADS * draw.scale.puts_per_thread))


def _put_batches(draw: Draw) -> list[list[Document]]:
    count = min(draw.scale.put_batches, max(1, draw.calls_max // _BATCHED))
    return [draw.fresh(BATCH_DOCUMENTS) for _ in range(count)]


def _deletes(draw: Draw) -> list[tuple[datetime, str]]:
    """Each of the next days, and a document that expires then."""
    count = draw.scale.deletes
    first = draw.number * count
    assert first + count <= DAYS
    return [(day(at), events.document_id(at)) for at in range(first, first + count)]


_BATCHED = 40
"""A batch counts as so many calls."""
_IDS = 100
"""In one call of get_many()."""

GET: Operation[Engine, str] = Operation(
    title="get by id, decoded",
    family=EVENTS,
    items=_gets,
    call=lambda engine, key: engine.get(key),
    answer=lambda engine, key: digest(engine.get(key)),
    budget=Budget(2.9, note="aim: level with lmdb"),
    is_short=True,
)
GET_MANY: Operation[Engine, list[str]] = Operation(
    title=f"{_IDS} documents by id, decoded",
    family=EVENTS,
    items=_batches_of_ids,
    call=lambda engine, keys: engine.get_many(keys),
    answer=lambda engine, keys: digest(engine.get_many(keys)),
    ways={
        "gets": lambda engine, keys: [engine.get(key) for key in keys],
        "$in": lambda engine, keys: events_of(engine).find({"id": {"$in": keys}}),
    },
)
NEWEST_OF: Operation[Engine, str] = Operation(
    title=f"newest {NEWEST} of one entity, decoded",
    family=EVENTS,
    items=_entities,
    call=lambda engine, entity: engine.newest(entity),
    answer=lambda engine, entity: digest(engine.newest(entity)),
    budget=Budget(1.5, note="aim: level with lmdb"),
)
SCAN: Operation[Engine, str] = Operation(
    title=f"{NEWEST} documents from an id on, decoded",
    family=EVENTS,
    items=lambda draw: ids_of(draw, "scan", draw.count(draw.scale.finds)),
    call=lambda engine, key: engine.scan(key, NEWEST),
    answer=lambda engine, key: digest(engine.scan(key, NEWEST)),
)
UPDATE: Operation[Engine, tuple[str, float]] = Operation(
    title="update one field, durable",
    family=EVENTS,
    items=_updates,
    call=lambda engine, one: engine.update(*one),
    answer=lambda engine, one: digest(engine.get(one[0])),
    budget=Budget(0.9, 1),
    writes=True,
)
PUT: Operation[Engine, Document] = Operation(
    title="single durable put, 1 thread",
    family=EVENTS,
    items=_puts,
    call=lambda engine, document: engine.put(document),
    answer=lambda engine, document: digest(engine.get(document["id"])),
    budget=Budget(1.2, 1.3),
    states=_ALONE,
    writes=True,
)
PUT8: Operation[Engine, Document] = Operation(
    title=f"durable puts, {WRITER_THREADS} threads, wall time per put",
    family=EVENTS,
    items=_threads_puts,
    call=lambda engine, document: engine.put(document),
    answer=lambda engine, document: digest(engine.get(document["id"])),
    budget=Budget(5, 6),
    states=_ALONE,
    writes=True,
    threads=WRITER_THREADS,
)
PUT_MANY: Operation[Engine, list[Document]] = Operation(
    title=f"put_many of {BATCH_DOCUMENTS:,}, per document",
    family=EVENTS,
    items=_put_batches,
    call=lambda engine, documents: engine.put_many(documents),
    answer=lambda engine, documents: digest(engine.get(documents[-1]["id"])),
    budget=Budget(2.2, 3),
    states=_ALONE,
    writes=True,
    documents=BATCH_DOCUMENTS,
)
DELETE_EXPIRED: Operation[Engine, tuple[datetime, str]] = Operation(
    title="delete_many of the expired, one in 1,000 of {scale.base:,}, per call",
    family=EXPIRING,
    items=_deletes,
    call=lambda engine, one: engine.delete_expired(one[0]),
    answer=lambda engine, one: engine.get(one[1]) is None,
    check=lambda answers, draw: _all_true(answers),
    budget=Budget(1.5, note="aim: past rocksdict"),
    writes=True,
)
OPEN: Operation[Engine, str] = Operation(
    title="open of {scale.base:,} documents and a get, after a clean close",
    family=EVENTS,
    items=_gets,
    call=lambda engine, key: engine.get(key),
    answer=lambda engine, key: digest(engine.get(key)),
    budget=Budget(1),
    states=(OPENED,),
    opens=True,
)
OPEN_KILLED: Operation[Engine, str] = Operation(
    title="the same after SIGKILL, {scale.killed:,} documents in the log",
    family=EVENTS,
    items=_gets,
    call=lambda engine, key: engine.get(key),
    answer=lambda engine, key: digest(engine.get(key)),
    budget=Budget(0.4),
    states=(KILLED,),
    opens=True,
)


def _all_true(answers: Any) -> dict[str, Any]:
    """Raises RuntimeError."""
    if kept := [name for name, gone in answers.items() if not all(gone)]:
        raise RuntimeError(f"{', '.join(kept)} did not remove documents that have expired")
    return {}


ROWS = (
    Row("get", "random documents by id", operations=(GET,)),
    Row("get_many", "many documents by id; a get for each, and $in", operations=(GET_MANY,)),
    Row("newest", "newest 50 of one entity", operations=(NEWEST_OF,)),
    Row("scan", "50 documents in the order of ids", operations=(SCAN,)),
    Row("update", "one field of one document, durable", operations=(UPDATE,)),
    Row("put", "one durable put at a time, three ordered indexes", operations=(PUT,)),
    Row("put8", "durable puts from eight threads", operations=(PUT8,)),
    Row("put_many", "batches of 1,000", operations=(PUT_MANY,)),
    Row("delete_expired", "delete_many of expired documents", operations=(DELETE_EXPIRED,)),
    Row("open", "open and a get, after a close and after a kill", operations=(OPEN, OPEN_KILLED)),
)
