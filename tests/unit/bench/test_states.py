"""The states of the benchmark: what a database has been through when its calls are timed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.engines.database import Database
from bench.harness.family import Base, Family
from bench.harness.line import AMBER, Budget, Line, Measured, find_worst
from bench.harness.operation import Draw, Operation
from bench.harness.sampler import Sampler
from bench.harness.scale import QUICK, Scale
from bench.harness.stage import Stage
from bench.harness.state import ALTERNATING, FRESH, FULL, KILLED, OPENED, SETTLED, STATES
from bench.workloads.events import Document, documents
from support import slices

# Modules that need the extra `bench` are imported where they are used.

SCALE = Scale(base=30, fresh=7, full=12, killed=5, rounds=2, process_rounds=1, first_calls=4)


class Recorded(Database):
    """Keeps its documents in a file, and what was called in memory."""

    name = "recorded"
    held: ClassVar[Mapping[str, Any]] = {"is_held": True}

    def __init__(self, path: Path, *, is_held: bool = False) -> None:
        super().__init__(path)
        self.is_held = is_held
        self.calls: list[str] = []
        self._file = path / "ids.json"
        self.ids: list[str] = json.loads(self._file.read_text()) if self._file.exists() else []

    def put_many(self, documents: list[Document]) -> None:
        self.calls.append("put")
        self.ids += [document["id"] for document in documents]

    def ask(self, item: int) -> str:
        self.calls.append("ask")
        return self.ids[item]

    def settle(self) -> None:
        self._file.write_text(json.dumps(self.ids))

    def close(self) -> None:
        self.calls.append("close")


class Own(Recorded):
    name = AMBER


def _documents(scale: Scale, start: int, count: int) -> Iterator[Document]:
    del scale
    return documents(start, count)


FAMILY: Family[Recorded] = Family(
    name="recorded",
    kinds=(Own, Recorded),
    count=lambda scale: scale.base,
    documents=_documents,
    rounds=lambda scale: scale.rounds,
)


def _stage(tmp_path: Path, state: Any, family: Family[Any] = FAMILY) -> Stage[Any]:
    base = Base(family, SCALE, tmp_path / "base", lambda text: None)
    return Stage(base, state, tmp_path / "stage")


def _items(draw: Draw) -> range:
    return range(draw.count(20))


ASK: Operation[Recorded, int] = Operation(
    title="ask",
    family=FAMILY,
    items=_items,
    call=lambda engine, item: engine.ask(item),
    answer=lambda engine, item: engine.ask(item),
)


@pytest.mark.parametrize(("state", "fresh"), [(SETTLED, 0), (FRESH, 7), (FULL, 12)])
def test_every_engine_gets_the_settled_documents_and_the_fresh_ones(
    state: Any, fresh: int, tmp_path: Path
) -> None:
    stage = _stage(tmp_path, state)
    for engine in stage.engines().values():
        assert len(engine.ids) == 30 + fresh
        assert engine.is_held == bool(fresh)  # nothing but memory and log has fresh documents
    assert sum(map(len, stage.draw(0).stored)) == 30 + fresh
    own, peer = stage.engines().values()
    assert own.ids == peer.ids
    stage.close()
    assert own.calls[-1] == peer.calls[-1] == "close"
    assert not (tmp_path / "stage").exists()


def test_a_state_leaves_the_settled_databases_as_they_were(tmp_path: Path) -> None:
    stage = _stage(tmp_path, FULL)
    for engine in stage.engines().values():
        engine.settle()
    stage.close()
    after = Stage(stage.base, SETTLED, tmp_path / "after")
    assert [len(engine.ids) for engine in after.engines().values()] == [30, 30]
    after.close()


def test_an_engine_that_no_operation_needs_can_be_had_by_name(tmp_path: Path) -> None:
    base = Base(FAMILY, SCALE, tmp_path / "base", lambda text: None, (AMBER,))
    assert base.names() == [AMBER]
    stage = Stage(base, FRESH, tmp_path / "stage")
    assert list(stage.engines()) == [AMBER]
    stage.close()
    assert len(json.loads((base.path("recorded") / "ids.json").read_text())) == 30


def test_drawn_places_are_stored_documents(tmp_path: Path) -> None:
    draw = _stage(tmp_path, FRESH).draw(0)
    drawn = {draw.place(share / 1_000) for share in range(1_000)}
    assert drawn == {number for numbers in draw.stored for number in numbers}
    assert len(drawn) == 37
    fresh = [one["id"] for count in (1, 1_200, 3) for one in draw.fresh(count)]
    assert len(set(fresh)) == 1_204


def _line_of(operation: Operation[Any, Any], state: Any, directory: Path) -> Line:
    pytest.importorskip("msgpack", reason="the peers are in the extra `bench`")
    pytest.importorskip("rocksdict", reason="the peers are in the extra `bench`")
    from bench.harness.context import Context
    from bench.harness.measure import timed
    from bench.harness.row import Row

    context = Context(directory, SCALE)
    try:
        return timed(context, Row("asked", "about", operations=(operation,)), 0, state)
    finally:
        context.close()


def test_alternating_puts_a_document_before_each_call(tmp_path: Path) -> None:
    engines: list[Recorded] = []

    def ask(engine: Recorded, item: int) -> str:
        if engine not in engines:
            engines.append(engine)
        return engine.ask(item)

    operation: Operation[Recorded, int] = Operation(
        title="ask", family=FAMILY, items=_items, call=ask
    )
    line = _line_of(operation, ALTERNATING, tmp_path)
    assert line.state == "alternating"
    for engine in engines:
        assert engine.calls.count("ask") == engine.calls.count("put") == 2 * 20
        assert all(a != b for a, b in pairwise(engine.calls))
        assert len(set(engine.ids)) == 30 + 2 * 20
    assert engines[0].ids == engines[1].ids
    for measured in line.engines.values():
        assert measured.operations == 2 * 20
        assert len(measured.cpu) == len(measured.rounds) == 2


def test_answers_that_differ_fail_the_row(tmp_path: Path) -> None:
    wrong: Operation[Recorded, int] = Operation(
        title="ask",
        family=FAMILY,
        items=_items,
        call=lambda engine, item: engine.ask(item),
        answer=lambda engine, item: engine.name,
    )
    assert _line_of(ASK, SETTLED, tmp_path / "same").engines.keys() == {AMBER, "recorded"}
    with pytest.raises(RuntimeError, match="recorded and amberdb differ"):
        _line_of(wrong, SETTLED, tmp_path / "other")


def test_a_restaged_round_begins_with_a_fresh_database(tmp_path: Path) -> None:
    firsts: list[int] = []

    def ask(engine: Recorded, item: int) -> None:
        firsts.append(engine.calls.count("ask"))
        engine.ask(item)

    operation: Operation[Recorded, int] = Operation(
        title="ask",
        family=FAMILY,
        items=lambda draw: [0],
        call=ask,
        ways={"again": lambda engine, item: engine.ask(item)},
        restaged=True,
    )
    line = _line_of(operation, FRESH, tmp_path)
    assert firsts == [0, 0] * 2  # two engines, two rounds
    assert line.engines["again"].operations == 2


# -- the worst state ---------------------------------------------------------------------------


def _state_line(state: str, own: float, peer: float, budget: Budget | None) -> Line:
    engines = {AMBER: Measured([own]), "sqlite": Measured([peer])}
    return Line("get", "a get", "us", engines, budget, state=state)


def test_a_measure_is_judged_in_its_worst_state() -> None:
    lines = [
        _state_line("settled", 1.0, 3.0, Budget(2)),
        _state_line("fresh", 2.0, 3.0, Budget(2)),
        _state_line("killed", 2.0, 5.0, Budget(2)),
    ]
    find_worst(lines)
    assert [line.verdict() for line in lines] == ["", "missed", ""]
    assert [line.as_json()["is_worst"] for line in lines] == [False, True, False]


def test_at_most_is_judged_by_the_largest_figure() -> None:
    budget = Budget(10, against="", kind="at most")
    lines = [_state_line("settled", 9.0, 1.0, budget), _state_line("full", 11.0, 1.0, budget)]
    find_worst(lines)
    assert [line.verdict() for line in lines] == ["", "missed"]


def test_measures_of_one_row_are_judged_apart() -> None:
    one, other = (_state_line("settled", 1.0, peer, Budget(2)) for peer in (3.0, 1.0))
    other.title = "another get"
    find_worst([one, other])
    assert [one.verdict(), other.verdict()] == ["met", "missed"]


def test_cpu_time_is_compared_with_the_judged_peer() -> None:
    line = _state_line("settled", 1.0, 3.0, Budget(2))
    assert line.cpu_ratio() is None  # not measured
    line.engines[AMBER].cpu, line.engines["sqlite"].cpu = [2.0], [3.0]
    assert line.cpu_ratio() == 1.5


def test_figures_are_per_document_and_percentiles_per_call() -> None:
    sampler = Sampler(documents=10)
    sampler.add_round(4_000, [3_000, 1_000], cpu_ns=2_000)
    measured = sampler.measured()
    assert measured.value == 0.2
    assert measured.cpu_value == 0.1
    assert measured.latencies["max"] == 3.0


# -- end to end ----------------------------------------------------------------------------------


def _result(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    from bench.__main__ import main

    target = tmp_path / "result.json"
    given = [*arguments, "--quick", "--base", "300", "--dir", str(tmp_path), "--json", str(target)]
    assert main(given) == 0
    result: dict[str, Any] = json.loads(target.read_text())
    assert result["failed"] == {}
    assert list(tmp_path.iterdir()) == [target]  # the databases were removed
    return result


def _bench_without_strata(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("msgpack", reason="the peers are in the extra `bench`")
    pytest.importorskip("rocksdict", reason="the peers are in the extra `bench`")
    from bench.engines import kinds, stratadb

    monkeypatch.setattr(stratadb.StrataPeer, "packages", ("absent",))
    assert kinds.ENGINES[-1].packages == ("absent",)


@pytest.mark.slow
@pytest.mark.sliced
def test_rows_run_in_the_states_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _bench_without_strata(monkeypatch)
    rows = ("newest", "delete_expired", "mixed")[: slices.size(3, 2)]
    names = ("settled", "fresh", "alternating")
    result = _result(tmp_path, "--rounds", "1", "--rows", *rows, "--states", *names)
    found = [(line["row"], line["state"]) for line in result["lines"]]
    assert found == [
        *(("newest", state) for state in names),
        *(("delete_expired", state) for state in names),
        *(("mixed", state) for _ in "ABE"[: slices.size(3, 0)] for state in ("settled", "fresh")),
    ]
    for line in result["lines"]:
        assert set(line["engines"]) == {AMBER, "sqlite", "lmdb", "rocksdict"}
        assert all(engine["cpu_value"] > 0 for engine in line["engines"].values())
    newest = [line for line in result["lines"] if line["row"] == "newest"]
    worst = min(newest, key=lambda line: line["judged"])
    assert [line["verdict"] != "" for line in newest] == [line is worst for line in newest]
    assert newest[0]["notes"]["left out: strata"] == "absent is not installed"
    assert "alternating" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fresh_process_is_timed_after_a_close_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _bench_without_strata(monkeypatch)
    from bench.harness.context import Context
    from bench.harness.measure import timed
    from bench.rows.registry import all_rows

    row = all_rows()["get"]
    own = replace(row, operations=(replace(row.operations[0], kinds=(AMBER,)),))
    context = Context(tmp_path, SCALE, wanted={"events": (AMBER, "sqlite")})
    try:
        killed = timed(context, row, 0, KILLED)  # compares the answers of both engines
        opened = timed(context, own, 0, OPENED)
    finally:
        context.close()
    assert {name: one.operations for name, one in killed.engines.items()} == {AMBER: 4, "sqlite": 4}
    assert {name: one.operations for name, one in opened.engines.items()} == {AMBER: 4}


def test_rows_of_the_registry_are_timed_in_known_states() -> None:
    pytest.importorskip("msgpack", reason="the peers are in the extra `bench`")
    pytest.importorskip("rocksdict", reason="the peers are in the extra `bench`")
    from bench.__main__ import listing
    from bench.rows.registry import all_rows

    rows = all_rows()
    operations = [one for row in rows.values() for one in row.operations]
    for operation in operations:
        assert set(operation.states) <= set(STATES)
        assert operation.title.format(scale=QUICK)
        known = {kind.name for kind in operation.family.kinds}
        assert set(operation.kinds) | set(operation.checked) <= known
        against = "" if operation.budget is None else operation.budget.against
        assert against in {"", *(operation.kinds or known), *operation.ways}
    titles = [(name, one.title) for name, row in rows.items() for one in row.operations]
    assert len(set(titles)) == len(titles)
    assert "  killed " in listing(rows)
