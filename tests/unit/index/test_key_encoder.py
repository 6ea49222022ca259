"""KeyMaker: the entries of a document, against a plain reading of the rules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb._errors import InvalidDocumentError
from amberdb.index.ordered.key_encoder import FieldSpec, KeyEncoder
from amberdb.index.ordered.keys import CUT_BYTES, FIELD_KEY_BYTES_MAX, encode, encode_desc
from amberdb.index.ordered.ordered import Ordered
from amberdb.index.ordered.unique import Unique
from amberdb.index.paths import Path

ROW = (7).to_bytes(8, "big")
ROW_DOWN = bytes(255 - byte for byte in ROW)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.datetimes(timezones=st.just(UTC)),
)
values: st.SearchStrategy[Any] = (
    scalars | st.lists(scalars, max_size=4) | st.dictionaries(st.text(max_size=1), scalars)
)
names = st.sampled_from(["a", "b", "c", "m.x"])
maps: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional={"x": values})
fan: st.SearchStrategy[Any] = maps | st.lists(maps, max_size=3)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"a": values, "b": values, "c": values, "m": fan}
)


@st.composite
def specs(draw: st.DrawFn) -> FieldSpec:
    fields = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    signed = [draw(st.sampled_from(["", "-"])) + field for field in fields]
    sparse = draw(st.booleans())
    return (
        Ordered(*signed, sparse=sparse) if draw(st.booleans()) else Unique(*signed, sparse=sparse)
    )


def reference(spec: FieldSpec, document: dict[str, Any]) -> set[bytes] | None:
    """The keys by the rules, one after the other; None when the document is to be refused."""
    found = [Path(path).find(document) for path in spec.paths]
    if spec.sparse and any(value is None for value in found):
        return set()
    if sum(isinstance(value, list) for value in found) > 1:
        return None
    rows: list[list[Any]] = [[]]
    for value in found:
        elements = [value]
        if isinstance(value, list):
            elements = [*cast(Sequence[Any], value)] or [None]
        if isinstance(spec, Unique) and any(isinstance(each, (dict, list)) for each in elements):
            return None
        rows = [[*row, element] for row in rows for element in elements]
    return {
        b"".join(
            encode_desc(value) if down else encode(value)
            for value, down in zip(row, spec.descending, strict=True)
        )
        for row in rows
    }


@given(specs(), documents, st.integers(0, 2**64 - 1))
def test_keys_and_entries_follow_the_rules(
    spec: FieldSpec, document: dict[str, Any], rowid: int
) -> None:
    encoder = KeyEncoder(spec)
    expected = reference(spec, document)
    if expected is None:
        with pytest.raises(InvalidDocumentError):
            encoder.keys(document)
        with pytest.raises(InvalidDocumentError):
            encoder.entries(document, rowid)
        return
    found = encoder.keys(document)
    assert set(found) == expected
    assert len(found) == len(expected)
    tail = rowid.to_bytes(8, "big")
    if spec.descending[-1]:
        tail = bytes(255 - byte for byte in tail)
    assert set(encoder.entries(document, rowid)) == {(key + tail, b"") for key in expected}
    assert encoder.is_multi(document) == any(
        isinstance(Path(path).find(document), list) for path in spec.paths
    )


def test_two_plain_fields() -> None:
    time = datetime(2024, 1, 1, tzinfo=UTC)
    encoder = KeyEncoder(Ordered("entity_id", "created_at"))
    document = {"entity_id": "u1", "created_at": time}
    assert encoder.keys(document) == [encode("u1") + encode(time)]
    assert encoder.entries(document, 7) == [(encode("u1") + encode(time) + ROW, b"")]
    assert encoder.keys({}) == [encode(None) * 2]
    assert not encoder.is_multi(document)


def test_the_last_direction_turns_the_rowid() -> None:
    assert KeyEncoder(Ordered("a", "-b")).entries({}, 7)[0][0].endswith(ROW_DOWN)
    assert KeyEncoder(Ordered("-a", "b")).entries({}, 7)[0][0].endswith(ROW)


@pytest.mark.parametrize("sparse", [False, True])
def test_lists(sparse: bool) -> None:
    encoder = KeyEncoder(Ordered("tags", "-n", sparse=sparse))
    tail = encode_desc(1)
    document = {"tags": ["x", "y", "x", 1, 1.0, True, [2], [3]], "n": 1}
    elements: list[Any] = ["x", "y", 1, True, []]
    expected = [encode(value) + tail for value in elements]
    assert encoder.keys(document) == expected
    assert encoder.is_multi(document)
    assert encoder.keys({"tags": [], "n": 1}) == [encode(None) + tail]
    assert encoder.is_multi({"tags": [], "n": 1})
    assert encoder.keys({"tags": [None], "n": 1}) == [encode(None) + tail]


def test_two_lists_are_refused() -> None:
    for fields in (("a", "b"), ("a", "c", "b")):
        with pytest.raises(InvalidDocumentError, match="both hold lists") as caught:
            KeyEncoder(Ordered(*fields)).keys({"a": [1], "b": []})
        assert caught.value.field == "b"


@pytest.mark.parametrize("fields", [("a",), ("a", "b"), ("a", "b", "c")])
def test_sparse_leaves_out_what_is_missing(fields: tuple[str, ...]) -> None:
    full = {"a": 1, "b": 2, "c": 3}
    encoder = KeyEncoder(Ordered(*fields, sparse=True))
    assert len(encoder.keys(full)) == 1
    for field in fields:
        assert encoder.keys(full | {field: None}) == []
        assert encoder.entries({name: 1 for name in full if name != field}, 7) == []
        assert len(KeyEncoder(Ordered(*fields)).keys(full | {field: None})) == 1


@pytest.mark.parametrize("make", [Ordered, Unique])
@pytest.mark.parametrize("fields", [("bad",), ("a", "bad"), ("a", "b", "bad"), ("m.bad",)])
def test_a_refused_value_names_its_field(make: type[Ordered], fields: tuple[str, ...]) -> None:
    encoder = KeyEncoder(make(*fields))
    for value in (float("nan"), "\ud800", 2**64, object(), [float("nan")]):
        with pytest.raises(InvalidDocumentError, match="bad") as caught:
            encoder.entries({"bad": value, "m": {"bad": value}}, 1)
        assert caught.value.field == fields[-1]


def test_unique_refuses_what_it_cannot_tell_apart() -> None:
    encoder = KeyEncoder(Unique("a", "b"))
    for value in ({}, {"x": 1}, [{"x": 1}], [[1]]):
        with pytest.raises(InvalidDocumentError) as caught:
            encoder.keys({"a": 1, "b": value})
        assert caught.value.field == "b"
        assert KeyEncoder(Ordered("a", "b")).keys({"a": 1, "b": value})


def test_unique_keys() -> None:
    dense, sparse = KeyEncoder(Unique("a")), KeyEncoder(Unique("a", sparse=True))
    for encoder in (dense, sparse):
        assert encoder.unique_keys({"a": 1}) == [encode(1)]
        assert encoder.unique_keys({"a": [1, 2]}) == [encode(1), encode(2)]
    # Two documents with an empty list share no value; in a sparse index they do not collide.
    assert sparse.keys({"a": []}) == [encode(None)]
    assert sparse.unique_keys({"a": []}) == []
    assert sparse.unique_keys({"a": [None, 1]}) == [encode(1)]
    assert sparse.unique_keys({}) == []
    assert dense.unique_keys({"a": []}) == dense.unique_keys({}) == [encode(None)]


@pytest.mark.parametrize(
    "size", [FIELD_KEY_BYTES_MAX - 4, FIELD_KEY_BYTES_MAX - 3, FIELD_KEY_BYTES_MAX, 2000]
)
def test_long_keys_are_cut(size: int) -> None:
    encoder = KeyEncoder(Ordered("a"))
    key = encode("x" * size)
    [(entry, remainder)] = encoder.entries({"a": "x" * size}, 7)
    if len(key) < FIELD_KEY_BYTES_MAX:
        assert (entry, remainder) == (key + ROW, b"")
    else:
        assert len(entry) == FIELD_KEY_BYTES_MAX + len(ROW)
        assert entry[:CUT_BYTES] + remainder == key
        assert entry.endswith(ROW)


def test_elements_equal_up_to_the_cut_have_entries_of_their_own() -> None:
    long = "x" * 600
    document = {"a": [long + "2", long + "1", "short", long + "3"]}
    entries = KeyEncoder(Ordered("a")).entries(document, 7)
    assert len({key for key, _ in entries}) == 4
    assert {encode(long + n)[CUT_BYTES:] for n in "123"} <= {rest for _, rest in entries}


def test_bounds_for_a_scan() -> None:
    encoder: KeyEncoder = KeyEncoder(Ordered("a", "-m.x"))
    assert encoder.paths == ("a", "m.x")
    assert encoder.descending == (False, True)
    assert [encode_field("v") for encode_field in encoder.encoders] == [
        encode("v"),
        encode_desc("v"),
    ]
