"""Import of conversations and agents that other software kept.

    import_messages(context, session, messages)     a list of messages, as programs keep it
    import_letta(context, "agent.af", user_id=lin)  an agent file of Letta (MemGPT), old or new

Invariants:
- A message that cannot be stored is listed in `problems`, and the others are imported. What is
  imported keeps its order, and the time that it had where the source has one.
- Messages that the source no longer showed to the model are in recall storage, the others in the
  queue. No summary is made.
- An agent is one session; it is imported as a whole, in one transaction, or not at all.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast, final

from amberdb import Document, DuplicateKeyError, InvalidDocumentError, Transaction
from amberdb._jsonl.text import loads
from amberdb._shared.systems import in_transaction
from amberdb.context.blocks import LIMIT
from amberdb.context.context import AgentContext
from amberdb.context.messages import Message, document_of, items_of, maps_of, with_beginnings
from amberdb.context.types import tokens_used

_TIMES: Final = ("created_at", "timestamp", "date")


@final
@dataclass(frozen=True, slots=True)
class Imported:
    """What an import stored."""

    session_ids: Sequence[str]
    messages: int
    blocks: int
    archival: int
    problems: Sequence[str]
    """What was not stored, and why; each names the place in the source."""


def import_messages(
    context: AgentContext,
    session_id: str,
    messages: Iterable[Message],
    *,
    in_context: int | None = None,
    tx: Transaction | None = None,
) -> Imported:
    """Appends a list of messages to a session, with their times: `created_at`, `timestamp` or
    `date` of a message, in ISO 8601 or seconds, which is not sent to the model. The last
    `in_context` messages are in the queue, as far as they fit the budget, and those before in
    recall storage; None: as many as fit. A first message of role system or developer becomes the
    system instructions of a session that has none, so that it never leaves. In a session that has
    messages all join the queue, and the next append makes room. Raises MissingKeyError,
    InvalidDocumentError."""
    given = list(messages)

    def put(tx: Transaction) -> Imported:
        problems: list[str] = []
        session = context.sessions.live(tx, session_id)
        system = "" if session["system_tokens"] else _system(given)
        if system:
            context.set_system(session_id, system, tx=tx)
            session = context.sessions.live(tx, session_id)
        past = 0 if in_context is None else len(given) - in_context
        rest = {at: message for at, message in enumerate(given) if at or not system}
        count = _store(context, tx, session, rest, set(range(past)), problems, "message")
        return Imported([session_id], count, 0, 0, problems)

    return in_transaction(context.db, tx, put)


def import_letta(
    context: AgentContext,
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    user_id: str,
    role_name: str | None = None,
    token_budget: int | None = None,
) -> Imported:
    """Imports an agent file: its agents become sessions of the user, with system instructions,
    memory blocks, messages and archival passages. `source` is the path of the file, or its JSON.
    A block that several agents of the file share becomes a block of the user. `role_name`: that of
    the sessions, the name of the agent by default; `token_budget`: by default the context window
    of the agent's model. Raises InvalidDocumentError for a file of another kind, MissingKeyError,
    OSError."""
    file = _file(source)
    problems: list[str] = []
    session_ids: list[str] = []
    messages = blocks = archival = 0
    agents = maps_of(file.get("agents")) if "agents" in file else [file]
    shared = maps_of(file.get("blocks"))
    for place, agent in enumerate(agents):
        name = str(agent.get("name") or f"agent-{place}")
        window = _map(agent.get("llm_config")).get("context_window")
        with context.db.transaction() as tx:
            session_id = context.sessions.create(
                user_id,
                role_name or name,
                token_budget=token_budget or (window if type(window) is int else None),
                metadata={"letta": {key: agent.get(key) for key in ("id", "name", "description")}},
                tx=tx,
            )
            context.set_system(session_id, str(agent.get("system") or ""), tx=tx)
            session_ids.append(session_id)
            for block in _blocks(agent, shared):
                users = [each for each in agents if block.get("id") in _ids(each)]
                if len(users) > 1 and users[0] is not agent:
                    continue
                owner = {"user_id": user_id} if len(users) > 1 else {"session_id": session_id}
                blocks += _block(context, tx, block, owner, f"{name}: block", problems)
            session = context.sessions.live(tx, session_id)
            given = maps_of(agent.get("messages"))
            shown = _shown(agent, given)
            kept = [number for number, each in enumerate(given) if each.get("role") != "system"]
            turns = {number: _turn(given[number]) for number in kept}
            past = {number for number in kept if number not in shown}
            messages += _store(context, tx, session, turns, past, problems, f"{name}: message")
            archival += _passages(context, tx, session_id, agent, file, name, problems)
    return Imported(session_ids, messages, blocks, archival, problems)


# -- storing ---------------------------------------------------------------------------------


def _store(
    context: AgentContext,
    tx: Transaction,
    session: Document,
    messages: Mapping[int, Any],
    past: set[int],
    problems: list[str],
    what: str,
) -> int:
    """Stores messages, by their place in the source: those up to the last of `past` in recall
    storage, and more where the others do not fit the budget; how many."""
    sessions = context.sessions
    documents: list[Document] = []
    past_count = 0
    for number, message in messages.items():
        try:
            turn, time = _timed(message)
            document = document_of(turn, session, time or sessions.now(), sessions.count_tokens)
        except InvalidDocumentError as error:
            problems.append(f"{what} {number}: {error}")
            continue
        documents.append(document)
        if number in past:
            past_count = len(documents)
    room = session["token_budget"] - tokens_used(session) - context.blocks.tokens(tx, session)
    left = sum(document["token_count"] for document in documents[past_count:])
    first = 0
    for place, (document, begins) in enumerate(with_beginnings(documents)):
        is_past = place < past_count
        if begins and not is_past:
            first = place
            if left <= room:
                break
        left -= 0 if is_past else document["token_count"]
    sessions.put_messages(tx, session, documents, max(first, min(past_count, len(documents) - 1)))
    return len(documents)


def _block(
    context: AgentContext,
    tx: Transaction,
    block: Mapping[str, Any],
    owner: dict[str, Any],
    what: str,
    problems: list[str],
) -> int:
    """Stores a block; how many."""
    label, value, limit = block.get("label"), block.get("value"), block.get("limit")
    value = value if isinstance(value, str) else ""
    try:
        context.blocks.create(
            label if isinstance(label, str) else "",
            value,
            limit=max(limit if type(limit) is int and limit > 0 else LIMIT, len(value)),
            description=str(block.get("description") or ""),
            read_only=block.get("read_only") is True,
            tx=tx,
            **owner,
        )
    except (InvalidDocumentError, DuplicateKeyError) as error:
        problems.append(f"{what} {label!r}: {error}")
        return 0
    return 1


def _passages(
    context: AgentContext,
    tx: Transaction,
    session_id: str,
    agent: Mapping[str, Any],
    file: Mapping[str, Any],
    name: str,
    problems: list[str],
) -> int:
    """Stores archival passages, where the file has them; how many."""
    passages = maps_of(agent.get("archival_memory")) + maps_of(agent.get("passages"))
    everyone = [each for each in maps_of(file.get("passages")) if agent is not file]
    passages += [each for each in everyone if each.get("agent_id") == agent.get("id")]
    memories: list[dict[str, Any]] = []
    for number, passage in enumerate(passages):
        text = passage.get("text") or passage.get("content")
        if not isinstance(text, str) or not text.strip():
            problems.append(f"{name}: passage {number}: it has no text")
            continue
        metadata = _map(passage.get("metadata") or passage.get("metadata_"))
        time = _time(passage.get("created_at"))
        memories.append({"content": text, "metadata": metadata, "created_at": time})
    context.external.archival_insert_many(session_id, memories, tx=tx)
    return len(memories)


# -- reading ---------------------------------------------------------------------------------


def _file(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON of an agent file. Raises InvalidDocumentError, OSError."""
    if isinstance(source, Mapping):
        file: Any = source
    else:
        with open(source, "rb") as opened:
            text = opened.read().removeprefix(b"\xef\xbb\xbf")
        try:
            file = loads(text)
        except ValueError as error:
            raise InvalidDocumentError(f"{os.fspath(source)} is no agent file: {error}") from None
    if isinstance(file, dict) and ("agents" in file or "core_memory" in file or "system" in file):
        return cast(dict[str, Any], file)
    raise InvalidDocumentError(
        "an agent file is a JSON object with agents, or with the system and core_memory of one: "
        "for a plain list of messages call import_messages()"
    )


