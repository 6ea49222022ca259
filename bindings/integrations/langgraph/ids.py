"""Ids of documents: composite ids of LangGraph's names, which may be any text.

    checkpoint, ancestor   key(thread, namespace, checkpoint)
    writes of one task     key(thread, namespace, checkpoint, task)
    blob                   key(thread, namespace, channel, version)
    item, cache entry      key(label, ..., None, name)

Invariants:
- Different names have different ids, and a name has one form, so a prefix of parts finds all ids
  that begin with these parts.
- A name that is too long for its place is replaced by `#` and a digest of it. A name that begins
  with `#` is always replaced, so no name can be taken for the digest of another one.
- Labels after the first LABELS_MAX are in the digest of the name alone: an id prefix of a deep
  namespace finds more than the namespace, and `is_exact` tells so.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from amberdb import key

_BYTES_MAX: Final = 110
"""Bytes of a name, once `!` and what sorts before it are escaped, which doubles them."""
_ASCII_MAX: Final = 54
"""Characters of a name in ASCII that fit, whatever they are."""
_LABEL_BYTES_MAX: Final = 44
LABELS_MAX: Final = 6
"""Labels of a namespace that an id has one by one."""

AFTER: Final = "\U0010ffff"
"""Appended to an id: sorts after every id that begins with it."""


def _digest(*texts: str) -> str:
    digest = blake2b(digest_size=20)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return "#" + digest.hexdigest()


def _short(text: str, bytes_max: int) -> str:
    if text.startswith("#") or len(text) > bytes_max or len(key(text).encode()) > bytes_max:
        return _digest(text)
    return text


def _name(text: str) -> str:
    if len(text) <= _ASCII_MAX and text.isascii() and not text.startswith("#"):
        return text
    return _short(text, _BYTES_MAX)


@lru_cache(4096)
def thread_id(thread: str) -> str:
    """What the ids of a thread begin with."""
    return key(_name(thread))


@lru_cache(4096)
def namespace_id(thread: str, namespace: str) -> str:
    """What the ids of a namespace of a thread begin with."""
    return key(_name(thread), _name(namespace))


@lru_cache(4096)
def part_of_thread(thread: str, namespace: str, *names: str) -> str:
    """The id of a checkpoint, of the writes of a task, or of a blob."""
    return key(_name(thread), _name(namespace), *map(_name, names))


def is_exact(labels: Sequence[str]) -> bool:
    """Whether the ids that begin with label_prefix() are those of this namespace alone."""
    return len(labels) <= LABELS_MAX


def _labels(labels: Sequence[str]) -> list[str]:
    return [_short(label, _LABEL_BYTES_MAX) for label in labels[:LABELS_MAX]]


def label_prefix(labels: Sequence[str]) -> str:
    """What the ids in a namespace and below it begin with; one label at least."""
    return key(*_labels(labels))


def item_id(labels: Sequence[str], name: str) -> str:
    """The id of an item or of a cache entry."""
    if not is_exact(labels):
        return key(*_labels(labels), None, _digest(*labels, name))
    return key(*_labels(labels), None, _name(name))


def path(labels: Sequence[str]) -> str:
    """A namespace as one text, of which the text of the namespaces above it is a prefix."""
    return "".join(label + "\0" for label in labels)


def labels_of(path: str) -> tuple[str, ...]:
    """The namespace of a path()."""
    return tuple(path.split("\0")[:-1])
