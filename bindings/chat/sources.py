"""Rows of other systems as turns: of a table of turns, or of messages.

    user_message, assistant_message     the row is a turn
    role, content (tool_calls ...)      the row is a message; those from one of the user up to the
                                        next one are a turn
    messages                            the row is a conversation: each of its messages is a row

Invariants:
- Turns are in the order of their times, and those of one time in the order of the source. Rows
  without a time come last.
- What a row has beside the fields of a turn is kept in its metadata.
- A turn has the id of its row if that is text, else one that depends on its content: it is the
  same in the next import, and numbers of two tables are not taken for each other.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from amberdb import Document
from amberdb._jsonl.text import dumps, iso, loads
from amberdb._shared.times import time_of
from amberdb.chat.turns import STATE, checked_messages, messages_of, tokens_of, words_of

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("id", "cid", "memory_id", "uuid"),
    "conversation_id": ("conversation_id", "conversationId", "session_id", "thread_id", "chat_id"),
    "user_id": ("user_id", "userId", "uid"),
    "created_at": ("created_at", "createdAt", "timestamp", "time", "ts"),
    "user_message": ("user_message", "question", "prompt", "query", "input"),
    "assistant_message": ("assistant_message", "answer", "response", "reply", "output"),
    "role": ("role", "sender"),
    "content": ("content", "message", "text"),
}
"""The fields of a row, and the names that they have in sources, the usual one first."""
_ROLES: Final = {"human": "user", "ai": "assistant", "bot": "assistant", "model": "assistant"}
_OF_MESSAGE: Final = ("name", "tool_calls", "tool_call_id", "function_call", "refusal")
_OF_TURN: Final = ("messages", "important", "token_count", "position")
SAID: Final = ("conversation_id", "user_id", "user_message", "assistant_message")
"""The fields that make a turn the same as another one."""
_OPENING: Final = frozenset({"system", "developer"})
_POSITION_MIN: Final = 10**14
"""Microseconds of 1973: a smaller number is not a position of this buffer."""
_ID_BYTES_MAX: Final = 480
_DIGITS_MAX: Final = 20
"""Of an id that is a number of a table."""


class Broken(NamedTuple):
    """A row that could not be read, or a turn that could not be stored."""

    source: str
    reason: str


class Row(NamedTuple):
    """A row that was read: where it is in the source, and its fields under the names of NAMES. What
    it has beside them is in `metadata`."""

    source: str
    fields: dict[str, Any]

    @property
    def is_message(self) -> bool:
        """Whether it is a part of a turn."""
        return "role" in self.fields


class Reader:
    """Reads rows of one source."""

    def __init__(
        self, columns: Mapping[str, str] | None, user_id: str | None, zone: tzinfo
    ) -> None:
        """Raises ValueError for columns of fields that there are not."""
        self._names = {**NAMES, **{field: (name,) for field, name in (columns or {}).items()}}
        if unknown := self._names.keys() - NAMES.keys():
            raise ValueError(f"columns names {sorted(unknown)}: the fields are {sorted(NAMES)}")
        self._user_id = user_id
        self._zone = zone

    def is_row(self, given: Mapping[str, Any]) -> bool:
        """Whether a map is a turn, a message or a conversation."""
        return (
            self._has(given, "user_message")
            or self._has(given, "assistant_message")
            or self._has(given, "role")
            or isinstance(given.get("messages"), list)
        )

    def expanded(self, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The row, or the messages of a row that is a conversation."""
        messages = given.get("messages")
        if not isinstance(messages, list) or self._is_turn(given):
            yield given
            return
        shared = {
            name: given[name]
            for field in ("conversation_id", "user_id", "created_at")
            for name in self._names[field]
            if name in given
        }
        for message in cast(list[object], messages):
            yield {**shared, **cast(Mapping[str, Any], message)} if _is_map(message) else {}

    def read(self, source: str, given: Mapping[str, Any]) -> Row:
        """Raises ValueError."""
        left = {name: value for name, value in given.items() if name not in STATE}
        fields: dict[str, Any] = {}
        for field in NAMES:
            if field == "role" and ("user_message" in fields or "assistant_message" in fields):
                break
            self._take(field, left, fields)
        if not fields.keys() & {"user_message", "assistant_message", "role"} and not (
            self._is_turn(given) and given.get("messages")
        ):
            raise ValueError(f"it has neither a message nor a role: {sorted(given)}")
        if not isinstance(fields.get("role", ""), str):
            raise ValueError(f"role must be a text, not {fields['role']!r:.80}")
        fields.setdefault("user_id", self._user_id)
        for name in ("conversation_id", "user_id"):
            fields[name] = _id(name, fields.get(name))
        if "created_at" in fields:
            fields["created_at"] = time_of("created_at", fields["created_at"], self._zone)
        for name in _OF_MESSAGE if "role" in fields else _OF_TURN:
            if left.get(name) not in (None, ""):
                fields[name] = _parsed(left.pop(name))
        fields["metadata"] = _metadata(left)
        return Row(source, fields)

    def _is_turn(self, given: Mapping[str, Any]) -> bool:
        names = {*self._names["user_message"], *self._names["assistant_message"]}
        return not names.isdisjoint(given)

    def _has(self, given: Mapping[str, Any], field: str) -> bool:
        return any(given.get(name) not in (None, "") for name in self._names[field])

    def _take(self, field: str, left: dict[str, Any], fields: dict[str, Any]) -> None:
        for name in self._names[field]:
            if (value := left.pop(name, None)) not in (None, ""):
                fields[field] = value
                return


