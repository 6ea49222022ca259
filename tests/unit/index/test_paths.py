"""Dotted paths: through maps, fanning out over lists, and nothing else."""

from typing import Any

import pytest

from amberdb.index.paths import MISSING, Path, path_problem

DOCUMENT: dict[str, Any] = {
    "a": 1,
    "none": None,
    "m": {"b": 2, "0": "zero", "none": None, "deep": {"c": 3}},
    "l": [{"b": 1}, {"b": [2, 3]}, 4, {"c": 5}, {"b": None}, [{"b": 6}]],
    "ll": [{"m": [{"x": 1}, {"x": 2}]}, {"m": {"x": 3}}],
    "empty": [],
    "hollow": [{"b": []}],
    "x.y": "not reachable",
    "x": {"y": "inside"},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("none", None),
        ("missing", MISSING),
        ("m.b", 2),
        ("m.0", "zero"),
        ("m.none", None),
        ("m.deep", {"c": 3}),
        ("m.deep.c", 3),
        ("m.missing", MISSING),
        ("m.b.c", MISSING),
        ("a.b", MISSING),
        ("none.b", MISSING),
        ("missing.b", MISSING),
        ("l.b", [1, 2, 3, None]),
        ("l.0", MISSING),
        ("l.missing", MISSING),
        ("ll.m.x", [1, 2, 3]),
        ("empty.b", MISSING),
        ("hollow.b", []),
        ("x.y", "inside"),
    ],
)
def test_get(path: str, value: Any) -> None:
    assert Path(path).get(DOCUMENT) == value
    assert Path(path).find(DOCUMENT) == (None if value is MISSING else value)


def test_a_list_found_is_not_shared() -> None:
    document = {"l": [{"b": [1]}, {"b": 2}]}
    assert Path("l.b").get(document) == [1, 2]
    assert Path("l.b").get(document) == [1, 2]


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "\ud800", 1, None])
def test_what_is_no_path(name: Any) -> None:
    assert path_problem(name)
    with pytest.raises(ValueError, match=r"name|segment|surrogate"):
        Path(name)


def test_of_keeps_what_it_compiled() -> None:
    assert Path.of("a.b") is Path.of("a.b")
    assert repr(Path("a.b")) == "Path('a.b')"
    assert repr(MISSING) == "MISSING"
    assert Path("a").is_plain
    assert not Path("a.b").is_plain
