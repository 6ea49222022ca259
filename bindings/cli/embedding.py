"""The options --embed-url and --embed-model: vectors of a model that a server has.

    endpoint_of(url, model)          what is asked for vectors
    embedded(db, name, endpoint)     the collection, whose Vector indexes with a source embed
    vectors_for(at, endpoint, text)  the vectors of a question, by the fields that have such vectors

Invariants:
- The name of an index that the command line makes ends in its model, as those of the memory systems
  do: vectors of another model are refused, not compared.
"""

import os
from collections.abc import Sequence
from typing import Any

from amberdb import Collection, Database, IndexSpec, QueryError, Vector
from amberdb._shared.embedder import model_of
from amberdb._shared.embedding_endpoint import EmbeddingEndpoint
from amberdb.cli.arguments import MODEL_KEY_VARIABLE
from amberdb.cli.verb import say


def endpoint_of(url: str | None, model: str | None) -> EmbeddingEndpoint | None:
    """The server of the two options; None without them. Raises QueryError."""
    if url is None and model is None:
        return None
    if not url or not model:
        raise QueryError("give --embed-url and --embed-model together")
    return EmbeddingEndpoint(url, model, api_key=os.environ.get(MODEL_KEY_VARIABLE))


def embedded(db: Database, name: str, endpoint: EmbeddingEndpoint) -> Collection:
    """The collection, where documents with text and no vector get one. Raises QueryError for the
    vectors of another model."""
    specs = db.definition(name).specs
    with_source = _with_source(specs, endpoint)
    if not with_source:
        say(
            f"warning: no vectors are made: {name!r} has no Vector index with a source (`amberdb "
            f"index add {db.path} {name} vector embedding --source FIELD`)"
        )
    given = [embedding(each, endpoint) if each in with_source else each for each in specs]
    return db.collection(name, indexes=given)


def vectors_for(
    specs: Sequence[IndexSpec], endpoint: EmbeddingEndpoint, text: str
) -> dict[str, Any]:
    """By field the vector of a text; empty without a Vector index that has a source. Raises
    QueryError for the vectors of another model."""
    fields = [each.field for each in _with_source(specs, endpoint)]
    return dict.fromkeys(fields, endpoint([text])[0]) if fields else {}


def embedding(spec: Vector, endpoint: EmbeddingEndpoint) -> Vector:
    """The declaration with the server as its embedder."""
    stored = {name: value for name, value in spec.to_map().items() if name != "kind"}
    return Vector(**stored, embed=endpoint)


def _with_source(specs: Sequence[IndexSpec], endpoint: EmbeddingEndpoint) -> list[Vector]:
    """The indexes whose vectors the model makes. Raises QueryError when another one made them."""
    found = [each for each in specs if isinstance(each, Vector) and each.source]
    for spec in found:
        known = model_of(spec)
        if known is not None and known != endpoint.model:
            raise QueryError(
                f"the vectors of {spec.field!r} are of the model {known!r}, not of "
                f"{endpoint.model!r}: give --embed-model {known}"
            )
    return found
