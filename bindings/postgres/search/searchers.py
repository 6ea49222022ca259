"""The searchers of a database on a server.

Invariants:
- What a search means is the engine's: its query, filter, fusion, pages and snippets. Here an index
  says which of its rows are the best.
- A searcher keeps nothing: what it finds is in the view.
"""

from typing import final

from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.search_index import RowIndex
from amberdb.engine.search.searcher import Searcher


@final
class PostgresSearchers:
    """The searchers of all indexes; a SearcherSource."""

    kept_rows = None

    def of(self, index: RowIndex, schema: Schema) -> Searcher:
        """The searcher of an index."""
        if index.is_text:
            from amberdb.postgres.search.text_searcher import TextSearcher  # imports numpy

            return TextSearcher(index)
        from amberdb.postgres.search.vector_searcher import VectorSearcher

        return VectorSearcher(index)
