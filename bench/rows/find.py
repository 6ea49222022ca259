"""Rows about queries: what a find costs before its first document, and how far the plan that is
chosen is from the best one.

Invariants:
- The finds of the first row match nothing, and no two have the same values.
- In the second row the other plans are those of collections with one of the indexes each, and with
  none; all have the same documents.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from time import perf_counter_ns

import amberdb
from amberdb import Collection, Ordered
from bench.harness.context import Context
from bench.harness.line import Budget, Line, Measured
from bench.harness.row import Row
from bench.harness.sampler import Sampler, interleave
from bench.workloads import events, queries
from bench.workloads.events import BATCH_DOCUMENTS

_QUERIES = 40
_DOCUMENTS_MAX = 20_000
_PRICE_US = 15.0
_WORST = 3.0

_Ask = Callable[[Collection, int], object]
_FINDS: dict[str, _Ask] = {
    "an equality, and an order": lambda c, n: c.find(
        {"entity_id": f"none{n}"}, order_by="-created_at", limit=20
    ),
    "  an equality and a range": lambda c, n: c.find(
        {"entity_id": f"none{n}", "created_at": {"$gte": events.EPOCH}}, limit=20
    ),
    "  a condition without index": lambda c, n: c.find(
        {"entity_id": f"none{n}", "source": "mail"}, order_by="-created_at", limit=20
    ),
    "  two values of $in": lambda c, n: c.find(
        {"entity_id": {"$in": [f"none{n}", f"no{n}"]}}, limit=20
    ),
    "  two branches of $or": lambda c, n: c.find(
        {"entity_id": f"none{n}", "$or": [{"source": "mail"}, {"source": "chat"}]}, limit=20
    ),
    "  an id": lambda c, n: c.find({"id": f"none{n}"}),
}


def price(context: Context) -> Iterator[Line]:
    """The fixed price of a find."""
    path = context.directory / "find"
    with amberdb.open(path, sync="os") as db:
        indexes = [Ordered(*fields) for fields in events.INDEXES]
        collection = db.collection("c", indexes=indexes)
        for batch in events.batches(0, min(_DOCUMENTS_MAX, context.scale.base)):
            collection.put_many(batch)
        db.checkpoint()
        turns = {name: _turn(collection, ask, context.scale.gets) for name, ask in _FINDS.items()}
        measured = interleave(context.scale.rounds, turns)
    shutil.rmtree(path)
    for name, figures in measured.items():
        budget = Budget(_PRICE_US, against="", kind="at most")
        yield Line("find", f"find without a match, {name}", "us", {"amberdb": figures}, budget)


def _turn(collection: Collection, ask: _Ask, count: int) -> Callable[[int, Sampler], None]:
    def turn(number: int, sampler: Sampler) -> None:
        sampler.all(lambda n: ask(collection, n), range(number * count, (number + 1) * count))

    return turn


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
    Row("find", "what a find costs before its first document", price),
    Row("planner", "the plan that is chosen, compared with the best one", planner),
)
