"""Tools with which a model edits and searches its memory, for the function calling of model APIs.

    answer = call_model(context.render(session), tools=tool_schemas())
    for call in answer.tool_calls:
        context.extend(session, [run_tool(context, session, call)])

Invariants:
- run_tool() changes only what the session sees: its blocks, and its archival memory.
- A mistake of the model (a tool or block that is not there, wrong arguments, a value past its
  limit) is the result of the call, for the model to read. A failure of the database is raised.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, cast

from amberdb import (
    CursorError,
    Document,
    DocumentTooLargeError,
    Hits,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb._jsonl.text import dumps
from amberdb.context.context import AgentContext

Reach: TypeAlias = Literal["session", "agent", "user"]
"""What the searches of a tool cover: the session; all sessions of its user in its role; all
sessions of its user."""
Style: TypeAlias = Literal["chat", "responses", "anthropic"]
"""The API that the schemas are for."""

RESULTS_MAX: Final = 50
_MISTAKES: Final = (
    InvalidDocumentError,
    DocumentTooLargeError,
    MissingKeyError,
    QueryError,
    CursorError,
)

_TEXT: Final = {"type": "string"}
_LIMIT: Final = {"type": "integer", "description": f"The most results, up to {RESULTS_MAX}."}
_LABEL: Final = {"type": "string", "description": "The label of the memory block."}
_DATE: Final = "ISO 8601, such as 2026-03-01 or 2026-03-01T09:30; included."


def _tool(name: str, description: str, required: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {**required, **more},
            "required": list(required),
            "additionalProperties": False,
        },
    }


_TOOLS: Final = (
    _tool(
        "core_memory_append",
        "Adds a line to one of the memory blocks that you always see.",
        {"label": _LABEL, "content": {**_TEXT, "description": "The line to add."}},
    ),
    _tool(
        "core_memory_replace",
        "Replaces a text in one of the memory blocks that you always see, or removes it.",
        {
            "label": _LABEL,
            "old_content": {**_TEXT, "description": "The text to replace, exactly as it stands."},
            "new_content": {**_TEXT, "description": "The new text; empty to remove the old one."},
        },
    ),
    _tool(
        "conversation_search",
        "Searches all messages of the conversation, including those that you no longer see.",
        {"query": {**_TEXT, "description": "Words of the messages to find."}},
        roles={
            "type": "array",
            "items": {"type": "string", "enum": ["user", "assistant", "tool"]},
            "description": "Only messages of these roles.",
        },
        limit=_LIMIT,
        start_date={**_TEXT, "description": f"The earliest time. {_DATE}"},
        end_date={**_TEXT, "description": f"The latest time. {_DATE}"},
    ),
    _tool(
        "archival_memory_insert",
        "Stores a note in your archival memory, where archival_memory_search finds it later.",
        {"content": {**_TEXT, "description": "The note; it should be understood by itself."}},
    ),
    _tool(
        "archival_memory_search",
        "Searches your archival memory for notes.",
        {"query": {**_TEXT, "description": "What the notes are about."}},
        limit=_LIMIT,
    ),
)
TOOL_NAMES: Final = tuple(tool["name"] for tool in _TOOLS)
"""The tools that run_tool() knows; a program sends it calls of these and keeps its own."""


def tool_schemas(style: Style = "chat") -> list[dict[str, Any]]:
    """The tools as JSON for the `tools` argument of a model API: "chat" for Chat Completions,
    "responses", "anthropic". Raises QueryError."""
    tools = deepcopy(list(_TOOLS))
    if style == "chat":
        return [{"type": "function", "function": tool} for tool in tools]
    if style == "responses":
        return [{"type": "function", **tool} for tool in tools]
    if style == "anthropic":
        return [{**tool, "input_schema": tool.pop("parameters")} for tool in tools]
    raise QueryError(f'style is "chat", "responses" or "anthropic", not {style!r}')


def run_tool(
    context: AgentContext, session_id: str, tool_call: object, *, reach: Reach = "session"
) -> dict[str, Any]:
    """Executes a tool call as a model API gives it, as a map or as an object of its SDK; the answer
    in the same form: a message of role "tool", an item function_call_output, or a block
    tool_result for the content of a user's message. `reach`: what searches cover, "session",
    "agent" (all sessions of the user in this role) or "user". Raises MissingKeyError when there is
    no such session, and QueryError."""
    session = context.sessions.get(session_id)
    name, arguments, answer = _read(tool_call)
    try:
        run = _RUN.get(name)
        if run is None:
            raise QueryError(f"there is no tool {name!r}: call one of {', '.join(TOOL_NAMES)}")
        result = run(context, session, _checked(name, arguments), reach)
    except _MISTAKES as error:
        return answer(dumps({"status": "error", "message": str(error)}))
    return answer(dumps({"status": "ok", **result}))


# -- calls and answers -----------------------------------------------------------------------


def _read(tool_call: object) -> tuple[str, Any, Callable[[str], dict[str, Any]]]:
    """The name, the arguments, and a function that makes the answer of a result. Raises
    QueryError."""
    dump = getattr(tool_call, "model_dump", None)
    given = dump() if callable(dump) else tool_call
    if isinstance(given, Mapping):
        call = cast(Mapping[str, Any], given)
        function, kind = call.get("function"), call.get("type")
        if isinstance(function, Mapping):
            inner = cast(Mapping[str, Any], function)
            head = {"role": "tool", "tool_call_id": call.get("id")}
            return (
                str(inner.get("name")),
                inner.get("arguments"),
                lambda text: {
                    **head,
                    "content": text,
                },
            )
        if kind == "function_call":
            head = {"type": "function_call_output", "call_id": call.get("call_id")}
            return (
                str(call.get("name")),
                call.get("arguments"),
                lambda text: {
                    **head,
                    "output": text,
                },
            )
        if kind == "tool_use":
            head = {"type": "tool_result", "tool_use_id": call.get("id")}
            return str(call.get("name")), call.get("input"), lambda text: {**head, "content": text}
    raise QueryError(
        "a tool call has a function, or the type function_call or tool_use, as model APIs give it, "
        f"not {tool_call!r:.80}"
    )


def _checked(name: str, arguments: Any) -> dict[str, Any]:
    """The arguments of a call, as its schema wants them. Raises QueryError."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise QueryError(f"the arguments are not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise QueryError(f"the arguments are a map of names to values, not {arguments!r:.80}")
    given = {
        key: value for key, value in cast(dict[str, Any], arguments).items() if value is not None
    }
    schema = next(tool["parameters"] for tool in _TOOLS if tool["name"] == name)
    given.pop("request_heartbeat", None)  # agents of MemGPT were trained to give it
    if missing := [key for key in schema["required"] if key not in given]:
        raise QueryError(f"{name} needs {', '.join(missing)}")
    for key, value in given.items():
        if key not in schema["properties"]:
            raise QueryError(
                f"{name} has no argument {key!r}: it takes {', '.join(schema['properties'])}"
            )
        kind = schema["properties"][key]["type"]
        if type(value) is not {"string": str, "integer": int, "array": list}[kind]:
            raise QueryError(f"{key} must be of type {kind}, not {value!r:.80}")
    return given


