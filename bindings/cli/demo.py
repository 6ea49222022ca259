"""The command demo: runs the demo, and shows proofs, answers and timings.

Invariants:
- The exit code is 1 when a proof failed, or the demo could not run.
"""

import random
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from amberdb._jsonl.text import iso
from amberdb.cli.arguments import AsJson
from amberdb.cli.init import Template, show_next
from amberdb.cli.output import emit, grid, show, visible
from amberdb.cli.verb import Exit, fail, say, verb
from amberdb.demo.kill import DemoError
from amberdb.demo.run import DemoReport, Proof, run_demo

_ANSWERS: Final = 4


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
        _show_line(Text(f"-- {visible(step)}", "bold"))
    else:
        line = Text("   ").append("ok    " if step.ok else "FAIL  ", "green" if step.ok else "red")
        _show_line(line.append(visible(step.claim)).append(f" ({visible(step.detail)})", "dim"))


def _show_line(line: Text) -> None:
    Console(soft_wrap=True).print(line)


def _show(report: DemoReport, keep: str | None) -> None:
    found = [answer for answer in report.answers if answer.rank is not None]
    if found:
        shown = found[:: max(1, len(found) // _ANSWERS)][:_ANSWERS]
        rows = [(each.question, str(each.rank), each.found or "") for each in shown]
        title = f"{len(shown)} of {len(report.answers)} questions, asked as full text"
        show(grid(title, ("question", "rank", "turn"), rows))
    show(grid("memories and their reasons", ("", "layer", "memory", "reason"), report.memories))
    held, total = sum(proof.ok for proof in report.proofs), len(report.proofs)
    took_s = report.timings_ms["all"] / 1000
    show(f"{held} of {total} proofs hold, after {took_s:.1f} s (seed {report.seed})")
    if report.ok:
        count = report.counts["acknowledged"]
        said = f"{count:,} writes were acknowledged by processes that were killed; none is lost"
        _show_line(Text(said, "bold green"))
    if keep is not None:
        say(f"the database was kept: amberdb info {keep}")
    show_next("my-memory", Template.NOTES, is_made=False)
