"""Users, sessions and roles; and deletions that take along what hangs on them."""

from typing import Any

import pytest

from amberdb import (
    REMOVE,
    Database,
    DuplicateKeyError,
    InvalidDocumentError,
    MissingKeyError,
    QueryError,
    TransactionTooLargeError,
)
from amberdb.context import AgentContext
from amberdb.context.types import DEPENDENT, SESSIONS, USERS
from support.contexts import Summary, make_context, say
from support.databases import FakeClock, OpenDatabase


@pytest.fixture
def context(db: Database, clock: FakeClock) -> AgentContext:
    return make_context(db, clock, Summary())


@pytest.fixture
def session(context: AgentContext) -> str:
    return context.sessions.create(context.sessions.create_user("lin"), "helper")


# -- users, sessions, roles ------------------------------------------------------------------


def test_users_have_names_of_their_own(context: AgentContext, clock: FakeClock) -> None:
    sessions = context.sessions
    lin = sessions.create_user("lin", metadata={"city": "杭州"})
    clock.advance(1)
    wang = sessions.create_user("wang", user_id="w")
    assert wang == "w"
    assert sessions.user(lin)["metadata"] == {"city": "杭州"}
    found = sessions.find_user("wang")
    assert found is not None
    assert found["id"] == "w"
    assert sessions.find_user("nobody") is None
    assert sessions.find_or_create_user("wang") == "w"
    assert [each["username"] for each in sessions.users()] == ["lin", "wang"]
    for name, id in (("lin", None), ("other", "w")):
        with pytest.raises(DuplicateKeyError):
            sessions.create_user(name, user_id=id)
    zhao = sessions.find_or_create_user("zhao")
    assert sessions.find_or_create_user("zhao") == zhao != lin
    for call in (sessions.create_user, sessions.find_or_create_user):
        with pytest.raises(InvalidDocumentError):
            call("")
    with pytest.raises(MissingKeyError):
        sessions.user("nobody")


def test_sessions_are_of_a_user_and_a_role(
    context: AgentContext, session: str, clock: FakeClock
) -> None:
    sessions = context.sessions
    user = sessions.get(session)["user_id"]
    clock.advance(1)
    other = sessions.create(user, "tutor", session_id="s2", token_budget=99)
    assert [each["id"] for each in sessions.of(user)] == [other, session]
    assert [each["id"] for each in sessions.of(user, "helper")] == [session]
    clock.advance(1)
    context.append(session, "user", "the last changed first")
    page = sessions.of(user, limit=1)
    assert [each["id"] for each in page] == [session]
    assert [each["id"] for each in sessions.of(user, limit=1, after=page.cursor)] == [other]
    assert sessions.get(other)["token_budget"] == 99
    with pytest.raises(DuplicateKeyError):
        sessions.create(user, "tutor", session_id="s2")
    for wrong in ("nobody", session):
        with pytest.raises(MissingKeyError):
            sessions.create(wrong, "tutor")
    wrong_budgets: list[Any] = [0, -1, 2.5, True]
    for budget in wrong_budgets:
        with pytest.raises(InvalidDocumentError):
            sessions.create(user, "tutor", token_budget=budget)


def test_a_session_begins_as_its_role_says(context: AgentContext, session: str) -> None:
    sessions = context.sessions
    user = sessions.get(session)["user_id"]
    assert sessions.role("tutor") is None
    sessions.set_role("tutor", system="You teach.", token_budget=20, settings={"temperature": 0.2})
    sessions.set_role("tutor", settings={"model": "small"})
    settings = {"$schema": "v1", "temperature": 0.2, "model": "small"}
    assert sessions.set_role("tutor", settings={"$schema": "v1"})["settings"] == settings
    sessions.set_role("tutor", settings={"$schema": REMOVE})
    role = sessions.role("tutor")
    assert role is not None
    assert role["settings"] == {"temperature": 0.2, "model": "small"}
    taught = sessions.create(user, "tutor")
    assert sessions.get(taught)["token_budget"] == 20
    sessions.set_role("tutor", system="You teach more than there is room for " + "word " * 20)
    assert context.part(taught, "system") == "You teach."
    assert context.render(taught) == [{"role": "system", "content": "You teach."}]
    with pytest.raises(InvalidDocumentError, match="budget"):
        sessions.create(user, "tutor")
    assert [each["role_name"] for each in sessions.roles()] == ["tutor"]
    sessions.set_setting("model", {"name": "small"})
    assert sessions.setting("model") == {"name": "small"}
    assert sessions.setting("nothing", 7) == 7


# -- deletion --------------------------------------------------------------------------------


