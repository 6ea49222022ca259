"""Vector as people write it, as the catalog keeps it, and which values it takes."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amberdb._errors import CollectionError, FormatError, InvalidDocumentError
from amberdb.index.vector.coercion import Metric, coerce, coerce_several
from amberdb.index.vector.vector import Vector


def _embed(texts: list[str]) -> list[list[float]]:
    return [[1.0, 0.0] for _ in texts]


def test_what_a_declaration_says() -> None:
    spec = Vector("a.b", dim=3)
    assert (spec.field, spec.dim, spec.metric) == ("a.b", 3, "cosine")
    assert spec.name == "vector:a.b"
    assert spec.source is None
    assert spec.embed is None
    assert spec.fields == ("a.b",)


@pytest.mark.parametrize(
    "spec",
    [
        Vector("a", dim=2),
        Vector("a.b", dim=384, metric="l2", source="text", name="own", m=8, ef=64),
        Vector("a", dim=2, source="text", embed=_embed, ef_construction=300),
        Vector("a", dim=2, multi=True),
        Vector("a", dim=2, source="texts", multi=True, mean_of=3),
    ],
)
def test_repr_and_map_give_it_back(spec: Vector) -> None:
    assert eval(repr(spec), {"Vector": Vector}) == spec
    again = Vector.from_map(spec.to_map())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.embed is None


def test_the_function_is_no_part_of_equality() -> None:
    spec = Vector("a", dim=2, source="t", embed=_embed)
    assert spec == Vector("a", dim=2, source="t")
    assert spec != Vector("a", dim=2)
    assert spec != Vector("a", dim=2, source="t", metric="l2")
    assert "embed" not in spec.to_map()


@pytest.mark.parametrize(
    "arguments",
    [
        {"field": ""},
        {"field": "a..b"},
        {"source": ""},
        {"dim": 0},
        {"dim": 16385},
        {"dim": 2.0},
        {"dim": True},
        {"metric": "dot"},
        {"m": 1},
        {"m": 129},
        {"ef_construction": 15},
        {"ef": 0},
        {"name": ""},
        {"name": 1},
        {"source": "t", "embed": 1},
        {"embed": _embed},
        {"multi": 1},
        {"mean_of": 2},
        {"multi": True, "mean_of": 0},
        {"multi": True, "mean_of": 65},
        {"multi": True, "mean_of": 1.0},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"field": "a", "dim": 2, **arguments}
    with pytest.raises(CollectionError):
        Vector(**given)


def test_the_map_of_one_vector_is_that_of_the_first_version() -> None:
    assert not Vector("a", dim=2).to_map().keys() & {"multi", "mean_of"}
    assert Vector("a", dim=2) != Vector("a", dim=2, multi=True)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"kind": "text"},
        {"dim": -1},
        {"dim": "2"},
        {"multi": True},
        {"multi": False, "mean_of": 1},
        {"multi": True, "mean_of": 0},
    ],
)
def test_a_stored_map_that_makes_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Vector.from_map({**Vector("a", dim=2).to_map(), **change})


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5],
        (1, 2.5),
        np.array([1, 2.5]),
        np.array([1, 2.5], np.float16),
        np.array([1, 2.5], ">f4"),
        np.array([1, 9, 2.5, 9], np.float32)[::2],
    ],
)
def test_numbers_become_float32(value: Any) -> None:
    vector = coerce(value, "v", 2, "cosine")
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.0, 2.5]
    assert vector.flags.c_contiguous
    assert not vector.flags.writeable


def test_the_array_of_the_caller_stays_his() -> None:
    given = np.array([1, 2], np.float32)
    vector = coerce(given, "v", 2, "l2")
    given[0] = 9
    assert vector.tolist() == [1.0, 2.0]
    assert coerce(np.array([1, 2], np.int64), "v", None, None).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "has 1 numbers, and the index takes 2"),
        ([1.0, 2.0, 3.0], "embed with the model"),
        ([[1.0, 2.0]], "2 dimensions"),
        ([[1.0], [1.0, 2.0]], "flat list"),
        ([1.0, float("nan")], "nan at 1: give finite"),
        ([float("inf"), 1.0], "inf at 0: give finite"),
        ([1.0, 1e39], "1e[+]39.* at 1: the limit of float32"),
        ([0.0, -0.0], "all zeros"),
        ([0, 1e-60], "all zeros"),
        ([True, False], "type bool"),
        (["1", "2"], "type <U1"),
        ([1, None], "type object"),
        ([10**400, 1], "type object"),
        (np.array([1j, 2]), "type complex128"),
        ("12", "is a str"),
        ({"0": 1}, "is a dict"),
        (3.0, "is a float"),
        (b"12345678", "is a bytes"),
    ],
)
def test_what_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidDocumentError, match=message) as caught:
        coerce(value, "v", 2, "cosine")
    assert caught.value.field == "v"
    spec = Vector("v", dim=2)
    assert spec.vectors({"v": value}) is None
    assert spec.content({"v": value}) is None


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_zero_and_length_outside_of_cosine(metric: Metric) -> None:
    assert coerce([0.0, 0.0], "v", 2, metric).tolist() == [0.0, 0.0]
    with pytest.raises(InvalidDocumentError, match=r"length over 1e[+]18: scale it"):
        coerce([1e19, 0.0], "v", 2, metric)
    assert coerce([1e30, 1e30], "v", 2, "cosine")[0] == np.float32(1e30)


def test_without_an_index_any_finite_numbers_are_taken() -> None:
    assert coerce([0.0] * 7, "v", None, None).shape == (7,)
    assert coerce([], "v", None, None).shape == (0,)
    with pytest.raises(InvalidDocumentError):
        coerce([float("nan")], "v", None, None)


def test_content_tells_change() -> None:
    spec = Vector("deep.v", dim=2)
    assert spec.content({}) is None
    assert spec.content({"deep": {"v": [1, 2]}}) == np.array([1, 2], "<f4").tobytes()
    assert spec.content({"deep": {"v": np.array([1, 2], np.float32)}}) == spec.content(
        {"deep": {"v": (1.0, 2.0)}}
    )
    found = spec.vectors({"deep": {"v": [3, 4]}})
    assert found is not None
    assert found.tolist() == [[3.0, 4.0]]


def read_only(*numbers: float) -> NDArray[np.float32]:
    array = np.array(numbers, np.float32)
    array.flags.writeable = False
    return array


def test_an_array_that_is_converted_already_is_checked_and_not_copied() -> None:
    stored = read_only(3, 4)
    found = Vector("v", dim=2).vectors({"v": stored})
    assert found is not None
    assert np.shares_memory(found, stored)
    assert not found.flags.writeable
    assert coerce(stored, "v", 2, "cosine") is not stored  # it may be a view of a writable one
    writable = np.array([3, 4], np.float32)
    found = Vector("v", dim=2).vectors({"v": writable})
    assert found is not None
    assert not np.shares_memory(found, writable)


@pytest.mark.parametrize(
    ("metric", "stored"),
    [
        ("cosine", read_only(0, 0)),
        ("cosine", read_only(1, float("nan"))),
        ("cosine", read_only(float("inf"), 1)),
        ("cosine", read_only(1, 2, 3)),
        ("l2", read_only(1e19, 0)),
    ],
)
def test_a_converted_array_that_does_not_fit_is_not_indexed(
    metric: Metric, stored: NDArray[np.float32]
) -> None:
    assert Vector("v", dim=2, metric=metric).vectors({"v": stored}) is None
    assert Vector("v", dim=2, metric=metric).content({"v": stored}) is None


# -- several vectors in one document ------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2.5], [3, 4]],
        ((1, 2.5), [3, 4]),
        np.array([[1, 2.5], [3, 4]]),
        np.array([[1, 2.5], [3, 4]], np.float16),
        np.array([[1, 2.5], [3, 4]], ">f4"),
        np.array([[1, 3], [2.5, 4]], np.float32).T,
        [np.array([1, 2.5]), (3, 4)],
        np.array([[1, 2.5, 9], [3, 4, 9]], np.float32)[:, :2],
    ],
)
def test_lists_of_vectors_become_one_array(value: Any) -> None:
    vectors = coerce_several(value, "v", 2, "cosine")
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert vectors.flags.c_contiguous
    assert not vectors.flags.writeable
    assert not any(np.shares_memory(vectors, each) for each in value)


@pytest.mark.parametrize("value", [[1, 2.5], (1, 2.5), np.array([1, 2.5])])
def test_one_vector_is_a_list_of_one(value: Any) -> None:
    assert coerce_several(value, "v", 2, "l2").tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize("value", [[], (), np.empty(0), np.empty((0, 2))])
def test_a_list_may_be_empty(value: Any) -> None:
    spec = Vector("v", dim=2, multi=True)
    assert spec.coerced(value).shape == (0, 2)
    assert spec.vectors({"v": spec.coerced(value)}) is None
    assert spec.content({"v": value}) is None


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        ([[1.0, 2.0], [1.0]], "v[1]", "has 1 numbers, and the index takes 2"),
        ([[1.0, 2.0, 3.0]] * 2, "v[0]", "embed with the model"),
        ([[1.0], [1.0, 2.0]], "v[0]", "has 1 numbers"),
        (np.ones((3, 5)), "v[0]", "has 5 numbers"),
        ([[1.0, 2.0], [1.0, float("nan")]], "v[1]", "nan at 1: give finite"),
        (np.array([[1, 2], [np.inf, 1]]), "v[1]", "inf at 0: give finite"),
        ([[1.0, 2.0], [1.0, 1e39]], "v[1]", "1e[+]39.* at 1: the limit of float32"),
        ([[1.0, 2.0], [0.0, -0.0]], "v[1]", "all zeros"),
        ([[1, 2], 3], "v[1]", "is a int"),
        ([3, [1, 2]], "v[0]", "is a int"),
        ([[1, 2], None], "v[1]", "is a NoneType"),
        ([[1, 2], "ab"], "v[1]", "is a str"),
        ([[1, 2], [1, None]], "v[1]", "type object"),
        ([[1, 2], ["1", "2"]], "v[1]", "type <U1"),
        ([[1, 2], []], "v[1]", "has 0 numbers"),
        ([[[1, 2]], [[1, 2]]], "v[0]", "2 dimensions"),
        (np.ones((2, 2, 2)), "v[0]", "2 dimensions"),
        ([1.0, 2.0, 3.0], "v", "has 3 numbers"),
        ([0.0, 0.0], "v", "all zeros"),
        (["a", "b"], "v", "type <U1"),
        (np.array(3.0), "v", "0 dimensions"),
        ("12", "v", "is a str: give a list of vectors"),
        ({"0": [1, 2]}, "v", "is a dict"),
        (3.0, "v", "is a float"),
    ],
)
def test_the_error_names_the_wrong_vector(value: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidDocumentError, match=message) as caught:
        coerce_several(value, "v", 2, "cosine")
    assert caught.value.field == field
    assert repr(field) in str(caught.value)
    assert Vector("v", dim=2, multi=True).vectors({"v": value}) is None


def test_length_outside_of_cosine() -> None:
    with pytest.raises(InvalidDocumentError, match=r"'v\[1\]' has a length over 1e[+]18"):
        coerce_several([[0, 0], [1e19, 0]], "v", 2, "l2")


def test_without_an_index_an_array_of_any_shape_is_taken() -> None:
    assert coerce_several(np.zeros((2, 7)), "v", None, None).shape == (2, 7)
    assert coerce_several(np.zeros((0, 7)), "v", None, None).shape == (0, 7)
    for bad in (np.zeros((2, 0)), np.zeros((2, 2, 2)), np.full((1, 2), np.nan)):
        with pytest.raises(InvalidDocumentError):
            coerce_several(bad, "v", None, None)


def test_what_is_indexed_of_either_form() -> None:
    """A document that was stored under another declaration."""
    one, several = Vector("v", dim=2), Vector("v", dim=2, multi=True)
    stored = one.coerced([3, 4])
    assert several.content({"v": stored}) == one.content({"v": stored})
    found = several.vectors({"v": stored})
    assert found is not None
    assert np.shares_memory(found, stored)
    assert one.vectors({"v": several.coerced([[3, 4]])}) is None
    bad = np.array([[1, 2], [0, 0]], np.float32)
    bad.flags.writeable = False
    assert several.vectors({"v": bad}) is None


def test_the_centroid() -> None:
    spec = Vector("v", dim=2, multi=True)
    assert spec.centroid({}) is None
    found = spec.centroid({"v": spec.coerced([[2, 0], [0, 5]])})
    assert found is not None
    assert found.tolist() == [0.5, 0.5]
    one = Vector("v", dim=2).centroid({"v": [2, 0]})
    assert one is not None
    assert one.tolist() == [2.0, 0.0]
