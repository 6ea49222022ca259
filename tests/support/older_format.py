"""Databases as a program writes them that knows only format 1: what this one has to open.

Format 1 has all keyspaces in LMDB's unnamed tree, whole documents, and 1 in MANIFEST. tests/golden
has files that such a program really wrote; a test compares.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from amberdb.engine.commit import recovery
from amberdb.engine.schema import catalog
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.storage import manifest
from amberdb.engine.storage.store_writer import StoreWriter


@contextmanager
def older_format() -> Generator[None]:
    """For one block, what is opened is written in format 1."""

    def unnamed(self: StoreWriter, prefix: bytes) -> Any:
        return None

    def whole(definition: CollectionDef, next_keyspace: int, split_from: int) -> Any:
        return definition, next_keyspace

    with ExitStack() as stack:
        for module in (manifest, recovery):
            stack.enter_context(patch.object(module, "FORMAT_VERSION", 1))
        stack.enter_context(patch.object(StoreWriter, "_tree_of", unnamed))
        stack.enter_context(patch.object(catalog, "with_vectors", whole))
        yield
