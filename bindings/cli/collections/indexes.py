"""The commands index add, index drop and index list.

Invariants:
- The other indexes of a collection, and what else was declared of it, stay as they are.
- An index is complete when `index add` ends: it is built over the documents that exist.
"""

from typing import Annotated, Any, Final

import typer

from amberdb import CollectionError, Database, IndexSpec, Ordered, Text, Unique, Vector
from amberdb._connect import is_url
from amberdb._shared.embedder import index_name
from amberdb.cli.arguments import (
    AsJson,
    CollectionName,
    DatabasePath,
    EmbedModel,
    EmbedUrl,
    OneCollection,
    OutputFormat,
    VectorDim,
    one_of,
    words,
)
from amberdb.cli.bars import counting, progress_bar
from amberdb.cli.embedding import embedding, endpoint_of
from amberdb.cli.formats import chosen, show_rows
from amberdb.cli.group import CODES
from amberdb.cli.output import emit, show
from amberdb.cli.verb import opened, opened_read_only, verb

KINDS: Final = ("ordered", "unique", "text", "vector")

index = typer.Typer(
    help="Shows, builds and drops the indexes of collections.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@index.command("add", epilog=CODES)
@verb
def add(
    path: DatabasePath,
    collection: CollectionName,
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="ordered, unique, text or vector.", show_default=False),
    ],
    fields: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD...",
            help="Its fields, also as FIELD,FIELD; - in front: descending (ordered), after --.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name, if not kind:field,field.")
    ] = None,
    sparse: Annotated[
        bool,
        typer.Option("--sparse", help="ordered, unique: leave out documents without the fields."),
    ] = False,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="text: of stemming and stop words, by default english; none: words as they are.",
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=N", help="text: the weight of a field, 1/64 to 64 (repeatable)."
        ),
    ] = None,
    stop_words: Annotated[
        bool | None,
        typer.Option(
            "--stop-words/--no-stop-words", help="text: pass over the words of a stop list."
        ),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(metavar="jieba", help="text: Chinese words, not pairs; needs the extra `zh`."),
    ] = None,
    fold_traditional: Annotated[
        bool,
        typer.Option(
            "--fold-traditional",
            help="text: traditional Chinese as simplified; needs the extra `zh`.",
        ),
    ] = False,
    dim: VectorDim = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="cosine|ip|l2", help="vector: what is near, by default cosine."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="vector: the text that is embedded where there is no vector."
        ),
    ] = None,
    multi: Annotated[
        bool, typer.Option("--multi", help="vector: a document has any number of vectors.")
    ] = False,
    mean_of: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, metavar="N", help="vector, --multi: the score is the mean of the best N."
        ),
    ] = None,
    m: Annotated[
        int | None, typer.Option(min=2, max=128, metavar="N", help="vector: edges in the graph.")
    ] = None,
    ef_construction: Annotated[
        int | None,
        typer.Option(min=2, max=4096, metavar="N", help="vector: candidates of an insertion."),
    ] = None,
    ef: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="N", help="vector: candidates of a search."),
    ] = None,
    embed_url: EmbedUrl = None,
    embed_model: EmbedModel = None,
    as_json: AsJson = False,
) -> None:
    """Adds an index, and builds it over the documents that exist. With --embed-url a vector index
    makes the vectors of the field --source, and asks the model for their length."""
    one_of("the kind", kind, KINDS)
    endpoint = endpoint_of(embed_url, embed_model) if kind == "vector" else None
    if endpoint is not None and source is None:
        raise CollectionError("--embed-url needs --source, the field whose text is embedded")
    if endpoint is not None and dim is None:
        dim = endpoint.dim()
    if endpoint is not None and name is None and len(fields) == 1:
        name = index_name(fields[0], endpoint.model)
    given: dict[str, Any] = {
        "name": name,
        "sparse": sparse or None,
        "language": language,
        "weights": _weights(weight or []) or None,
        "stop_words": stop_words,
        "segmenter": segmenter,
        "fold_traditional": fold_traditional or None,
        "dim": dim,
        "metric": metric,
        "source": source,
        "multi": multi or None,
        "mean_of": mean_of,
        "m": m,
        "ef_construction": ef_construction,
        "ef": ef,
    }
    options = {option: value for option, value in given.items() if value is not None}
    spec = _spec(kind, [each for text in fields for each in words(text)], options)
    with opened(path) as db:
        _declare(db, collection, spec, embedding(spec, endpoint) if endpoint else spec)
        count = _embed_missing(db, collection) if endpoint else None
    if as_json:
        emit({"name": spec.name, "embedded": count})
    else:
        vectors = "" if count is None else f", {count:,} documents were embedded"
        show(f"{spec.name} is built{vectors}")


