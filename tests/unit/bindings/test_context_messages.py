"""Messages of model APIs come back as they were given, and calls keep their answers."""

from itertools import pairwise
from typing import Any

import pytest

from amberdb import Database, InvalidDocumentError
from amberdb.context import AgentContext
from amberdb.context.messages import MEDIA_TOKENS
from amberdb.context.types import ARCHIVAL, MAIN
from support.contexts import contents, count_words, positions
from support.databases import FakeClock


def one_each(text: str) -> int:
    return min(len(text), 1)


def words_said(text: str) -> int:
    """Without the other fields of a message."""
    return count_words(text.split("{")[0])


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    return AgentContext(db, clock=clock)


@pytest.fixture
def session(context: AgentContext) -> str:
    return context.sessions.create(context.sessions.create_user("lin"), "helper")


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
IMAGE = "data:image/png;base64," + "A" * 100_000

CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "下雨吗？"}], "name": "lin"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
    {"role": "tool", "tool_call_id": "c1", "content": ""},
    {"role": "assistant", "tool_calls": [{**CALL, "id": "c2"}]},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "wet umbrella"}]},
    {"role": "assistant", "content": "", "tool_calls": [{**CALL, "id": "c3"}]},
    {"role": "tool", "tool_call_id": "c3", "content": "dry"},
    {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": ""}},
    {"role": "function", "name": "look", "content": "7"},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]},
    {"role": "assistant", "content": None, "refusal": "I may not."},
]
RESPONSES: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "input_text", "text": "rain?"}]},
    {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "AAA"},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
    {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "umbrella"},
    {"type": "function_call_output", "call_id": "c2", "output": "none"},
]
ANTHROPIC: list[dict[str, Any]] = [
    {"role": "user", "content": "rain?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": [1, {"deep": None}]}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "umbrella"}],
            }
        ],
    },
]
GEMINI: list[dict[str, Any]] = [
    {"role": "user", "parts": [{"text": "umbrella?"}]},
    {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "look", "response": {"n": 1}}}]},
    {"role": "model", "parts": [{"inline_data": {"mime_type": "image/png", "data": b"\x00"}}]},
]


@pytest.mark.parametrize("messages", [CHAT, RESPONSES, ANTHROPIC, GEMINI])
def test_messages_come_back_as_they_were_given(
    context: AgentContext, session: str, messages: list[dict[str, Any]]
) -> None:
    context.extend(session, messages)
    assert context.render(session) == messages
    (hit, *_) = context.conversation_search(session, "umbrella", neighbors=False)
    assert "umbrella" in hit.document["content"], "text within parts is found"
    context.append(session, "user", "word " * 6_390)
    assert context.queue(session, limit=1)[0]["position"] == len(messages), "and they move"
    assert len(context.external.recall(session)) == len(messages)


