"""LlamaIndex's metadata filters in AmberDB's language (docs/queries.md).

Invariants:
- A key is one name in the metadata, whatever characters it has.
- A document without the key, or with None, matches `!=`, `nin` and `is_empty` alone.
- Filters may be nested; `not` is matched when none of its filters is.
"""

from typing import Any, Final, TypeAlias

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

Filter: TypeAlias = dict[Any, Any]

_PLAIN: Final = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.CONTAINS: "$contains",
    FilterOperator.TEXT_MATCH: "$contains",
}
_OF_LISTS: Final = (
    FilterOperator.IN,
    FilterOperator.NIN,
    FilterOperator.ANY,
    FilterOperator.ALL,
)


def where_of(
    filters: MetadataFilters | None,
    *,
    node_ids: list[str] | None = None,
    ref_doc_ids: list[str] | None = None,
) -> Filter:
    """The filter in AmberDB's language; ids narrow it. Raises ValueError."""
    parts: list[Filter] = []
    if node_ids is not None:
        parts.append({"id": {"$in": node_ids}})
    if ref_doc_ids is not None:
        parts.append({"ref_doc_id": {"$in": ref_doc_ids}})
    if filters is not None and filters.filters:
        parts.append(_group(filters))
    return {"$and": parts} if parts else {}


def _group(filters: MetadataFilters) -> Filter:
    parts = [
        _group(each) if isinstance(each, MetadataFilters) else _comparison(each)
        for each in filters.filters
    ]
    if not parts:
        return {}
    if filters.condition is FilterCondition.OR:
        return {"$or": parts}
    if filters.condition is FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _comparison(asked: MetadataFilter) -> Filter:
    path, value = ("metadata", asked.key), asked.value
    if asked.operator is FilterOperator.IS_EMPTY:
        return {"$or": [{path: {"$in": [None, ""]}}, {path: {"$eq": []}}]}
    if asked.operator is FilterOperator.TEXT_MATCH_INSENSITIVE:
        raise ValueError(
            f"{asked.operator.value!r} on {asked.key!r} is not supported: use 'text_match', or a "
            "query in the mode 'text_search' for words of the text"
        )
    if asked.operator in _OF_LISTS and not isinstance(value, list):
        raise ValueError(f"the value of {asked.operator.value!r} must be a list, not {value!r}")
    if isinstance(value, list) and asked.operator is FilterOperator.ALL:
        return {"$and": [{path: {"$eq": each}} for each in value]} if value else {}
    if value is None:  # LlamaIndex takes a missing key for one that equals nothing
        return {} if asked.operator is FilterOperator.NE else {"id": {"$in": []}}
    return {path: {_PLAIN[asked.operator]: value}}