# -- turns ---------------------------------------------------------------------------------------


def turns_of(
    rows: Iterable[Row], untimed: datetime, count: Callable[[str], int], broken: list[Broken]
) -> Iterator[tuple[str, Document]]:
    """Turns, each with the source of its first row. Rows without a time have the time `untimed`."""
    repeated: dict[str, int] = {}
    for group in _grouped(sorted(rows, key=lambda row: row.fields.get("created_at", untimed))):
        source = group[0].source
        try:
            yield source, _turn(group, untimed, count, repeated)
        except (TypeError, ValueError) as error:
            broken.append(Broken(source, str(error)))


def _grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each turn."""
    groups: list[list[Row]] = []
    opened: dict[str, list[Row]] = {}
    for row in rows:
        if not row.is_message:
            groups.append([row])
            continue
        conversation_id = row.fields["conversation_id"]
        group = opened.get(conversation_id)
        if group is None or (_role(row) == "user" and not all(map(_is_opening, group))):
            group = list[Row]()
            opened[conversation_id] = group
            groups.append(group)
        group.append(row)
    return groups


def _turn(
    group: list[Row], untimed: datetime, count: Callable[[str], int], repeated: dict[str, int]
) -> Document:
    first = group[0].fields
    turn: Document = {
        "conversation_id": first["conversation_id"],
        "user_id": first["user_id"],
        "user_message": _words(first.get("user_message")),
        "assistant_message": _words(first.get("assistant_message")),
        "important": bool(first.get("important", False)),
        "metadata": first["metadata"],
        "created_at": first.get("created_at", untimed),
    }
    if group[0].is_message:
        messages = [_message(row) for row in group]
        turn["user_message"] = words_of(messages, "user")
        turn["assistant_message"] = words_of(messages, "assistant")
        if messages_of(turn) != messages:
            turn["messages"] = messages
        for row in group[1:]:
            turn["metadata"] = row.fields["metadata"] | turn["metadata"]
    elif first.get("messages"):
        turn["messages"] = checked_messages(first["messages"])
    tokens = first.get("token_count")
    turn["token_count"] = tokens if type(tokens) is int else tokens_of(messages_of(turn), count)
    position = first.get("position")
    if type(position) is int and position >= _POSITION_MIN:
        turn["position"] = position
    turn["id"] = _turn_id(first, turn, repeated)
    return turn


def _turn_id(first: Mapping[str, Any], turn: Document, repeated: dict[str, int]) -> str:
    id = None if first.get("id") is None else str(first["id"])
    if id is not None and not (id.isdigit() and len(id) <= _DIGITS_MAX):
        is_short = len(id.encode("utf-8", "replace")) <= _ID_BYTES_MAX
        return id if is_short else hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()
    time = first.get("created_at")
    content = dumps([id, time and iso(time), *(turn[name] for name in SAID)])
    if time is None:  # two equal turns may be two
        repeated[content] = repeated.get(content, 0) + 1
        content += f"{repeated[content]}"
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _message(row: Row) -> Document:
    message = {"role": _role(row), "content": row.fields.get("content")}
    return message | {name: row.fields[name] for name in _OF_MESSAGE if name in row.fields}


def _role(row: Row) -> str:
    role: str = row.fields["role"]
    return _ROLES.get(role, role)


def _is_opening(row: Row) -> bool:
    return _role(row) in _OPENING


# -- values --------------------------------------------------------------------------------------


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def _id(name: str, value: object) -> str:
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text, not {value!r}: name its column in columns=")
    return value


def _words(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dumps(value)


def _parsed(value: Any) -> Any:
    """The value of a JSON text, as tables hold lists and maps."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return loads(value)
    return value


def _metadata(left: dict[str, Any]) -> Document:
    given = _parsed(left.pop("metadata", None))
    metadata: Document = {
        name: f"{value}" if isinstance(value, UUID | Decimal) else value
        for name, value in left.items()
        if value is not None
    }
    if isinstance(given, Mapping):
        return {**metadata, **cast(Mapping[str, Any], given)}
    return metadata if given in (None, "") else {**metadata, "metadata": given}
