"""What the memory systems of a database hold of somebody: a filter for each collection.

    memory    memories and log entries of the entity
    chat      turns of the user, hot and flushed to a collection
    context   the user by id or by username, their sessions and all that is in these
    events    events of these sessions, and those whose metadata has the user's id
    graph     the entity of this name, and its relations
    profiles  the profile of the user

Invariants:
- Collections are found in the catalog, by the mark of the system that declared them, under any
  name that the system was given.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from amberdb import Database, QueryError, Snapshot, Where

Held: TypeAlias = dict[str, dict[str, Any]]
"""By collection the filter of what is somebody's."""

_AGE_MAX_MS: Final = 86_400_000


def held(db: Database, entity_id: str, *, also: Mapping[str, Where] | None = None) -> Held:
    """By collection a filter for all documents of a person or an agent. `also` has filters for
    collections of the program. Raises QueryError, CollectionMissingError."""
    if not isinstance(entity_id, str) or not entity_id:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise QueryError(f"entity_id must be a non-empty str, not {entity_id!r}")
    by_owner: dict[str, list[str]] = {}
    for name in db.collections():
        by_owner.setdefault(db.definition(name).owner or "", []).append(name)
    found: Held = {}
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        sessions = _sessions(at, by_owner.get("context", ()), entity_id)
        for owner, names in by_owner.items():
            where_of = _WHERES.get(owner)
            if where_of is None:
                continue
            wheres = {name: where_of(_kind(name), entity_id, sessions) for name in names}
            found |= {name: where for name, where in wheres.items() if where is not None}
    return {**found, **{name: dict(where) for name, where in (also or {}).items()}}


_KINDS: Final = (
    *("profile", "event", "log", "chat", "users", "sessions", "main_context"),
    *("recall_memory", "archival_memory", "entities", "relations"),
)


def _kind(name: str) -> str:
    """What a collection holds: its name, without the prefix that its system was given."""
    kinds = (kind for kind in _KINDS if name == kind or name.endswith(f"_{kind}"))
    return max(kinds, key=len, default="")


def _sessions(at: Snapshot, names: Sequence[str], entity_id: str) -> list[str]:
    """The ids of the sessions of a user, who is named by id or by username."""
    users = {entity_id}
    for name in names:
        if _kind(name) == "users":
            users |= {user["id"] for user in at[name].find({"username": entity_id})}
    return sorted(
        session["id"]
        for name in names
        if _kind(name) == "sessions"
        for session in at[name].find({"user_id": {"$in": sorted(users)}}, fields=["id"])
    )


_Wheres: TypeAlias = Callable[[str, str, Sequence[str]], dict[str, Any] | None]


def _of_memory(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any]:
    return {"memory_type": {"$in": ["agent", "user"]}, "entity_id": id}


def _of_chat(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any]:
    return {"user_id": id}


def _of_context(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any] | None:
    if kind == "users":
        return {"$or": [{"id": id}, {"username": id}]}
    if kind == "sessions":
        return {"id": {"$in": list(sessions)}}
    if kind in ("main_context", "recall_memory", "archival_memory"):
        return {"session_id": {"$in": list(sessions)}}
    return None  # roles and settings are nobody's


def _of_events(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any]:
    return {"$or": [{"session_id": {"$in": list(sessions)}}, {"metadata.user_id": id}]}


def _of_graph(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any]:
    if kind == "entities":
        return {"id": id}
    return {"$or": [{"source": id}, {"target": id}]}


def _of_profiles(kind: str, id: str, sessions: Sequence[str]) -> dict[str, Any]:
    return {"id": id}


_WHERES: Final[Mapping[str, _Wheres]] = {
    "memory": _of_memory,
    "chat": _of_chat,
    "context": _of_context,
    "events": _of_events,
    "graph": _of_graph,
    "profiles": _of_profiles,
}
