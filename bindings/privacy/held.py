"""What the memory systems of a database hold of somebody: filters for each collection.

    memory    memories and log entries of the entity
    chat      turns of the user, hot and flushed to a collection
    context   the user by id or by username, their sessions and all that is in these
    events    events of these sessions, and those whose metadata has the user's id
    graph     the entity of this name or alias, and its relations
    profiles  the profile of the user, and its log

Invariants:
- Collections are found in the catalog, by the mark of the system that declared them, under any
  name that the system was given.
- Every filter is answered by an index.
- Nothing is left out in silence: a collection of a system that has no mark yet is an error.
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from amberdb import CollectionDef, CollectionError, Database, Snapshot, Where
from amberdb._shared.checks import check_name
from amberdb._shared.queries import all_pages

Held: TypeAlias = dict[str, list[Where]]
"""By collection the filters of what is somebody's: all that any of them matches."""

_AGE_MAX_MS: Final = 86_400_000


def held(db: Database, entity_id: str, *, also: Mapping[str, Where] | None = None) -> Held:
    """By collection filters for all documents of a person or an agent. `also` has filters for
    collections of the program. Raises InvalidDocumentError, CollectionMissingError, and
    CollectionError for a collection of a system that has no mark yet."""
    check_name("entity_id", entity_id)
    definitions = {name: db.definition(name) for name in db.collections()}
    for name, definition in definitions.items():
        if name not in (also or {}) and _lacks_its_mark(definition):
            raise CollectionError(
                f"collection {name!r} seems to be one of a memory system, made by an earlier "
                "version: open that system once, which marks it; if it is the program's own, give "
                "a filter for it in also="
            )
    owners = {name: definition.owner for name, definition in definitions.items()}
    found: Held = {}
    with db.snapshot(max_age_ms=_AGE_MAX_MS) as at:
        somebody = _somebody(at, owners, entity_id)
        for name, owner in owners.items():
            wheres = _WHERES.get((owner or "", _kind(name)), _WHERES.get((owner or "", "")))
            if wheres is not None:
                found[name] = wheres(somebody)
    return {**found, **{name: [where] for name, where in (also or {}).items()}}


_FIELDS: Final[Mapping[str, str]] = {
    "profile": "memory_type",
    "event": "memory_type",
    "log": "memory_id",
    "chat": "conversation_id",
    "users": "username",
    "sessions": "role_name",
    "main_context": "context_type",
    "recall_memory": "session_id",
    "archival_memory": "session_id",
    "agent_event": "event_type",
    "entities": "entity_type",
    "relations": "relation_type",
    "user_memories": "conversation_count",
}
"""A field that the systems of earlier versions have declared, by kind of collection."""


def _lacks_its_mark(definition: CollectionDef) -> bool:
    if definition.owner is not None:
        return False
    declared = {*definition.required}
    for spec in definition.specs:
        declared.update(getattr(spec, "fields", ()))
    names = (definition.name, definition.name.rpartition("_")[2])
    return any(_FIELDS.get(name) in declared for name in names)


class Somebody(NamedTuple):
    """A person by the names that the systems have for them."""

    id: str
    users: list[str]
    """Ids of users of the agent context: `id`, and those whose username it is."""
    sessions: list[str]
    """Their sessions."""
    entities: list[str]
    """Entities of graphs: `id`, and those that have it as an alias."""


def _somebody(at: Snapshot, owners: Mapping[str, str | None], id: str) -> Somebody:
    def ids(owner: str, kind: str, where: Where) -> list[str]:
        names = [name for name in owners if owners[name] == owner and _kind(name) == kind]
        found = (all_pages(at[name].find, where, fields=["id"]) for name in names)
        return [document["id"] for document in chain.from_iterable(found)]

    users = [id, *ids("context", "users", {"username": id})]
    return Somebody(
        id,
        users,
        ids("context", "sessions", {"user_id": {"$in": users}}),
        [id, *ids("graph", "entities", {"aliases": id})],
    )


def _kind(name: str) -> str:
    """What a collection holds: its name, without the prefix that its system was given."""
    kinds = (kind for _, kind in _WHERES if name == kind or name.endswith(f"_{kind}"))
    return max(kinds, key=len, default="")


def _of_entity(who: Somebody) -> list[Where]:
    return [{"memory_type": kind, "entity_id": who.id} for kind in ("user", "agent")]


def _of_user(who: Somebody) -> list[Where]:
    return [{"user_id": who.id}]


def _of_session(who: Somebody) -> list[Where]:
    return [{"session_id": {"$in": who.sessions}}]


_WHERES: Final[Mapping[tuple[str, str], Callable[[Somebody], list[Where]]]] = {
    ("memory", ""): _of_entity,
    ("chat", ""): _of_user,
    ("context", "users"): lambda who: [{"id": {"$in": who.users}}],
    ("context", "sessions"): lambda who: [{"id": {"$in": who.sessions}}],
    ("context", "main_context"): _of_session,
    ("context", "recall_memory"): _of_session,
    ("context", "archival_memory"): _of_session,
    ("context", "memory_blocks"): lambda who: [
        {"user_id": {"$in": who.users}},
        {"session_id": {"$in": who.sessions}},
    ],
    ("events", ""): lambda who: [*_of_session(who), {"metadata.user_id": who.id}],
    ("graph", "entities"): lambda who: [{"id": {"$in": who.entities}}],
    ("graph", "relations"): lambda who: [
        {"source": {"$in": who.entities}},
        {"target": {"$in": who.entities}},
    ],
    ("profiles", ""): lambda who: [{"id": who.id}],
    ("profiles", "log"): _of_user,
}
"""By owner and kind of a collection, "" for any other kind of the owner."""