# -- tools -----------------------------------------------------------------------------------


def _append(
    context: AgentContext, session: Document, given: dict[str, Any], reach: Reach
) -> dict[str, Any]:
    block = context.blocks.append(given["label"], given["content"], session_id=session["id"])
    return {"value": block["value"]}


def _replace(
    context: AgentContext, session: Document, given: dict[str, Any], reach: Reach
) -> dict[str, Any]:
    texts = (given["label"], given["old_content"], given["new_content"])
    return {"value": context.blocks.replace(*texts, session_id=session["id"])["value"]}


def _conversation(
    context: AgentContext, session: Document, given: dict[str, Any], reach: Reach
) -> dict[str, Any]:
    hits = context.conversation_search(
        text=given["query"],
        roles=given.get("roles"),
        since=_time(given.get("start_date"), "start_date"),
        until=_time(given.get("end_date"), "end_date", is_end=True),
        limit=_limit(given),
        **_owner(session, reach),
    )
    return {"results": _results(hits, "role", "content", "created_at")}


def _insert(
    context: AgentContext, session: Document, given: dict[str, Any], reach: Reach
) -> dict[str, Any]:
    return {"id": context.external.archival_insert(session["id"], given["content"])}


def _archival(
    context: AgentContext, session: Document, given: dict[str, Any], reach: Reach
) -> dict[str, Any]:
    owner = _owner(session, reach)
    hits = context.external.archival_search(text=given["query"], limit=_limit(given), **owner)
    return {"results": _results(hits, "content", "created_at")}


_RUN: Final[Mapping[str, Callable[..., dict[str, Any]]]] = dict(
    zip(TOOL_NAMES, (_append, _replace, _conversation, _insert, _archival), strict=True)
)


def _owner(session: Document, reach: Reach) -> dict[str, Any]:
    """The arguments of a search. Raises QueryError."""
    if reach == "session":
        return {"session_id": session["id"]}
    if reach == "agent":
        return {"user_id": session["user_id"], "role_name": session["role_name"]}
    if reach == "user":
        return {"user_id": session["user_id"]}
    raise QueryError(f'reach is "session", "agent" or "user", not {reach!r}')


def _limit(given: Mapping[str, Any]) -> int:
    return max(1, min(int(given.get("limit", 10)), RESULTS_MAX))


def _time(text: str | None, name: str, *, is_end: bool = False) -> datetime | None:
    """A time that a model wrote, in UTC unless it names a zone; with `is_end` the end of a day.
    Raises QueryError."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{name} is a time in ISO 8601, not {text!r}") from None
    if is_end:
        is_day = len(text) <= len("2026-03-01")
        time += timedelta(days=1) if is_day else timedelta(microseconds=1)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _results(hits: Hits, *fields: str) -> Sequence[Mapping[str, Any]]:
    return [
        {name: _json(hit.document.get(name)) for name in fields if name in hit.document}
        for hit in hits
    ]


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
