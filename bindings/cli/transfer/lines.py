"""The commands import and export.

Invariants:
- Indexes declared on import are added to those of the collection; none is dropped.
- After an import that did not finish, the last line on stderr has the option that resumes it.
- Memory holds one batch of documents, however many there are.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from amberdb import (
    AmberError,
    Collection,
    CollectionError,
    Database,
    Document,
    IndexSpec,
    Ordered,
    QueryError,
    Unique,
)
from amberdb._jsonl.exporter import long_snapshot, matching
from amberdb._jsonl.importer import Importer, ImportOptions, ImportReport
from amberdb._jsonl.reader import BadLine, open_input
from amberdb._shared.files import whole_binary_file, whole_file
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    DateFields,
    EmbedModel,
    EmbedUrl,
    FilterJson,
    InputFormat,
    KeptFields,
    OrderFields,
    OutputFile,
    OutputFormat,
    one_of,
    parse_where,
    words,
)
from amberdb.cli.bars import progress_bar
from amberdb.cli.columns import columns_of
from amberdb.cli.embedding import embedded, endpoint_of
from amberdb.cli.formats import FORMATS, binary_stdout, chosen, lines_of
from amberdb.cli.output import emit, show
from amberdb.cli.transfer.tables import input_format, numbered, types_of
from amberdb.cli.verb import Exit, opened, opened_read_only, say, verb

_SHOWN_EVERY = 1000
_SPARSE = ":sparse"


InputFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="JSON lines, or by its ending .csv, .tsv, .parquet; .gz is decompressed; - is stdin.",
        show_default=False,
    ),
]
OrderedIndexes = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD,...[:sparse]", help="Declare an ordered index (repeatable)."),
]
UniqueIndexes = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD,...[:sparse]", help="Declare a unique index (repeatable)."),
]
ExpiryField = Annotated[
    str | None, typer.Option(metavar="FIELD", help="Documents expire by this date.")
]
CellTypes = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD=TYPE,...",
        help="CSV, TSV: int, float, bool, date, json or str; auto: whatever is written as JSON "
        "writes it. By default every cell is a str.",
    ),
]
IdFields = Annotated[
    str | None, typer.Option(metavar="FIELD,...", help="Make missing ids from these fields.")
]
BatchLines = Annotated[
    int, typer.Option(min=1, max=1_000_000, metavar="N", help="Lines in one commit.")
]
FirstLine = Annotated[int, typer.Option(min=1, metavar="N", help="Go on at this line, or row.")]
OnError = Annotated[str, typer.Option(metavar="stop|skip", help="What to do at a bad line.")]


@verb
def import_lines(
    path: DatabasePath,
    collection: CollectionName,
    file: InputFile,
    index: OrderedIndexes = None,
    unique: UniqueIndexes = None,
    expires_at: ExpiryField = None,
    dates: DateFields = None,
    types: CellTypes = None,
    id_from: IdFields = None,
    batch: BatchLines = 1000,
    from_line: FirstLine = 1,
    on_error: OnError = "stop",
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    format: InputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Stores JSON lines, CSV, TSV or Parquet. Each batch is one commit, and running it again
    changes nothing. The database and the collection are created when they are missing."""
    one_of("--on-error", on_error, ("stop", "skip"))
    kind, cells = input_format(file, format), types_of(types)
    endpoint = endpoint_of(embed_url, embed_model)
    options = ImportOptions(
        batch=batch,
        skip_bad=on_error == "skip",
        from_line=from_line,
        id_from=words(id_from),
        dates=[*words(dates), *([expires_at] if expires_at else [])],
    )
    # The input is opened first, so that a wrong name does not create an empty database.
    with open_input(file) as source, opened(path, create=True, background=True) as db:
        lines = numbered(kind, file, source.stream, cells)
        target = _declare(db, collection, index or [], unique or [], expires_at)
        if endpoint is not None:
            target = embedded(db, collection, endpoint)
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
                importer.run(lines)
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
    output: OutputFile = "-",
    where: FilterJson = None,
    order_by: OrderFields = None,
    fields: KeptFields = None,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Writes documents as JSON lines, CSV, TSV, Markdown or Parquet. All are of one snapshot. The
    ending of the file's name says the format, and a file has its name when it is complete."""
    ending = output.removesuffix(".gz").rpartition(".")[2].lower()
    kind = chosen(format, False, default=ending if ending in FORMATS else "jsonl")
    if kind == "table":
        raise QueryError("--format table is for a page, as find shows it: use markdown")
    query, order, names = parse_where(where), words(order_by), words(fields)
    with opened_read_only(path) as db, long_snapshot(db) as at, progress_bar() as progress:
        source = at[collection]
        task = progress.add_task("documents", total=None)
        count = 0

        def documents() -> Iterator[Document]:
            nonlocal count
            count = 0
            for document in matching(source, query, order_by=order, fields=names):
                yield document
                count += 1
                if not count % _SHOWN_EVERY:
                    progress.update(task, completed=count)

        _write(kind, output, names, documents)
    if output == "-":
        return
    if as_json:
        emit({"file": output, "documents": count})
    else:
        show(f"{count:,} documents in {output}")


# -- inside --------------------------------------------------------------------------------------


def _write(
    kind: str, output: str, names: list[str], documents: Callable[[], Iterator[Document]]
) -> None:
    """Writes documents to a file, or to standard output. The columns of a table are
    those that are asked for, or all: then the documents are read twice."""
    if kind == "parquet":
        from amberdb.cli.parquet import Columns, pyarrow, write

        pyarrow()
        columns = Columns(names)
        for document in documents():
            columns.add(document)
        if output == "-":
            write(binary_stdout(), columns, documents())
        else:
            with whole_binary_file(output) as file:
                write(file, columns, documents())
        return
    if kind not in ("json", "jsonl") and not names:
        names = columns_of(documents())
    lines = lines_of(kind, names, documents())
    if output == "-":
        for line in lines:
            sys.stdout.write(line + "\n")
    else:
        with whole_file(output) as file:
            for line in lines:
                file.write(line + "\n")


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
