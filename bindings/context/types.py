"""What agent context is made of: its collections, and what is told of changes.

    users, sessions, role_config, system_config   who, as whom, and how
    main_context      "system", "working", "summary", and the "queue" of messages, by session
    recall_memory     messages that left the queue
    archival_memory   what was put by for good, found by meaning

Invariants:
- What a session holds in `main_context` and in external memory names it in `session_id`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias, final

from amberdb import (
    CollectionError,
    Database,
    Document,
    InvalidDocumentError,
    Lsn,
    Ordered,
    Text,
    Unique,
    Vector,
)
from amberdb.index.vector.vector import Embed

USERS: Final = "users"
SESSIONS: Final = "sessions"
ROLES: Final = "role_config"
SETTINGS: Final = "system_config"
MAIN: Final = "main_context"
RECALL: Final = "recall_memory"
ARCHIVAL: Final = "archival_memory"
HANGING: Final = (MAIN, RECALL, ARCHIVAL)
"""What goes with a session."""

Part: TypeAlias = Literal["system", "working", "summary"]
"""Of the main context: what stands once, before the messages."""
PARTS: Final[tuple[Part, ...]] = ("system", "working", "summary")

Message: TypeAlias = Mapping[str, Any]
"""As a model is sent it: role, content, and what else it takes (name, tool_calls, tool_call_id)."""


class Summarize(Protocol):
    """Makes one summary of the last one and of the messages that are about to leave the queue, the
    oldest first. It may take its time and may fail: nothing is locked, and the messages stay."""

    def __call__(self, summary: str, messages: Sequence[Document]) -> str: ...


@final
@dataclass(frozen=True, slots=True)
class Appended:
    """What append() and extend() tell: the messages are kept."""

    message_ids: Sequence[str]
    first_position: int
    token_count: int
    moved: int
    """Messages that left the queue for recall storage, to make room."""
    overflow_error: str | None
    """Why they did not; it is tried again at the next append."""


@final
@dataclass(frozen=True, slots=True)
class Deleted:
    """The receipt of a deletion: from `lsn` on nobody sees any of it."""

    lsn: Lsn
    sessions: int
    documents: int
    """Of main context and external memory; with what earlier deletions had to leave, if there was
    something."""


def declare(db: Database, embed: Embed | None, dim: int | None) -> None:
    """The collections. Raises CollectionError."""
    if (embed is None) != (dim is None):
        raise CollectionError("embed and dim come together: how long are its vectors?")
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
    """Of its document in the main context; messages have ids without a colon."""
    return f"{session_id}:{part}"


def tokens_used(session: Document) -> int:
    """Of the main context, the whole queue included."""
    return int(sum(session[f"{part}_tokens"] for part in PARTS) + session["queue_tokens"])


def room_beside_newest(session: Document) -> int:
    """What system instructions, working context and the newest message leave of the budget, in
    tokens. Raises InvalidDocumentError when they do not fit."""
    budget = session["token_budget"]
    needed = session["system_tokens"] + session["working_tokens"] + session["newest_tokens"]
    if needed > budget:
        raise InvalidDocumentError(
            f"system instructions, working context and the newest message have {needed} tokens, "
            f"and the budget of the session is {budget}: shorten them, or set_token_budget()",
            field="content",
        )
    return int(budget - needed)


def check_budget(token_budget: object) -> None:
    """Raises InvalidDocumentError."""
    if type(token_budget) is not int or token_budget < 1:
        raise InvalidDocumentError(
            f"token_budget is a count of tokens, not {token_budget!r}", field="token_budget"
        )
