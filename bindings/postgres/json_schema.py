"""Schemas of collections whose documents are stored as JSON text.

Invariants:
- The body of a stored document is the value of its jsonb column, or what the codec has encoded:
  a document that the transaction has written, or one with the places of its vectors.
"""

from typing import final

from amberdb.engine.schema.schema import Schema
from amberdb.postgres.json_text import loads


@final
class JsonSchema(Schema):
    """The schema of a collection on a server."""

    __slots__ = ()

    decode = staticmethod(loads)
