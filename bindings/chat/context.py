"""The turns of a conversation from both tiers: the hot tier, and the sink where that is needed.

Invariants:
- The last turns are the last of both tiers together, by position. None of them is left out, also
  not one behind a turn that the sink refused, which stays in the hot tier when later ones leave it.
- The sink is asked once for a conversation, and then only when a turn that was flushed has left the
  part of the hot tier that is read. It is taken to change by flushes of this database alone.
- A sink that fails costs its turns, and the result says so.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final, TypedDict, final

from amberdb import Database, Document, Transaction, TransactionError
from amberdb._shared.queries import all_pages, having, of_one
from amberdb.chat.conversations import Conversations
from amberdb.chat.sinks import CollectionSink, DeletingSink, Sink, can_delete, can_list
from amberdb.chat.turns import Turns, id_of, newest, place

logger = logging.getLogger("amberdb.chat")


class Deleted(TypedDict):
    """The result of delete_conversation() and delete_user(). sink_deleted is None, and success
    False, when the sink cannot delete and keeps what it has."""

    success: bool
    hot_deleted: int
    sink_deleted: int | None


ASKED_MAX: Final = 10_000
"""Conversations of which is remembered what else the sink holds."""
_PAGE: Final = 1000
_BATCH: Final = 500
"""Turns that are deleted in one commit."""


@final
class BothTiers:
    """Reads turns of the hot tier and of a sink."""

    def __init__(self, db: Database, name: str, conversations: Conversations) -> None:
        self._db = db
        self._hot = db[name]
        self._conversations = conversations
        self._mutex = threading.Lock()
        self._elsewhere: OrderedDict[str, int] = OrderedDict()
        """By conversation the highest place in the sink where a turn may be that this database is
        not known to have flushed; -1: nowhere."""

    def recent(self, sink: Sink | None, conversation_id: str, limit: int) -> Turns:
        """The last turns, the newest first. Raises QueryError."""
        where = of_one(conversation_id=conversation_id)
        hot = list(self._hot.find(where, order_by="-position", limit=limit))
        if sink is None or not limit or self._has_all(conversation_id, hot, limit):
            return Turns(hot)
        try:
            stored = list(sink.load(conversation_id, limit, None))
        except Exception as error:
            logger.warning(
                "the sink did not answer, the turns are those of the hot tier: %s", error
            )
            return Turns(hot, f"{type(error).__name__}: {error}")
        self._remember(conversation_id, stored, limit)
        return Turns(newest(_merged(stored, hot), limit))

    def all(
        self, sink: Sink | None, conversation_id: str | None, user_id: str | None
    ) -> Iterator[Document]:
        """All turns of a conversation, of a user, or of both, by position. Raises QueryError, and
        what the sink raises."""
        where = having(conversation_id=conversation_id, user_id=user_id)
        hot = all_pages(self._hot.find, where, order_by="position")
        stored: Iterable[Document] = ()
        if can_list(sink):
            stored = sink.turns(conversation_id=conversation_id, user_id=user_id)
        elif sink is not None:
            stored = self._loaded(sink, conversation_id, user_id)
        ids: set[str] = set()
        marked = (((place(turn), 0), turn) for turn in hot)
        others = (((place(turn), 1), turn) for turn in stored)
        for (_, is_stored), turn in merge(marked, others, key=_first):
            if is_stored and id_of(turn) in ids:
                continue
            if not is_stored:
                ids.add(id_of(turn))
            yield turn

    def delete(self, sink: Sink | None, tx: Transaction | None, **given: str) -> Deleted:
        """Deletes the turns of a conversation or a user from both tiers."""
        where = of_one(**given)
        deletes = can_delete(sink)
        if tx is not None:
            self._db.check_transaction(tx)
            if isinstance(sink, CollectionSink):
                sink.db.check_transaction(tx)
            elif deletes:
                raise TransactionError(
                    "the sink takes no part in a transaction: delete without tx="
                )
        with self._mutex:
            self._elsewhere.pop(given.get("conversation_id", ""), None)
        hot_deleted = self._delete_hot(tx, where)
        sink_deleted: int | None = 0 if sink is None else None
        if can_delete(sink):
            sink_deleted = _delete_stored(sink, tx, given)
        return Deleted(
            success=sink_deleted is not None, hot_deleted=hot_deleted, sink_deleted=sink_deleted
        )

    # -- inside ------------------------------------------------------------------------------

    def _has_all(self, conversation_id: str, hot: Sequence[Document], limit: int) -> bool:
        """Whether these turns, the last of the hot tier, are the last of both tiers."""
        with self._mutex:
            elsewhere = self._elsewhere.get(conversation_id)
        from_place = place(hot[-1]) if len(hot) == limit else 0
        if elsewhere is None or elsewhere >= from_place:
            return False
        places = {place(turn) for turn in hot}
        for record in self._conversations.of(conversation_id):
            below = record["below"]
            if below is not None and below >= from_place:
                return False
            if any(each >= from_place and each not in places for each in record["positions"]):
                return False
        return True

    def _remember(self, conversation_id: str, stored: Sequence[Document], limit: int) -> None:
        """Remembers what the sink, asked for `limit` turns, holds beside those of the records."""
        records = self._conversations.of(conversation_id)
        known = {each for record in records for each in record["positions"]}
        # Those below it are not listed any more, and _has_all() does not go so far.
        below = max((record["below"] or 0 for record in records), default=0)
        places = [place(turn) for turn in stored]
        others = max((each for each in places if each > below and each not in known), default=-1)
        unread = min(places) - 1 if len(stored) >= limit else -1
        with self._mutex:
            unread = min(unread, self._elsewhere.pop(conversation_id, unread))
            self._elsewhere[conversation_id] = max(others, unread)
            if len(self._elsewhere) > ASKED_MAX:
                self._elsewhere.popitem(last=False)

    def _loaded(
        self, sink: Sink, conversation_id: str | None, user_id: str | None
    ) -> list[Document]:
        """The turns of a sink that cannot list them, in the conversations that are known."""
        if conversation_id is not None:
            conversations = {conversation_id}
        else:
            conversations = self._conversations.ids(user_id)
        found = [
            turn
            for each in conversations
            for turn in _whole(sink, each)
            if user_id is None or turn.get("user_id") == user_id
        ]
        return sorted(found, key=place)

    def _delete_hot(self, tx: Transaction | None, where: dict[str, Any]) -> int:
        if tx is not None:
            tx[self._conversations.name].delete_many(where)
            return tx[self._hot.name].delete_many(where)
        deleted = 0
        while ids := [turn["id"] for turn in self._hot.find(where, limit=_BATCH)]:
            deleted += self._hot.delete_many(ids=ids, sync="always")
        self._db[self._conversations.name].delete_many(where, sync="always")
        return deleted


def _delete_stored(sink: DeletingSink, tx: Transaction | None, given: Mapping[str, str]) -> int:
    if isinstance(sink, CollectionSink) and tx is not None:
        return tx[sink.name].delete_many(dict(given))
    deleted = 0
    while ids := [id_of(turn) for turn in islice(sink.turns(**given), _BATCH)]:
        count = sink.delete(ids)
        deleted += count
        if not count:  # it lists turns that it does not delete
            break
    return deleted


def _whole(sink: Sink, conversation_id: str) -> Sequence[Document]:
    """All turns that the sink has of a conversation."""
    limit = _PAGE
    while len(turns := sink.load(conversation_id, limit, None)) >= limit:
        limit *= 4
    return turns


def _merged(stored: Iterable[Document], hot: Iterable[Document]) -> list[Document]:
    """The turns of both tiers, each once."""
    turns = {id_of(turn): turn for turn in stored}
    turns.update((id_of(turn), turn) for turn in hot)
    return list(turns.values())


def _first(marked: tuple[tuple[int, int], Document]) -> tuple[int, int]:
    return marked[0]
