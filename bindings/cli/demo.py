"""The command demo: runs the demo, and shows proofs, answers and timings.

Invariants:
- The exit code is 1 when a proof failed, or the demo could not run.
"""

import random
from dataclasses import asdict
from typing import Annotated

import typer

from amberdb._jsonl.text import iso
from amberdb.cli.arguments import AsJson
from amberdb.cli.output import emit, grid, properties, show
from amberdb.cli.verb import Exit, fail, say, verb
from amberdb.demo.kill import DemoError
from amberdb.demo.run import DemoReport, Proof, run_demo


@verb
def demo(
    source: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="Another dialogue, JSON lines."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep the database in this new directory."),
    ] = None,
    kills: Annotated[int, typer.Option(min=1, max=100, help="How often to kill a writer.")] = 3,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the times of the kills; by default a random one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Stores a dialogue, kills a process that writes, and proves that nothing was lost."""
    try:
        report = run_demo(
            source=source,
            keep=keep,
            kills=kills,
            seed=random.randrange(1 << 32) if seed is None else seed,
            on_step=_silent if as_json else _show_step,
        )
    except DemoError as error:
        fail(error.message, Exit.NOTHING)
    if as_json:
        changes = [{**asdict(change), "time": iso(change.time)} for change in report.changes]
        emit({"ok": report.ok, **asdict(report), "changes": changes})
    else:
        _show(report, keep)
    if not report.ok:
        raise typer.Exit(Exit.NOTHING)


def _silent(_: str | Proof) -> None: ...


def _show_step(step: str | Proof) -> None:
    if isinstance(step, str):
        show(f"-- {step}")
    else:
        show(f"   {'ok  ' if step.ok else 'FAIL'}  {step.claim} ({step.detail})")


def _show(report: DemoReport, keep: str | None) -> None:
    recent = [(turn["created_at"], turn.get("speaker"), turn["content"]) for turn in report.recent]
    show(grid("the newest turns of one entity", ("time", "speaker", "content"), recent))
    if report.answers:
        rows = [
            (answer.question, "" if answer.rank is None else str(answer.rank), answer.found or "")
            for answer in report.answers
        ]
        show(grid("questions", ("question", "rank", "turn"), rows))
    changes = [
        (str(change.lsn), change.op, change.collection, change.id) for change in report.changes
    ]
    show(grid("the last changes", ("lsn", "", "collection", "id"), changes))
    show(grid("memories and their reasons", ("", "layer", "memory", "reason"), report.memories))
    show(properties("counts", report.counts))
    timings = {name: f"{value:,.2f}" for name, value in report.timings_ms.items()}
    show(properties("milliseconds", timings))
    failed = sum(not proof.ok for proof in report.proofs)
    total = len(report.proofs)
    show(f"{total - failed} of {total} proofs hold (seed {report.seed})")
    if keep is not None:
        say(f"the database was kept: amberdb info {keep}")
