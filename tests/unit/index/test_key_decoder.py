"""From a key back to its values: every one that the key tells, in its own type."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb import Ordered
from amberdb.index.ordered.key_decoder import decoded
from amberdb.index.ordered.key_encoder import KeyEncoder
from support import drawn
from support.reference import same

FIELDS = ("a", "-b", "c")
_values = st.one_of(drawn.scalars, drawn.texts)


def key_of(document: dict[str, Any]) -> bytes:
    (key,) = KeyEncoder(Ordered(*FIELDS)).keys(document)
    return key


@given(st.fixed_dictionaries({"a": _values, "b": _values, "c": _values}))
def test_values_come_back_in_their_types(document: dict[str, Any]) -> None:
    encoder = KeyEncoder(Ordered(*FIELDS))
    values = decoded(b"head" + key_of(document) + b"\0" * 8, 4, encoder.descending)
    if None in document.values():
        assert values is None
    elif not encoder.is_lossy(document):
        assert same(values, [document[name] for name in "abc"])


@given(st.fixed_dictionaries({}, optional=drawn.field_values), st.sampled_from(drawn.SPECS))
def test_a_document_of_which_something_is_lost_is_told(document: Any, spec: Ordered) -> None:
    encoder = KeyEncoder(spec)
    try:
        keys = encoder.keys(document)
    except ValueError:
        return
    if encoder.is_lossy(document):
        return
    if keys and (values := decoded(keys[0], 0, encoder.descending)) is not None:
        assert KeyEncoder(spec).keys(_put(spec.paths, values)) == keys


def _put(paths: tuple[str, ...], values: list[Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        *maps, last = path.split(".")
        inside = document
        for name in maps:
            inside = inside.setdefault(name, {})
        inside[last] = value
    return document


@pytest.mark.parametrize("value", [None, {}, {"x": 1}, [[1]], []])
def test_what_the_key_does_not_tell_is_not_made_up(value: Any) -> None:
    assert decoded(key_of({"a": 1, "b": value, "c": 2}), 0, (False, True, False)) is None
    assert decoded(key_of({"a": 1, "b": value, "c": 2}), 0, (False,)) == [1]