class Dumped:
    """An object of an SDK."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, *, exclude_unset: bool = False) -> dict[str, Any]:
        return self.fields if exclude_unset else {**self.fields, "audio": None}


def test_objects_of_an_sdk_are_messages_too(context: AgentContext, session: str) -> None:
    call: Any = Dumped(**CALL)
    whole: Any = Dumped(role="assistant", content=None, tool_calls=[call])
    block: Any = Dumped(type="text", text="dry")
    context.extend(session, [whole, {"role": "assistant", "content": (block,)}])
    assert context.render(session) == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": [{"type": "text", "text": "dry"}]},
    ]


def test_one_message_is_appended_with_its_other_fields(context: AgentContext, session: str) -> None:
    context.append(session, "assistant", None, tool_calls=[CALL])
    context.append(session, "tool", "rain", tool_call_id="c1", metadata={"took_ms": 3})
    assert context.render(session)[1] == {"role": "tool", "content": "rain", "tool_call_id": "c1"}
    assert context.queue(session)[1]["metadata"] == {"took_ms": 3}


def test_what_is_no_message_is_refused_by_field(context: AgentContext, session: str) -> None:
    deep: Any = []
    for _ in range(3_000):
        deep = [deep]
    wrong: list[tuple[Any, str]] = [
        ("hello", "message"),
        (None, "message"),
        (7, "message"),
        ({"content": "no role"}, "role"),
        ({"role": None, "content": "x"}, "role"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": "user", "content": {"text": "x"}}, "content"),
        ({"role": "user", "content": 7, "name": "lin"}, "content"),
        ({"role": "user", "content": "x", "seen": {1}}, "message"),
        ({"role": "user", "content": "x", "metadata": "y"}, "metadata"),
        ({"role": "user", "content": deep}, "message"),
    ]
    for message, field in wrong:
        with pytest.raises(InvalidDocumentError) as caught:
            context.extend(session, [{"role": "user", "content": "good"}, message])
        assert caught.value.field == field, message
    assert context.queue(session) == []


def test_encoded_images_count_as_images_and_not_as_text(
    context: AgentContext, session: str
) -> None:
    data = "A" * 100_000
    sources: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "input_image", "image_url": IMAGE},
        {"type": "image_url", "image_url": {"url": "https://example.com/umbrella.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": data}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + data}},
    ]
    for part in sources:
        told = context.append(session, "user", [{"type": "text", "text": "look"}, part])
        assert MEDIA_TOKENS < told.token_count < MEDIA_TOKENS + 50, part
    long = [{"type": "text", "text": "word " * 400}]
    assert context.append(session, "user", long).token_count > 400


def test_an_overflow_keeps_a_call_with_its_answers(db: Database, clock: FakeClock) -> None:
    """Wherever the cut would fall, in each form: what is left has calls and their answers."""
    turn = {"role": "user", "content": "question"}
    chat: list[Any] = [
        turn,
        {"role": "assistant", "content": None, "tool_calls": [CALL, {"id": "c2"}]},
    ]
    chat += [{"role": "tool", "tool_call_id": id, "content": "a"} for id in ("c1", "c2")]
    context = AgentContext(db, count_tokens=one_each, clock=clock, token_budget=1_000)
    user = context.sessions.create_user("lin")
    for keep in range(1, 12):
        for form, size in ((chat, 4), (RESPONSES, 6), (ANTHROPIC, 3)):
            session = context.sessions.create(user, "helper")
            context.extend(session, form * 3)
            context.set_token_budget(session, keep)
            left = context.queue(session)
            assert len(left) + len(context.external.recall(session)) == size * 3
            shown = context.render(session)
            assert all(repr(shown).count(f"'{id}'") % 2 == 0 for id in ("c1", "c2")), (keep, shown)
            assert len(shown) == len(left) or keep < size


def test_the_newest_answer_keeps_its_call_while_both_fit(db: Database, clock: FakeClock) -> None:
    """Also when less would be left after an overflow."""
    context = AgentContext(db, count_tokens=words_said, token_budget=20, keep=0.1, clock=clock)
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    context.append(session, "user", "word " * 8)
    context.append(session, "assistant", "one two three", tool_calls=[CALL])
    context.append(session, "tool", "word " * 11, tool_call_id="c1")
    assert [each["role"] for each in context.render(session)] == ["assistant", "tool"]
    assert positions(context.external.recall(session)) == [0]


def test_render_parts_no_call_from_its_answers(db: Database, clock: FakeClock) -> None:
    context = AgentContext(db, count_tokens=one_each, auto_overflow=False, clock=clock)
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    context.extend(session, [*RESPONSES, {"role": "user", "content": "thanks"}])
    for budget in range(1, 8):
        context.set_token_budget(session, budget)
        shown = context.render(session)
        called = {each.get("call_id") for each in shown if each.get("type") == "function_call"}
        answered = {each["call_id"] for each in shown if "output" in each}
        assert answered <= called, shown
        assert shown[-1]["content"] == "thanks"


def test_messages_that_another_program_put_are_read_with_defaults(
    context: AgentContext, session: str, db: Database
) -> None:
    queued = {"session_id": session, "context_type": "queue", "position": 0}
    db[MAIN].put({**queued, "content": "from elsewhere"})
    assert context.render(session) == [{"role": "user", "content": "from elsewhere"}]
    db["sessions"].put({"id": "bare", "user_id": "u", "role_name": "r"})
    context.append("bare", "user", "hello")
    assert contents(context.render("bare")) == ["hello"]


def test_positions_are_the_order_whatever_the_clock_says(
    context: AgentContext, session: str, clock: FakeClock, db: Database
) -> None:
    """A clock that is set back by a day, between messages and between notes."""
    said = [f"number{n} " + "word " * 1_000 for n in range(12)]
    for number, text in enumerate(said):
        context.append(session, "user", text)
        context.external.archival_insert(session, f"note {number}")
        clock.advance(-86_400 if number % 3 == 2 else 60)
    recall = context.external.recall(session, limit=None)
    assert len(recall) == 6
    assert all(newer > older for newer, older in pairwise(positions(recall)))
    notes = [each["content"] for each in context.external.archival(session)]
    assert notes == [f"note {number}" for number in range(11, -1, -1)]
    first = context.external.archival(session, limit=5)
    rest = context.external.archival(session, limit=50, after=first.cursor)
    assert [each["content"] for each in [*first, *rest]] == notes
    stored = db[ARCHIVAL].find({}, order_by="position")
    assert [(each["position"], each["content"]) for each in stored] == [*enumerate(notes[::-1])]
