"""Whose documents are found: of sessions, users and roles, of one agent context among several, in a
transaction of the caller, and in databases of earlier builds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amberdb import (
    ClosedError,
    CollectionError,
    Database,
    InvalidDocumentError,
    MissingKeyError,
    Ordered,
    QueryError,
    Text,
)
from amberdb.context import AgentContext, types
from amberdb.context.types import ARCHIVAL, DEPENDENT, MAIN, RECALL, SESSIONS
from support.contexts import DIM, Summary, contents, embed, make_context
from support.databases import FakeClock, OpenDatabase


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    return make_context(db, clock, Summary())


def owners(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return list(given)


def told(context: AgentContext, user: str, role: str, clock: FakeClock) -> str:
    """A session with a message in recall storage, one in the queue, and an archival memory."""
    session = context.sessions.create(user, role)
    for place in ("old", "new"):
        text = f"{place} umbrella of {user} {role}" + " word" * 20
        context.append(session, "user", text)
        clock.advance(1)
    context.external.archival_insert(session, f"umbrella note of {user} {role}")
    assert len(context.queue(session)) == len(context.external.recall(session)) == 1
    return session


# -- users and roles -------------------------------------------------------------------------


def test_memories_of_a_user_and_of_a_role_are_found_over_sessions(
    context: AgentContext, clock: FakeClock
) -> None:
    for user in ("lin", "wang"):
        context.sessions.create_user(user, user_id=user)
        for role in ("tutor", "cook", "tutor"):
            told(context, user, role, clock)
    external = context.external
    asked: list[tuple[dict[str, Any], int]] = [
        ({"user_id": "lin"}, 3),
        ({"role_name": "tutor"}, 4),
        ({"user_id": "lin", "role_name": "tutor"}, 2),
        ({"user_id": "wang", "role_name": "nurse"}, 0),
    ]
    for owner, count in asked:
        found = [
            external.recall(**owner),
            [hit.document for hit in external.recall_search(text="umbrella", **owner)],
            external.archival(**owner),
            [hit.document for hit in external.archival_search(text="umbrella note", **owner)],
        ]
        for documents in found:
            assert len(documents) == count, (owner, documents)
            assert all(each[key] == name for each in documents for key, name in owner.items())
        times = [each["created_at"] for each in external.recall(**owner)]
        assert times == sorted(times, reverse=True)
        both = context.conversation_search(text="umbrella", limit=20, **owner)
        assert sum(hit.document["content"].startswith("new") for hit in both) == count
        assert len(both) == 2 * count
    page = external.archival(user_id="lin", limit=2)
    assert len(external.archival(user_id="lin", limit=2, after=page.cursor)) == 1


def test_an_owner_is_given_once(context: AgentContext, clock: FakeClock) -> None:
    context.sessions.create_user("lin", user_id="lin")
    session = told(context, "lin", "tutor", clock)
    for wrong in (
        {},
        {"session_id": session, "user_id": "lin"},
        {"user_id": {"$ne": "x"}},
        {"role_name": ["tutor"]},
        {"session_id": {session}},
    ):
        owner: dict[str, Any] = wrong
        for call in (context.external.recall, context.external.archival):
            with pytest.raises(QueryError):
                call(**owner)
        with pytest.raises(QueryError):
            context.conversation_search(text="umbrella", **owner)
    with pytest.raises(MissingKeyError):
        context.external.recall(user_id="nobody")


def test_what_is_being_deleted_is_not_found_by_user_or_role(
    context: AgentContext, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.sessions.create_user("lin", user_id="lin")
    gone, stays = told(context, "lin", "tutor", clock), told(context, "lin", "tutor", clock)
    monkeypatch.setattr(context.sessions, "_batch", 1)
    monkeypatch.setattr(context.sessions, "purge", lambda: 0)  # a crash right behind the commit
    context.sessions.delete(gone)
    for owner in owners({"user_id": "lin"}, {"role_name": "tutor"}):
        for found in (context.external.recall(**owner), context.external.archival(**owner)):
            assert [each["session_id"] for each in found] == [stays]
        hits = context.conversation_search(text="umbrella", **owner)
        assert {hit.document["session_id"] for hit in hits} == {stays}
    context.sessions.delete_user("lin")
    with pytest.raises(MissingKeyError):
        context.external.recall(user_id="lin")
    assert context.external.recall(role_name="tutor") == []


def test_what_is_asked_by_user_and_role_is_answered_by_an_index(
    context: AgentContext, db: Database
) -> None:
    for name in (RECALL, ARCHIVAL):
        for owner in ({"user_id": "lin"}, {"role_name": "tutor"}):
            plan = db[name].explain(owner, order_by="-created_at")
            assert plan["index"] is not None, plan
            assert plan["order"] != "sort", plan
        plan = db[name].explain({"session_id": "s"}, order_by="-position")
        assert plan["order"] != "sort", plan


# -- one search ------------------------------------------------------------------------------


def test_one_search_covers_the_queue_and_recall_storage(
    context: AgentContext, clock: FakeClock
) -> None:
    user = context.sessions.create_user("lin")
    session = context.sessions.create(user, "tutor", token_budget=60)
    context.set_system(session, "umbrella")
    start = datetime.fromtimestamp(clock(), UTC)
    for number, role in enumerate(("user", "assistant", "user", "assistant")):
        context.append(session, role, f"umbrella {number}" + " word" * 18)
        clock.advance(60)
    assert [each["position"] for each in context.queue(session)] == [2, 3]

    def found(**more: Any) -> set[int]:
        hits = context.conversation_search(session, "umbrella", **more)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        return {hit.document["position"] for hit in hits}

    assert found() == {0, 1, 2, 3}, "and no part of the main context"
    assert found(roles=["assistant"]) == found(roles="assistant") == {1, 3}
    assert found(since=start + timedelta(seconds=60), until=start + timedelta(seconds=180)) == {
        1,
        2,
    }
    assert len(found(limit=3)) == 3
    alone = context.conversation_search(session, query="+umbrella +3")
    assert [hit.document["position"] for hit in alone] == [3]
    assert context.conversation_search(session, "nothing of it") == []
    with pytest.raises(QueryError):
        context.conversation_search(session, "umbrella", query="umbrella")


# -- archival memories in batches ------------------------------------------------------------


def test_many_archival_memories_are_embedded_and_stored_in_batches(
    db: Database, clock: FakeClock
) -> None:
    sizes: list[int] = []

    def counted(texts: list[str]) -> Any:
        sizes.append(len(texts))
        return embed(texts)

    context = AgentContext(db, embed=counted, dim=DIM, clock=clock)
    session = context.sessions.create(context.sessions.create_user("lin"), "tutor")
    before = db.stats()["last_lsn"]
    then = datetime(2020, 1, 1, tzinfo=UTC)
    memories: list[Any] = [f"note {number}" for number in range(449)]
    memories.append({"content": "my car", "metadata": {"from": "lin"}, "created_at": then})
    ids = context.external.archival_insert_many(session, memories)
    assert (len(set(ids)), sizes) == (450, [200, 200, 50])
    assert db.stats()["last_lsn"] == before + 3
    newest = context.external.archival(session, limit=2)
    assert [each["content"] for each in newest] == ["my car", "note 448"]
    assert newest[0]["created_at"] == then
    hits = context.external.archival_search(session, "automobile", limit=1)
    assert hits[0].document["metadata"] == {"from": "lin"}
    wrong: list[Any] = [
        "",
        7,
        {"text": "x"},
        {"content": "x", "created_at": "now"},
        {"metadata": 7},
    ]
    for bad in wrong:
        with pytest.raises(InvalidDocumentError):
            context.external.archival_insert_many(session, ["good", bad])
    assert len(db[ARCHIVAL]) == 450


# -- transactions of the caller --------------------------------------------------------------


def test_every_writing_method_joins_a_transaction_of_the_caller(
    context: AgentContext, db: Database, clock: FakeClock
) -> None:
    """All of it or nothing, beside the program's own documents; no hook and no embedder runs."""
    own = db.collection("own")
    sessions, blocks, external = context.sessions, context.blocks, context.external
    sessions.set_role("old")
    sessions.set_setting("old", 1)

    def work(tx: Any) -> None:
        tx["own"].put({"id": "x"})
        lin = sessions.create_user("lin", user_id="lin", tx=tx)
        assert sessions.find_or_create_user("lin", tx=tx) == lin
        sessions.set_role("tutor", system="You teach.", tx=tx)
        for id in ("s", "gone"):
            sessions.create(lin, "tutor", session_id=id, tx=tx)
        context.set_system("s", "You help.", tx=tx)
        context.set_working("s", "Facts.", tx=tx)
        context.append_working("s", "More.", tx=tx)
        context.replace_working("s", "More.", "Less.", tx=tx)
        context.set_token_budget("s", 50, tx=tx)
        for number in range(6):
            appended = context.append("s", "user", f"{number}" + " word" * 9, tx=tx)
            told = (appended.first_position, appended.moved, appended.overflow_error)
            assert told == (number, 0, None)
        blocks.create("human", "tea", session_id="s", tx=tx)
        blocks.append("human", "more tea", session_id="s", tx=tx)
        blocks.replace("human", "more tea", "coffee", session_id="s", tx=tx)
        blocks.update("human", description="About lin.", session_id="s", tx=tx)
        blocks.create("short", user_id=lin, tx=tx)
        blocks.delete("short", user_id=lin, tx=tx)
        external.archival_insert("s", "the car", tx=tx)
        (id,) = external.archival_insert_many("s", ["gone"], tx=tx)
        external.archival_delete(id, tx=tx)
        assert sessions.delete("gone", tx=tx).sessions == 1
        sessions.set_setting("model", "small", tx=tx)
        sessions.delete_setting("old", tx=tx)
        sessions.delete_role("old", tx=tx)

    def fail() -> None:
        with db.transaction() as tx:
            work(tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(own) == sum(len(db[name]) for name in (*DEPENDENT, SESSIONS)) == 0
    assert sessions.settings() == {"old": 1}
    before = db.stats()["last_lsn"]
    with db.transaction() as tx:
        work(tx)
    assert db.stats()["last_lsn"] == before + 1
    assert context.part("s", "working") == "Facts.\nLess."
    assert blocks.get("human", session_id="s")["value"] == "tea\ncoffee"
    assert sessions.settings() == {"model": "small"}
    assert [role["id"] for role in sessions.roles()] == ["tutor"]
    assert len(context.queue("s")) == 6
    assert db[ARCHIVAL].embed_missing() == 1
    assert contents([external.archival_search("s", "automobile")[0].document]) == ["the car"]
    assert context.append("s", "user", "now there is room").moved == 5
    with db.transaction() as tx:
        receipt = sessions.delete_user("lin", tx=tx)
    assert (receipt.sessions, receipt.documents, len(db[MAIN])) == (1, 12, 0)
    with pytest.raises(ClosedError):
        context.sessions.create_user("late", tx=tx)


def test_a_large_deletion_in_a_transaction_of_the_caller_goes_on_later(
    context: AgentContext, db: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.sessions.create_user("lin", user_id="lin")
    first = told(context, "lin", "tutor", clock)
    told(context, "lin", "tutor", clock)
    monkeypatch.setattr(context.sessions, "_batch", 2)
    with db.transaction() as tx:
        context.sessions.delete(first, tx=tx)
    with db.transaction() as tx:
        assert context.sessions.delete_user("lin", tx=tx).sessions == 2
    with pytest.raises(MissingKeyError):
        context.external.recall(user_id="lin")
    assert context.sessions.purge() > 0
    assert sum(len(db[name]) for name in (*DEPENDENT, SESSIONS, "users")) == 0


# -- several contexts, and a program's own collections ---------------------------------------


def test_contexts_with_names_know_nothing_of_each_other(db: Database, clock: FakeClock) -> None:
    shop, plain = AgentContext(db, name="shop", clock=clock), AgentContext(db, clock=clock)
    for context, text in ((shop, "of the shop"), (plain, "of nobody")):
        context.sessions.create_user("lin", user_id="lin")
        context.sessions.create("lin", "tutor", session_id="s")
        context.append("s", "user", text)
        context.blocks.create("human", text, user_id="lin")
    assert {"shop_main_context", "main_context", "shop_memory_blocks"} <= set(db.collections())
    shop.sessions.delete_user("lin")
    assert plain.render("s")[1]["content"] == "of nobody"
    with pytest.raises(MissingKeyError, match="shop_session"):
        shop.render("s")


def test_a_collection_of_the_program_is_not_taken(db: Database) -> None:
    db.collection("users", indexes=[Ordered("age")]).put({"id": "mine", "age": 7})
    with pytest.raises(CollectionError, match="name="):
        AgentContext(db)
    AgentContext(db, name="agent").sessions.create_user("lin")
    assert [*db["users"]] == ["mine"]


# -- ids -------------------------------------------------------------------------------------

ALIKE = [
    *(
        "e\u0301",
        "\u00e9",
        "a",
        "A",
        "a ",
        " a",
        "a\u200b",
        "a:system",
        "a/system",
        "$ne",
        "\u8bf4" * 160,
    ),
    *("x" * 480, "x" * 479, "a\n", "a\0"),
]


def test_ids_that_look_alike_are_different_ones(db: Database, clock: FakeClock) -> None:
    context = AgentContext(db, clock=clock)
    for id in ALIKE:
        context.sessions.create_user(f"name {id}", user_id=id)
        context.sessions.create(id, id, session_id=id)
        for change in (context.set_system, context.set_working):
            change(id, f"{ALIKE.index(id)}")
        context.append(id, "user", f"umbrella {ALIKE.index(id)}")
        context.external.archival_insert(id, f"umbrella {ALIKE.index(id)}")
        context.blocks.create(id, f"block {ALIKE.index(id)}", user_id=id)
    for number, id in enumerate(ALIKE):
        head, message = context.render(id)
        assert head["content"].startswith(f"{number}\n\n")
        assert f"block {number}" in head["content"]
        assert message["content"] == f"umbrella {number}"
        for owner in owners({"session_id": id}, {"user_id": id}, {"role_name": id}):
            (note,) = context.external.archival(**owner)
            assert note["content"] == f"umbrella {number}"
            (hit,) = context.conversation_search(text="umbrella", **owner)
            assert hit.document["content"] == f"umbrella {number}"
    context.sessions.delete_user(ALIKE[0])
    assert len(db[MAIN]) == 3 * len(ALIKE) - 3


# -- earlier builds --------------------------------------------------------------------------


def test_a_database_of_an_earlier_build_is_completed(
    open_db: OpenDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documents have neither user nor role, and its collections no owner."""
    db = open_db("old.amber", clock=clock)
    owned = {"session_id": str, "content": str}
    times = [Ordered("session_id", "created_at"), Ordered("created_at")]
    queue = Ordered("session_id", "context_type", "position")
    db.collection(MAIN, indexes=[queue], required=owned)
    for name in (RECALL, ARCHIVAL):
        db.collection(name, indexes=[*times, Text("content")], required=owned)
    now = datetime.fromtimestamp(clock(), UTC)
    monkeypatch.setattr(types, "COMPLETE_MAX", 1)
    for name, position in ((RECALL, 0), (MAIN, 1), (ARCHIVAL, None)):
        document = {"session_id": "s", "content": f"umbrella in {name}", "created_at": now}
        if position is not None:
            document |= {"context_type": "queue", "role": "user", "position": position}
            document |= {"message": {}, "metadata": {}, "token_count": 3}
        db[name].put(document)
        db[name].put({**document, "session_id": "of nobody"})
    db.collection(
        SESSIONS,
        indexes=[
            Ordered("user_id", "role_name", "updated_at"),
            Ordered("user_id", "updated_at"),
            Ordered("deleted_at", sparse=True),
        ],
        required={"user_id": str, "role_name": str},
    ).put({"id": "s", "user_id": "lin", "role_name": "tutor", "next_position": 2})
    context = AgentContext(db, clock=clock)
    db.build_indexes()
    context.sessions.create_user("lin", user_id="lin")
    for owner in owners({"user_id": "lin"}, {"role_name": "tutor"}, {"session_id": "s"}):
        external = context.external
        assert len(external.recall(**owner)) == len(external.archival(**owner)) == 1, owner
        assert len(external.recall_search(text="umbrella", **owner)) == 1
        assert len(external.archival_search(text="umbrella", **owner)) == 1
        assert len(context.conversation_search(text="umbrella", **owner)) == 2
    assert contents(context.render("s")) == ["umbrella in"]
    context.append("s", "user", "next")
    assert context.queue("s")[1]["position"] == 2
    context.external.archival_insert("s", "newer")
    newest, oldest = context.external.archival("s")
    assert (newest["content"], oldest["content"]) == ("newer", "umbrella in archival_memory")
