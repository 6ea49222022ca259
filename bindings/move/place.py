"""The place of a move: how far it is, kept in the target.

    collection amberdb_move
        source         the subscriber of the source that holds the changes since the beginning
        feed           the Lsn of the last change that was made in the target
        copied <name>  the last id of a collection whose batch was verified; whether that was all

Invariants:
- A place is committed with what it says, or after it: so a move that was killed does a batch again,
  and never leaves one out.
- The source is read from its subscriber's beginning, which is before the first copy.
"""

from typing import Final, final

from amberdb import Database, Lsn, Subscriber, Transaction
from amberdb.move.errors import MoveSourceError, MoveTargetError

NAME: Final = "amberdb_move"
"""Of the collection; a source's own is not moved."""
_SUBSCRIBER_BYTES_MAX: Final = 200


@final
class Place:
    """The place of one move."""

    def __init__(self, source: Database, target: Database) -> None:
        """Where an earlier run has ended, or the beginning. Raises MoveTargetError,
        MoveSourceError."""
        name = f"move {target.path}".encode()[:_SUBSCRIBER_BYTES_MAX].decode(errors="ignore")
        others = target.collections()
        known = target[NAME].get("source") if NAME in others else None
        if known is None:
            self.subscriber = _begun(source, target, name)
        else:
            self.subscriber = _resumed(source, target, known["subscriber"])
        self._target = target
        self._collection = target[NAME]
        self.lsn = max(Lsn(self._collection["feed"]["lsn"]), self.subscriber.position)
        """Of the last change that the target has: a change of a name is only acknowledged."""

    def after(self, name: str) -> str | None:
        """The last id of a collection that was copied; None before the first."""
        known = self._collection.get(f"copied {name}")
        return None if known is None else known["after"]

    def is_copied(self, name: str) -> bool:
        """Whether a collection was copied to its end."""
        known = self._collection.get(f"copied {name}")
        return known is not None and known["done"]

    def copied(self, name: str, after: str | None, *, done: bool) -> None:
        """Keeps how far a collection was copied."""
        document = {"id": f"copied {name}", "after": after, "done": done}
        self._collection.put(document, sync="os")  # lost with a machine, a batch is done again

    def renamed(self, old: str, new: str | None) -> None:
        """Takes in that a collection has another name, or with None that it was dropped."""
        known = self._collection.get(f"copied {old}")
        self._collection.delete(f"copied {old}")
        if known is not None and new is not None:
            self._collection.put({**known, "id": f"copied {new}"})

    def followed(self, tx: Transaction, lsn: Lsn) -> None:
        """Keeps, with what the transaction writes, that it has the changes up to `lsn`."""
        tx[NAME].put({"id": "feed", "lsn": int(lsn)})

    def reached(self, lsn: Lsn) -> None:
        """Lets the source forget the changes up to `lsn`, which the target has committed."""
        self.lsn = lsn
        self.subscriber.acknowledge(lsn)

    def end(self) -> None:
        """Removes the place, and the subscriber of the source: the move is done."""
        self.subscriber.remove()
        self._target.drop_collection(NAME)


def _begun(source: Database, target: Database, name: str) -> Subscriber:
    """The subscriber of a move that begins."""
    others = [each for each in target.collections() if each != NAME]
    if others:
        raise MoveTargetError(
            f"{target.path} has a collection {others[0]!r} already: move into a new database"
        )
    source.subscriber(name).remove()  # an earlier move may have left it far behind
    subscriber = source.subscriber(name)
    places = target.collection(NAME)
    with target.transaction() as tx:
        tx[places.name].put({"id": "feed", "lsn": int(subscriber.position)})
        tx[places.name].put({"id": "source", "subscriber": name, "path": source.path})
    return subscriber


def _resumed(source: Database, target: Database, name: str) -> Subscriber:
    """The subscriber of a move that goes on."""
    if name not in source.stats().subscribers:
        raise MoveSourceError(
            f"{source.path} is not the source of the move that {target.path} is of, or it was "
            "restored since: give the source of that move, or move into a new database"
        )
    return source.subscriber(name)
