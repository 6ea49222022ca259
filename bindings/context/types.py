"""Collections of agent context, token accounting of a session, and results of changes.

    users, sessions, role_config, system_config   users, sessions, roles and settings
    main_context      "system", "working", "summary", and the "queue" of messages, by session
    recall_memory     messages that left the queue
    archival_memory   notes of the agent, for vector search
    memory_blocks     blocks of a session, of a user or of a role

Invariants:
- Every document of a session in the last four collections names the session in `session_id`.
- Documents of a session name its user and role in `user_id` and `role_name`, which never change.
  Those that earlier builds stored get these fields when the context is made, in bounded commits.
- Messages and archival memories have a position in their session; the order is by it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, cast, final

from amberdb import (
    Database,
    Document,
    IndexSpec,
    InvalidDocumentError,
    Lsn,
    Ordered,
    ReadOnlyError,
    Text,
    Unique,
)
from amberdb._shared.embedder import Embedder
from amberdb._shared.systems import prefixed

OWNER: Final = "context"
"""The owner mark of the collections."""
ID_BYTES_MAX: Final = 480
"""The longest id of a document."""

COMPLETE_MAX: Final = 1_000
"""The documents of earlier builds that one commit completes."""

USERS: Final = "users"
SESSIONS: Final = "sessions"
ROLES: Final = "role_config"
SETTINGS: Final = "system_config"
MAIN: Final = "main_context"
RECALL: Final = "recall_memory"
ARCHIVAL: Final = "archival_memory"
BLOCKS: Final = "memory_blocks"
DEPENDENT: Final = (MAIN, RECALL, ARCHIVAL, BLOCKS)
"""Collections whose documents are deleted with their session."""


@final
class Names:
    """The names of the collections of an agent context: those above, after the prefix of its
    name."""

    def __init__(self, name: str | None = None) -> None:
        self.users = prefixed(name, USERS)
        self.sessions = prefixed(name, SESSIONS)
        self.roles = prefixed(name, ROLES)
        self.settings = prefixed(name, SETTINGS)
        self.main = prefixed(name, MAIN)
        self.recall = prefixed(name, RECALL)
        self.archival = prefixed(name, ARCHIVAL)
        self.blocks = prefixed(name, BLOCKS)
        self.dependent = (self.main, self.recall, self.archival, self.blocks)


Part: TypeAlias = Literal["system", "working", "summary"]
"""The parts of the main context that come once, before the messages."""
PARTS: Final[tuple[Part, ...]] = ("system", "working", "summary")


class Summarize(Protocol):
    """Combines the last summary and the messages that are about to leave the queue, the oldest
    first, into a new summary. It may be slow and may fail: no lock is held, and after an exception
    the messages stay in the queue."""

    def __call__(self, summary: str, messages: Sequence[Document]) -> str: ...


@final
@dataclass(frozen=True, slots=True)
class Appended:
    """The result of append() and extend(); the messages are committed."""

    message_ids: Sequence[str]
    first_position: int
    token_count: int
    moved: int
    """Messages that moved to recall storage to make room."""
    overflow_error: str | None
    """Why messages could not move; the next append tries again."""


@final
@dataclass(frozen=True, slots=True)
class Deleted:
    """The receipt of a deletion: reads from `lsn` on show none of it."""

    lsn: Lsn
    """0 in a transaction of the caller, whose `lsn` it is once the transaction has ended."""
    sessions: int
    documents: int
    """Deleted documents of main context and external memory, with those that an earlier deletion
    left behind because of a crash."""


def declare(db: Database, names: Names, embedder: Embedder) -> None:
    """Declares the collections, and completes documents of earlier builds. Raises
    CollectionError."""
    db.collection(
        names.users,
        owner=OWNER,
        indexes=[
            Unique("username", sparse=True),
            Ordered("created_at"),
            Ordered("deleted_at", sparse=True),
        ],
    )
    db.collection(
        names.sessions,
        owner=OWNER,
        indexes=[
            Ordered("user_id", "role_name", "updated_at"),
            Ordered("user_id", "updated_at"),
            Ordered("deleted_at", sparse=True),
        ],
        required={"user_id": str, "role_name": str},
    )
    db.collection(names.roles, owner=OWNER)
    db.collection(names.settings, owner=OWNER)
    owned = {"session_id": str, "content": str}
    db.collection(
        names.main,
        owner=OWNER,
        indexes=[Ordered("session_id", "context_type", "position"), Text("content")],
        required=owned,
    )
    times: list[IndexSpec] = [
        Ordered("session_id", "created_at"),
        Ordered("created_at"),
        Ordered("session_id", "position"),
        Ordered("user_id", "created_at"),
        Ordered("role_name", "created_at"),
    ]
    db.collection(names.recall, owner=OWNER, indexes=[*times, Text("content")], required=owned)
    searched = [*times, Text("content")]
    embedder.declare(db, names.archival, owner=OWNER, indexes=searched, required=owned)
    db.collection(
        names.blocks,
        owner=OWNER,
        indexes=[
            Ordered("owner", "label"),
            Ordered("session_id", sparse=True),
            Ordered("user_id", sparse=True),
        ],
        required={"label": str, "value": str},
    )
    _complete(db, names)


def _complete(db: Database, names: Names) -> None:
    """Stores user and role in documents of earlier builds, which have neither. It goes from the
    last id to the first, so the first document tells whether it is done."""
    for name in (names.main, names.recall, names.archival):
        first = db[name].find({}, order_by="id", limit=1, fields=["user_id"])
        is_done, after = not first or "user_id" in first[0], None
        while not is_done:
            try:
                with db.transaction() as tx:
                    page = tx[name].find({}, order_by="-id", limit=COMPLETE_MAX, after=after)
                    for document in page:
                        if "user_id" not in document:
                            session = tx[names.sessions].get(document["session_id"]) or {}
                            owner = {key: session.get(key, "") for key in ("user_id", "role_name")}
                            tx[name].update(document["id"], owner)
            except ReadOnlyError:  # the process that writes does it
                return
            after = page.cursor
            is_done = after is None


def part_id(session_id: str, part: str) -> str:
    """The id of a part's document in the main context; ids of messages have no colon. That of a
    session whose id fills the length of an id is made of its digest, and ends otherwise."""
    id = f"{session_id}:{part}"
    if len(id.encode()) <= ID_BYTES_MAX:
        return id
    return f"{hashlib.sha256(session_id.encode()).hexdigest()}/{part}/"


def queued(session_id: str) -> dict[str, Any]:
    """The filter for the queue of a session."""
    return {"session_id": session_id, "context_type": "queue"}


def tokens_used(session: Document) -> int:
    """Tokens of the main context, with the whole queue, without memory blocks."""
    return int(sum(session[f"{part}_tokens"] for part in PARTS) + session["queue_tokens"])


def room_beside_newest(session: Document) -> int:
    """The tokens of the budget that system instructions, working context and the newest message
    leave free. Raises InvalidDocumentError when they do not fit."""
    budget = session["token_budget"]
    needed = session["system_tokens"] + session["working_tokens"] + session["newest_tokens"]
    if needed > budget:
        raise InvalidDocumentError(
            f"system instructions, working context and the newest message have {needed} tokens, "
            f"and the budget of the session is {budget}: shorten them, or call set_token_budget()",
            field="content",
        )
    return int(budget - needed)


def metadata_of(value: object) -> dict[str, Any]:
    """A copy of the metadata that a caller gave. Raises InvalidDocumentError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidDocumentError(f"metadata must be a map, not {value!r:.80}", field="metadata")
    return dict(cast(Mapping[str, Any], value))


def check_budget(token_budget: object) -> None:
    """Raises InvalidDocumentError unless it is an int above 0."""
    if type(token_budget) is not int or token_budget < 1:
        raise InvalidDocumentError(
            f"token_budget must be an int above 0, not {token_budget!r}", field="token_budget"
        )
