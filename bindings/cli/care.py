"""The verbs that look after a database: check and repair, for one that may be damaged and is not
opened first, compact and erase.

Invariants:
- check changes nothing; repair changes nothing without --apply.
"""

from collections.abc import Generator
from dataclasses import asdict
from typing import Annotated

import typer

from amberdb._errors import LockedError
from amberdb.cli.output import (
    AsJson,
    CollectionName,
    DatabasePath,
    Exit,
    counting,
    emit,
    grid,
    opened,
    opened_to_read,
    pairs_bar,
    parse_where,
    plain,
    properties,
    say,
    show,
    verb,
)
from amberdb.engine.database.repair import repair as repair_closed
from amberdb.engine.integrity.offline import check_closed
from amberdb.engine.integrity.repair import RepairReport


@verb
def check(path: DatabasePath, as_json: AsJson = False) -> None:
    """Reads every page and every record, and compares every index, count and checksum with the
    documents, also where the database cannot be opened. Changes nothing."""
    with counting() as progress:
        try:
            report = check_closed(path, progress)
        except LockedError as error:
            say(f"open in process {error.pid or '?'}: what that shows is checked, not its pages")
            with opened_to_read(path) as db:
                report = db.check(progress)
    if as_json:
        emit({"ok": report.ok, **asdict(report)})
    else:
        facts = asdict(report)
        problems, notes = facts.pop("problems"), facts.pop("notes")
        show(properties("sound" if report.ok else f"{len(problems)} problems", facts))
        for problem in problems:
            show(problem)
        for note in notes:
            say(f"note: {note}")
    if not report.ok:
        raise typer.Exit(Exit.NOTHING)


@verb
def repair(
    path: DatabasePath,
    apply: Annotated[bool, typer.Option("--apply", help="Do it, and not only say it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Makes a sound database of what can be read of a damaged one; what was damaged is kept as
    .broken. Without --apply it only says what it would do, and what would be lost."""
    with counting() as progress:
        report = repair_closed(path, apply=apply, progress=progress)
    if as_json:
        emit({"needed": report.is_needed, **asdict(report)})
    else:
        _show_repair(report)
    if report.is_needed and not apply:
        raise typer.Exit(Exit.NOTHING)


@verb
def compact(path: DatabasePath, as_json: AsJson = False) -> None:
    """Writes the data anew in as few bytes as it takes, and leaves nothing in any file of what was
    deleted; `.broken` files go too. The disk holds both meanwhile."""
    with opened(path) as db, pairs_bar() as advance:
        report = db.compact(advance)
    if as_json:
        emit(asdict(report))
    else:
        show(properties("compacted", asdict(report)))


@verb
def erase(
    path: DatabasePath,
    collection: CollectionName,
    where: Annotated[
        str, typer.Option(metavar="JSON", help="A filter, see docs/queries.md; {} is all.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept in the receipt.")],
    as_json: AsJson = False,
) -> None:
    """Deletes what matches, leaves nothing of it in any file of the database, and prints the
    receipt, which names the backups that may still hold it."""
    question = parse_where(where)
    assert question is not None
    with opened(path) as db, pairs_bar() as advance:
        receipt = db.erase(collection, question, reason=reason, progress=advance)
    if as_json:
        emit(plain(receipt))
        return
    backups = [(each.path, each.is_full, each.created) for each in receipt.backups]
    facts = {**plain(receipt), "backups": len(backups), "subscribers": list(receipt.subscribers)}
    show(properties("erased", facts))
    if backups:
        show(grid("out of reach, and may hold it", ("backup", "full", "taken"), backups))


def _show_repair(report: RepairReport) -> None:
    if not report.is_needed:
        show("sound: there is nothing to repair")
        return
    would = "" if report.applied else "would be "
    for title, lines in (
        ("found", report.problems),
        (f"{would}done", report.actions),
        ("kept as", report.broken),
        (f"{would}lost", list(_losses(report))),
    ):
        if lines:
            show(grid(title, ("",), [(line,) for line in lines]))
    if report.documents:
        rows = [(name, count) for name, count in report.documents.items()]
        show(grid(f"documents that {would or 'were '}kept", ("collection", "documents"), rows))
    if not report.applied:
        say("nothing was changed: --apply does it")


def _losses(report: RepairReport) -> Generator[str]:
    for first, last in report.lost_lsns:
        yield f"commits from Lsn {first} to {last}, where no page has their documents"
    for name, count in report.missing.items():
        yield f"{count} documents of {name}"
    for name, id in report.lost_ids:
        yield f"{name}: {id}"
    for name, index in report.dropped_indexes:
        yield f"the index {index} of {name}, which what was recovered does not allow"
    for name in report.renamed:
        yield f"the declaration of {name}: look at its name and its indexes"
    if report.doubtful:
        yield (
            f"certainty about {report.doubtful} documents, taken from pages that no tree leads to: "
            "some may be older versions, or may have been deleted"
        )
    if report.feed_begins is not None:
        yield f"the feed up to Lsn {report.feed_begins}: its changes are in the documents"
