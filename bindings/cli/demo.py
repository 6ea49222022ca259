"""The verb demo: runs it, and shows proofs, answers and timings.

Invariants:
- Exit code 1 when a single proof failed; nothing is softened by the display.
"""

import random
from dataclasses import asdict
from typing import Annotated

import typer

from amberdb._jsonl.text import iso
from amberdb.cli.output import AsJson, Exit, emit, grid, properties, say, show, verb
from amberdb.demo.run import DemoReport, Proof, run_demo


@verb
def demo(
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="Another dialogue: JSON lines."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep the database there: a new name."),
    ] = None,
    kills: Annotated[int, typer.Option(min=1, max=100, help="How often to kill a writer.")] = 3,
    seed: Annotated[
        int | None, typer.Option(help="Of the moments of the kills; without it, a new one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stores a dialogue, kills a writer in mid-stream, and proves that nothing was lost."""
    report = run_demo(
        source=source,
        keep=keep,
        kills=kills,
        seed=random.randrange(1 << 32) if seed is None else seed,
        tell=_silent if as_json else _tell,
    )
    if as_json:
        changes = [{**asdict(change), "time": iso(change.time)} for change in report.changes]
        emit({"ok": report.ok, **asdict(report), "changes": changes})
    else:
        _show(report, keep)
    if not report.ok:
        raise typer.Exit(Exit.NOTHING)


def _silent(_: str | Proof) -> None: ...


def _tell(step: str | Proof) -> None:
    if isinstance(step, str):
        show(f"-- {step}")
    else:
        show(f"   {'ok  ' if step.ok else 'FAIL'}  {step.claim} ({step.detail})")


def _show(report: DemoReport, keep: str | None) -> None:
    recent = [(one["created_at"], one.get("speaker"), one["content"]) for one in report.recent]
    show(grid("the newest turns of one entity", ("time", "speaker", "content"), recent))
    if report.asked:
        rows = [
            (one.question, "" if one.place is None else str(one.place), one.found or "")
            for one in report.asked
        ]
        show(grid("questions", ("asked", "place", "what was said"), rows))
    changes = [(str(one.lsn), one.op, one.collection, one.id) for one in report.changes]
    show(grid("the last changes", ("lsn", "", "collection", "id"), changes))
    show(grid("memories and their reasons", ("", "layer", "memory", "reason"), report.memories))
    show(properties("counts", report.counts))
    timings = {name: f"{value:,.2f}" for name, value in report.timings_ms.items()}
    show(properties("milliseconds", timings))
    failed = sum(not proof.ok for proof in report.proofs)
    total = len(report.proofs)
    show(f"{total - failed} of {total} proofs hold (seed {report.seed})")
    if keep is not None:
        say(f"the database is kept: amberdb info {keep}")
