"""Rows about queries: what a find costs before its first document, and how far the plan that is
chosen is from the best one.

Invariants:
- The finds of `find` match nothing, and no two have the same values.
- In `planner` the other plans are those of collections with one of the indexes each, and with
  none; all have the same documents.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from time import perf_counter_ns
from typing import Any

import amberdb
from amberdb import Collection
from bench.engines.amber import AmberEngine
from bench.engines.engine import Engine
from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.operation import Draw, Operation
from bench.harness.row import Row
from bench.rows.families import EVENTS
from bench.workloads import events, queries
from bench.workloads.events import BATCH_DOCUMENTS

_QUERIES = 40
_DOCUMENTS_MAX = 20_000
_PRICE_US = 15.0
_WORST = 3.0
_VALUES = 1
"""Calls of a round: a scan of 100,000 documents takes a second."""
_ABSENT = "none"


def _find(
    title: str, where: Callable[[int], dict[str, Any]], **options: Any
) -> Operation[Engine, int]:
    """A find whose values differ from call to call, and match nothing."""
    return Operation(
        title=f"find without a match, {title}",
        family=EVENTS,
        items=_numbers,
        call=lambda engine, number: events_of(engine).find(where(number), **options),
        answer=lambda engine, number: len(events_of(engine).find(where(number), **options)),
        check=_nothing,
        kinds=(AMBER,),
        budget=Budget(_PRICE_US, against="", kind="at most"),
        is_short=True,
    )


def _numbers(draw: Draw) -> range:
    count = draw.count(draw.scale.gets)
    return range(draw.number * count, (draw.number + 1) * count)


def _nothing(answers: Mapping[str, Sequence[Any]], draw: Draw) -> dict[str, Any]:
    del draw
    if any(answers[AMBER]):
        raise RuntimeError("a find that should match nothing has found a document")
    return {}


def events_of(engine: Engine) -> Collection:
    assert isinstance(engine, AmberEngine)
    return engine.events


_NEWEST: dict[str, Any] = {"order_by": "-created_at", "limit": 20}
FINDS = (
    _find("an equality, and an order", lambda n: {"entity_id": f"{_ABSENT}{n}"}, **_NEWEST),
    _find(
        "an equality and a range",
        lambda n: {"entity_id": f"{_ABSENT}{n}", "created_at": {"$gte": events.EPOCH}},
        limit=20,
    ),
    _find(
        "a condition without index",
        lambda n: {"entity_id": f"{_ABSENT}{n}", "source": "mail"},
        **_NEWEST,
    ),
    _find(
        "two values of $in",
        lambda n: {"entity_id": {"$in": [f"{_ABSENT}{n}", f"no{n}"]}},
        limit=20,
    ),
    _find(
        "two branches of $or",
        lambda n: {
            "entity_id": f"{_ABSENT}{n}",
            "$or": [{"source": "mail"}, {"source": "chat"}],
        },
        limit=20,
    ),
    _find("an id", lambda n: {"id": f"{_ABSENT}{n}"}),
)


def _value(
    title: str, verb: Callable[[Collection], Any], scan: Callable[[Collection], Any]
) -> Operation[Engine, None]:
    """Values of a field, from an index; compared with a scan of the documents."""
    return Operation(
        title=title,
        family=EVENTS,
        items=lambda draw: [None] * draw.count(_VALUES),
        call=lambda engine, item: verb(events_of(engine)),
        answer=lambda engine, item: repr(verb(events_of(engine)) == scan(events_of(engine))),
        check=_as_scanned,
        kinds=(AMBER,),
        ways={"scan": lambda engine, item: scan(events_of(engine))},
    )


def _as_scanned(answers: Mapping[str, Sequence[Any]], draw: Draw) -> dict[str, Any]:
    del draw
    if "False" in answers[AMBER]:
        raise RuntimeError("an index and a scan of the documents give different values")
    return {}


VALUES = (
    _value(
        "the distinct categories",
        lambda c: c.distinct("category"),
        lambda c: sorted({document["category"] for document in c.documents()}),
    ),
    _value(
        "the documents of each category",
        lambda c: c.count_by("category"),
        lambda c: dict(Counter(document["category"] for document in c.documents())),
    ),
    _value(
        "the newest time",
        lambda c: c.max("created_at"),
        lambda c: max(document["created_at"] for document in c.documents()),
    ),
)


def planner(context: Context) -> Iterator[Line]:
    """The time of the chosen plan over that of the best one, for each query of the set."""
    count = min(_DOCUMENTS_MAX, context.scale.base // 5)
    path = context.directory / "planner"
    ratios: dict[str, float] = {}
    with amberdb.open(path, sync="os") as db:
        for number, indexes in enumerate(queries.SCHEMAS):
            declared = {"all": indexes, "none": ()}
            declared |= {f"only{at}": (index,) for at, index in enumerate(indexes)}
            collections = {
                name: db.collection(f"{name}_{number}", indexes=list(specs))
                for name, specs in declared.items()
            }
            documents = list(queries.documents(number, count))
            for collection in collections.values():
                for start in range(0, count, BATCH_DOCUMENTS):
                    collection.put_many(documents[start : start + BATCH_DOCUMENTS])
            db.checkpoint()
            for asked in queries.asked(number, count, _QUERIES):
                ratios[f"{number}: {asked}"] = _ratio(collections, asked, context.scale.rounds)
    shutil.rmtree(path)
    worst = max(ratios, key=ratios.__getitem__)
    yield Line(
        "planner",
        f"{len(ratios)} queries: time over that of the best plan, worst",
        "x",
        {"amberdb": Measured([ratios[worst]], len(ratios))},
        Budget(_WORST, against="", kind="at most"),
        {"worst": worst, "median": median(ratios.values())},
    )


def _ratio(collections: Mapping[str, Collection], asked: queries.Asked, rounds: int) -> float:
    """The shortest time with all indexes over the shortest with one or none, in turns."""
    where, order, limit = asked
    best: dict[str, int] = {}
    for _ in range(rounds):
        for name, collection in collections.items():
            before = perf_counter_ns()
            collection.find(where, order_by=order, limit=limit)
            elapsed = perf_counter_ns() - before
            best[name] = min(elapsed, best.get(name, elapsed))
    chosen = best.pop("all")
    return chosen / min(best.values())


ROWS = (
    Row("find", "what a find costs before its first document", operations=FINDS),
    Row("values", "values of a field from an index, and by a scan", operations=VALUES),
    Row("planner", "the plan that is chosen, compared with the best one", planner),
)