@index.command("drop", epilog=CODES)
@verb
def drop(
    path: DatabasePath,
    collection: CollectionName,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As `index list` shows it.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Drops an index."""
    with opened(path) as db:
        known = db.definition(collection).specs
        if all(spec.name != name for spec in known):
            names = ", ".join(spec.name for spec in known) or "none"
            raise CollectionError(f"{collection!r} has no index {name!r}; it has {names}")
        db.collection(collection, indexes=[spec for spec in known if spec.name != name])
        if not is_url(path):
            with counting() as progress:
                db.build_indexes(progress)
    if as_json:
        emit({"dropped": name})
    else:
        show(f"{name} is dropped")


@index.command("list", epilog=CODES)
@verb
def list_indexes(
    path: DatabasePath,
    collection: OneCollection = None,
    format: OutputFormat = None,
    as_json: AsJson = False,
) -> None:
    """Lists indexes with their kinds, fields, options and states."""
    kind = chosen(format, as_json)
    with opened_read_only(path) as db:
        facts = db.stats().collections
        names = db.collections() if collection is None else [db.definition(collection).name]
        rows = [
            {"collection": name, **index_facts(spec), "state": facts[name]["indexes"][spec.name]}
            for name in names
            for spec in db.definition(name).specs
        ]
    show_rows("indexes", ("collection", "name", "kind", "fields", "options", "state"), rows, kind)


def index_facts(spec: IndexSpec) -> dict[str, Any]:
    """The name, the kind, the fields and the other options of a declaration."""
    stored = spec.to_map()
    named = ("name", "kind", "field", "fields")
    return {
        "name": spec.name,
        "kind": spec.kind,
        "fields": ",".join(stored.get("fields") or spec.fields),
        "options": {option: value for option, value in stored.items() if option not in named},
    }


# -- inside --------------------------------------------------------------------------------------


def _spec(kind: str, fields: list[str], options: dict[str, Any]) -> IndexSpec:
    """The declaration. Raises CollectionError, also for an option that is not of its kind."""
    of_kind = {
        "ordered": {"sparse"},
        "unique": {"sparse"},
        "text": {"language", "weights", "stop_words", "segmenter", "fold_traditional"},
        "vector": {"dim", "metric", "source", "multi", "mean_of", "m", "ef_construction", "ef"},
    }[kind]
    foreign = options.keys() - of_kind - {"name"}
    if foreign:
        flags = ", ".join(f"--{each.replace('_', '-')}" for each in sorted(foreign))
        raise CollectionError(f"an index of the kind {kind} takes no {flags}")
    if options.get("language") == "none":
        options["language"] = None
    if kind == "ordered":
        return Ordered(*fields, **options)
    if kind == "unique":
        return Unique(*fields, **options)
    if kind == "text":
        return Text(*fields, **options)
    if len(fields) != 1:
        raise CollectionError("a vector index has one field")
    if "dim" not in options:
        raise CollectionError("give --dim, the length of the vectors, or --embed-url")
    return Vector(fields[0], **options)


def _weights(pairs: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for pair in pairs:
        field, _, number = pair.rpartition("=")
        try:
            weights[field] = float(number)
        except ValueError:
            raise CollectionError(f"--weight {pair}: write FIELD=NUMBER") from None
    return weights


def _declare(db: Database, name: str, spec: IndexSpec, declared: IndexSpec) -> None:
    """Declares an index beside the others, and builds it."""
    known = db.definition(name).specs
    if any(each.name == spec.name and each != spec for each in known):
        raise CollectionError(
            f"{name!r} has another index {spec.name!r}: drop it first, or give --name"
        )
    with counting() as progress:
        db.collection(name, indexes=[*(each for each in known if each != spec), declared])
        db.build_indexes(progress)


def _embed_missing(db: Database, name: str) -> int:
    """Embeds the documents that have text and no vector; how many."""
    with progress_bar() as bar:
        task = bar.add_task("embedded", total=None)
        return db[name].embed_missing(lambda count: bar.update(task, completed=count))
