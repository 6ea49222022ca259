"""`python -m bench.report`: the plots in docs/images, and the generated parts of two pages."""

from pathlib import Path

from bench.report.charts import CHARTS
from bench.report.kept import ratios
from bench.report.page import benchmarks, replaced, tuning
from bench.report.plots import svg

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    found = ratios()
    for chart in CHARTS:
        plot = DOCS / "images" / f"bench-{chart.name}.svg"
        plot.write_text(svg(chart, found), encoding="utf-8")
    for name, part in (("benchmarks.md", benchmarks()), ("tuning.md", tuning())):
        page = DOCS / name
        page.write_text(replaced(page.read_text(encoding="utf-8"), part), encoding="utf-8")


if __name__ == "__main__":
    main()
