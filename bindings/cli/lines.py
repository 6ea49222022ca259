"""The verbs import and export.

Invariants:
- Declaring indexes on import adds to those that the collection has; it never drops one.
- After an import that did not reach its end, the last line on stderr says where to go on.
"""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from amberdb._errors import AmberError, CollectionError
from amberdb._jsonl.exporter import export_lines, whole_file
from amberdb._jsonl.importer import (
    BadLine,
    Importer,
    ImportOptions,
    ImportReport,
    declared_indexes,
    open_input,
)
from amberdb.cli.output import (
    AsJson,
    CollectionName,
    DatabasePath,
    Exit,
    emit,
    opened,
    opened_to_read,
    parse_where,
    progress_bar,
    say,
    show,
    verb,
    words,
)
from amberdb.engine.database.collection import Collection
from amberdb.engine.database.database import Database
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.registry import IndexSpec

_SPARSE = ":sparse"


@verb
def import_lines(
    path: DatabasePath,
    collection: CollectionName,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON lines; .gz is unpacked; - is stdin.", show_default=False
        ),
    ],
    index: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD,...[:sparse]", help="Declare an ordered index (repeatable)."),
    ] = None,
    unique: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD,...[:sparse]", help="Declare a unique index (repeatable)."),
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Documents expire by this date.")
    ] = None,
    dates: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="Fields whose ISO text is a date.")
    ] = None,
    id_from: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="Make missing ids from these fields.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Lines in one commit.")] = 1000,
    from_line: Annotated[int, typer.Option(min=1, help="Go on from this line.")] = 1,
    on_error: Annotated[str, typer.Option(metavar="stop|skip", help="At a bad line.")] = "stop",
    as_json: AsJson = False,
) -> None:
    """Stores JSON lines, a commit per batch; running it again changes nothing."""
    if on_error not in ("stop", "skip"):
        raise typer.BadParameter("use stop or skip", param_hint="--on-error")
    options = ImportOptions(
        batch=batch,
        skip_bad=on_error == "skip",
        from_line=from_line,
        id_from=words(id_from),
        dates=[*words(dates), *([expires_at] if expires_at else [])],
    )
    # The input is opened first: a wrong name must not leave an empty database behind.
    with open_input(file) as source, opened(path, create=True, background=True) as db:
        target = _declare(db, collection, index or [], unique or [], expires_at)
        with progress_bar() as progress:
            task = progress.add_task("bytes", total=source.size)
            importer = Importer(
                target,
                file,
                options,
                on_bad=_say_bad,
                on_commit=lambda _: progress.update(task, completed=source.position()),
            )
            report = importer.report
            try:
                importer.run(source.stream)
            except (AmberError, OSError, KeyboardInterrupt) as error:
                _finish(report, as_json, complete=False)
                if isinstance(error, AmberError):
                    error.message += f": {report.stored} stored, go on with {_go_on(report)}"
                else:
                    say(f"{report.stored} stored, go on with {_go_on(report)}")
                raise
    _finish(report, as_json, complete=True)
    if report.bad:
        raise typer.Exit(Exit.INPUT)


@verb
def export(
    path: DatabasePath,
    collection: CollectionName,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="- is stdout; .gz is packed.")
    ] = "-",
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Only what matches this filter.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Writes documents as JSON lines, as of one moment."""
    question = parse_where(where)
    count = 0
    with opened_to_read(path) as db, progress_bar() as progress:
        lines = export_lines(db, collection, question)
        if output == "-":
            for line in lines:
                sys.stdout.write(line + "\n")
            return
        task = progress.add_task("documents", total=None)
        with whole_file(output) as file:
            for count, line in enumerate(lines, 1):
                file.write(line + "\n")
                if not count % 1000:
                    progress.update(task, completed=count)
    if as_json:
        emit({"file": output, "documents": count})
    else:
        show(f"{count:,} documents in {output}")


# -- inside --------------------------------------------------------------------------------------


def _declare(
    db: Database, name: str, ordered: list[str], unique: list[str], expires_at: str | None
) -> Collection:
    wanted: list[IndexSpec] = [Ordered(*fields, sparse=s) for fields, s in map(_spec, ordered)]
    wanted += [Unique(*fields, sparse=s) for fields, s in map(_spec, unique)]
    if not wanted:
        return db.collection(name, expires_at=expires_at)
    known = declared_indexes(db, name)
    return db.collection(
        name,
        indexes=known + [spec for spec in wanted if spec not in known],
        expires_at=expires_at,
    )


def _spec(text: str) -> tuple[list[str], bool]:
    fields = words(text.removesuffix(_SPARSE))
    if not fields:
        raise CollectionError(f"{text!r} names no field: write --index entity_id,-created_at")
    return fields, text.endswith(_SPARSE)


def _say_bad(bad: BadLine) -> None:
    say(f"line {bad.line}: {bad.reason}")


def _go_on(report: ImportReport) -> str:
    return f"--from-line {report.next_line}"


def _finish(report: ImportReport, as_json: bool, *, complete: bool) -> None:
    if as_json:
        facts: dict[str, Any] = asdict(report)
        facts["bad_lines"] = [bad._asdict() for bad in report.bad_lines]
        emit({"complete": complete, **facts})
    elif complete:
        show(
            f"{report.stored:,} documents from {report.lines:,} lines in {report.commits:,} "
            f"commits, {report.bad:,} lines skipped"
        )
