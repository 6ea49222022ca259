"""A plot of one chart as SVG.

Invariants:
- The same results and the same version of matplotlib give the same bytes.
- A filled mark is the settled state (or the only one), a hollow one the state that is worst for
  AmberDB; the line between goes over all states.
"""

# pyright: reportUnknownMemberType=false
# matplotlib has no types for its keyword arguments.

import io

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.report.charts import Chart
from bench.report.kept import SETTLED, States

Ratios = dict[tuple[str, str], dict[str, States]]

PAPER, INK, GRID = "#fbf6ec", "#2b2620", "#d9cdb8"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#9a4f8c", "#8a6d00", "#56789a", "#444444")


def svg(chart: Chart, ratios: Ratios) -> str:
    with matplotlib.rc_context({"svg.hashsalt": chart.name, "svg.fonttype": "none"}):
        height = 1.5 + 0.15 * len(chart.measures) * (len(chart.peers) + 2)
        figure = Figure(figsize=(7.6, height), facecolor=PAPER, layout="constrained")
        FigureCanvasSVG(figure)
        axes: Axes = figure.subplots()
        drawn = _draw(axes, chart, ratios)
        _dress(axes, chart, drawn)
        out = io.StringIO()
        figure.savefig(out, format="svg", facecolor=PAPER, metadata={"Date": None})
    return out.getvalue()


def _draw(axes: Axes, chart: Chart, ratios: Ratios) -> list[str]:
    """Draws the marks; returns the peers that have some."""
    drawn: list[str] = []
    for place, measure in enumerate(chart.measures):
        peers = [peer for peer in chart.peers if peer in ratios[measure.row, measure.title]]
        for number, peer in enumerate(peers):
            states = ratios[measure.row, measure.title][peer]
            y = place + (number - (len(peers) - 1) / 2) * 0.7 / max(len(chart.peers), 2)
            color = COLORS[chart.peers.index(peer)]
            values = [one.ratio for one in states.values()]
            axes.plot([min(values), max(values)], [y, y], color=color, linewidth=1.5)
            axes.plot(min(values), y, "o", color=color, markerfacecolor=PAPER, markersize=6)
            first = states.get(SETTLED) or next(iter(states.values()))
            axes.plot(first.ratio, y, "o", color=color, markersize=5)
            if peer not in drawn:
                drawn.append(peer)
    return drawn


def _times(value: float, place: int | None) -> str:
    del place
    return f"{value:g}x"


def _dress(axes: Axes, chart: Chart, drawn: list[str]) -> None:
    axes.set_facecolor(PAPER)
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(_times))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(chart.measures)), [each.label for each in chart.measures])
    axes.set_ylim(len(chart.measures) - 0.5, -0.5)
    axes.tick_params(colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("time of the peer / time of AmberDB: right of 1x AmberDB is faster", color=INK)
    peers = [peer for peer in chart.peers if peer in drawn]
    marks = [
        Line2D([], [], color=COLORS[chart.peers.index(peer)], marker="o", label=peer)
        for peer in peers
    ]
    axes.figure.legend(
        handles=marks, loc="outside upper left", ncols=4, frameon=False, labelcolor=INK
    )
