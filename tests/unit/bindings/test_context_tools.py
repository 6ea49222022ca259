"""A model edits and searches its memory by tool calls, in the form of each API."""

import json
import sys
from typing import Any

import pytest

from amberdb import ClosedError, Database, MissingKeyError, QueryError
from amberdb.context import TOOL_NAMES, AgentContext, run_tool, token_counter, tool_schemas
from amberdb.context.tools import Reach
from support.databases import FakeClock, OpenDatabase


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    context = AgentContext(db, clock=clock)
    context.sessions.create_user("lin", user_id="lin")
    for session in ("s", "other"):
        context.sessions.create("lin", "tutor", session_id=session)
    context.sessions.create("lin", "cook", session_id="kitchen")
    context.blocks.create("human", "Likes tea.", limit=30, user_id="lin")
    return context


def ask(
    context: AgentContext, name: str, reach: Reach = "session", **arguments: Any
) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": "c1", "type": "function", "function": function}
    answer = run_tool(context, "s", call, reach=reach)
    assert (answer["role"], answer["tool_call_id"]) == ("tool", "c1")
    result: dict[str, Any] = json.loads(answer["content"])
    return result


def test_the_schemas_are_what_the_tools_take(context: AgentContext) -> None:
    assert (
        *("core_memory_append", "core_memory_replace", "conversation_search"),
        *("archival_memory_insert", "archival_memory_search"),
    ) == TOOL_NAMES
    values = {"string": "2026-03-01", "integer": 3, "array": ["user"]}
    for chat, responses, anthropic in zip(
        tool_schemas(), tool_schemas("responses"), tool_schemas("anthropic"), strict=True
    ):
        function = chat["function"]
        assert responses == {"type": "function", **function}
        assert anthropic["input_schema"] == function["parameters"]
        assert json.loads(json.dumps(chat)) == chat
        properties = function["parameters"]["properties"]
        for names in (properties, function["parameters"]["required"]):
            given: dict[str, Any] = {name: values[properties[name]["type"]] for name in names}
            result = ask(context, function["name"], **given)
            assert "argument" not in result.get("message", ""), result
            assert "needs" not in result.get("message", "")
    tool_schemas()[0]["function"]["name"] = "changed"
    assert tool_schemas()[0]["function"]["name"] == "core_memory_append"
    wrong: Any = "gemini"
    with pytest.raises(QueryError):
        tool_schemas(wrong)


def test_a_model_edits_its_blocks(context: AgentContext) -> None:
    assert ask(context, "core_memory_append", label="human", content="Is 12.") == {
        "status": "ok",
        "value": "Likes tea.\nIs 12.",
    }
    replaced: Any = {"label": "human", "old_content": "Is 12.", "new_content": "Is 13."}
    ask(context, "core_memory_replace", request_heartbeat=True, **replaced)
    assert context.blocks.get("human", user_id="lin")["value"] == "Likes tea.\nIs 13."


def test_a_model_searches_what_it_no_longer_sees(context: AgentContext, clock: FakeClock) -> None:
    wang = context.sessions.create_user("wang")
    context.sessions.create(wang, "tutor", session_id="of wang")
    for session in ("s", "other", "kitchen", "of wang"):
        context.append(session, "user", f"umbrella of {session}")
        context.append(session, "assistant", "It rains.")
        context.external.archival_insert(session, f"umbrella note of {session}")
        clock.advance(86_400)
    for tool in ("conversation_search", "archival_memory_search"):
        reaches: list[tuple[Reach, int]] = [("session", 1), ("agent", 2), ("user", 3)]
        for reach, count in reaches:
            found = ask(context, tool, reach, query="umbrella")["results"]
            texts = [each["content"] for each in found if "umbrella" in each["content"]]
            assert len(texts) == count, (tool, reach)
    (one,) = ask(context, "conversation_search", query="rains", roles=["assistant"])["results"]
    assert (one["role"], one["content"]) == ("assistant", "It rains.")
    day = one["created_at"][:10]
    during: Any = {"start_date": day, "end_date": day, "query": "umbrella"}
    assert ask(context, "conversation_search", **during)["results"]
    before: Any = {"end_date": "2020-01-01T10:00", "query": "umbrella"}
    assert ask(context, "conversation_search", **before)["results"] == []
    assert (
        len(ask(context, "archival_memory_search", "user", query="umbrella", limit=1)["results"])
        == 1
    )
    id = ask(context, "archival_memory_insert", content="A new note.")["id"]
    assert context.external.archival("s")[0]["id"] == id


