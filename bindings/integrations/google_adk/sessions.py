"""A session service of ADK in three collections.

    service = AmberSessionService("memory.amber")
    runner = Runner(agent=agent, app_name="app", session_service=service)

| collection | id | fields |
|---|---|---|
| `adk_session` | `key(app, user, session)` | app, user, session, state, updated, events |
| `adk_event` | `key(app, user, session, number)` | event, timestamp |
| `adk_state` | `key(app)`, or `key(app, user)` | state |

Invariants:
- An event and all changes of state that it brings are one commit.
- The marker of a session is the version of its document, the Lsn of its last commit. An event for
  a session that somebody else has changed meanwhile is a StaleSessionError, and changes nothing.
- Events of one session object may be appended by several tasks; they are stored one by one.
- A session is read as of one time: its events, and the states of its user and app.
"""

import threading
from typing import Any, Final, TypeAlias

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform.time import get_time
from google.adk.platform.uuid import new_uuid
from google.adk.sessions.base_session_service import (
    BaseSessionService,
    GetSessionConfig,
    ListSessionsResponse,
)
from google.adk.sessions.session import Session

import amberdb
from amberdb import Database, ReadableCollection, Snapshot, Transaction
from amberdb.integrations.google_adk.texts import (
    by_scope,
    event_of,
    event_text,
    merged,
    state_of,
    to_text,
)
from amberdb.integrations.opened import DatabaseOrPath, Opened
from amberdb.integrations.threads import in_thread

OWNER: Final = "amberdb.integrations.google_adk"
_LOCKS: Final = 64
_States: TypeAlias = tuple[dict[str, Any], dict[str, Any]]  # of an app and a user
_MARKER: Final = "_storage_update_marker"  # ADK's field for what a service stores here


