"""The options --embed-url and --embed-model: vectors of a model that a server has.

    endpoint_of(url, model)          what is asked for vectors
    embedded(db, name, endpoint)     the collection, whose Vector indexes with a source embed
    vectors_for(at, endpoint, text)  the vectors of a question, by the fields that have such vectors

Invariants:
- The name of an index that the command line makes ends in its model, as those of the memory systems
  do: vectors of another model are refused, not compared.
"""

import os
from typing import Any

from amberdb import Collection, CollectionError, Database, QueryError, Vector
from amberdb._shared.embedder import model_of
from amberdb._shared.embedding_endpoint import EmbeddingEndpoint
from amberdb.cli.arguments import MODEL_KEY_VARIABLE


def endpoint_of(url: str | None, model: str | None) -> EmbeddingEndpoint | None:
    """The server of the two options; None without them. Raises QueryError."""
    if url is None and model is None:
        return None
    if not url or not model:
        raise QueryError("give --embed-url and --embed-model together")
    return EmbeddingEndpoint(url, model, api_key=os.environ.get(MODEL_KEY_VARIABLE))


def embedded(db: Database, name: str, endpoint: EmbeddingEndpoint) -> Collection:
    """The collection, where documents with text and no vector get one. Raises CollectionError when
    no Vector index has a source, QueryError for the vectors of another model."""
    specs = db.definition(name).specs
    with_source = [each for each in specs if isinstance(each, Vector) and each.source]
    if not with_source:
        raise CollectionError(
            f"collection {name!r} has no Vector index with a source: make one with `amberdb index "
            f"add {db.path} {name} vector embedding --source FIELD --embed-url ... "
            "--embed-model ...`"
        )
    for each in with_source:
        _check_model(each, endpoint)
    given = [embedding(each, endpoint) if each in with_source else each for each in specs]
    return db.collection(name, indexes=given)


def vectors_for(specs: list[Any], endpoint: EmbeddingEndpoint, text: str) -> dict[str, Any]:
    """By field the vector of a text. Raises QueryError."""
    found = [each for each in specs if isinstance(each, Vector) and each.source]
    if not found:
        raise QueryError("the collection has no Vector index with a source: --embed-url is for one")
    for each in found:
        _check_model(each, endpoint)
    (vector,) = endpoint([text])
    return {each.field: vector for each in found}


def embedding(spec: Vector, endpoint: EmbeddingEndpoint) -> Vector:
    """The declaration with the server as its embedder."""
    stored = {name: value for name, value in spec.to_map().items() if name != "kind"}
    return Vector(**stored, embed=endpoint)


def _check_model(spec: Vector, endpoint: EmbeddingEndpoint) -> None:
    known = model_of(spec)
    if known is not None and known != endpoint.model:
        raise QueryError(
            f"the vectors of {spec.field!r} are of the model {known!r}, not of "
            f"{endpoint.model!r}: give --embed-model {known}"
        )
