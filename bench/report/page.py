"""The generated part of docs/benchmarks.md: for each chart its plot and its table.

Invariants:
- Everything between BEGIN and END comes from kept results; what is around it is written by hand.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report.charts import CHARTS, Chart
from bench.report.kept import SETTLED, Ratio, States, ratios, runs
from bench.report.options import option_table

BEGIN = "<!-- made by `make bench-report`; do not edit -->"
PACKAGES = (
    *("lmdb", "rocksdict", "hnswlib", "sqlite-vec"),
    *("chromadb", "lancedb", "stratadb", "zvec"),
)
END = "<!-- the end of what `make bench-report` has made -->"


def replaced(page: str, part: str) -> str:
    """The page with another generated part."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no line {BEGIN if not begin else END}")
    return f"{before}{BEGIN}\n\n{part}\n{END}{after}"


def benchmarks() -> str:
    """The part of docs/benchmarks.md."""
    return "\n".join([*_runs(), *(line for chart in CHARTS for line in _chart(chart))])


def tuning() -> str:
    """The part of docs/tuning.md."""
    return option_table()


def _runs() -> Iterator[str]:
    yield "| kept result | begun | machine | load at the beginning |"
    yield "|---|---|---|---|"
    for run in runs():
        facts = run.machine
        machine = (
            f"{facts['cores']} cores, {facts['memory_gib']} GiB, {facts['kernel'].split('-')[0]}, "
            f"{facts['file_system']}, Python {facts['python']}, SQLite {facts['sqlite']}"
        )
        began = run.started[:16].replace("T", " ")
        yield f"| `bench/results/{run.file}` | {began} | {machine} | {facts['load_1min']:.2f} |"
    yield ""
    yield f"Peers: {_versions(runs()[0].machine)}."
    yield ""


def _versions(facts: Mapping[str, Any]) -> str:
    names = (
        "lmdb",
        "rocksdict",
        "hnswlib",
        "sqlite-vec",
        "chromadb",
        "lancedb",
        "stratadb",
        "zvec",
    )
    return ", ".join(f"{name} {facts[name]}" for name in names if name in facts)


def _chart(chart: Chart) -> Iterator[str]:
    found = ratios()
    yield f"## {chart.heading}"
    yield ""
    yield f"{chart.about}"
    yield ""
    yield f"![{chart.heading}, ratios to peers](images/bench-{chart.name}.svg)"
    yield ""
    yield "| measure | peer | settled | worst state | best state |"
    yield "|---|---|---|---|---|"
    for measure in chart.measures:
        peers = found[measure.row, measure.title]
        for peer in (peer for peer in chart.peers if peer in peers):
            yield f"| {measure.label} | {peer} | {_cells(peers[peer])} |"
    yield ""


def _cells(states: States) -> str:
    """The settled ratio with the spread of its rounds, the worst state and the best one."""
    if len(states) == 1:  # it has no states, or is about one of them
        (only,) = states.values()
        return f"{_ratio(only)} | | "
    worst, best = (choose(states, key=lambda name: states[name].ratio) for choose in (min, max))
    settled = _ratio(states[SETTLED]) if SETTLED in states else ""
    return f"{settled} | {states[worst].ratio:.2f}x, {worst} | {states[best].ratio:.2f}x, {best}"


def _ratio(one: Ratio) -> str:
    return f"{one.ratio:.2f}x ({one.least:.2f} to {one.most:.2f})"
