"""What a database holds of somebody, for an event loop: docs/aio.md."""

import os
from collections.abc import Mapping

from amberdb import Document, Erasure, Where
from amberdb.aio.database import Database
from amberdb.privacy import subject


async def export(
    db: Database, entity_id: str, *, also: Mapping[str, Where] | None = None
) -> dict[str, list[Document]]:
    """As amberdb.privacy.export()."""
    return await db.in_thread(subject.export, db.blocking, entity_id, also=also)


async def export_json(
    db: Database,
    entity_id: str,
    path: str | os.PathLike[str],
    *,
    also: Mapping[str, Where] | None = None,
) -> int:
    """As amberdb.privacy.export_json()."""
    return await db.in_thread(subject.export_json, db.blocking, entity_id, path, also=also)


async def forget(
    db: Database, entity_id: str, *, reason: str, also: Mapping[str, Where] | None = None
) -> Erasure:
    """As amberdb.privacy.forget()."""
    return await db.in_thread(subject.forget, db.blocking, entity_id, reason=reason, also=also)


async def is_held(db: Database, entity_id: str) -> bool:
    """Whether export() would give anything."""
    return await db.in_thread(subject.is_held, db.blocking, entity_id)