def _ids(agent: Mapping[str, Any]) -> list[Any]:
    return items_of(agent.get("block_ids"))


def _blocks(
    agent: Mapping[str, Any], shared: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The blocks of an agent: within it in old files, by id in new ones."""
    own = [*maps_of(agent.get("core_memory")), *maps_of(agent.get("memory_blocks"))]
    return own + [block for id in _ids(agent) for block in shared if block.get("id") == id]


def _shown(agent: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> set[int]:
    """The places of the messages that the model was shown last; all where the file does not say."""
    places = agent.get("in_context_message_indices")
    if isinstance(places, list):
        return {place for place in items_of(places) if type(place) is int}
    ids = agent.get("in_context_message_ids")
    if isinstance(ids, list):
        known = set(map(str, items_of(ids)))
        return {at for at, message in enumerate(messages) if str(message.get("id")) in known}
    return set(range(len(messages)))


def _system(messages: Sequence[Any]) -> str:
    """The text of a first message that is system instructions; empty for any other."""
    first = (maps_of(messages[:1]) or [{}])[0]
    content = _content(first) if first.get("role") in ("system", "developer") else ""
    return content if isinstance(content, str) else ""


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of Letta in the form of Chat Completions, with its time."""
    role, content = message.get("role") or "user", _content(message)
    calls, answered = message.get("tool_calls"), message.get("tool_call_id")
    if role == "user" and isinstance(content, str):
        content = _said(content)
    if answered and not content:  # newer agents keep what a tool returned beside the content
        returns = [each.get("func_response") for each in maps_of(message.get("tool_returns"))]
        content = "\n".join(text for text in returns if isinstance(text, str))
    # A call that waited for an approval is one of the assistant.
    turn: dict[str, Any] = {"role": "assistant" if role == "approval" else role}
    turn["content"] = (content or "") if answered else (content or None)
    if calls:
        turn["tool_calls"] = calls
    if answered:
        turn["tool_call_id"] = answered
    if message.get("name"):
        turn["name"] = message["name"]
    turn["created_at"] = message.get("created_at")
    return turn


def _content(message: Mapping[str, Any]) -> Any:
    """A text, or parts where there are images. Calls, their returns and the reasoning of a model
    are parts too; the first two have fields of their own, and no model takes the last back."""
    content = message.get("content", message.get("text"))
    if not isinstance(content, list):
        return content
    parts = [part for part in maps_of(content) if part.get("type", "text") in ("text", "image")]
    if any(not isinstance(part.get("text"), str) for part in parts):
        return parts
    return "\n".join(str(part["text"]) for part in parts)


def _said(text: str) -> str:
    """What a user said: Letta packs it into JSON with the time."""
    if text.lstrip().startswith("{"):
        try:
            packed = _map(loads(text))
        except ValueError:
            return text
        if packed.get("type") == "user_message" and isinstance(packed.get("message"), str):
            return cast(str, packed["message"])
    return text


def _timed(message: Any) -> tuple[Any, datetime | None]:
    """A message without its time, and the time."""
    if not isinstance(message, Mapping):
        return message, None
    given = cast(Mapping[str, Any], message)
    for name in _TIMES:
        if name in given:
            time = _time(given[name])
            if time is not None or given[name] is None:
                return {key: value for key, value in given.items() if key != name}, time
    return given, None


def _time(value: Any) -> datetime | None:
    """A time in ISO 8601 or in seconds since 1970, in UTC unless it names a zone; None for anything
    else."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _map(value: Any) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
