"""The cursor of a search: the documents, and the groups, that its pages have shown.

    digest of the search | sketches of its vectors | digests of the ids | digests of the groups

Invariants:
- A page is the search without what a cursor names, never what follows a place: scores change with
  each write, and the candidates with the limit. So no document comes twice, whatever is written
  between two pages, and one whose rank changes is not passed over.
- A cursor refers to nothing in memory: it is as good in another process, or later.
- It has 8 characters for each document, and as many for each group.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from amberdb._errors import CursorError
from amberdb.engine.query.page import cursor_of, digest_of, parts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Place: TypeAlias = tuple[str, bytes | None]
"""The id of a hit, and the key of its group; None where it is in none."""

SHOWN_MAX: Final = 10_000
"""The most documents that the pages of one search show."""
_DIGEST_BYTES: Final = 6
"""That one of two documents hides the other has a chance of 1 to 2.8e14."""
_SKETCH_NUMBERS: Final = 8
_SKETCH_TOLERANCE: Final = 0.05
"""Of the vector's length. An embedder seldom returns a vector twice to the last bit."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What a cursor is bound to: the arguments of a search that decide what is found."""

    identity: Sequence[Any]
    vectors: "Mapping[str, NDArray[np.float32]]"

    @property
    def sketches(self) -> bytes:
        """Float32[vectors, 8]: the sums of every eighth number of each vector."""
        return b"".join(_sketch(self.vectors[name]).tobytes() for name in sorted(self.vectors))

    def is_near(self, sketches: bytes) -> bool:
        """Whether the vectors are nearly those of the sketches."""
        import numpy as np

        if len(sketches) != len(self.vectors) * _SKETCH_NUMBERS * 4:
            return False
        rows = np.frombuffer(sketches, "<f4").reshape(-1, _SKETCH_NUMBERS)
        return all(
            np.abs(_sketch(self.vectors[name]) - row).max()
            <= _SKETCH_TOLERANCE * np.linalg.norm(self.vectors[name])
            for name, row in zip(sorted(self.vectors), rows, strict=True)
        )


@final
class Shown:
    """What the pages before have shown."""

    __slots__ = ("_group_set", "_groups", "_id_set", "_ids")

    def __init__(self, ids: bytes = b"", groups: bytes = b"") -> None:
        self._ids, self._id_set = ids, frozenset(_split(ids))
        self._groups, self._group_set = groups, frozenset(_split(groups))

    @classmethod
    def by(cls, cursor: str, asked: Asked) -> "Shown":
        """What a cursor of this search names. Raises CursorError."""
        digest, sketches, ids, groups = parts_of(cursor, int, bytes, bytes, bytes)
        if digest != digest_of(asked.identity) or not asked.is_near(sketches):
            raise CursorError(
                "this cursor belongs to another search: use the collection and the arguments of "
                "its page; only limit, fields and snippets may differ"
            )
        if len(ids) >= SHOWN_MAX * _DIGEST_BYTES:
            raise CursorError(
                f"the pages of this search have shown {SHOWN_MAX:,} documents, as many as they "
                "can: narrow it by `where`, or list documents with find()"
            )
        return cls(ids, groups)

    @property
    def count(self) -> int:
        """The number of documents."""
        return len(self._id_set)

    def has_id(self, id_bytes: bytes) -> bool:
        return _digest(id_bytes) in self._id_set

    def has_group(self, key: bytes) -> bool:
        return bool(self._group_set) and _digest(key) in self._group_set

    def cursor(self, asked: Asked, page: Sequence[Place]) -> str:
        """The cursor after one more page."""
        ids = self._ids + b"".join(_digest(id.encode()) for id, _ in page)
        groups = self._groups + b"".join(_digest(key) for _, key in page if key is not None)
        if len(ids) > SHOWN_MAX * _DIGEST_BYTES:  # no page follows
            ids, groups = ids[: SHOWN_MAX * _DIGEST_BYTES], b""
        return cursor_of([digest_of(asked.identity), asked.sketches, ids, groups])


@final
@dataclass(frozen=True, slots=True)
class Next:
    """What the cursor to the next page is made from, when it is asked for."""

    asked: Callable[[], Asked]
    shown: Shown
    page: Sequence[Place]

    def cursor(self) -> str:
        return self.shown.cursor(self.asked(), self.page)


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=_DIGEST_BYTES).digest()


def _split(digests: bytes) -> Iterator[bytes]:
    return (digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))


def _sketch(vector: "NDArray[np.float32]") -> "NDArray[np.float32]":
    import numpy as np

    padded = np.zeros(-(-len(vector) // _SKETCH_NUMBERS) * _SKETCH_NUMBERS, "<f4")
    padded[: len(vector)] = vector
    sums: NDArray[np.float32] = padded.reshape(-1, _SKETCH_NUMBERS).sum(axis=0)
    return sums


NOTHING: Final = Shown()
