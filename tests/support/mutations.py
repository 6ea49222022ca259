"""Mutants: every small change of a module that a test should notice.

Invariants:
- The mutants of one source are the same each time, in the same order, and differ from it in one
  place.
- A mutant's name is made of its function and of what it changes, without line numbers, so that it
  outlives changes elsewhere in the module.
- Left out: messages, annotations, docstrings, assertions, failpoints and lines for the logger.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, cast

ROOT: Final = Path(__file__).resolve().parents[2]
TARGETS: Final = (
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "wal").glob("*.py")),
    "engine/commit/recovery.py",
    "engine/storage/directory.py",
    "engine/storage/manifest.py",
    "engine/commit/checkpoint.py",
    "engine/storage/memtable.py",
)
"""The log and the recovery."""
_TEXT_MAX = 72

_COMPARES: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_NAMES: Final = {"max": "min", "min": "max", "any": "all", "all": "any"}
_TEXTS: Final = {"little": "big", "big": "little"}

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Mutant(NamedTuple):
    """One change, as a number of the source's places and a number of the changes there."""

    path: str
    function: str
    """As in `Log.append`; empty outside of classes and functions."""
    text: str
    """`before -> after`, with a number when the function has several like it."""
    line: int
    end_line: int
    at_import: bool
    """Runs when the module is imported, not when a function is called."""
    place: int
    choice: int

    @property
    def name(self) -> str:
        return f"{self.path} {self.function}: {self.text}"


class _Place(NamedTuple):
    parent: ast.AST
    field: str
    at: int | None
    node: ast.AST
    function: str
    at_import: bool

    def put(self, node: ast.AST) -> None:
        if self.at is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.at] = node


def mutants(path: str, source: str) -> list[Mutant]:
    """All of one module."""
    found: list[Mutant] = []
    seen: Counter[tuple[str, str]] = Counter()
    for number, place in enumerate(_places(ast.parse(source))):
        for choice, new in enumerate(_changes(place)):
            text = _text(place, new)
            seen[place.function, text] += 1
            if (count := seen[place.function, text]) > 1:
                text = f"{text} ({count})"
            line, end = place.node.lineno, place.node.end_lineno  # type: ignore[attr-defined]
            found.append(
                Mutant(path, place.function, text, line, end, place.at_import, number, choice)
            )
    return found


def explained() -> set[str]:
    """The names of those that docs/mutants.md explains: first and second column of its table."""
    page = (ROOT / "docs" / "mutants.md").read_text()
    rows = re.finditer(r"^\| `(.+?)` \| `(.+?)` \|", page, re.M)
    return {f"{row[1]}: {row[2]}".replace("\\|", "|") for row in rows}


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The module with that change."""
    tree = ast.parse(source)
    for number, place in enumerate(_places(tree)):
        if number == mutant.place:
            place.put(list(_changes(place))[mutant.choice])
            return ast.fix_missing_locations(tree)
    raise AssertionError(f"{mutant.name} is of another source")


def _places(node: ast.AST, function: str = "", at_import: bool = True) -> Iterator[_Place]:
    for field, value in ast.iter_fields(node):
        runs = at_import and not (field == "body" and isinstance(node, _Function | ast.Lambda))
        children = cast("list[object]", value if isinstance(value, list) else [value])
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_left_out(field, child):
                continue
            inner = function
            if isinstance(child, _Function | ast.ClassDef):
                inner = f"{function}.{child.name}" if function else child.name
            at = index if isinstance(value, list) else None
            yield _Place(node, field, at, child, inner, runs)
            yield from _places(child, inner, runs)


def _is_left_out(field: str, node: ast.AST) -> bool:
    if field in ("annotation", "returns", "msg"):
        return True
    match node:
        case ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
            return True
        case ast.If(test=ast.Attribute(value=ast.Name(id="failpoints"))):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
        case _:
            return False


def _changes(place: _Place) -> Iterator[ast.AST]:
    node = place.node
    for new in _statement(node) if isinstance(node, ast.stmt) else _expression(node):
        yield ast.copy_location(new, node)
    if place.field == "test" and isinstance(node, ast.Name | ast.Attribute | ast.Call):
        yield ast.copy_location(ast.UnaryOp(ast.Not(), node), node)


def _statement(node: ast.stmt) -> Iterator[ast.stmt]:
    match node:
        case ast.Expr() | ast.Delete() | ast.Raise() | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case _:
            pass
    if isinstance(node, ast.AugAssign):
        yield ast.AugAssign(node.target, _ARITHMETIC[type(node.op)](), node.value)


def _expression(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                for other in _COMPARES[type(op)]:
                    yield _with(node, ops=[*ops[:index], other(), *ops[index + 1 :]])
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield _with(node, op=_ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield copy(operand)
        case ast.Name(id=name) if name in _NAMES:
            yield ast.Name(_NAMES[name], ast.Load())
        case ast.Constant(value=value):
            yield from map(ast.Constant, _constants(value))
        case _:
            pass


def _constants(value: object) -> Iterator[bool | int | str | bytes]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
            yield value - 1
        case bytes():
            yield value[:-1] + bytes([value[-1] ^ 1]) if value else b"\1"
        case str() if value in _TEXTS:
            yield _TEXTS[value]
        case str() if value.startswith("<") and value[1:2].isalnum():  # of a Struct
            yield ">" + value[1:]
        case _:
            pass


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(place: _Place, new: ast.AST) -> str:
    before, after = ast.unparse(place.node), ast.unparse(new)
    if isinstance(place.parent, ast.expr | ast.keyword):  # a bare constant would say little
        around = ast.unparse(place.parent)
        if len(around) <= _TEXT_MAX:
            before = around
            place.put(new)
            after = ast.unparse(place.parent)
            place.put(place.node)
    first, _, rest = before.partition("\n")
    if len(first) > _TEXT_MAX or rest:
        before = first[: _TEXT_MAX - 3] + "..."
    return f"{before} -> {after if len(after) <= _TEXT_MAX + 8 else after[:_TEXT_MAX] + '...'}"
