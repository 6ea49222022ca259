"""The collections of a saver, and what their documents hold.

    checkpoint  a checkpoint that can be read and listed
    ancestor    what is left of a removed checkpoint: its parent, and its values of channels whose
                history later checkpoints need
    writes      the pending writes of one task at one checkpoint or ancestor
    blob        the value of a channel at one version

    checkpoint: thread_id namespace checkpoint_id parent_id run_id
                type data metadata_type metadata   serialized, without the values in blobs
                blobs {channel: version}           values that are documents of `blob`
                plain [channel]                    values that are inside `data`
                bare [channel]                     channels with a version and no value here
    ancestor:   thread_id namespace checkpoint_id parent_id type data blobs plain
    writes:     thread_id namespace checkpoint_id task_id
                writes [[index, channel, type, data, task_path]]
    blob:       thread_id namespace channel version type data

Invariants:
- `blobs` names every blob that a checkpoint or an ancestor needs, so nothing has to be
  deserialized to find out what can be removed.
- The value of a channel at one version never changes.
"""

from typing import Any, Final, Generic, NamedTuple, TypeVar

from amberdb import Database, Ordered, Snapshot, Transaction

OWNER: Final = "amberdb.integrations.langgraph"

C = TypeVar("C")


class Tables(NamedTuple, Generic[C]):
    """The four collections, of a database, a transaction or a snapshot."""

    checkpoints: C
    ancestors: C
    writes: C
    blobs: C


def names(prefix: str) -> Tables[str]:
    """The names of the collections."""
    return Tables(*(f"{prefix}.{name}" for name in ("checkpoint", "ancestor", "writes", "blob")))


def declare(db: Database, names: Tables[str]) -> Tables[Any]:
    """Creates what is missing. Raises CollectionError where another owner has a collection."""
    indexes = [Ordered("checkpoint_id"), Ordered("run_id", sparse=True)]
    return Tables(
        db.collection(names.checkpoints, indexes=indexes, owner=OWNER),
        *(db.collection(name, indexes=[], owner=OWNER) for name in names[1:]),
    )


def within(view: Transaction | Snapshot, names: Tables[str]) -> Tables[Any]:
    """The collections inside a transaction or a snapshot."""
    return Tables(*(view[name] for name in names))
