"""Entries of several indexes, made together."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amberdb import InvalidDocumentError, Ordered, Unique, Vector
from amberdb.engine.schema.definition import IndexDef
from amberdb.engine.schema.entry_plan import EntryPlan
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.ordered_index import MARKED, CompiledIndex, entry_pairs
from amberdb.index.ordered.key_encoder import FieldSpec
from amberdb.index.vector.embedding_queue import EmbeddingQueue
from support import drawn

SPECS: list[FieldSpec] = [
    *drawn.SPECS,
    Ordered("a", "-b", "c"),
    Unique("a", "c.d", sparse=True),
    EmbeddingQueue.of(Vector("b", dim=2, source="a")),
]
A = st.sampled_from([1.0, -2.0, 0.5, 1, True, None, "x", "x" * 499, "x" * 600, [1.0], {"d": 2.0}])


@given(
    st.fixed_dictionaries({**drawn.field_values, "a": A, "c": A}),
    st.lists(st.tuples(st.sampled_from(SPECS), st.sampled_from([MARKED, ""])), max_size=6),
)
def test_entries_are_those_of_each_index(
    document: dict[str, Any], declared: list[tuple[FieldSpec, str]]
) -> None:
    indexes = tuple(
        CompiledIndex(IndexDef(spec, 16 + number, identity=identity), spec)
        for number, (spec, identity) in enumerate(declared)
    )
    expected: Effects = {}
    is_refused = False
    try:
        for index in indexes:
            expected.update(entry_pairs(index, document, b"id", 7))
    except InvalidDocumentError:
        is_refused = True
    entries: Effects = {}
    try:
        EntryPlan(indexes).add(entries, document, b"id", 7)
    except InvalidDocumentError:
        assert is_refused
    else:
        assert not is_refused
        assert list(entries.items()) == list(expected.items())
