"""Messages in the forms of model APIs, and the documents that hold them.

    Chat Completions   role, content (a text, parts or None), name, tool_calls, tool_call_id
    Responses          items with a type, some without a role: function_call, function_call_output
    Anthropic          content of blocks: text, image, tool_use, tool_result
    Gemini             role and parts: text, functionCall, functionResponse

Invariants:
- message_of(document_of(message)) equals the message without its `metadata`, which is for the
  program alone. Objects of an SDK are taken as the maps of their model_dump().
- `content` of a document is the text of the message, for search and summaries. Content that is not
  a text is in `message`, with the other fields.
- An answer of a tool is never shown without its call: models refuse it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias, cast

from amberdb import Document, InvalidDocumentError
from amberdb._jsonl.text import dumps
from amberdb._shared.checks import check_name
from amberdb.context.types import metadata_of

Message: TypeAlias = Mapping[str, Any]
"""A message in the form of a model API: role, content, and name, tool_calls, tool_call_id ..."""

MEDIA_TOKENS: Final = 1_000
"""What an image, a sound or a file within a message counts: their encoded bytes are no text."""
_OURS: Final = ("role", "content", "metadata")
_TEXTS: Final = ("text", "content", "parts", "output", "value", "refusal", "transcript")
_MEDIA_TYPES: Final = ("media_type", "mime_type", "mimeType", "format")
_OUTSIDE: Final = ("user", "system", "developer")
"""Roles that begin something new: calls before them are answered, or never will be."""


def document_of(
    message: object, session: Document, now: datetime, count_tokens: Callable[[str], int]
) -> Document:
    """A message as a document of the queue, without its position. Raises InvalidDocumentError."""
    try:
        return _document(_given(message), session, now, count_tokens)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidDocumentError):
            raise
        raise InvalidDocumentError(
            f"a field of the message is not storable: {error}", field="message"
        ) from None


def message_of(document: Document) -> dict[str, Any]:
    """The message as it was given."""
    message = {
        "role": document.get("role", "user"),
        "content": document["content"],
        **document.get("message", {}),
    }
    for name in document.get("without", ()):
        del message[name]
    return message


def with_beginnings(documents: Iterable[Document]) -> Iterator[tuple[Document, bool]]:
    """Each message, the oldest first, and whether those before it can be left out: it is no answer
    of a tool, and no call before it waits for its answer."""
    waiting: set[str] = set()
    for document in documents:
        answered = _answers(document)
        begins = not _is_answer(document, answered) and (
            not waiting or document.get("role", "user") in _OUTSIDE
        )
        if begins:
            waiting.clear()
        waiting |= _calls(document)
        waiting -= answered
        yield document, begins


def without_orphans(documents: Sequence[Document]) -> Sequence[Document]:
    """The newest messages of a queue, without those at the beginning that answer, or belong to an
    answer of, a call that is not among them."""
    called: set[str] = set()
    first = 0
    for position, document in enumerate(documents):
        answered = _answers(document)
        if _is_answer(document, answered):
            if not answered <= called or position == first:
                first = position + 1
        elif document.get("role", "user") in _OUTSIDE:
            break
        called |= _calls(document)
    return documents[first:]


def items_of(value: Any) -> list[Any]:
    """The list; empty for anything else."""
    return cast(Any, value) if isinstance(value, list) else []


def maps_of(value: Any) -> list[dict[str, Any]]:
    """The maps in a list; empty for anything else."""
    return [inner for inner in items_of(value) if isinstance(inner, dict)]


# -- inside ----------------------------------------------------------------------------------


def _given(message: object) -> dict[str, Any]:
    """The message as plain maps and lists. Raises InvalidDocumentError."""
    plain = _plain(message)
    if not isinstance(plain, dict):
        raise InvalidDocumentError(
            f"a message is a map with role and content, as model APIs take it, not {message!r:.80}",
            field="message",
        )
    return cast(dict[str, Any], plain)


def _plain(value: Any) -> Any:
    """Maps and lists for the objects of an SDK, at every level."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in cast(Any, value).items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in cast(Sequence[Any], value)]
    dump = getattr(value, "model_dump", None)
    return _plain(dump(exclude_unset=True)) if callable(dump) else value


