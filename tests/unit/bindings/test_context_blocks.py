"""Memory blocks: shared by user and role, within their limits, and edited by many at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amberdb import (
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb.context import AgentContext
from amberdb.context.types import BLOCKS
from support.contexts import Summary, count_words, make_context, positions, say
from support.databases import FakeClock


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    return make_context(db, clock, Summary())


@pytest.fixture
def lin(context: AgentContext) -> str:
    return context.sessions.create_user("lin")


@pytest.fixture
def session(context: AgentContext, lin: str) -> str:
    return context.sessions.create(lin, "tutor")


def labels(blocks: list[Any]) -> list[str]:
    return [block["label"] for block in blocks]


def test_a_session_sees_the_blocks_of_its_role_its_user_and_its_own(
    context: AgentContext, lin: str, session: str
) -> None:
    blocks = context.blocks
    blocks.create("plan", "Fractions.", session_id=session)
    blocks.create("human", "Likes tea.", user_id=lin, description="About the user.")
    blocks.create("persona", "You teach.", role_name="tutor")
    context.set_system(session, "Rules.")
    context.set_working(session, "Facts.")
    (head,) = context.render(session)
    assert head["content"].split("\n\n") == [
        "Rules.",
        "<persona>\nYou teach.\n</persona>",
        '<human description="About the user.">\nLikes tea.\n</human>',
        "<plan>\nFractions.\n</plan>",
        "Facts.",
    ]
    other = context.sessions.create(lin, "cook")
    assert labels(blocks.of(session_id=other)) == ["human"]
    assert labels(blocks.of(user_id=lin)) == ["human"]
    assert labels(blocks.of(role_name="tutor")) == ["persona"]
    blocks.append("human", "Is 12.", session_id=session)
    assert blocks.get("human", session_id=other)["value"] == "Likes tea.\nIs 12."
    blocks.create("human", "Mine.", session_id=other)
    assert blocks.get("human", session_id=other)["value"] == "Mine.", "the nearest"
    assert [block["value"] for block in blocks.of(session_id=other)] == ["Mine."]
    with pytest.raises(MissingKeyError):
        blocks.delete("human", session_id=session)
    blocks.delete("human", session_id=other)
    assert labels(blocks.of(session_id=other)) == ["human"]


def test_changes_of_a_block_are_exact(context: AgentContext, lin: str, session: str) -> None:
    blocks = context.blocks
    made = blocks.create("human", user_id=lin, limit=20)
    assert (made["value"], made["limit"], made["read_only"]) == ("", 20, False)
    blocks.append("human", "tea, tea", user_id=lin)
    assert blocks.replace("human", "tea", "茶", user_id=lin)["value"] == "茶, 茶"
    assert blocks.replace("human", ", 茶", "", session_id=session)["value"] == "茶"
    assert blocks.append("human", "x" * 18, user_id=lin)["value"] == "茶\n" + "x" * 18
    refused: list[Callable[[], object]] = [
        lambda: blocks.append("human", "", user_id=lin),
        lambda: blocks.replace("human", "茶", "xx", user_id=lin),
        lambda: blocks.replace("human", "coffee", "x", user_id=lin),
        lambda: blocks.replace("human", "", "x", user_id=lin),
        lambda: blocks.update("human", value="x" * 21, user_id=lin),
        lambda: blocks.update("human", limit=19, user_id=lin),
        lambda: blocks.create("other", "x" * 6, limit=5, user_id=lin),
        lambda: blocks.create("other", limit=0, user_id=lin),
        lambda: blocks.create("", user_id=lin),
    ]
    for change in refused:
        with pytest.raises(InvalidDocumentError):
            change()
    assert blocks.get("human", user_id=lin)["value"] == "茶\n" + "x" * 18
    blocks.update("human", value="y" * 30, limit=30, read_only=True, user_id=lin)
    with pytest.raises(InvalidDocumentError, match="read-only"):
        blocks.append("human", "", session_id=session)
    assert blocks.update("human", value="", user_id=lin)["read_only"]
    with pytest.raises(DuplicateKeyError):
        blocks.create("human", user_id=lin)
    with pytest.raises(MissingKeyError, match="'human'"):
        blocks.get("nothing", session_id=session)
    for wrong in ({}, {"user_id": lin, "role_name": "tutor"}, {"user_id": {"$ne": ""}}):
        owner: dict[str, Any] = wrong
        with pytest.raises(QueryError):
            blocks.of(**owner)
    with pytest.raises(MissingKeyError):
        blocks.create("human", user_id="nobody")
    with pytest.raises(MissingKeyError):
        blocks.create("human", session_id="nobody")


def test_what_many_add_at_once_is_all_there(context: AgentContext, lin: str, session: str) -> None:
    context.set_token_budget(session, 1_000)
    context.blocks.create("human", user_id=lin)

    def add(thread: int) -> None:
        for number in range(20):
            context.append_working(session, f"fact {thread} {number}")
            context.blocks.append("human", f"fact {thread} {number}", session_id=session)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(2)))
    told = {f"fact {thread} {number}" for thread in range(2) for number in range(20)}
    assert set(context.part(session, "working").split("\n")) == told
    assert set(context.blocks.get("human", user_id=lin)["value"].split("\n")) == told
    assert context.sessions.get(session)["working_tokens"] == 120
    context.replace_working(session, "fact 0 1\n", "")
    assert len(context.part(session, "working").split("\n")) == 39
    with pytest.raises(InvalidDocumentError, match="does not contain"):
        context.replace_working(session, "fact 9", "x")


def test_blocks_take_their_share_of_the_budget(
    context: AgentContext, lin: str, session: str, clock: FakeClock
) -> None:
    """What they take, messages leave; and they never make a session that cannot be rendered."""
    say(context, session, clock, 3)
    assert positions(context.queue(session)) == [0, 1, 2]
    context.blocks.create("human", "word " * 12, user_id=lin)
    say(context, session, clock, 1, first=3)
    assert positions(context.queue(session)) == [3]
    with pytest.raises(InvalidDocumentError, match="tokens"):
        context.blocks.create("plan", "word " * 20, session_id=session)
    context.blocks.create("plan", "near", session_id=session)
    context.blocks.update("human", value="word " * 100, user_id=lin)
    head, newest = context.render(session)
    assert "<plan>" in head["content"]
    assert "<human" not in head["content"], "it does not fit beside the newest message"
    assert newest["content"].startswith("message 3")
    assert sum(count_words(each["content"]) for each in (head, newest)) <= 40


def test_blocks_go_with_their_owner(
    context: AgentContext, lin: str, session: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.sessions.set_role("tutor", system="You teach.")
    for label in ("a", "b", "c"):
        context.blocks.create(label, session_id=session)
        context.blocks.create(label, user_id=lin)
        context.blocks.create(label, role_name="tutor")
    wang = context.sessions.create_user("wang")
    context.blocks.create("a", user_id=wang)
    assert context.sessions.delete_user(wang).documents == 1
    assert context.sessions.delete(session).documents == 3
    assert len(db[BLOCKS]) == 6
    monkeypatch.setattr(context.sessions, "_batch", 2)
    assert context.sessions.delete_user(lin).documents == 3
    assert len(db[BLOCKS]) == 3
    with pytest.raises(MissingKeyError):
        context.blocks.of(user_id=lin)
    context.sessions.delete_role("tutor")
    assert len(db[BLOCKS]) == 0
    assert context.sessions.roles() == []
    with pytest.raises(MissingKeyError):
        context.sessions.delete_role("tutor")


def test_a_block_that_another_program_put_is_read(
    context: AgentContext, session: str, db: Database
) -> None:
    context.blocks.create("plan", session_id=session)
    (id,) = db[BLOCKS]
    kept = {name: db[BLOCKS][id][name] for name in ("id", "owner", "label", "value")}
    db[BLOCKS].put(kept)
    assert context.blocks.append("plan", "x", session_id=session)["value"] == "x"
    assert context.render(session)[0]["content"] == "<plan>\nx\n</plan>"
