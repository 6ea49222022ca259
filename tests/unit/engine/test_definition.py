"""Definitions: the bytes that the catalog stores, and the maps that it refuses."""

from typing import Any

import pytest

from amberdb import FormatError, Ordered, Text, Vector
from amberdb.engine.schema.codec import decode, encode
from amberdb.engine.schema.definition import CollectionDef, IndexDef

SMALL = CollectionDef(name="n", number=1, keyspace=16, expiry_keyspace=17)
FULL = CollectionDef(
    name="n",
    number=7,
    keyspace=1 << 16,
    expiry_keyspace=(1 << 32) - 1,
    indexes=(
        IndexDef(Ordered("a", "-b"), 18, complete_from=1 << 40),
        IndexDef(Text("t"), 19, identity="amberdb=1"),
    ),
    expires_at="until",
    required={"a": "int", "b": None},
    vectors=("v",),
    version=3,
    steps=((2, 5), (3, 1 << 63)),
    former=((4, "old"),),
)
SMALL_BYTES = (
    b"\x87\xa6number\x01\xa4tree\x10\xabexpiry_tree\x11\xa7indexes\x90\xaaexpires_at\xc0"
    b"\xa8required\x80\xa7vectors\x90"
)
FULL_BYTES = (
    b"\x8a\xa6number\x07\xa4tree\xce\x00\x01\x00\x00\xabexpiry_tree\xce\xff\xff\xff\xff\xa7indexes"
    b"\x92"
    b"\x83\xa4spec\x84\xa4kind\xa7ordered\xa6fields\x92\xa1a\xa2-b\xa6sparse\xc2\xa4name"
    b"\xacordered:a,-b\xa4tree\x12\xadcomplete_from\xcf\x00\x00\x01\x00\x00\x00\x00\x00"
    b"\x84\xa4spec\x88\xa4kind\xa4text\xa6fields\x91\xa1t\xa7weights\x91\xcb?\xf0\x00\x00\x00\x00"
    b"\x00\x00\xa8language\xa7english\xaastop_words\xc3\xa9segmenter\xc0\xb0fold_traditional\xc2"
    b"\xa4name\xa6text:t\xa4tree\x13\xadcomplete_from\x00\xa8identity\xa9amberdb=1"
    b"\xaaexpires_at\xa5until\xa8required\x82\xa1a\xa3int\xa1b\xc0\xa7vectors\x91\xa1v"
    b"\xa7version\x03\xa5steps\x92\x92\x02\x05\x92\x03\xcf\x80\x00\x00\x00\x00\x00\x00\x00"
    b"\xa6former\x91\x92\x04\xa3old"
)


@pytest.mark.parametrize(
    ("definition", "data"), [(SMALL, SMALL_BYTES), (FULL, FULL_BYTES)], ids=["small", "full"]
)
def test_bytes_of_a_definition(definition: CollectionDef, data: bytes) -> None:
    assert encode(definition.to_map()) == data
    assert CollectionDef.from_map("n", decode(data)) == definition


def test_the_oldest_maps_have_no_vectors() -> None:
    stored = SMALL.to_map()
    del stored["vectors"]
    assert CollectionDef.from_map("n", stored) == SMALL


INDEX = IndexDef(Vector("v", dim=2), 18)
BAD: dict[str, dict[str, Any]] = {
    "unknown field": {"colour": 1},
    "number of another type": {"number": "1"},
    "bool as a number": {"number": True},
    "negative number": {"tree": -1},
    "number over 32 bits": {"expiry_tree": 1 << 32},
    "unknown type of a required field": {"required": {"a": "complex"}},
    "path as a required field": {"required": {"a.b": None}},
    "path as time of expiry": {"expires_at": "a.b"},
    "path as a vector": {"vectors": ["a.b"]},
    "steps of another form": {"steps": [[2]]},
    "step of another type": {"steps": [[2, "5"]]},
    "former name of another type": {"former": [[4, 5]]},
    "indexes of another type": {"indexes": {}},
    "index with an unknown field": {
        "indexes": [{"spec": INDEX.spec.to_map(), "tree": 18, "complete_from": 0, "colour": 1}]
    },
    "index without its keyspace": {"indexes": [{"spec": INDEX.spec.to_map(), "complete_from": 0}]},
    "index of an unknown kind": {
        "indexes": [{"spec": {"kind": "spatial"}, "tree": 18, "complete_from": 0}]
    },
    "index with an empty spec": {"indexes": [{"spec": {}, "tree": 18, "complete_from": 0}]},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_map_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(
        FormatError, match=r"collection 'n'.*unknown field or type.*written by a newer version\?"
    ):
        CollectionDef.from_map("n", {**SMALL.to_map(), **change})


@pytest.mark.parametrize("missing", ["number", "tree", "expiry_tree", "indexes", "required"])
def test_a_map_without_a_field_is_refused(missing: str) -> None:
    stored = SMALL.to_map()
    del stored[missing]
    with pytest.raises(FormatError, match=missing):
        CollectionDef.from_map("n", stored)
