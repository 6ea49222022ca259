"""One line of the report: a measure of several engines, with its budget.

Invariants:
- An engine's figure is the median of its rounds.
- A measure that has states is judged in the worst one: by the ratio, or value, of its budget.
- ratio = the peer's time / AmberDB's time: above 1 AmberDB is faster. Budgets of kind "at most"
  (sizes, memory, stalls) compare the value, or AmberDB's share of the peer: lower is better.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

AMBER = "amberdb"


@dataclass
class Measured:
    """The figures of one engine in one row, in the row's unit; latencies in microseconds."""

    rounds: list[float] = field(default_factory=list[float])
    operations: int = 0
    latencies: dict[str, float] = field(default_factory=dict[str, float])
    """p50, p99, p99.9, max of single operations; empty when only rounds were timed."""
    cpu: list[float] = field(default_factory=list[float])
    """CPU time of the rounds, in the row's unit; empty where it was not measured."""

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def cpu_value(self) -> float | None:
        return median(self.cpu) if self.cpu else None


@dataclass(frozen=True)
class Budget:
    """The design's requirement on a row: `floor` must hold, `aim` is the goal."""

    floor: float
    aim: float | None = None
    against: str = "sqlite"
    """The peer that AmberDB is compared with, or "" for an absolute value."""
    kind: Literal["at least", "at most"] = "at least"
    note: str = ""

    def judge(self, figure: float) -> str:
        """met (aim), floor (only the floor), or missed."""
        if not self._holds(figure, self.floor):
            return "missed"
        return "met" if self.aim is None or self._holds(figure, self.aim) else "floor"

    def _holds(self, figure: float, limit: float) -> bool:
        return figure >= limit if self.kind == "at least" else figure <= limit


@dataclass
class Line:
    """One line of the report: one measure of several engines."""

    row: str
    title: str
    unit: str
    engines: dict[str, Measured]
    budget: Budget | None = None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    state: str = ""
    """The state of the databases; "" for a measure that has no states."""
    is_worst: bool = True
    """Whether no other state of the measure is further from its budget."""

    def ratio(self, peer: str) -> float | None:
        """peer / AmberDB; None when either was not measured, or AmberDB's figure is 0."""
        if peer not in self.engines or AMBER not in self.engines:
            return None
        own = self.engines[AMBER].value
        return self.engines[peer].value / own if own else None

    def ratio_spread(self, peer: str) -> tuple[float, float]:
        """Lowest and highest ratio of one round."""
        pairs = zip(self.engines[peer].rounds, self.engines[AMBER].rounds, strict=True)
        ratios = [theirs / own for theirs, own in pairs if own]
        return min(ratios), max(ratios)

    def judged_figure(self) -> float | None:
        """The figure that the budget limits."""
        if self.budget is None or AMBER not in self.engines:
            return None
        if not self.budget.against:
            return self.engines[AMBER].value
        ratio = self.ratio(self.budget.against)
        if ratio is None or self.budget.kind == "at least":
            return ratio
        return 1 / ratio if ratio else None

    def cpu_ratio(self) -> float | None:
        """The judged peer's CPU time over AmberDB's."""
        peer = self.engines.get("" if self.budget is None else self.budget.against)
        own = self.engines.get(AMBER)
        if peer is None or own is None or peer.cpu_value is None or not own.cpu_value:
            return None
        return peer.cpu_value / own.cpu_value

    def verdict(self) -> str:
        """ "" for a state that is not the worst one."""
        figure = self.judged_figure()
        if self.budget is None or figure is None or not self.is_worst:
            return ""
        return self.budget.judge(figure)

    def as_json(self) -> dict[str, Any]:
        peers = [name for name in self.engines if name != AMBER and AMBER in self.engines]
        return {
            "row": self.row,
            "title": self.title,
            "state": self.state,
            "unit": self.unit,
            "engines": {
                name: {
                    "value": measured.value,
                    "cpu_value": measured.cpu_value,
                    **asdict(measured),
                }
                for name, measured in self.engines.items()
            },
            "ratios": {
                peer: {"ratio": self.ratio(peer), "spread": self.ratio_spread(peer)}
                for peer in peers
                if self.ratio(peer) is not None
            },
            "budget": None if self.budget is None else asdict(self.budget),
            "judged": self.judged_figure(),
            "verdict": self.verdict(),
            "is_worst": self.is_worst,
            "notes": self.notes,
        }


def find_worst(lines: Sequence[Line]) -> None:
    """Sets `is_worst` of each line: of the states of a measure one is judged."""
    by_measure: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        by_measure.setdefault((line.row, line.title), []).append(line)
    for states in by_measure.values():
        judged = [line for line in states if line.judged_figure() is not None]
        for line in states:
            line.is_worst = not judged or line is min(judged, key=_distance)


def _distance(line: Line) -> float:
    """Ascends with how well the budget is kept."""
    figure = line.judged_figure()
    assert figure is not None
    assert line.budget is not None
    return figure if line.budget.kind == "at least" else -figure
