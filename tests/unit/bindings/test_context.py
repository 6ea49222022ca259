"""Agent context: what is said stays in order and within a budget, and what leaves the queue is
found again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from amberdb import (
    CollectionError,
    CursorError,
    Database,
    Document,
    Hit,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
)
from amberdb.context import AgentContext, Appended
from amberdb.context import overflow as overflow_module
from amberdb.context.types import ARCHIVAL, MAIN, RECALL, SESSIONS, tokens_used
from support.contexts import (
    BUDGET,
    DIM,
    Summary,
    contents,
    count_words,
    embed,
    make_context,
    positions,
    say,
)
from support.databases import FakeClock


@pytest.fixture
def summary() -> Summary:
    return Summary()


@pytest.fixture
def context(db: Database, clock: FakeClock, summary: Summary) -> AgentContext:
    return make_context(db, clock, summary)


@pytest.fixture
def session(context: AgentContext) -> str:
    return context.sessions.create(context.sessions.create_user("lin"), "helper")


# -- main context ----------------------------------------------------------------------------


def test_render_gives_the_messages_of_a_model_call(context: AgentContext, session: str) -> None:
    assert context.render(session) == []
    context.set_system(session, "You help.")
    context.set_working(session, "Lin likes tea.")
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    told = context.extend(
        session,
        [
            {"role": "user", "content": "你好", "metadata": {"from": "phone"}},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        ],
    )
    assert (told.first_position, told.moved, told.overflow_error) == (0, 0, None)
    assert context.render(session) == [
        {"role": "system", "content": "You help.\n\nLin likes tea."},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]
    queue = context.queue(session)
    assert positions(queue) == [0, 1, 2]
    assert [each["id"] for each in queue] == list(told.message_ids)
    assert queue[0]["metadata"] == {"from": "phone"}
    context.set_system(session, "")
    context.set_working(session, "Lin likes coffee.")
    assert context.render(session)[0] == {"role": "system", "content": "Lin likes coffee."}


def test_the_queue_is_paged_in_order(context: AgentContext, session: str, clock: FakeClock) -> None:
    say(context, session, clock, 4)
    page = context.queue(session, limit=3)
    assert positions(page) == [0, 1, 2]
    assert positions(context.queue(session, limit=3, after=page.cursor)) == [3]


def test_what_has_no_place_in_the_budget_is_refused_and_nothing_is_stored(
    context: AgentContext, session: str
) -> None:
    context.set_system(session, "word " * 30)
    with pytest.raises(InvalidDocumentError, match="budget"):
        context.append(session, "user", "word " * 11)
    good = {"role": "user", "content": "short"}
    with pytest.raises(InvalidDocumentError, match="budget"):
        context.extend(session, [good, {"role": "user", "content": "word " * 11}])
    for wrong in (
        {"role": "user"},
        {"role": "user", "content": ""},
        {"role": "", "content": "text"},
        {"role": "user", "content": 7},
        {"role": "user", "content": "text", "tool_calls": {1, 2}},
    ):
        with pytest.raises(InvalidDocumentError):
            context.extend(session, [good, wrong])
    assert context.queue(session) == []
    context.append(session, "user", "word " * 10)
    with pytest.raises(InvalidDocumentError, match="budget"):
        context.set_working(session, "one")
    with pytest.raises(InvalidDocumentError, match="budget"):
        context.set_token_budget(session, 39)
    nothing: Any = None
    with pytest.raises(InvalidDocumentError, match="str"):
        context.set_working(session, nothing)
    assert context.part(session, "working") == ""
    context.set_token_budget(session, 41)
    context.set_working(session, "one")
    assert context.part(session, "working") == "one"


@pytest.mark.parametrize("wrong", [{"token_budget": 0}, {"keep": 1.5}, {"embed": embed}])
def test_an_agent_context_that_cannot_be(db: Database, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, CollectionError)):
        AgentContext(db, **wrong)


def test_nothing_is_done_to_a_session_that_is_not_there(context: AgentContext) -> None:
    calls: list[Callable[[], object]] = [
        lambda: context.append("nobody", "user", "hello"),
        lambda: context.set_system("nobody", "hello"),
        lambda: context.set_token_budget("nobody", 7),
        lambda: context.part("nobody", "system"),
        lambda: context.queue("nobody"),
        lambda: context.render("nobody"),
        lambda: context.overflow("nobody"),
        lambda: context.external.recall("nobody"),
        lambda: context.external.recall_search("nobody", "hello"),
        lambda: context.external.archival_insert("nobody", "hello"),
        lambda: context.external.archival_search("nobody", "hello"),
        lambda: context.sessions.delete("nobody"),
        lambda: context.sessions.delete_user("nobody"),
    ]
    for call in calls:
        with pytest.raises(MissingKeyError):
            call()


# -- overflow --------------------------------------------------------------------------------


def test_the_oldest_messages_move_to_recall_storage_with_a_summary(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary
) -> None:
    say(context, session, clock, 4)
    before = {each["id"]: each for each in context.queue(session)}
    told = context.append(session, "assistant", "one more")
    assert (told.first_position, told.moved, told.overflow_error) == (4, 3, None)
    assert positions(context.queue(session)) == [3, 4]
    moved = context.external.recall(session)
    assert positions(moved) == [2, 1, 0]
    assert all(before[each["id"]] == each for each in moved)
    assert len(summary.told) == 3
    assert context.render(session) == [
        {"role": "system", "content": "3 so far"},
        {"role": "user", "content": "message 3" + " word" * 8},
        {"role": "assistant", "content": "one more"},
    ]
    state = context.sessions.get(session)
    assert (state["first_position"], state["next_position"]) == (3, 5)
    assert (state["queue_tokens"], state["summary_tokens"]) == (12, 3)


def test_a_smaller_budget_and_a_larger_working_context_make_room_too(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    say(context, session, clock, 4)
    context.set_working(session, "word " * 12)
    assert positions(context.queue(session)) == [3]
    say(context, session, clock, 1, first=4)
    context.set_token_budget(session, 30)
    assert positions(context.queue(session)) == [4]


def test_a_hook_that_fails_costs_no_message_and_no_append(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary
) -> None:
    summary.error = ConnectionError("nobody there")
    say(context, session, clock, 6)
    told = context.append(session, "user", "the newest")
    assert (told.moved, told.overflow_error) == (0, "ConnectionError: nobody there")
    assert positions(context.queue(session)) == list(range(7))
    assert context.external.recall(session) == []
    shown = contents(context.render(session))
    assert shown == ["message 3", "message 4", "message 5", "the newest"], "the newest that fit"
    with pytest.raises(ConnectionError):
        context.overflow(session)
    summary.error = None
    assert context.overflow(session) == 5
    assert positions(context.queue(session)) == [5, 6]
    assert context.overflow(session) == 0


def test_a_summary_that_is_too_long_is_a_failure_of_the_hook(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary
) -> None:
    summary.answer = "word " * 41
    say(context, session, clock, 5)
    assert positions(context.queue(session)) == list(range(5))
    with pytest.raises(InvalidDocumentError, match="summary has 41 tokens"):
        context.overflow(session)
    summary.answer = "word " * 30
    assert context.overflow(session) == 4, "it takes the room of other messages"
    context.set_working(session, "one two three")
    shown = context.render(session)
    assert shown[0] == {"role": "system", "content": "one two three"}, "the summary gives way"
    assert contents(shown[1:]) == ["message 4"]


def test_the_hook_runs_while_others_write(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary, db: Database
) -> None:
    """Outside of the writer lock; and an append in the middle of it is not lost."""
    errors: list[BaseException] = []

    def write() -> None:
        summary.during = lambda: None
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()

    def beside() -> None:
        try:
            told = context.append(session, "user", "meanwhile")
            assert (told.moved, told.overflow_error) == (0, None), "one overflow at a time"
            db.collection("other").put({"x": 1})
        except BaseException as error:
            errors.append(error)

    db.collection("other")
    summary.during = write
    say(context, session, clock, 5)
    assert errors == []
    assert contents(context.queue(session)) == ["message 3", "message 4", "meanwhile"]
    assert positions(context.external.recall(session)) == [2, 1, 0]


def test_threads_that_append_to_one_session_lose_nothing_to_its_overflows(
    context: AgentContext, session: str, summary: Summary
) -> None:
    def write(thread: int) -> None:
        for number in range(20):
            told = context.append(session, "user", f"{thread} {number}" + " word" * 8)
            assert told.overflow_error is None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    state = context.sessions.get(session)
    assert tokens_used(state) <= BUDGET
    queue = context.queue(session, limit=None)
    recall = sorted(context.external.recall(session, limit=None), key=lambda each: each["position"])
    assert positions([*recall, *queue]) == list(range(80))
    assert summary.told == [each["content"] for each in recall], "each was summed up once, in order"
    for thread in range(4):
        said = [each["content"].split()[:2] for each in (*recall, *queue)]
        assert [each[1] for each in said if each[0] == str(thread)] == [*map(str, range(20))]


def test_an_append_just_when_an_overflow_is_done_makes_it_look_again(
    context: AgentContext, session: str, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended: list[Appended] = []

    def append() -> None:
        appended.append(context.append(session, "user", "word " * 25))

    def used(state: Document) -> int:
        tokens = tokens_used(state)
        if state["first_position"] and tokens <= BUDGET and not appended:
            thread = threading.Thread(target=append)
            thread.start()
            thread.join(60)
        return tokens

    monkeypatch.setattr(overflow_module, "tokens_used", used)
    say(context, session, clock, 5)
    assert [each.moved for each in appended] == [0]
    monkeypatch.undo()
    assert tokens_used(context.sessions.get(session)) <= BUDGET
    assert len(context.queue(session)) + len(context.external.recall(session)) == 6


def test_two_contexts_over_one_database_move_a_message_once(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary, db: Database
) -> None:
    """The second finds that the first was faster, and drops its summary."""
    other = AgentContext(
        db, token_budget=BUDGET, keep=0.5, count_tokens=count_words, embed=embed, dim=DIM
    )

    def be_faster() -> None:
        summary.during = lambda: None
        assert other.overflow(session) == 3

    summary.during = be_faster
    say(context, session, clock, 5)
    assert positions(context.queue(session)) == [3, 4]
    assert positions(context.external.recall(session)) == [2, 1, 0]
    assert context.part(session, "summary") == ""


def test_many_messages_move_in_bounded_commits(
    context: AgentContext,
    session: str,
    clock: FakeClock,
    summary: Summary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary.error = ConnectionError()
    say(context, session, clock, 23)
    summary.error = None
    batches: list[int] = []
    summary.during = lambda: batches.append(len(summary.told))
    monkeypatch.setattr(overflow_module, "MOVE_MAX", 5)
    assert context.overflow(session) == 20, "when it fits, it is done"
    assert batches == [0, 5, 10, 15]
    assert positions(context.queue(session)) == [20, 21, 22]
    summary.error = ConnectionError()
    say(context, session, clock, 3, first=23)
    summary.error = None
    monkeypatch.setattr(overflow_module, "MOVE_CHARACTERS_MAX", 1)
    assert context.overflow(session) == 3, "one by one, by length"


def test_answers_of_tools_leave_with_their_call(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    say(context, session, clock, 2)
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    context.extend(
        session,
        [
            {"role": "assistant", "content": "word", "tool_calls": calls},
            {"role": "tool", "content": "answer", "tool_call_id": "c"},
        ],
    )
    context.set_token_budget(session, 39)
    context.append(session, "user", "word " * 20)
    assert [each["role"] for each in context.queue(session)] == ["user"]
    context.extend(session, [{"role": "tool", "content": "lost", "tool_call_id": "x"}])
    assert [each["role"] for each in context.render(session)] == ["system", "user", "tool"]


def test_render_leaves_out_answers_whose_call_does_not_fit(db: Database, clock: FakeClock) -> None:
    context = AgentContext(
        db, token_budget=10, count_tokens=count_words, auto_overflow=False, clock=clock
    )
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    context.append(session, "assistant", "word " * 8)
    context.append(session, "tool", "one two")
    context.append(session, "user", "three four")
    assert contents(context.render(session)) == ["three four"]
    assert len(context.queue(session)) == 3, "nothing moves by itself"
    assert context.overflow(session) == 2
    context.append(session, "tool", "x")
    context.set_token_budget(session, 2)
    assert context.render(session) == []


# -- external memory -------------------------------------------------------------------------


def test_recall_storage_is_searched_by_text_and_time(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    start = datetime.fromtimestamp(clock(), UTC)
    for number, text in enumerate(["the umbrella is in the car", "下午的会议改到三点", "tea"]):
        context.append(session, "user", text + f" number{number}" + " word" * 12)
        clock.advance(60)
    context.append(session, "user", "word " * 40)
    external = context.external
    alone = external.recall_search(session, "umbrella?", neighbors=False)
    assert contents([hit.document for hit in alone]) == ["the umbrella"]
    hit, *beside = external.recall_search(session, "会议")
    assert hit.document["position"] == 1
    assert sorted(each.document["position"] for each in beside) == [0, 2], "with its neighbors"
    minute = timedelta(seconds=60)
    assert positions(external.recall(session, since=start + minute)) == [2, 1]
    assert positions(external.recall(session, until=start + minute)) == [0]
    page = external.recall(session, limit=2)
    assert positions(external.recall(session, limit=2, after=page.cursor)) == [0]
    assert len(external.recall_search(session, "word", until=start + minute)) == 1
    assert external.recall_search(session, '"-?') == []
    assert len(external.recall_search(session, query="umbrel*")) == 1
    with pytest.raises(QueryError, match="not both"):
        external.recall_search(session, "umbrella", query="umbrella")
    with pytest.raises(QueryError):
        external.recall_search(session, "word", limit=-3)


def test_a_search_of_recall_storage_goes_on_with_the_same_neighbors(
    context: AgentContext, session: str
) -> None:
    context.set_token_budget(session, 200)
    for number in range(60):
        text = "umbrella " * (number % 3) + "word " * 30
        context.append(session, "user", f"number{number} {text}")
    whole = context.external.recall_search(session, "umbrella", limit=100)
    pages: list[Hit] = []
    after = None
    while True:
        page = context.external.recall_search(session, "umbrella", limit=4, after=after)
        pages += page
        after = page.cursor
        if after is None:
            break
    assert len(pages) > 10
    assert sorted(hit.id for hit in pages) == sorted(hit.id for hit in whole)
    first = context.external.recall_search(session, "umbrella", limit=4)
    search = partial(context.external.recall_search, session, "umbrella", after=first.cursor)
    with pytest.raises(CursorError):
        search(neighbors=False)


def test_archival_memory_is_found_by_meaning(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    external = context.external
    car = external.archival_insert(session, "the automobile is red", metadata={"source": "lin"})
    clock.advance(1)
    external.archival_insert(session, "乌龙茶")
    (first, second) = external.archival_search(session, "my car")
    assert first.id == car
    assert first.document["metadata"] == {"source": "lin"}
    assert "embedding" not in first.document
    assert first.score > second.score
    assert [each["content"] for each in external.archival(session)] == [
        "乌龙茶",
        "the automobile is red",
    ]
    with pytest.raises(InvalidDocumentError):
        external.archival_insert(session, " ")
    external.archival_delete(car)
    assert len(external.archival_search(session, "my car")) == 1
    with pytest.raises(MissingKeyError):
        external.archival_delete(car)


def test_pages_by_meaning_neither_hide_nor_repeat_what_is_written_between(
    context: AgentContext, session: str
) -> None:
    """Also among equal scores."""
    external = context.external
    ids = [external.archival_insert(session, "car" + "!" * (n // 3)) for n in range(20)]
    found: list[str] = []
    after: str | None = None
    while True:
        page = external.archival_search(session, "car", limit=4, after=after)
        found += [hit.id for hit in page]
        ids.append(
            external.archival_insert(session, "car")
        )  # the best of all: the next page has it
        external.archival_delete(page[0].id)
        after = page.cursor
        if after is None:
            break
    assert set(ids[:-1]) == set(found)
    assert len(found) == len(set(found))


def test_a_cursor_is_of_its_question(context: AgentContext, session: str) -> None:
    external = context.external
    for number in range(3):
        external.archival_insert(session, f"car {number}")
    cursor = external.archival_search(session, "car", limit=1).cursor
    assert cursor is not None
    assert len(external.archival_search(session, "car", after=cursor)) == 2
    with pytest.raises(CursorError):
        external.archival_search(session, "car", limit=1, after=cursor[:-6])
    with pytest.raises(CursorError):
        external.archival_search(session, "tea", limit=1, after=cursor)


def test_an_embedder_that_is_down_stores_all_the_same_and_words_find_it(
    db: Database, clock: FakeClock
) -> None:
    is_down = True

    def moody(texts: list[str]) -> Any:
        if is_down:
            raise ConnectionError
        return embed(texts)

    context = AgentContext(db, embed=moody, dim=DIM, clock=clock)
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    context.external.archival_insert(session, "the automobile")
    assert len(context.external.archival_search(session, "automobile")) == 1
    assert context.external.archival_search(session, "car") == []
    is_down = False
    assert db.collection(ARCHIVAL).embed_missing() == 1
    assert len(context.external.archival_search(session, "car")) == 1


def test_sessions_are_searched_apart_or_together(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    user = context.sessions.get(session)["user_id"]
    other = context.sessions.create(user, "tutor")
    for each in (session, other):
        context.external.archival_insert(each, f"car of {each}")
        context.append(each, "user", "umbrella " * 21)
        context.append(each, "user", "word " * 20)
    external = context.external
    assert len(external.archival_search(session, "car")) == 1
    assert len(external.archival_search([session, other], "car")) == 2
    assert len(external.recall_search([session, other], "umbrella")) == 2
    assert len(external.recall([session, other])) == 2
    with pytest.raises(MissingKeyError):
        external.recall([session, "nobody"])


def test_what_the_document_asks_for_often_is_answered_by_an_index(
    context: AgentContext, session: str, db: Database, clock: FakeClock
) -> None:
    user = context.sessions.get(session)["user_id"]
    asked: list[tuple[str, dict[str, Any], str]] = [
        (SESSIONS, {"user_id": user, "role_name": "helper"}, "-updated_at"),
        (MAIN, {"session_id": session, "context_type": "queue"}, "position"),
        (RECALL, {"session_id": session}, "-created_at"),
        (RECALL, {}, "-created_at"),
        (ARCHIVAL, {"session_id": session}, "-created_at"),
        (ARCHIVAL, {}, "-created_at"),
    ]
    for name, where, order in asked:
        plan = db.collection(name).explain(where, order_by=order)
        assert plan["index"] is not None, plan
        assert plan["order"] != "sort", plan


def test_a_session_that_is_deleted_while_its_summary_is_made_is_not_brought_back(
    context: AgentContext, session: str, clock: FakeClock, summary: Summary, db: Database
) -> None:
    def delete() -> None:
        context.sessions.delete(session)

    summary.during = delete
    say(context, session, clock, 4)
    told = context.append(session, "user", "one more")
    assert told.overflow_error is not None
    assert "deleted" in told.overflow_error
    assert len(db.collection(MAIN)) == len(db.collection(RECALL)) == 0


def test_another_embedder_of_archival_memory_makes_its_vectors_anew(db: Database) -> None:
    def embedder(dim: int) -> Callable[[list[str]], Any]:
        def embed(texts: list[str]) -> Any:
            return [[1.0] * dim] * len(texts)

        return embed

    context = AgentContext(db, embed=embedder(3), dim=3)
    session = context.sessions.create(context.sessions.create_user("lin"), "helper")
    context.external.archival_insert(session, "likes tea")
    context = AgentContext(db, embed=embedder(5), dim=5)
    (found,) = context.external.archival_search(session, "tea")
    assert found.document["content"] == "likes tea"
    db.migrate()
    assert db["archival_memory"].embed_missing() == 1
    (stored,) = db["archival_memory"].documents()
    assert len(stored["embedding"]) == 5
    AgentContext(db)  # without one, the vectors stay
    assert len(db["archival_memory"][stored["id"]]["embedding"]) == 5
