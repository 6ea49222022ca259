"""The figures of docs/benchmarks.md and docs/tuning.md are those of the kept results."""

import json
import re
from pathlib import Path

import pytest

from bench.report import kept
from bench.report.charts import CHARTS, Chart
from bench.report.kept import FILES, RESULTS, UNEQUAL, ratios
from bench.report.page import BEGIN, END, benchmarks, replaced, tuning

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"benchmarks.md": benchmarks, "tuning.md": tuning}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_the_kept_results_say(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == replaced(page, PAGES[name]()), "run `make bench-report`"


def test_every_measure_of_a_chart_is_kept() -> None:
    found = ratios()
    for chart in CHARTS:
        for measure in chart.measures:
            assert set(chart.peers) & set(found[measure.row, measure.title]), measure


def test_another_figure_in_a_file_is_another_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FILES:
        results = json.loads((RESULTS / name).read_text(encoding="utf-8"))
        for line in results["lines"]:
            for peer, one in line["ratios"].items():
                one["ratio"] *= 1 if peer in UNEQUAL else 1.5
        (tmp_path / name).write_text(json.dumps(results), encoding="utf-8")
    before = benchmarks()
    monkeypatch.setattr(kept, "RESULTS", tmp_path)
    assert benchmarks() != before


def test_a_page_without_its_marks_is_refused() -> None:
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\n\nnew\n{END}\nb\n"
    with pytest.raises(ValueError, match="has no line"):
        replaced("a\n", "new")


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_a_plot_is_of_the_kept_results(chart: Chart) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from bench.report.plots import svg

    drawn = (DOCS / "images" / f"bench-{chart.name}.svg").read_text(encoding="utf-8")
    version = re.search(r"Matplotlib v([\d.]+)", drawn)
    assert version is not None
    if version[1] != matplotlib.__version__:
        pytest.skip(f"it was drawn by matplotlib {version[1]}")
    assert drawn == svg(chart, ratios())
