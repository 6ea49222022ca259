"""The calls that a client may make by the names of methods. The leader looks nothing else up."""

from typing import Final

WRITES: Final = frozenset(
    {
        *("put", "insert", "put_many", "put_records", "update"),
        *("delete", "delete_many", "touch"),
    }
)
READS: Final = frozenset(
    {
        *("get", "get_many", "record", "find", "count", "distinct", "count_by", "min", "max"),
        *("search", "explain", "__contains__", "__len__"),
    }
)
"""Of a collection inside a transaction, as WRITES are."""

CARE: Final = frozenset({"compact", "upgrade", "erase", "backup", "migrate", "build_indexes"})
"""Methods of a Database that take `progress=`."""
BRIEF: Final = frozenset(
    {"drop_collection", "rename_collection", "expire", "accept_clock", "sync", "checkpoint"}
)
"""Methods of a Database that do not."""
