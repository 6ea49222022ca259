"""Agents and conversations of other software are moved with their order, times and memory."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amberdb import Database, InvalidDocumentError, MissingKeyError
from amberdb.context import AgentContext, import_letta, import_messages
from support.contexts import contents, positions
from support.databases import FakeClock


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    context = AgentContext(db, clock=clock)
    context.sessions.create_user("lin", user_id="lin")
    return context


def text(role: str, content: str | None, id: int, **more: Any) -> dict[str, Any]:
    """A message of an agent file."""
    parts = [] if content is None else [{"type": "text", "text": content}]
    empty: dict[str, Any] = {"name": None, "tool_calls": None, "tool_call_id": None, "otid": None}
    time = f"2025-04-0{id + 1}T03:47:27+00:00"
    named = {"id": f"message-{id}", "role": role, "content": parts, "created_at": time}
    return {**empty, **named, **more}


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
MESSAGES = [
    text("system", "You help. <human>Lin</human>", 0),
    text("user", json.dumps({"type": "user_message", "message": "下雨吗？", "time": "now"}), 1),
    text("assistant", None, 2, tool_calls=[CALL]),
    text("tool", '{"status": "OK", "message": "umbrella"}', 3, tool_call_id="c1"),
    text("assistant", "Yes.", 4),
    text("user", "Thanks.", 5),
]
HUMAN = {"id": "block-0", "label": "human", "value": "Lin.", "limit": 200, "description": "Who."}
PERSONA = {"id": "block-1", "label": "persona", "value": "Sam.", "limit": 200, "read_only": True}
MODEL = {"model": "small", "context_window": 32_000}
AGENT: dict[str, Any] = {
    "id": "agent-0",
    "name": "sam",
    "system": "You help.",
    "llm_config": MODEL,
    "block_ids": ["block-0", "block-1"],
    "in_context_message_ids": ["message-0", "message-4", "message-5"],
    "messages": MESSAGES,
}
NEW: dict[str, Any] = {"agents": [AGENT], "blocks": [HUMAN, PERSONA], "tools": [], "metadata": {}}
OLD: dict[str, Any] = {
    "agent_type": "memgpt_agent",
    "name": "sam",
    "system": "You help.",
    "llm_config": MODEL,
    "core_memory": [HUMAN, PERSONA],
    "in_context_message_indices": [0, 4, 5],
    "messages": [
        {**each, "created_at": each["created_at"].removesuffix("+00:00")} for each in MESSAGES
    ],
}


@pytest.mark.parametrize("file", [NEW, OLD])
def test_an_agent_of_letta_becomes_a_session(
    context: AgentContext, file: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "sam.af"
    path.write_text("\ufeff" + json.dumps(file), encoding="utf-8")
    report = import_letta(context, path, user_id="lin")
    (session,) = report.session_ids
    assert (report.messages, report.blocks, report.problems) == (5, 2, [])
    assert context.sessions.get(session)["role_name"] == "sam"
    assert context.sessions.get(session)["token_budget"] == 32_000
    head, *shown = context.render(session)
    blocks = '<human description="Who.">\nLin.\n</human>\n\n<persona>\nSam.\n</persona>'
    assert head["content"] == f"You help.\n\n{blocks}"
    assert shown == [
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Thanks."},
    ]
    recalled = context.external.recall(session)
    assert positions(recalled) == [2, 1, 0]
    assert recalled[2]["content"] == "下雨吗？"
    assert recalled[2]["created_at"] == datetime(2025, 4, 2, 3, 47, 27, tzinfo=UTC)
    assert recalled[1]["message"]["tool_calls"] == [CALL]
    assert recalled[0]["message"] == {"tool_call_id": "c1"}
    with pytest.raises(InvalidDocumentError, match="read-only"):
        context.blocks.append("persona", "x", session_id=session)
    assert context.blocks.append("human", "x", session_id=session)["limit"] == 200
    context.append(session, "assistant", "Bye.")
    assert context.queue(session)[-1]["position"] == 5


def test_agents_that_share_a_block_go_on_sharing_it(context: AgentContext) -> None:
    other = {**AGENT, "id": "agent-1", "name": "eve", "block_ids": ["block-0"], "messages": []}
    archive = [{"text": "Lin likes tea.", "created_at": "2025-01-02"}, {"text": " "}]
    file = {"agents": [{**AGENT, "archival_memory": archive}, other], "blocks": [HUMAN, PERSONA]}
    report = import_letta(context, file, user_id="lin", role_name="helper")
    first, second = report.session_ids
    assert (report.messages, report.blocks, report.archival) == (5, 2, 1)
    assert report.problems == ["sam: passage 1: it has no text"]
    context.blocks.append("human", "Is 12.", session_id=first)
    assert context.blocks.get("human", session_id=second)["value"] == "Lin.\nIs 12."
    assert len(context.blocks.of(session_id=second)) == 1
    (note,) = context.external.archival(first)
    assert note["created_at"] == datetime(2025, 1, 2, tzinfo=UTC)
    assert len(context.sessions.of("lin", "helper")) == 2


def test_parts_of_a_message_that_no_model_takes_back_stay_behind(context: AgentContext) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    thought = {"type": "reasoning", "reasoning": "Hm.", "is_native": True}
    said = {"type": "text", "text": "Yes."}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "This?"}, image]},
        {"role": "assistant", "content": [thought, said, {"type": "tool_call", "id": "c1"}]},
        {"role": "approval", "content": [thought], "tool_calls": [CALL]},
        {"role": "approval", "content": [], "tool_calls": None, "approve": True},
        {
            "role": "tool",
            "content": [{"type": "tool_return"}],
            "tool_call_id": "c1",
            "tool_returns": [{"status": "success", "func_response": "rain"}],
        },
        {"role": "user", "content": '{"type": "login", "time": "now"}'},
    ]
    report = import_letta(context, {"system": "", "messages": messages}, user_id="lin")
    assert report.messages == 5
    assert [problem.split(": content")[0] for problem in report.problems] == ["agent-0: message 3"]
    assert context.render(report.session_ids[0]) == [
        {"role": "user", "content": [{"type": "text", "text": "This?"}, image]},
        {"role": "assistant", "content": "Yes."},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
        {"role": "user", "content": '{"type": "login", "time": "now"}'},
    ]


def test_a_file_that_is_none_changes_nothing(context: AgentContext, tmp_path: Path) -> None:
    path = tmp_path / "x.af"
    for wrong in ("[]", "{", '{"messages": []}', ""):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(InvalidDocumentError):
            import_letta(context, path, user_id="lin")
    with pytest.raises(MissingKeyError):
        import_letta(context, NEW, user_id="nobody")
    with pytest.raises(InvalidDocumentError, match="budget"):
        import_letta(context, NEW, user_id="lin", token_budget=1)
    assert context.sessions.of("lin") == []


def test_a_list_of_messages_is_imported_with_its_times(
    context: AgentContext, clock: FakeClock
) -> None:
    session = context.sessions.create("lin", "helper", token_budget=200)
    messages: list[Any] = [
        {"role": "user", "content": f"message {number}", "timestamp": 1_700_000_000 + number}
        for number in range(6)
    ]
    messages[1:1] = ["no message", {"role": "user", "content": "x", "seen": {1}}]
    messages.append({"role": "user", "content": "last", "created_at": "2030-01-01T00:00:00+01:00"})
    report = import_messages(context, session, messages, in_context=3)
    assert report.messages == 7
    assert [problem.split(":")[0] for problem in report.problems] == ["message 1", "message 2"]
    assert contents(context.render(session)) == ["message 4", "message 5", "last"]
    recalled = context.external.recall(session)
    assert positions(recalled) == [3, 2, 1, 0]
    assert recalled[3]["created_at"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert context.queue(session)[2]["created_at"] == datetime(2029, 12, 31, 23, tzinfo=UTC)
    assert "timestamp" not in context.queue(session)[0]["message"]


@pytest.mark.parametrize("content", ["You help.", [{"type": "text", "text": "You help."}]])
def test_system_instructions_of_a_list_stay(context: AgentContext, content: Any) -> None:
    session = context.sessions.create("lin", "helper", token_budget=100)
    said = [{"role": "user", "content": f"{number} " + "word " * 20} for number in range(9)]
    messages: list[Any] = [{"role": "system", "content": content}, *said, 7]
    report = import_messages(context, session, messages)
    assert (report.messages, len(report.problems)) == (9, 1)
    assert report.problems[0].startswith("message 10:")
    head, *shown = context.render(session)
    assert head == {"role": "system", "content": "You help."}
    assert shown == said[-len(shown) :]
    assert len(shown) < 9
    import_messages(context, session, [{"role": "developer", "content": "Be brief."}])
    assert context.render(session)[0]["content"] == "You help.", "it has some"
    assert context.render(session)[-1] == {"role": "developer", "content": "Be brief."}


def test_what_does_not_fit_the_budget_is_in_recall_storage(context: AgentContext) -> None:
    """A call with its answers, and without a summary."""
    session = context.sessions.create("lin", "helper", token_budget=100)
    long = "word " * 40
    messages: list[Any] = [
        {"role": "user", "content": long},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": long, "tool_call_id": "c1"},
        {"role": "user", "content": long},
    ]
    report = import_messages(context, session, messages)
    assert (report.messages, report.problems) == (4, [])
    assert positions(context.queue(session)) == [3]
    assert positions(context.external.recall(session)) == [2, 1, 0]
    assert import_messages(context, session, messages[:1], in_context=0).messages == 1
    assert positions(context.queue(session)) == [3, 4], "one that has messages gets more"
    huge = [{"role": "user", "content": "word " * 400}]
    with pytest.raises(InvalidDocumentError, match="budget"):
        import_messages(context, session, huge)
    assert import_messages(context, session, []).messages == 0
