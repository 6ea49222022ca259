"""Leaf pages of LMDB made of pairs, for archives that no backup has written."""

import os

from amberdb.engine.storage.leaves import Leaves

PAGE = os.sysconf("SC_PAGE_SIZE")


def leaves_of_pairs(pairs: list[tuple[bytes, bytes]], page_size: int = PAGE) -> Leaves:
    """Leaf pages of this size, as full as they get."""
    pages = bytearray()
    while pairs:
        page, count = page_of(pairs, page_size)
        pages += page
        pairs = pairs[count:]
    return Leaves(pages, page_size)


def page_of(pairs: list[tuple[bytes, bytes]], size: int = PAGE) -> tuple[bytes, int]:
    """(a page of the first pairs, their number)"""
    offsets: list[int] = []
    body = b""
    for key, value in pairs:
        node = len(value).to_bytes(4, "little") + bytes(2) + len(key).to_bytes(2, "little")
        node += key + value
        node += bytes(len(node) % 2)
        if 16 + 2 * len(offsets) + 2 + len(node) + len(body) > size:
            break
        body = node + body
        offsets.append(size - len(body))
    words = (2, 16 + 2 * len(offsets), size - len(body), *offsets)
    head = bytes(10) + b"".join(each.to_bytes(2, "little") for each in words)
    return head + bytes(size - len(head) - len(body)) + body, len(offsets)
