"""A get: one document, in one statement that brings along the version of the catalog.

Invariants:
- What depends on the catalog is answered by the one that there was when the statement ran.
"""

from amberdb._errors import AmberError
from amberdb._types import Document
from amberdb.engine.schema.documents import encode_id
from amberdb.postgres.catalogue import Catalogues
from amberdb.postgres.connections import Connections
from amberdb.postgres.statement.view import NotAtOnce


def get_at_once(
    connections: Connections, catalogues: Catalogues, collection: str, id: str
) -> Document | None:
    """The document with an id, unless it has expired. Raises NotAtOnce, also where there is an
    error, and CorruptionError."""
    catalogue = catalogues.known.catalogue
    schema = catalogue.catalog.schemas.get(collection)
    if schema is None:
        raise NotAtOnce
    table = catalogue.table(schema)
    try:
        (row,) = connections.read(table.get, [encode_id(id)])
    except AmberError:
        raise NotAtOnce from None
    version, now_us, expires_us, body, *beside = row
    if version != catalogue.version:
        raise NotAtOnce
    if body is None or expires_us <= catalogues.now_us(now_us):
        return None
    return table.whole(body, beside)
