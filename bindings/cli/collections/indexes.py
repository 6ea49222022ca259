"""The commands index add, index drop and index list.

Invariants:
- The other indexes of a collection, and what else was declared of it, stay as they are.
- An index is complete when `index add` ends: it is built over the documents that exist.
"""

from typing import Annotated, Any, Final

import typer

from amberdb import (
    CollectionDef,
    CollectionError,
    Database,
    IndexSpec,
    Ordered,
    Text,
    Unique,
    Vector,
)
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
from amberdb.cli.columns import flat
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


Kind = Annotated[
    str,
    typer.Argument(metavar="KIND", help="ordered, unique, text or vector.", show_default=False),
]
Fields = Annotated[
    list[str],
    typer.Argument(
        metavar="FIELD...",
        help="Its fields, also as FIELD,FIELD; - in front: descending (ordered), after --.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Its name, if not kind:field,field.")
]
Sparse = Annotated[
    bool,
    typer.Option("--sparse", help="ordered, unique: leave out documents without the fields."),
]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="text: of stemming and stop words, by default english; none: words as they are.",
    ),
]
Weight = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=N", help="text: the weight of a field, 1/64 to 64 (repeatable)."),
]
StopWords = Annotated[
    bool | None,
    typer.Option("--stop-words/--no-stop-words", help="text: pass over the words of a stop list."),
]
Segmenter = Annotated[
    str | None,
    typer.Option(metavar="jieba", help="text: Chinese words, not pairs; needs the extra `zh`."),
]
FoldTraditional = Annotated[
    bool,
    typer.Option(
        "--fold-traditional",
        help="text: traditional Chinese as simplified; needs the extra `zh`.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(metavar="cosine|ip|l2", help="vector: what is near, by default cosine."),
]
SourceField = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD", help="vector: the text that is embedded where there is no vector."
    ),
]
Multi = Annotated[
    bool, typer.Option("--multi", help="vector: a document has any number of vectors.")
]
MeanOf = Annotated[
    int | None,
    typer.Option(
        min=1, max=64, metavar="N", help="vector, --multi: the score is the mean of the best N."
    ),
]
Edges = Annotated[
    int | None, typer.Option(min=2, max=128, metavar="N", help="vector: edges in the graph.")
]
EfConstruction = Annotated[
    int | None,
    typer.Option(min=2, max=4096, metavar="N", help="vector: candidates of an insertion."),
]
Ef = Annotated[
    int | None,
    typer.Option(min=1, max=4096, metavar="N", help="vector: candidates of a search."),
]


@index.command("add", epilog=CODES)
@verb
def add(
    path: DatabasePath,
    collection: CollectionName,
    kind: Kind,
    fields: Fields,
    name: Name = None,
    sparse: Sparse = False,
    language: Language = None,
    weight: Weight = None,
    stop_words: StopWords = None,
    segmenter: Segmenter = None,
    fold_traditional: FoldTraditional = False,
    dim: VectorDim = None,
    metric: Metric = None,
    source: SourceField = None,
    multi: Multi = False,
    mean_of: MeanOf = None,
    m: Edges = None,
    ef_construction: EfConstruction = None,
    ef: Ef = None,
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
        count: int | None = None
        if endpoint is not None and isinstance(spec, Vector):
            _declare(db, collection, spec, embedding(spec, endpoint))
            count = _embed_missing(db, collection)
        else:
            _declare(db, collection, spec, spec)
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
        known = declared(db.definition(collection))
        if all(spec.name != name for spec in known):
            names = ", ".join(spec.name for spec in known) or "none"
            raise CollectionError(f"{collection!r} has no index {name!r}; it has {names}")
        db.collection(collection, indexes=[spec for spec in known if spec.name != name])
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
            for spec in declared(db.definition(name))
        ]
    columns = ("collection", "name", "kind", "fields", "options", "state")
    show_rows("indexes", columns, rows if kind == "json" else [in_words(row) for row in rows], kind)


def declared(definition: CollectionDef) -> list[IndexSpec]:
    """The indexes that a program declares; a definition also has those that the engine needs."""
    kinds = (Ordered, Unique, Text, Vector)
    return [spec for spec in definition.specs if isinstance(spec, kinds)]


def index_facts(spec: IndexSpec) -> dict[str, Any]:
    """The name, the kind, the fields, and the options that are not the default."""
    stored = spec.to_map()
    named: dict[str, Any] = {"name": spec.name, "kind": spec.kind}
    fields: list[str] = stored.pop("fields", None) or [stored.pop("field")]
    needed = {"dim": stored["dim"]} if isinstance(spec, Vector) else {}
    usual = type(spec)(*fields, **needed).to_map()
    options = {
        option: value
        for option, value in stored.items()
        if option not in named and (option in needed or value != usual.get(option))
    }
    return {**named, "fields": fields, "options": options}


def in_words(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an index for people."""
    options = [f"{name}={flat(value)}" for name, value in facts["options"].items()]
    return {**facts, "fields": ",".join(facts["fields"]), "options": " ".join(options)}


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


def _declare(db: Database, name: str, spec: IndexSpec, new: IndexSpec) -> None:
    """Declares an index beside the others, and builds it."""
    known = declared(db.definition(name))
    if any(each.name == spec.name and each != spec for each in known):
        raise CollectionError(
            f"{name!r} has another index {spec.name!r}: drop it first, or give --name"
        )
    with counting() as progress:
        db.collection(name, indexes=[*(each for each in known if each != spec), new])
        db.build_indexes(progress)


def _embed_missing(db: Database, name: str) -> int:
    """Embeds the documents that have text and no vector; how many."""
    with progress_bar() as bar:
        task = bar.add_task("embedded", total=None)
        return db[name].embed_missing(lambda count: bar.update(task, completed=count))
