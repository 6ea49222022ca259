"""Pages of recall(): memories of several layers, without those that the pages before have shown.

    crc of the question u32 | digests of what was shown, 6 bytes each | crc of all before u32

Invariants:
- As the pages of a search: none shows a memory again, or a group, whatever was written between.
"""

import base64
import binascii
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, final
from zlib import crc32

from amberdb import CursorError, FieldPath, value_at
from amberdb.memory.types import Recalled

SHOWN_MAX: Final = 10_000
_DIGEST_BYTES: Final = 6
_CRC_BYTES: Final = 4


@final
class RecallPage(list[Recalled]):
    """Memories, the best first, with a cursor to the next page: `recall(..., after=page.cursor)`;
    None when the page was not full, so that nothing more matches."""

    __slots__ = ("cursor",)

    def __init__(self, memories: Iterable[Recalled] = (), cursor: str | None = None) -> None:
        super().__init__(memories)
        self.cursor = cursor

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.cursor)


@final
class Shown:
    """What pages have shown: memories, and groups when there are groups."""

    def __init__(self, question: object, group_by: FieldPath | None, after: str | None) -> None:
        """Raises CursorError for the cursor of another question."""
        self._question = crc32(repr(question).encode(errors="backslashreplace"))
        self._group_by = group_by
        self._digests = {} if after is None else dict.fromkeys(_opened(after, self._question))

    def __len__(self) -> int:
        return len(self._digests)

    def page(self, ranked: Iterable[Recalled], limit: int) -> RecallPage:
        """The first `limit` memories that were not shown; only the first one of each group."""
        page = RecallPage()
        for memory in ranked:
            if len(page) == limit:
                break
            digests = self._digests_of(memory)
            if self._digests.keys().isdisjoint(digests):
                page.append(memory)
                self._digests.update(dict.fromkeys(digests))
        if page and len(page) == limit:
            page.cursor = _sealed(self._question, self._digests)
        return page

    def _digests_of(self, memory: Recalled) -> list[bytes]:
        digests = [_digest(memory.memory_layer, memory.memory_id)]
        if self._group_by is not None:
            value = value_at(memory.document, self._group_by)
            values: list[Any] = [value]
            if type(value) is list:
                values = value  # pyright: ignore[reportUnknownVariableType]
            if len(values) == 1 and not isinstance(values[0], (type(None), list, dict)):
                digests.append(_digest(values[0]))
        return digests


def _digest(*of: object) -> bytes:
    return blake2b(repr(of).encode(), digest_size=_DIGEST_BYTES).digest()


def _sealed(question: int, digests: Iterable[bytes]) -> str:
    data = question.to_bytes(_CRC_BYTES) + b"".join(digests)
    return base64.urlsafe_b64encode(data + crc32(data).to_bytes(_CRC_BYTES)).decode()


def _opened(cursor: str, question: int) -> list[bytes]:
    """The digests of a cursor. Raises CursorError."""
    try:
        whole = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except (ValueError, AttributeError, binascii.Error):
        whole = b""
    data, crc = whole[:-_CRC_BYTES], whole[-_CRC_BYTES:]
    if len(data) < _CRC_BYTES or crc32(data).to_bytes(_CRC_BYTES) != crc:
        raise CursorError("not a valid cursor: pass the cursor of a page unchanged")
    if int.from_bytes(data[:_CRC_BYTES]) != question:
        raise CursorError(
            "this cursor belongs to another question: recall with the arguments of its page; only "
            "limit may differ"
        )
    digests = range(_CRC_BYTES, len(data), _DIGEST_BYTES)
    if len(digests) >= SHOWN_MAX:
        raise CursorError(
            f"the pages of this question have shown {SHOWN_MAX:,} memories, or groups, as many as "
            "they can: narrow it by `where`"
        )
    return [data[at : at + _DIGEST_BYTES] for at in digests]
