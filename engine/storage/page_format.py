"""LMDB's page format (0.9, 64 bit, little endian): sizes and flags. LMDB is not used.

page    number u64 | pad u16 | flags u16 | lower u16 | upper u16 | u16 offsets of nodes ...
node    four u16, the third its flags, the fourth the size of its key | key | value
"""

from typing import Final

PAGE_HEADER_SIZE: Final = 16
NODE_HEADER_SIZE: Final = 8
OFFSET_SIZE: Final = 2
"""Of the offset of a node in its page."""
NUMBER_SIZE: Final = 8
"""Of the number of a page, in place of a large value."""

BRANCH: Final = 1
LEAF: Final = 2
OVERFLOW: Final = 4
META: Final = 8
"""The flags of a page, by its kind."""

LARGE: Final = 1
"""The flag of a node whose value has pages of its own."""
NAME: Final = 2
"""The flag of a node that names a tree, whose value describes it."""

NO_PAGE: Final = (1 << 64) - 1
"""The root of a tree without pages."""
DEPTH_MAX: Final = 32
"""The most levels of a tree."""
