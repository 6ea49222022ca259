"""A dotted path means the same to filters, projections, imports and series, through lists too."""

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amberdb import Database, Ordered, value_at
from amberdb._jsonl.importer import Importer, ImportOptions
from amberdb._jsonl.reader import numbered_lines
from amberdb._jsonl.text import convert_dates, dumps
from amberdb.series import series

TEXT = "2026-01-01T00:00:00Z"
TIME = datetime(2026, 1, 1, tzinfo=UTC)

NAMES = st.sampled_from("ab")
VALUES = st.recursive(
    st.none() | st.just(1) | st.just(TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=2)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)

LISTED: dict[str, Any] = {
    "id": "x",
    "items": [{"at": TEXT, "n": 1}, {"n": 2}, 3, [{"at": TEXT}], {"at": [TEXT, None]}],
}


def test_through_a_list_a_path_goes_on_in_each_of_its_maps() -> None:
    assert value_at(LISTED, "items.n") == [1, 2]
    assert value_at(LISTED, "items.at") == [TEXT, TEXT, None]
    assert value_at(LISTED, "items.nowhere") is None
    assert value_at(LISTED, "items.nowhere", 7) == 7
    assert value_at({"a": None}, "a", 7) is None
    with pytest.raises(ValueError, match="empty segment"):
        value_at(LISTED, "items..n")


def are_dates(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(are_dates, cast(Sequence[Any], value)))
    return value is None or value == TEXT


def converted(value: Any) -> Any:
    if isinstance(value, list):
        return [converted(element) for element in cast(Sequence[Any], value)]
    return TIME if value == TEXT else value


@given(DOCUMENTS, PATHS)
def test_dates_are_converted_where_a_path_leads(document: dict[str, Any], path: str) -> None:
    before = value_at(document, path)
    if are_dates(before):
        convert_dates(document, [path])
        assert value_at(document, path) == converted(before)
    else:
        with pytest.raises(ValueError, match=re.escape(repr(path))):
            convert_dates(document, [path])


def test_dates_inside_the_maps_of_a_list_are_converted(db: Database) -> None:
    importer = Importer(db.collection("x"), "in.jsonl", ImportOptions(dates=["items.at"]))
    importer.run(numbered_lines(lines_of(LISTED)))
    stored = db.collection("x").record("x").document
    assert value_at(stored, "items.at") == [TIME, TIME, None]
    assert db.collection("x").count({"items.at": TIME}) == 1


def test_ids_are_made_of_all_values_that_a_path_finds(db: Database) -> None:
    rows = [{"tags": [{"n": 1}, {"n": 2}]}, {"tags": [{"n": 1}, {"n": 3}]}, {"tags": [{"n": 1}]}]
    importer = Importer(db.collection("x"), "in.jsonl", ImportOptions(id_from=["tags.n"]))
    importer.run(numbered_lines(lines_of(*rows, rows[0])))
    assert db.collection("x").count() == 3


def test_a_series_reads_the_fields_that_an_index_reads(db: Database) -> None:
    x = db.collection("x", indexes=[Ordered("when.at")])
    x.put({"when": {"at": TIME}, "use": {"tokens": 3}})
    x.put({"when": {"at": TIME + timedelta(minutes=1)}, "use": [{"tokens": 4}]})
    x.put({"when": [{"at": TIME}], "use": {"tokens": 5}})
    (bucket,) = series(db, "x", "when.at", every="hour", of="use.tokens")
    # A list is no time and no number.
    assert (bucket.count, bucket.numbers, bucket.sum) == (2, 1, 3)


def lines_of(*documents: dict[str, Any]) -> io.BytesIO:
    return io.BytesIO("".join(f"{dumps(document)}\n" for document in documents).encode())