def test_a_mistake_of_the_model_is_for_the_model_to_read(context: AgentContext) -> None:
    wrong: list[tuple[str, Any, str]] = [
        ("format_disk", {}, "core_memory_append"),
        ("core_memory_append", {"label": "persona", "content": "x"}, "'human'"),
        ("core_memory_append", {"label": "human", "content": "x" * 31}, "limit"),
        ("core_memory_append", {"label": "human"}, "content"),
        ("core_memory_append", {"label": "human", "content": 7}, "string"),
        ("core_memory_append", {"label": "human", "content": "x", "why": "y"}, "'why'"),
        ("core_memory_replace", {"label": "human", "old_content": "z", "new_content": ""}, "'z'"),
        ("conversation_search", {"query": "tea", "start_date": "monday"}, "ISO 8601"),
        ("conversation_search", {"query": "tea", "limit": "many"}, "integer"),
        ("archival_memory_insert", {"content": " "}, "content"),
        ("archival_memory_search", "{not json", "JSON"),
        ("archival_memory_search", [1], "map"),
    ]
    for name, arguments, told in wrong:
        call = {"type": "function_call", "call_id": "c", "name": name, "arguments": arguments}
        answer = run_tool(context, "s", call)
        result = json.loads(answer["output"])
        assert result["status"] == "error", (name, result)
        assert told in result["message"], (name, result)
    assert context.blocks.get("human", user_id="lin")["value"] == "Likes tea."
    assert context.external.archival("s") == []


def test_the_answer_has_the_form_of_the_call(context: AgentContext) -> None:
    """And is a message that the session takes."""
    arguments = {"label": "human", "content": "x"}

    class Call:
        def model_dump(self) -> dict[str, Any]:
            function = {"name": "core_memory_append", "arguments": json.dumps(arguments)}
            return {"id": "c1", "function": function, "type": "function"}

    name = {"name": "core_memory_append"}
    item = {"type": "function_call", "call_id": "c2", "arguments": json.dumps(arguments), **name}
    block = {"type": "tool_use", "id": "c3", "input": arguments, **name}
    chat = run_tool(context, "s", Call())
    answers = [chat, run_tool(context, "s", item)]
    result = run_tool(context, "s", block)
    assert [*answers[1]] == ["type", "call_id", "output"]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "c3")
    context.extend("s", [{"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]}])
    context.extend("s", [chat, item, answers[1]])
    context.extend("s", [{"role": "assistant", "content": [block]}])
    context.extend("s", [{"role": "user", "content": [result]}])
    assert len(context.render("s")) == 7
    for bad in ({}, {"name": "core_memory_append"}, "core_memory_append", None):
        with pytest.raises(QueryError, match="tool call"):
            run_tool(context, "s", bad)


def test_a_failure_of_the_database_is_raised(open_db: OpenDatabase, clock: FakeClock) -> None:
    db = open_db("t.amber", clock=clock)
    context = AgentContext(db, clock=clock)
    context.sessions.create(context.sessions.create_user("lin"), "r", session_id="s")
    call = {"type": "tool_use", "id": "c", "name": "archival_memory_insert"}
    with pytest.raises(MissingKeyError):
        run_tool(context, "nobody", {**call, "input": {"content": "x"}})
    db.close()
    with pytest.raises(ClosedError):
        run_tool(context, "s", {**call, "input": {"content": "x"}})


# -- counters --------------------------------------------------------------------------------


class Encoding:
    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[str]:
        assert disallowed_special == (), "text of a user is text"
        return text.split()


class Tiktoken:
    """In place of the package."""

    loaded = 0

    def encoding_for_model(self, model: str) -> Encoding:
        if model != "gpt-4o":
            raise KeyError(model)
        self.loaded += 1
        return Encoding()

    def get_encoding(self, name: str) -> Encoding:
        if name != "o200k_base":
            raise ValueError(f"unknown encoding {name}")
        return Encoding()


def test_tokens_are_counted_through_tiktoken_where_it_is(
    db: Database,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiktoken = Tiktoken()
    monkeypatch.setitem(sys.modules, "tiktoken", tiktoken)
    counter = token_counter("gpt-4o")
    assert tiktoken.loaded == 0, "nothing is loaded before the first count"
    context = AgentContext(db, count_tokens=counter, clock=clock)
    session = context.sessions.create(context.sessions.create_user("lin"), "tutor")
    assert context.append(session, "user", "one <|endoftext|> three").token_count == 3
    assert tiktoken.loaded == 1
    assert token_counter("o200k_base")("one two") == 2
    assert token_counter("no-such-model")("four" * 4) == 4
    assert "estimated" in caplog.text
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert token_counter("gpt-4o")("four" * 4) == 4, "without the package"
