"""The commands import and export.

Invariants:
- Indexes declared on import are added to those of the collection; none is dropped.
- After an import that did not finish, the last line on stderr has the option that resumes it.
"""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from amberdb import (
    AmberError,
    Collection,
    CollectionError,
    Database,
    IndexSpec,
    Ordered,
    Unique,
)
from amberdb._jsonl.exporter import export_lines
from amberdb._jsonl.importer import Importer, ImportOptions, ImportReport
from amberdb._jsonl.reader import BadLine, open_input
from amberdb._shared.files import whole_file
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    DateFields,
    FilterJson,
    parse_where,
    words,
)
from amberdb.cli.bars import progress_bar
from amberdb.cli.output import emit, show
from amberdb.cli.verb import Exit, opened, opened_read_only, say, verb

_SPARSE = ":sparse"


@verb
def import_lines(
    path: DatabasePath,
    collection: CollectionName,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="JSON lines; .gz is decompressed; - is stdin.", show_default=False
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
    dates: DateFields = None,
    id_from: Annotated[
        str | None, typer.Option(metavar="FIELD,...", help="Make missing ids from these fields.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Lines in one commit.")] = 1000,
    from_line: Annotated[int, typer.Option(min=1, help="Resume at this line.")] = 1,
    on_error: Annotated[
        str, typer.Option(metavar="stop|skip", help="What to do at a bad line.")
    ] = "stop",
    as_json: AsJson = False,
) -> None:
    """Stores JSON lines, one commit per batch; running it again changes nothing."""
    if on_error not in ("stop", "skip"):
        raise typer.BadParameter("use stop or skip", param_hint="--on-error")
    options = ImportOptions(
        batch=batch,
        skip_bad=on_error == "skip",
        from_line=from_line,
        id_from=words(id_from),
        dates=[*words(dates), *([expires_at] if expires_at else [])],
    )
    # The input is opened first, so that a wrong name does not create an empty database.
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
                    error.message += f": {report.stored} stored, resume with {_resume(report)}"
                else:
                    say(f"{report.stored} stored, resume with {_resume(report)}")
                raise
    _finish(report, as_json, complete=True)
    if report.bad:
        raise typer.Exit(Exit.INPUT)


@verb
def export(
    path: DatabasePath,
    collection: CollectionName,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="- is stdout; .gz is compressed.")
    ] = "-",
    where: FilterJson = None,
    as_json: AsJson = False,
) -> None:
    """Writes the documents of one snapshot as JSON lines."""
    query = None if where is None else parse_where(where)
    count = 0
    with opened_read_only(path) as db, progress_bar() as progress:
        lines = export_lines(db, collection, query)
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


def declared_indexes(db: Database, name: str) -> list[IndexSpec]:
    """The indexes of a collection; none when there is no such collection."""
    if name not in db.collections():
        return []
    return [index.spec for index in db.definition(name).indexes]


def _declare(
    db: Database, name: str, ordered: list[str], unique: list[str], expires_at: str | None
) -> Collection:
    """The collection, with additional indexes."""
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
    """The fields of an index, and whether it is sparse. Raises CollectionError."""
    fields = words(text.removesuffix(_SPARSE))
    if not fields:
        raise CollectionError(f"{text!r} names no field: write --index entity_id,-created_at")
    return fields, text.endswith(_SPARSE)


def _say_bad(bad: BadLine) -> None:
    say(f"line {bad.line}: {bad.reason}")


def _resume(report: ImportReport) -> str:
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
