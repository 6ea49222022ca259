"""The arithmetic of the harness, its report, and one row end to end."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import compare
from bench.harness import report
from bench.harness.latency import latencies_us, percentile
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.machine import file_system_of
from bench.harness.sampler import Sampler, interleave
from bench.workloads.events import batches, document_id, documents
from support import slices


def line(own: list[float], peer: list[float], budget: Budget | None = None) -> Line:
    engines = {AMBER: Measured(own, 10, {"p50": 1.0}), "sqlite": Measured(peer, 10)}
    return Line("put", "one put", "us", engines, budget)


# -- percentiles and rounds ------------------------------------------------------------------


def test_percentile_is_nearest_rank() -> None:
    ordered = list(range(1, 1001))
    assert percentile(ordered, 50) == 500
    assert percentile(ordered, 99) == 990
    assert percentile(ordered, 99.9) == 999
    assert percentile(ordered, 100) == 1000


@pytest.mark.parametrize("percent", [50, 99, 99.9, 100])
def test_percentile_of_one_sample_is_that_sample(percent: float) -> None:
    assert percentile([7.0], percent) == 7.0


def test_percentile_leaves_no_more_than_its_share_above() -> None:
    rng = random.Random(1)
    for size in (2, 3, 10, 101, 999):
        ordered = sorted(rng.random() for _ in range(size))
        for percent in (50, 90, 99, 99.9):
            above = sum(sample > percentile(ordered, percent) for sample in ordered)
            assert above <= size * (100 - percent) / 100


def test_latencies_are_microseconds_and_need_no_order() -> None:
    assert latencies_us([3000, 1000, 2000])["p50"] == 2.0
    assert latencies_us([3000, 1000, 2000])["max"] == 3.0
    assert latencies_us([]) == {}


def test_value_is_the_median_of_rounds() -> None:
    assert Measured([9.0, 1.0, 2.0]).value == 2.0  # one slow round does not count


def test_engines_take_turns() -> None:
    order: list[str] = []

    def turn_of(name: str) -> Callable[[int, Sampler], None]:
        def turn(number: int, sampler: Sampler) -> None:
            order.append(name)
            sampler.add_round(1000 * number, [1000])

        return turn

    names = ("a", "b")
    measured = interleave(3, {name: turn_of(name) for name in names})
    assert order == ["a", "b"] * 3
    assert [len(measured[name].rounds) for name in names] == [3, 3]


def test_every_item_is_called_once_per_pass() -> None:
    seen: list[int] = []
    each, whole = Sampler(), Sampler()
    each.each(seen.append, range(8))
    assert seen == list(range(8))
    assert each.measured().operations == 8

    seen.clear()
    whole.all(seen.append, range(8))
    assert seen == [*range(8), 0, 1]  # as a whole, then a quarter one by one
    assert whole.measured().operations == 8


def test_threads_share_the_round_and_their_errors_surface() -> None:
    seen: set[tuple[int, int]] = set()
    sampler = Sampler()
    sampler.threads(lambda item: seen.add((item, threading.get_ident())), [[1, 2], [3], [4]])
    assert {item for item, _ in seen} == {1, 2, 3, 4}
    assert threading.get_ident() not in {ident for _, ident in seen}
    assert sampler.measured().operations == 4
    with pytest.raises(ZeroDivisionError):
        sampler.threads(lambda item: 1 // item, [[1], [0]])


# -- ratios and budgets ----------------------------------------------------------------------


def test_ratio_above_one_means_amberdb_is_faster() -> None:
    faster = line([2.0, 2.0, 8.0], [6.0, 6.0, 8.0])
    assert faster.ratio("sqlite") == 3.0
    assert faster.ratio_spread("sqlite") == (1.0, 3.0)
    assert faster.ratio("lmdb") is None


@pytest.mark.parametrize(
    ("peer", "verdict"), [(1.1, "missed"), (1.2, "floor"), (1.25, "floor"), (1.3, "met")]
)
def test_budget_at_least(peer: float, verdict: str) -> None:
    assert line([1.0], [peer], Budget(1.2, 1.3)).verdict() == verdict


@pytest.mark.parametrize(("own", "verdict"), [(1.6, "missed"), (1.5, "floor"), (0.9, "met")])
def test_budget_at_most_is_our_share_of_the_peer(own: float, verdict: str) -> None:
    assert line([own], [1.0], Budget(1.5, 0.9, kind="at most")).verdict() == verdict


@pytest.mark.parametrize(("own", "verdict"), [(51.0, "missed"), (50.0, "floor"), (9.0, "met")])
def test_budget_on_a_bare_value(own: float, verdict: str) -> None:
    assert line([own], [1.0], Budget(50, 10, against="", kind="at most")).verdict() == verdict


def test_nothing_is_judged_without_its_peer() -> None:
    alone = Line("put", "one put", "us", {AMBER: Measured([1.0])}, Budget(1.2))
    assert alone.verdict() == ""


def test_a_zero_is_not_divided_by() -> None:
    idle = line([0.0], [1.0], Budget(0, against="", kind="at most"))
    assert idle.ratio("sqlite") is None
    assert idle.verdict() == "met"
    assert json.loads(json.dumps(idle.as_json()))["ratios"] == {}


# -- report ----------------------------------------------------------------------------------


def test_report_shows_figures_budget_and_verdict() -> None:
    measured = line([2.0], [3.0], Budget(1.2, 1.3))
    measured.engines["put_many"] = Measured([4.0])
    header, row, beside = report.table([measured]).splitlines()
    assert header.split()[:4] == ["row", "measure", "state", "unit"]
    for part in ("2.00", "3.00", "1.50x", "sqlite >= 1.2x (aim 1.3x)", "met"):
        assert part in row
    assert "put_many 4.00 (2.00x)" in beside
    assert "p50" in report.latency_table([measured])


def test_columns_are_aligned() -> None:
    text = report.aligned([["a", "bb"], ["ccc", "d"], ["x"]], left=(0,))
    assert text.splitlines() == ["a    bb", "ccc   d", "x"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (12345.6, "12346")],
)
def test_numbers_keep_three_digits(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_compare_names_better_worse_and_missing() -> None:
    def result(**rounds: list[float]) -> dict[str, object]:
        lines = [line(own, [6.0, 6.0]) for own in rounds.values()]
        for name, one in zip(rounds, lines, strict=True):
            one.row = name
        return {
            "machine": {"cpu": "x"},
            "scale": {},
            "lines": [one.as_json() for one in lines],
        }

    text = compare.compare(
        result(put=[2.0, 2.1], get=[1.0, 1.1], gone=[1.0, 1.0], same=[1.0, 3.0]),
        result(put=[1.0, 1.1], get=[2.0, 2.1], new=[1.0, 1.0], same=[2.0, 3.0]),
    )
    marks = {row.split()[0]: row for row in text.splitlines()}
    assert "better" in marks["put"]
    assert "worse" in marks["get"]
    assert "noise" in marks["same"]
    assert "only in base: gone: one put" in text
    assert "only in head: new: one put" in text


# -- workload and one row --------------------------------------------------------------------


def test_documents_are_the_same_in_every_run_and_slice() -> None:
    whole = list(documents(0, 2_500))
    assert whole[1_000:2_500] == list(documents(1_000, 1_500))
    assert [one for batch in batches(0, 2_500) for one in batch] == whole
    assert [one["id"] for one in whole] == [document_id(number) for number in range(2_500)]
    assert whole == sorted(whole, key=lambda one: str(one["id"]))
    assert {len(one["id"]) for one in whole} == {24}


def test_the_file_system_is_the_one_of_the_longest_mount(tmp_path: Path) -> None:
    assert file_system_of(Path("/proc/self")) in ("proc", "unknown")
    assert file_system_of(tmp_path) != "proc"


@pytest.mark.parametrize("row", slices.parameters(2, ["unique_put", "vector_put"]))
def test_index_put_rows_time_three_operations(row: str, tmp_path: Path) -> None:
    pytest.importorskip("msgpack", reason="the peers are in the extra `bench`")
    pytest.importorskip("rocksdict", reason="the peers are in the extra `bench`")
    from bench.__main__ import main

    target = tmp_path / "result.json"
    arguments = ["--rows", row, "--quick", "--rounds", "2"]
    assert main([*arguments, "--dir", str(tmp_path), "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert result["failed"] == {}
    assert [one["title"].split()[0] for one in result["lines"]] == ["insert", "replace", "update"]
    for one in result["lines"]:
        assert len(one["engines"]) > 1
        assert all(engine["operations"] == 100 for engine in one["engines"].values())
        assert all(engine["latencies"].keys() >= {"p99.9"} for engine in one["engines"].values())
    assert list(tmp_path.iterdir()) == [target]  # the databases were removed


@pytest.mark.slow
def test_one_row_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("msgpack", reason="the peers are in the extra `bench`")
    pytest.importorskip("rocksdict", reason="the peers are in the extra `bench`")
    from bench.__main__ import main

    target = tmp_path / "result.json"
    arguments = ["--rows", "put_many_settled", "--quick", "--rounds", "1"]
    assert main([*arguments, "--dir", str(tmp_path), "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert result["failed"] == {}
    assert [one["row"] for one in result["lines"]] == ["put_many_settled"]
    for one in result["lines"]:
        assert set(one["engines"]) >= {AMBER, "sqlite", "lmdb", "rocksdict"}
        assert all(engine["value"] > 0 for engine in one["engines"].values())
    assert result["lines"][0]["verdict"] in ("met", "floor", "missed")
    assert "until settled" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [target]  # the databases were removed
