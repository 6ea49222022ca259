"""The commands check, repair, compact, upgrade and erase.

Invariants:
- check changes nothing; repair changes nothing without --apply.
"""

from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Annotated

import typer

import amberdb
from amberdb import CheckReport, Erasure, LockedError, RepairReport
from amberdb._connect import is_url
from amberdb.cli.arguments import AsJson, CollectionName, DatabasePath, Reason, parse_where
from amberdb.cli.bars import counting, pairs_bar
from amberdb.cli.output import emit, grid, plain, properties, show
from amberdb.cli.verb import Exit, check_directory, opened, opened_read_only, say, verb


@verb
def check(path: DatabasePath, as_json: AsJson = False) -> None:
    """Checks every page, record, index, count and checksum. It works on a database that cannot be
    opened, and changes nothing."""
    with counting() as progress:
        if is_url(path):
            report = _checked(path, progress)
        else:
            try:
                report = amberdb.check(path, progress)
            except LockedError as error:
                say(f"open in process {error.pid or '?'}: its documents are checked, not its pages")
                report = _checked(path, progress)
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


def _checked(path: str, progress: Callable[[str, int], None]) -> CheckReport:
    with opened_read_only(path) as db:
        return db.check(progress)


@verb
def repair(
    path: DatabasePath,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; by default only show what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Salvages every readable document of a damaged database. Damaged files are kept as .broken.
    Without --apply it only shows what it would do, and what would be lost."""
    check_directory(path)
    with counting() as progress:
        report = amberdb.repair(path, apply=apply, progress=progress)
    if as_json:
        emit({"needed": report.is_needed, **asdict(report)})
    else:
        _show_repair(report)
    if report.is_needed and not apply:
        raise typer.Exit(Exit.NOTHING)


@verb
def compact(path: DatabasePath, as_json: AsJson = False) -> None:
    """Rewrites the data without free space and deleted bytes. It deletes .broken files. The disk
    has to hold both copies meanwhile."""
    with opened(path) as db, pairs_bar() as advance:
        report = db.compact(advance)
    if as_json:
        emit(asdict(report))
    else:
        show(properties("compacted", asdict(report)))


@verb
def upgrade(path: DatabasePath, as_json: AsJson = False) -> None:
    """Rewrites a database of an older format in the newest one. The disk has to hold
    both copies meanwhile."""
    with opened(path) as db, pairs_bar() as advance:
        report = db.upgrade(advance)
    if as_json:
        emit(None if report is None else asdict(report))
    elif report is None:
        show("it is in the newest format already")
    else:
        show(properties("upgraded", asdict(report)))


@verb
def erase(
    path: DatabasePath,
    collection: CollectionName,
    where: Annotated[
        str, typer.Option(metavar="JSON", help="A filter, see docs/queries.md; {} matches all.")
    ],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Deletes documents so that no file of the database holds their bytes. It prints a receipt,
    which lists backups that may still hold them."""
    query = parse_where(where) or {}
    with opened(path) as db, pairs_bar() as advance:
        receipt = db.erase(collection, query, reason=reason, progress=advance)
    show_receipt(receipt, as_json)


def show_receipt(receipt: Erasure, as_json: bool) -> None:
    """The receipt of an erasure, with the backups that it names."""
    facts = {**plain(receipt), "documents": receipt.documents}
    if as_json:
        emit(facts)
        return
    backups = [(backup.path, backup.is_full, backup.created) for backup in receipt.backups]
    facts |= {"backups": len(backups), "subscribers": list(receipt.subscribers)}
    show(properties("erased", facts))
    if backups:
        show(grid("backups that may still hold them", ("backup", "full", "taken"), backups))


def _show_repair(report: RepairReport) -> None:
    if not report.is_needed:
        show("sound: there is nothing to repair")
        return
    would = "" if report.applied else "would be "
    for title, lines in (
        ("problems", report.problems),
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
        say("nothing was changed: run it with --apply")


def _losses(report: RepairReport) -> Generator[str]:
    """Each loss of a repair, as a line of text."""
    for first, last in report.lost_lsns:
        yield f"commits from Lsn {first} to {last}, except documents that a page has"
    for name, count in report.missing.items():
        yield f"{count} documents of {name}"
    for name, id in report.lost_ids:
        yield f"{name}: {id}"
    for name, id in report.lost_vectors:
        yield f"{name}: the vectors of {id}"
    for name, index in report.dropped_indexes:
        yield f"the index {index} of {name}, which the recovered documents violate"
    for name in report.renamed:
        yield f"the declaration of {name}: check its name and its indexes"
    if report.doubtful:
        yield (
            f"certainty about {report.doubtful} documents from pages that are in no tree: some "
            "may be old versions, or may have been deleted"
        )
    if report.feed_begins is not None:
        yield f"the change feed up to Lsn {report.feed_begins}; the documents have these changes"
