"""A row about opening a database after its writer was killed.

Invariants:
- The process that opens the database counts the documents, and the row raises when one is lost.
"""

from collections.abc import Iterator

from bench.harness.context import Context
from bench.harness.line import AMBER, Budget, Line, Measured
from bench.harness.process import child, write_and_kill
from bench.harness.row import Row
from bench.workloads.events import BATCH_DOCUMENTS


def replay(context: Context) -> Iterator[Line]:
    """A child puts and is killed, another opens its database; compared with a put_many."""
    count = context.scale.replayed
    measured = {kind: (Measured(), Measured()) for kind in ("single", "batch")}
    for number in range(context.scale.rounds):
        for kind, (opened, loaded) in measured.items():
            path = context.directory / f"replay-{kind}-{number}"
            written = write_and_kill(path / "killed", kind, count)
            reopened = child("reopen", str(path / "killed"))
            if reopened["documents"] != written["acknowledged"]:
                raise RuntimeError(f"acknowledged {written}, found {reopened}")
            compared = child("load", str(path / "loaded"), str(count))
            opened.rounds.append(reopened["open_s"] * 1e6 / count)
            loaded.rounds.append(compared["put_many_s"] * 1e6 / count)
            opened.operations += count
            loaded.operations += count
    titles = {"single": f"{count:,} single puts", "batch": f"put_many of {BATCH_DOCUMENTS:,}"}
    for kind, (opened, loaded) in measured.items():
        title = f"open after kill -9, log of {titles[kind]}, per document"
        engines = {AMBER: opened, "put_many": loaded}
        budget = Budget(1.3, 2, against="put_many") if kind == "single" else None
        yield Line("replay", title, "us", engines, budget)


ROWS = (
    Row("replay", "open after kill -9, compared with a put_many of the same documents", replay),
)
