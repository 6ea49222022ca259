"""The embedder of a server: a function of the user, or a model behind --embed-url.

Invariants:
- The name of the embedder is that of its model unless --embed-name gives another: the memory
  systems make vectors anew when it changes.
"""

from typing import TypedDict

from amberdb import Embed, QueryError
from amberdb.cli.embedding import endpoint_of
from amberdb.cli.plugins import loaded


class Embedding(TypedDict):
    """Options of the memory systems."""

    embed: Embed | None
    dim: int | None
    model: str | None


def embedder_of(
    function: str | None, url: str | None, url_model: str | None, dim: int | None, name: str | None
) -> Embedding:
    """The embedder of the options --embed, --embed-url, --embed-model, --dim and --embed-name.
    Raises QueryError; EmbeddingError when the length of the vectors has to be asked for."""
    endpoint = endpoint_of(url, url_model)
    if endpoint is None:
        if (function is None) != (dim is None):
            raise QueryError("give --embed and --dim together")
        embed = None if function is None else loaded("--embed", function)
        return {"embed": embed, "dim": dim, "model": name}
    if function is not None:
        raise QueryError("give --embed or --embed-url, and not both")
    dim = endpoint.dim() if dim is None else dim
    return {"embed": endpoint, "dim": dim, "model": name or endpoint.model}
