"""Turns: the documents of a conversation, each a question and its answer, or messages as model APIs
give them.

    user_message, assistant_message   the words of a turn, which search() finds
    messages                          of a turn that was saved as messages: as they were given
    position                          its place in the conversation

Invariants:
- A turn that another program stored, with fields missing, is read with defaults.
- The messages of one turn stay together, so a tool call is never parted from its result.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, final

from amberdb import Document, InvalidDocumentError
from amberdb._jsonl.text import dumps
from amberdb._shared.checks import check_name

STATE: Final = frozenset(
    {"retry_at", "attempts", "refusals", "error", "set_aside_at", "flushed_at", "expires_at"}
)
"""Fields of the buffer's own; the sink gets a turn without them."""


@final
class Turns(list[Document]):
    """The result of load_recent_context() and search(): a list.

    is_complete  False when the sink was needed and did not answer: the turns are those of the hot
                 tier
    error        what the sink raised, or None
    """

    def __init__(self, turns: Iterable[Document] = (), error: str | None = None) -> None:
        super().__init__(turns)
        self.error = error

    @property
    def is_complete(self) -> bool:
        """Whether both tiers were read where both were needed."""
        return self.error is None


def place(turn: Mapping[str, Any]) -> int:
    """The place of a turn in its conversation: its position; for one that has none the
    microseconds of its time, of which positions are made."""
    position = turn.get("position")
    if isinstance(position, int):
        return position
    time = turn.get("created_at")
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError:
            return 0
    if not isinstance(time, datetime):
        return 0
    return microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))


def id_of(turn: Mapping[str, Any]) -> str:
    """The id of a turn; of one that another program gave to a sink without an id, its place."""
    return str(turn.get("id") or turn.get("cid") or f"place {place(turn)}")


def time_of(turn: Mapping[str, Any]) -> datetime:
    """When a turn was said; for one without a time, by its place."""
    time = turn.get("created_at")
    if isinstance(time, datetime) and time.tzinfo:
        return time
    return datetime.fromtimestamp(place(turn) / 1_000_000, UTC)


def microseconds(time: datetime) -> int:
    """The position of a turn of this time, when no other turn is there."""
    return max(0, int(time.timestamp() * 1_000_000))


def newest(turns: Iterable[Document], limit: int) -> list[Document]:
    """The last turns, the newest first."""
    return sorted(turns, key=place, reverse=True)[:limit]


def sent(turn: Document) -> Document:
    """A turn as a sink gets it."""
    return {name: turn[name] for name in turn if name not in STATE}


# -- messages ------------------------------------------------------------------------------------


def checked_messages(messages: object) -> list[Document]:
    """Copies of messages. Raises InvalidDocumentError."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidDocumentError(
            f"messages must be a list of maps with a role, not {messages!r}", field="messages"
        )
    checked: list[Document] = []
    for message in cast(Sequence[object], messages):
        if not isinstance(message, Mapping):
            raise InvalidDocumentError(
                f"a message must be a map, not {message!r}", field="messages"
            )
        fields = dict(cast(Mapping[str, Any], message))
        check_name("messages.role", fields.get("role"))
        checked.append(fields)
    return checked


def messages_of(turn: Mapping[str, Any]) -> list[Document]:
    """The messages of a turn, for a model API."""
    if turn.get("messages"):
        return list(turn["messages"])
    words = {"user": turn.get("user_message"), "assistant": turn.get("assistant_message")}
    return [{"role": role, "content": text} for role, text in words.items() if text]


def words_of(messages: Iterable[Document], role: str) -> str:
    """The text of all messages of this role."""
    texts = (_text(message.get("content")) for message in messages if message["role"] == role)
    return "\n".join(text for text in texts if text)


def tokens_of(messages: Iterable[Document], count: Callable[[str], int]) -> int:
    """Tokens of messages: of their texts, tool calls and other parts."""
    total = 0
    for message in messages:
        more = {name: message[name] for name in message if name not in ("role", "content")}
        content = message.get("content")
        text = content if isinstance(content, str) else _json(content) if content else ""
        total += count(text) + (count(_json(more)) if more else 0)
    return total


def within(
    turns: Sequence[Document], max_tokens: int, count: Callable[[str], int]
) -> list[Document]:
    """As many turns as fit, from the first on; one that does not fit ends it, so none is left out
    in between."""
    fitting: list[Document] = []
    for turn in turns:
        tokens = turn.get("token_count")
        max_tokens -= tokens if isinstance(tokens, int) else tokens_of(messages_of(turn), count)
        if max_tokens < 0:
            break
        fitting.append(turn)
    return fitting


def _json(value: object) -> str:
    try:
        return dumps(value)
    except (TypeError, ValueError):  # the document is refused, with its field
        return ""


def _text(content: object) -> str:
    """The text of a content, which is a text, None, or parts of which some have a text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = cast(Sequence[object], content)
    texts = (
        cast(Mapping[str, Any], part).get("text") for part in parts if isinstance(part, Mapping)
    )
    return "\n".join(text for text in texts if isinstance(text, str))
