"""Collections of agent context, token accounting of a session, and results of changes.

    users, sessions, role_config, system_config   users, sessions, roles and settings
    main_context      "system", "working", "summary", and the "queue" of messages, by session
    recall_memory     messages that left the queue
    archival_memory   notes of the agent, for vector search

Invariants:
- Every document of a session in the last three collections names the session in `session_id`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, final

from amberdb import (
    Database,
    Document,
    Embed,
    InvalidDocumentError,
    Lsn,
    Ordered,
    Text,
    Unique,
    Vector,
)
from amberdb._shared.checks import check_embedder

USERS: Final = "users"
SESSIONS: Final = "sessions"
ROLES: Final = "role_config"
SETTINGS: Final = "system_config"
MAIN: Final = "main_context"
RECALL: Final = "recall_memory"
ARCHIVAL: Final = "archival_memory"
DEPENDENT: Final = (MAIN, RECALL, ARCHIVAL)
"""Collections whose documents are deleted with their session."""

Part: TypeAlias = Literal["system", "working", "summary"]
"""The parts of the main context that come once, before the messages."""
PARTS: Final[tuple[Part, ...]] = ("system", "working", "summary")

Message: TypeAlias = Mapping[str, Any]
"""A message in the form of a model call: role, content, and name, tool_calls or tool_call_id."""


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
    sessions: int
    documents: int
    """Deleted documents of main context and external memory, with those that an earlier deletion
    left behind because of a crash."""


def declare(db: Database, embed: Embed | None, dim: int | None) -> None:
    """Declares the collections. Raises CollectionError."""
    check_embedder(embed, dim)
    db.collection(
        USERS,
        indexes=[
            Unique("username", sparse=True),
            Ordered("created_at"),
            Ordered("deleted_at", sparse=True),
        ],
    )
    db.collection(
        SESSIONS,
        indexes=[
            Ordered("user_id", "role_name", "updated_at"),
            Ordered("user_id", "updated_at"),
            Ordered("deleted_at", sparse=True),
        ],
        required={"user_id": str, "role_name": str},
    )
    db.collection(ROLES)
    db.collection(SETTINGS)
    owned = {"session_id": str, "content": str}
    db.collection(MAIN, indexes=[Ordered("session_id", "context_type", "position")], required=owned)
    times = [Ordered("session_id", "created_at"), Ordered("created_at")]
    db.collection(RECALL, indexes=[*times, Text("content")], required=owned)
    searched: list[Text | Vector] = [Text("content")]
    if dim is not None:
        searched.append(Vector("embedding", dim=dim, source="content", embed=embed, defer=True))
    db.collection(ARCHIVAL, indexes=[*times, *searched], required=owned)


def part_id(session_id: str, part: Part) -> str:
    """The id of a part's document in the main context; ids of messages have no colon."""
    return f"{session_id}:{part}"


def tokens_used(session: Document) -> int:
    """Tokens of the main context, with the whole queue."""
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


def check_budget(token_budget: object) -> None:
    """Raises InvalidDocumentError unless it is an int above 0."""
    if type(token_budget) is not int or token_budget < 1:
        raise InvalidDocumentError(
            f"token_budget must be an int above 0, not {token_budget!r}", field="token_budget"
        )
