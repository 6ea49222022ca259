"""The report as aligned text: figures and budgets first, then percentiles.

Invariants:
- The report computes nothing that is not in the raw result; it only rounds.
"""

from collections.abc import Iterable, Sequence

from bench.harness.line import AMBER, Budget, Line

COLUMNS = (AMBER, "sqlite", "lmdb", "rocksdict")


def table(lines: Sequence[Line]) -> str:
    """A line for each measure and state: each engine's figure, the ratios, that of the CPU time to
    the judged peer, the budget and, in the worst state, the verdict."""
    peers = [name for name in COLUMNS[1:] if any(name in line.engines for line in lines)]
    header = ["row", "measure", "state", "unit", AMBER, *peers]
    header += [f"x {peer}" for peer in peers] + ["x cpu", "budget", "now", ""]
    cells = [header]
    before: Line | None = None
    for line in lines:
        figure = line.judged_figure()
        is_next = before is not None and _measure(before) == _measure(line)
        before = line
        cells.append(
            [
                *(("", "") if is_next else _measure(line)),
                line.state,
                line.unit,
                *(_value(line, name) for name in (AMBER, *peers)),
                *(_ratio(line, peer) for peer in peers),
                "" if (cpu := line.cpu_ratio()) is None else f"{number(cpu)}x",
                "" if line.budget is None or is_next else budget_text(line.budget, line.unit),
                "" if figure is None else number(figure),
                line.verdict(),
            ]
        )
        extra = [name for name in line.engines if name not in COLUMNS]
        if extra:
            shown = (f"{name} {_value(line, name)}{_times(line, name)}" for name in extra)
            cells.append(["", "  also: " + ", ".join(shown)])
    return aligned(cells, left=(0, 1, 2, 3, len(header) - 3, len(header) - 1))


def _measure(line: Line) -> tuple[str, str]:
    return line.row, line.title


def latency_table(lines: Sequence[Line]) -> str:
    """Wall and CPU time of an operation, and p50, p99, p99.9 and max of single calls, in the first
    state of each measure and in its worst one."""
    header = ["row", "measure", "state", "engine", "calls", "wall", "cpu"]
    cells = [[*header, "p50 us", "p99 us", "p99.9 us", "max us"]]
    seen: set[tuple[str, str]] = set()
    for line in lines:
        if _measure(line) in seen and not line.is_worst:
            continue
        seen.add(_measure(line))
        for name, measured in line.engines.items():
            if measured.latencies:
                cpu = measured.cpu_value
                figures = [number(value) for value in measured.latencies.values()]
                times = [number(measured.value), "-" if cpu is None else number(cpu)]
                calls = str(measured.operations)
                cells.append([*_measure(line), line.state, name, calls, *times, *figures])
    return aligned(cells, left=(0, 1, 2, 3))


def notes(lines: Sequence[Line]) -> str:
    """The notes of all rows, a line each."""
    return "\n".join(
        f"{line.row}: {line.title}{f' ({line.state})' if line.state else ''}: {key}: {value}"
        for line in lines
        for key, value in line.notes.items()
    )


def budget_text(budget: Budget, unit: str) -> str:
    """`sqlite >= 1.2x (aim 1.3x)`, or `<= 50 ms (aim 10 ms)`."""
    sign = ">=" if budget.kind == "at least" else "<="
    suffix = "x" if budget.against else f" {unit}"
    aim = "" if budget.aim is None else f" (aim {budget.aim:g}{suffix})"
    note = f" ({budget.note})" if budget.note else ""
    return f"{budget.against} {sign} {budget.floor:g}{suffix}{aim}{note}".strip()


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def aligned(cells: Iterable[Sequence[str]], left: Sequence[int]) -> str:
    """Columns of equal width, two spaces apart; a short row may overlap the columns after it."""
    rows = [list(row) for row in cells]
    full = len(rows[0])
    widths = [max(len(row[column]) for row in rows if len(row) == full) for column in range(full)]
    out: list[str] = []
    for row in rows:
        texts = [
            text.ljust(width) if column in left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=False))
        ]
        out.append("  ".join(texts).rstrip())
    return "\n".join(out)


def _value(line: Line, name: str) -> str:
    measured = line.engines.get(name)
    return "-" if measured is None else number(measured.value)


def _ratio(line: Line, peer: str) -> str:
    ratio = line.ratio(peer)
    return "" if ratio is None else f"{number(ratio)}x"


def _times(line: Line, name: str) -> str:
    ratio = line.ratio(name)
    return "" if ratio is None else f" ({number(ratio)}x)"
