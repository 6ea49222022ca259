"""The collections of transcripts.

    <name>.transcripts  {id: key(session, part), project_key, session_id, subpath, mtime, next,
                         summary}
    <name>.entries      {id: key(session, part, number), uuid, item | json}

    session  a digest of project_key and session_id
    part     "" for the main transcript, a digest of the subpath for one of a subagent
    next     the number of the next entry
    summary  of the main transcript: what the SDK has folded, as item | json

Invariants:
- The entries of a transcript are numbered in the order of their commits; their ids have the order.
- A uuid is in a transcript once.
- mtime is milliseconds since 1970, and greater than that of every commit before, unless the clock
  was set back by more than an hour.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, final

from claude_agent_sdk import SessionKey, fold_session_summary
from claude_agent_sdk.types import (
    SessionListSubkeysKey,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

import amberdb
from amberdb import Database, Document, Ordered, Transaction
from amberdb._shared.checks import check_name
from amberdb.integrations.json_items import item_of, stored_item

OWNER: Final = "claude_agent"
SLACK_MS: Final = 3_600_000
UUIDS_MAX: Final = 10_000
"""Of one filter."""


@final
class Transcripts:
    """Transcripts and their entries."""

    def __init__(self, db: Database, name: str, clock: Callable[[], float]) -> None:
        """Raises CollectionError."""
        self._db = db
        self._clock = clock
        self._transcripts = db.collection(
            f"{name}.transcripts",
            indexes=[Ordered("project_key", "subpath"), Ordered("mtime")],
            owner=OWNER,
        )
        self._entries = db.collection(
            f"{name}.entries", indexes=[Ordered("uuid", sparse=True)], owner=OWNER
        )

    def append(self, key: SessionKey, entries: Sequence[SessionStoreEntry]) -> None:
        """Adds the entries that are not there yet, in one commit."""
        parts = _parts(key)
        stored = [(_uuid(entry), entry, stored_item(entry)) for entry in entries]
        if not stored:
            self._db.collections()  # raises ClosedError, as with entries
            return
        with self._db.transaction() as tx:
            self._lock(tx, parts[0])
            known = self._known(tx, parts, [uuid for uuid, _, _ in stored if uuid is not None])
            new: list[tuple[str | None, SessionStoreEntry, dict[str, Any]]] = []
            for uuid, entry, document in stored:
                if uuid is None or uuid not in known:
                    new.append((uuid, entry, document))
                    known |= {uuid} if uuid is not None else set()
            if new:
                row = self._row(tx, key, parts, [entry for _, entry, _ in new])
                tx[self._entries.name].put_many(
                    {"id": amberdb.key(*parts, number), **_with(uuid), **document}
                    for number, (uuid, _, document) in enumerate(new, row["next"])
                )
                tx[self._transcripts.name].put({**row, "next": row["next"] + len(new)})

    def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The entries of a transcript, as of one time."""
        parts = _parts(key)
        with self._db.snapshot() as at:
            if amberdb.key(*parts) not in at[self._transcripts.name]:
                return None
            found = at[self._entries.name].find(_within(*parts), order_by="id")
        return [item_of(document) for document in found]

    def sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The main transcripts of a project."""
        return [
            {"session_id": row["session_id"], "mtime": row["mtime"]}
            for row in self._mains(project_key, ["session_id", "mtime"])
        ]

    def summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """What the SDK has folded of the main transcripts of a project."""
        return [item_of(row["summary"]) for row in self._mains(project_key, ["summary"])]

    def subpaths(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths of a session."""
        within = _within(_session(key["project_key"], key["session_id"]))
        found = self._transcripts.find(within, order_by="id", fields=["subpath"])
        return [row["subpath"] for row in found if row["subpath"]]

    def delete(self, key: SessionKey) -> None:
        """Deletes a transcript, a main one with all of its session, in one commit."""
        session, part = _parts(key)
        with self._db.transaction() as tx:
            self._lock(tx, session)
            self._delete(tx, _within(session, part) if part else _within(session))

    def delete_idle(self, idle: timedelta) -> int:
        """Deletes sessions whose transcripts are all older."""
        if idle < timedelta(0):
            raise ValueError(f"idle={idle!r}: give the time since the last append, not below zero")
        until = self._now_ms() - round(idle.total_seconds() * 1000)
        old = {"mtime": {"$lte": until}}
        count = 0
        for row in self._transcripts.find(old, fields=["project_key", "session_id"]):
            session = _session(row["project_key"], row["session_id"])
            within = _within(session)
            with self._db.transaction() as tx:
                self._lock(tx, session)
                times = tx[self._transcripts.name].find(within, fields=["mtime"])
                if times and all(each["mtime"] <= until for each in times):
                    self._delete(tx, within)
                    count += 1
        return count

    def _lock(self, tx: Transaction, session: str) -> None:
        """Holds the transcripts of a session."""
        tx.lock(f"{self._transcripts.name}/{session}")

    def _delete(self, tx: Transaction, within: dict[str, Any]) -> None:
        tx[self._entries.name].delete_many(within)
        tx[self._transcripts.name].delete_many(within)

    def _mains(self, project_key: str, fields: list[str]) -> Sequence[Document]:
        check_name("project_key", project_key)
        return self._transcripts.find({"project_key": project_key, "subpath": ""}, fields=fields)

    def _known(self, tx: Transaction, parts: tuple[str, str], uuids: list[str]) -> set[str]:
        """Those of the uuids that the transcript has."""
        beginning = amberdb.key(*parts)
        known: set[str] = set()
        for start in range(0, len(uuids), UUIDS_MAX):
            where = {"uuid": {"$in": uuids[start : start + UUIDS_MAX]}}
            found = tx[self._entries.name].find(where, fields=["id", "uuid"])
            known |= {entry["uuid"] for entry in found if entry["id"].startswith(beginning)}
        return known

    def _row(
        self,
        tx: Transaction,
        key: SessionKey,
        parts: tuple[str, str],
        entries: list[SessionStoreEntry],
    ) -> Document:
        """The row of a transcript with new entries; `next` is the number of the first of them."""
        transcripts = tx[self._transcripts.name]
        row: Document | None = transcripts.get(amberdb.key(*parts))
        if row is None:
            row = {
                "id": amberdb.key(*parts),
                "project_key": key["project_key"],
                "session_id": key["session_id"],
                "subpath": key.get("subpath", ""),
                "next": 0,
            }
        now, last = self._now_ms(), transcripts.max("mtime") or 0
        row["mtime"] = last + 1 if now <= last <= now + SLACK_MS else now
        if not row["subpath"]:
            before = item_of(row["summary"]) if "summary" in row else None
            summary = fold_session_summary(before, key, entries)
            row["summary"] = stored_item({**summary, "mtime": row["mtime"]})
        return row

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _parts(key: SessionKey) -> tuple[str, str]:
    """Session and part of a transcript. Raises InvalidDocumentError."""
    session = _session(key["project_key"], key["session_id"])
    if "subpath" not in key:
        return session, ""
    check_name("subpath", key["subpath"])
    return session, _digest([key["subpath"]])


def _session(project_key: str, session_id: str) -> str:
    check_name("project_key", project_key)
    check_name("session_id", session_id)
    return _digest([project_key, session_id])


def _digest(names: list[str]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]


def _within(*parts: str) -> dict[str, Any]:
    return {"id": {"$prefix": amberdb.key(*parts)}}


def _uuid(entry: SessionStoreEntry) -> str | None:
    uuid: object = entry.get("uuid")
    return uuid if isinstance(uuid, str) and uuid else None


def _with(uuid: str | None) -> dict[str, str]:
    return {} if uuid is None else {"uuid": uuid}
