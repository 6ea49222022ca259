"""Databases on a server that are audited when a test leaves them.

Invariants:
- Leaving `audited_url` runs check() on every database that was made there, and asserts that it
  found nothing; a test that has failed already keeps its own error.
"""

from collections.abc import Generator
from contextlib import contextmanager

import amberdb
from support.databases import assert_sound
from support.servers import PostgreSQL

_SCHEMAS = "SELECT schemaname FROM pg_tables WHERE tablename = 'fence'"


@contextmanager
def audited_url(server: PostgreSQL, *extensions: str) -> Generator[str]:
    """The URL of a new database of the server with these extensions, for amberdb.connect()."""
    name = server.new_database(*extensions)
    url = server.url("postgresql", name)
    yield url
    for schema in server.execute(_SCHEMAS, name).split():
        with amberdb.connect(f"{url}?schema={schema}", create=False, background=False) as db:
            assert_sound(db)