def filled(context: AgentContext, user: str, clock: FakeClock) -> str:
    session = context.sessions.create(user, "helper")
    context.set_system(session, "You help.")
    say(context, session, clock, 8)
    context.external.archival_insert(session, "the car is red")
    return session


def hanging(db: Database) -> int:
    return sum(len(db.collection(name)) for name in DEPENDENT)


def test_a_session_takes_along_what_hangs_on_it_in_one_commit(
    context: AgentContext, db: Database, clock: FakeClock
) -> None:
    user = context.sessions.create_user("lin")
    gone, stays = filled(context, user, clock), filled(context, user, clock)
    assert hanging(db) == 22
    before = db.stats()["last_lsn"]
    receipt = context.sessions.delete(gone)
    assert (receipt.sessions, receipt.documents) == (1, 11)
    assert receipt.lsn == before + 1 == db.stats()["last_lsn"]
    assert hanging(db) == 11
    assert len(context.queue(stays)) + len(context.external.recall(stays)) == 8
    with pytest.raises(MissingKeyError):
        context.render(gone)
    with pytest.raises(MissingKeyError):
        context.sessions.delete(gone)


def test_a_user_takes_along_all_sessions(
    context: AgentContext, db: Database, clock: FakeClock
) -> None:
    lin, wang = context.sessions.create_user("lin"), context.sessions.create_user("wang")
    for user in (lin, lin, wang):
        filled(context, user, clock)
    before = db.stats()["last_lsn"]
    receipt = context.sessions.delete_user(lin)
    assert (receipt.sessions, receipt.documents) == (2, 22)
    assert db.stats()["last_lsn"] == before + 1
    assert (len(db.collection(USERS)), len(db.collection(SESSIONS)), hanging(db)) == (1, 1, 11)


def test_what_is_too_large_for_one_commit_is_gone_at_once_and_removed_in_bounded_ones(
    context: AgentContext, db: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = context.sessions
    monkeypatch.setattr(sessions, "_batch", 4)
    lin, wang = sessions.create_user("lin"), sessions.create_user("wang")
    gone = [filled(context, lin, clock) for _ in range(2)]
    stays = filled(context, wang, clock)
    monkeypatch.setattr(sessions, "purge", lambda: 0)  # a crash right behind the first commit
    assert sessions.delete_user(lin).sessions == 2
    monkeypatch.undo()
    monkeypatch.setattr(sessions, "_batch", 4)
    assert hanging(db) == 33, "nothing is removed yet, and nobody sees it"
    assert [each["username"] for each in sessions.users()] == ["wang"]
    assert sessions.of(lin) == []
    for session in gone:
        for call in (context.render, context.external.recall, sessions.delete):
            with pytest.raises(MissingKeyError):
                call(session)
        with pytest.raises(MissingKeyError):
            context.append(session, "user", "too late")
    with pytest.raises(MissingKeyError):
        sessions.create(lin, "helper")
    again = sessions.create_user("lin")
    told: list[int] = []
    assert sessions.purge(told.append) == 22
    assert told == [4, 8, 11, 15, 19, 22]
    assert (len(db.collection(USERS)), len(db.collection(SESSIONS)), hanging(db)) == (2, 1, 11)
    assert sessions.user(again)["username"] == "lin"
    assert len(context.queue(stays)) + len(context.external.recall(stays)) == 8
    assert sessions.delete(stays).documents == 11
    assert hanging(db) == 0


def test_what_a_session_holds_does_not_meet_the_limit_of_a_transaction(
    open_db: OpenDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only how many sessions a user has does; then nothing has changed."""
    db = open_db("small.amber", clock=clock, transaction_bytes_max=20_000)
    context = make_context(db, clock, Summary())
    sessions = context.sessions
    user = sessions.create_user("lin")
    session = sessions.create(user, "helper")
    for _ in range(100):
        context.external.archival_insert(session, "car")
    with pytest.raises(TransactionTooLargeError):
        sessions.delete(session)
    monkeypatch.setattr(sessions, "_batch", 20)
    assert len(context.external.archival(session)) == 100
    assert sessions.delete(session).documents == 100
    made = [sessions.create(user, "helper") for _ in range(60)]
    with pytest.raises(TransactionTooLargeError):
        sessions.delete_user(user)
    assert len(sessions.of(user)) == 60
    for each in made[:40]:
        sessions.delete(each)
    assert sessions.delete_user(user).sessions == 20


def test_a_missing_id_is_not_anybodys(db: Database) -> None:
    sessions = AgentContext(db).sessions
    sessions.create(sessions.create_user("lin"), "helper")
    nobody: Any = None
    for call in (sessions.find_user, sessions.find_or_create_user, sessions.of):
        with pytest.raises((QueryError, InvalidDocumentError)):
            call(nobody)