class AmberSessionService(BaseSessionService):
    """Sessions, their events and states. Raises OpenError, CollectionError.

    database  an open Database, or the path of one
    name      what the names of the collections begin with
    """

    def __init__(self, database: DatabaseOrPath, *, name: str = "adk") -> None:
        self._opened = Opened(database)
        self._sessions, self._events, self._states = (
            f"{name}_{each}" for each in ("session", "event", "state")
        )
        # Some locks for all sessions: two that share one only wait for each other.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        with self._opened.closed_on_error() as db:
            for each in (self._sessions, self._events, self._states):
                db.collection(each, indexes=[], owner=OWNER)

    @property
    def client(self) -> Database:
        """The database of the sessions."""
        return self._opened.db

    async def close(self) -> None:
        """Closes the database if it was given as a path. May be called twice."""
        await in_thread("write", self._opened.close)

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Raises AlreadyExistsError."""
        id = (session_id or "").strip() or new_uuid()
        return await in_thread("write", self._create, app_name, user_id, id, state or {})

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """A session with its events, None when there is none."""
        asked = config or GetSessionConfig()
        return await in_thread("read", self._get, app_name, user_id, session_id.strip(), asked)

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """The sessions of a user, or of all users, without events, the oldest update first."""
        return await in_thread("read", self._list, app_name, user_id)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Deletes a session and its events; the states of its user and app stay."""
        await in_thread("write", self._delete, app_name, user_id, session_id.strip())

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """The state of a user, without the prefix."""
        key = amberdb.key(app_name, user_id)
        found = await in_thread("read", lambda: self.client[self._states].get(key))
        return state_of(None if found is None else found["state"])

    async def append_event(self, session: Session, event: Event) -> Event:
        """Stores an event and adds it to the session. An event that the session ends with already
        is stored once. Raises SessionNotFoundError, StaleSessionError."""
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        is_new = await in_thread("write", self._append, session, event)
        return self._commit_event_to_session(session, event) if is_new else event

    # -- inside, in threads ------------------------------------------------------------------

    def _create(self, app: str, user: str, id: str, state: dict[str, Any]) -> Session:
        scoped, now = by_scope(state), get_time()
        document = {
            "id": amberdb.key(app, user, id),
            "app": app,
            "user": user,
            "session": id,
            "state": to_text(scoped["session"]),
            "updated": now,
            "events": 0,
        }
        with self.client.transaction() as tx:
            if document["id"] in tx[self._sessions]:
                raise AlreadyExistsError(f"Session with id {id} already exists.")
            tx[self._sessions].insert(document)
            self._change_states(tx, app, user, scoped)
            states = self._states_of(tx, app, user)
        return _made(document, tx.lsn, states, scoped["session"])

    def _get(self, app: str, user: str, id: str, config: GetSessionConfig) -> Session | None:
        key = amberdb.key(app, user, id)
        with self.client.snapshot() as at:
            try:
                record = at[self._sessions].record(key)
            except amberdb.MissingKeyError:
                return None
            texts = _recent(at[self._events], key, config)
            states = self._states_of(at, app, user)
        own = state_of(record.document["state"])
        session = _made(record.document, record.version, states, own)
        session.events = [event_of(text) for text in texts]
        return session

    def _list(self, app: str, user: str | None) -> ListSessionsResponse:
        prefix = amberdb.key(app) if user is None else amberdb.key(app, user)
        with self.client.snapshot() as at:
            records = at[self._sessions].find({"id": {"$prefix": prefix}}, records=True)
            states = {
                other: self._states_of(at, app, other)
                for other in {record.document["user"] for record in records}
            }
        sessions: list[Session] = []
        for record in records:
            document, own = record.document, state_of(record.document["state"])
            sessions.append(_made(document, record.version, states[document["user"]], own))
        sessions.sort(key=lambda each: (each.last_update_time, each.user_id, each.id))
        return ListSessionsResponse(sessions=sessions)

    def _delete(self, app: str, user: str, id: str) -> None:
        key = amberdb.key(app, user, id)
        with self.client.transaction() as tx:
            tx[self._sessions].delete(key)
            tx[self._events].delete_many({"id": {"$prefix": key}})

    def _append(self, session: Session, event: Event) -> bool:
        """Whether the event was stored: not when it is the last one already."""
        key = amberdb.key(session.app_name, session.user_id, session.id)
        text, scoped = event_text(event), by_scope(event.actions.state_delta)
        with self._locks[hash(key) % _LOCKS]:
            with self.client.transaction() as tx:
                is_new = self._store(tx, session, key, event.timestamp, text, scoped)
            if is_new:
                _marked(session, tx.lsn)
                session.last_update_time = event.timestamp
        return is_new

    def _store(
        self,
        tx: Transaction,
        session: Session,
        key: str,
        timestamp: float,
        text: str,
        scoped: dict[str, dict[str, Any]],
    ) -> bool:
        sessions, events = tx[self._sessions], tx[self._events]
        try:
            record = sessions.record(key)
        except amberdb.MissingKeyError:
            raise SessionNotFoundError(f"Session {session.id} not found.") from None
        number: int = record.document["events"]
        last = events.get(_event_id(session, number - 1))
        last_text = None if last is None else last["event"]
        _check_fresh(session, record.version, last_text)
        if last_text == text:
            return False
        events.put({"id": _event_id(session, number), "event": text, "timestamp": timestamp})
        changes: dict[str, Any] = {"updated": timestamp, "events": number + 1}
        if scoped["session"]:
            changes["state"] = to_text(state_of(record.document["state"]) | scoped["session"])
        sessions.update(key, changes)
        self._change_states(tx, session.app_name, session.user_id, scoped)
        return True

    def _change_states(
        self, tx: Transaction, app: str, user: str, scoped: dict[str, dict[str, Any]]
    ) -> None:
        """Stores the changes of the states of an app and a user."""
        states = tx[self._states]
        for id, changes in (
            (amberdb.key(app), scoped["app"]),
            (amberdb.key(app, user), scoped["user"]),
        ):
            if changes:
                stored = states.get(id)
                before = state_of(None if stored is None else stored["state"])
                states.put({"id": id, "state": to_text(before | changes)})

    def _states_of(self, view: Snapshot | Transaction, app: str, user: str) -> _States:
        """The states of an app and a user."""
        ids = [amberdb.key(app), amberdb.key(app, user)]
        of_app, of_user = (
            state_of(None if found is None else found["state"])
            for found in view[self._states].get_many(ids)
        )
        return of_app, of_user


def _event_id(session: Session, number: int) -> str:
    return amberdb.key(session.app_name, session.user_id, session.id, number)


def _made(
    document: amberdb.Document, version: int | None, states: _States, own: dict[str, Any]
) -> Session:
    """The session of a document, without events."""
    session = Session(
        id=document["session"],
        app_name=document["app"],
        user_id=document["user"],
        state=merged(*states, own),
        last_update_time=document["updated"],
    )
    return _marked(session, version)


def _marked(session: Session, version: int | None) -> Session:
    """The session, which remembers the version of its document."""
    setattr(session, _MARKER, str(version))
    return session


def _check_fresh(session: Session, version: int, last: str | None) -> None:
    """Raises StaleSessionError when the session is not as it is stored. One that no service has
    marked, such as a copy made by hand, is compared by its last event."""
    marker: str | None = getattr(session, _MARKER)
    if marker is None:
        own = session.events[-1].id if session.events else None
        is_fresh = own == (None if last is None else event_of(last).id)
    else:
        is_fresh = marker == str(version)
    if not is_fresh:
        raise StaleSessionError(
            f"Session {session.id} was changed since it was read: get it again, and append then"
        )


def _recent(events: ReadableCollection, key: str, config: GetSessionConfig) -> list[str]:
    """The texts of the events that are asked for, the oldest first."""
    limit = config.num_recent_events
    if limit == 0:
        return []
    where: dict[str, Any] = {"id": {"$prefix": key}}
    if config.after_timestamp is not None:
        where["timestamp"] = {"$gte": config.after_timestamp}
    found = events.find(where, order_by="-id", limit=limit, fields=["event"])
    return [document["event"] for document in reversed(found)]