def _document(
    given: dict[str, Any], session: Document, now: datetime, count_tokens: Callable[[str], int]
) -> Document:
    role, content = given.get("role"), given.get("content")
    if "role" in given or not isinstance(given.get("type"), str):
        check_name("role", role)
    more = {name: value for name, value in given.items() if name not in _OURS}
    if content is not None and not isinstance(content, str | list):
        raise InvalidDocumentError(
            f"content is a str, a list of parts, or None, not {content!r:.80}", field="content"
        )
    if not content and not more:
        raise InvalidDocumentError(
            "content may be empty only in a message with other fields such as tool_calls",
            field="content",
        )
    text = content if isinstance(content, str) else _text_of(given)
    if "content" in given and not isinstance(content, str):
        more["content"] = content
    counted: list[Any] = []
    rest = _without_media(more, counted)
    said = content if isinstance(content, str) else ""
    tokens = count_tokens(said + (dumps(rest) if rest else ""))
    document: Document = {
        "session_id": session["id"],
        "user_id": session["user_id"],
        "role_name": session["role_name"],
        "context_type": "queue",
        "role": role if role is not None else _role_of(given),
        "content": text,
        "message": more,
        "metadata": metadata_of(given.get("metadata")),
        "token_count": tokens + MEDIA_TOKENS * len(counted),
        "created_at": now,
    }
    if without := [name for name in ("role", "content") if name not in given]:
        document["without"] = without
    return document


def _role_of(given: Mapping[str, Any]) -> str:
    """Of an item that has none."""
    return "tool" if str(given["type"]).endswith("_output") else "assistant"


def _text_of(value: Any) -> str:
    """The text in a message, in its content or in a part."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text_of, items_of(value))))
    if isinstance(value, dict):
        found = cast(dict[str, Any], value)
        return next(filter(None, (_text_of(found.get(name)) for name in _TEXTS)), "")
    return ""


def _without_media(value: Any, counted: list[Any]) -> Any:
    """The value without encoded images, sounds and files, which are added to `counted`."""
    if isinstance(value, list):
        return [_without_media(inner, counted) for inner in items_of(value)]
    if isinstance(value, dict):
        found = cast(dict[str, Any], value)
        encodes = any(name in found for name in _MEDIA_TYPES)
        rest: dict[str, Any] = {}
        for name, inner in found.items():
            if name == "image_url" or (encodes and name == "data" and isinstance(inner, str)):
                counted.append(name)
            else:
                rest[name] = _without_media(inner, counted)
        return rest
    if isinstance(value, bytes) or (isinstance(value, str) and value.startswith("data:")):
        counted.append("data")
        return ""
    return value


def _is_answer(document: Document, answered: set[str]) -> bool:
    return bool(answered) or document.get("role") in ("tool", "function")


def _calls(document: Document) -> set[str]:
    """The ids of the calls that a message makes."""
    message = document.get("message", {})
    ids = [call.get("id") for call in maps_of(message.get("tool_calls"))]
    kind = message.get("type")
    if isinstance(kind, str) and kind.endswith("_call"):
        ids.append(message.get("call_id"))
    for part in maps_of(message.get("content")):
        if part.get("type") == "tool_use":
            ids.append(part.get("id"))
    for part in maps_of(message.get("parts")):
        for call in maps_of([part.get("functionCall"), part.get("function_call")]):
            ids.append(call.get("id") or call.get("name"))
    return {id for id in ids if isinstance(id, str)}


def _answers(document: Document) -> set[str]:
    """The ids of the calls that a message answers."""
    message = document.get("message", {})
    ids = [message.get("tool_call_id")]
    kind = message.get("type")
    if isinstance(kind, str) and kind.endswith("_call_output"):
        ids.append(message.get("call_id"))
    for part in maps_of(message.get("content")):
        if part.get("type") == "tool_result":
            ids.append(part.get("tool_use_id"))
    for part in maps_of(message.get("parts")):
        for answer in maps_of([part.get("functionResponse"), part.get("function_response")]):
            ids.append(answer.get("id") or answer.get("name"))
    return {id for id in ids if isinstance(id, str)}
