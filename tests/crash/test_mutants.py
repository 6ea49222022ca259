"""The mutants themselves: what is changed, and that the page about those left over does not rot."""

import ast

from support.mutations import ROOT, TARGETS, explained, mutants, mutated

SOURCE = '''\
"""A docstring."""
LIMIT = 1 << 4

def take(data: bytes, *, strict: bool = True) -> int | None:
    if failpoints.on:
        failpoints.reach("place")
    while len(data) < LIMIT and not data:
        data += b"x"
        break
    self.kept = max(data)
    if strict:
        raise ValueError(f"{1}")
    return int.from_bytes(data, "little")
'''
TEXTS = [
    "1 << 4 -> 1 >> 4",
    "1 << 4 -> 2 << 4",
    "1 << 4 -> 0 << 4",
    "1 << 4 -> 1 << 5",
    "1 << 4 -> 1 << 3",
    "True -> False",
    "len(data) < LIMIT and (not data) -> len(data) < LIMIT or not data",
    "len(data) < LIMIT and (not data) -> len(data) <= LIMIT and (not data)",
    "len(data) < LIMIT and (not data) -> len(data) >= LIMIT and (not data)",
    "len(data) < LIMIT and (not data) -> len(data) < LIMIT and data",
    "data += b'x' -> pass",
    "data += b'x' -> data -= b'x'",
    "b'x' -> b'y'",
    "break -> continue",
    "self.kept = max(data) -> pass",
    "max(data) -> min(data)",
    "strict -> not strict",
    "raise ValueError(f'{1}') -> pass",
    "return int.from_bytes(data, 'little') -> return None",
    "int.from_bytes(data, 'little') -> int.from_bytes(data, 'big')",
]


def test_every_kind_of_change() -> None:
    found = mutants("m.py", SOURCE)
    assert [mutant.text for mutant in found] == TEXTS
    assert [mutant.text for mutant in found if mutant.at_import] == TEXTS[:6]
    for mutant in found:
        changed = ast.unparse(mutated(SOURCE, mutant)).splitlines()
        whole = ast.unparse(ast.parse(SOURCE)).splitlines()
        assert sum(before != after for before, after in zip(whole, changed, strict=True)) == 1


def test_what_is_explained_is_still_there() -> None:
    names = {m.name for path in TARGETS for m in mutants(path, (ROOT / path).read_text())}
    assert explained() - names == set()
    assert explained()
