"""Patches: the changes that update() makes to a document.

    {"done": True, "place": {"city": "Rome"}, "place.zip": REMOVE}    merged: a field, or a path
    {"$set": {"place": {...}}, "$inc": {"n": 1}}                      operators, by path

Invariants:
- A name that begins with `$` is an operator, or refused: it is never stored by mistake. `$set` and
  `$push` take their values as they are, as `$eq` does in a filter.
- Paths mean what they mean in filters, but a patch changes no field inside a list.
- No two changes of a patch touch one field, so their order has no meaning.
"""

# The values of a document have no static type, so type(value) and lists are unknown to pyright.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias, cast, final

from amberdb._errors import InvalidDocumentError
from amberdb._plain import plain_scalar
from amberdb._types import Document
from amberdb.engine.schema.documents import DEPTH_MAX, REMOVE
from amberdb.index.ordered.keys import TAG_LIST, encode
from amberdb.index.paths import MISSING, Path, path_name

Operator: TypeAlias = "Callable[[str, Any, Any], Any]"
"""(path, old value, operand) to the new value. An old value is MISSING where there is none."""


class Change(NamedTuple):
    """One field's change."""

    path: Path
    operator: Operator
    operand: Any


@final
class Changes:
    """The changes of one update, checked. Raises InvalidDocumentError."""

    __slots__ = ("changes",)

    changes: tuple[Change, ...]

    def __init__(self, patch: object) -> None:
        self.changes = tuple(_changes(patch))
        if len(self.changes) > 1:
            _refuse_overlap(self.changes)

    @classmethod
    def setting(cls, field: str, value: Any) -> "Changes":
        """Of one top-level field."""
        return cls.of(Change(Path.of(path_name([field])), _set, value))

    def apply(self, document: Document) -> Document:
        """The changed document. It shares with the given one, which stays as it is, the values of
        all fields that it does not change. Raises InvalidDocumentError."""
        changed = dict(document)
        for path, operator, operand in self.changes:
            removes = operator is _unset or operand is REMOVE
            holder = changed if path.is_plain else _holder(changed, path, removes=removes)
            name = path.segments[-1]
            if removes:
                holder.pop(name, None)
            else:
                holder[name] = operator(path.name, holder.get(name, MISSING), operand)
        return changed

    @property
    def fields(self) -> list[str]:
        """The top-level fields that it changes, or parts of them."""
        return [change.path.segments[0] for change in self.changes]

    def touches(self, path: Path) -> bool:
        """Whether a change may change the value at the path."""
        return any(_touches(change, path) for change in self.changes)

    def assigned(self) -> Document:
        """The fields that the patch sets, as a document of their own."""
        document: Document = {}
        for change in self.changes:
            if change.operator in (_merged, _set):
                document = Changes.of(change).apply(document)
        return document

    @classmethod
    def of(cls, *changes: Change) -> "Changes":
        """A patch of changes that were checked."""
        patch = cls.__new__(cls)
        patch.changes = changes
        return patch

    def and_set(self, path: Path, value: Any) -> "Changes":
        """The patch, which also sets a field that it does not touch."""
        return Changes.of(*self.changes, Change(path, _set, value))


# -- parsing ---------------------------------------------------------------------------------


def _changes(patch: object) -> Iterator[Change]:
    if not isinstance(patch, Mapping):
        raise InvalidDocumentError(f"a patch is a map, not {type(patch).__name__}")
    for name, value in patch.items():
        if not isinstance(name, str) or not name.startswith("$"):
            path = _path(name)
            if type(value) not in _SINGLE:
                _refuse_operators(path, value, 0)
            yield Change(path, _merged, value)
            continue
        operator = _OPERATORS.get(name)
        if operator is None:
            raise InvalidDocumentError(
                f"{name} is not an operator of update(); the operators are "
                f"{' '.join(_OPERATORS)}. To store a key that begins with $, put() the document",
                field=name,
            )
        if name == "$unset" and isinstance(value, (list, tuple)):
            value = dict.fromkeys(map(path_name, value), True)
        if not isinstance(value, Mapping):
            raise InvalidDocumentError(
                f"{name} takes a map of paths, {{{name}: {{path: value}}}}, not {value!r}",
                field=name,
            )
        for path, operand in value.items():
            yield Change(_path(path), operator, operand)


def _path(name: Any) -> Path:
    return _known_path(name) if type(name) is str else _checked_path(name)


def _checked_path(name: Any) -> Path:
    try:
        path = Path.of(path_name(name))
    except ValueError as error:
        raise InvalidDocumentError(f"in a patch: {error}", field=str(name)) from None
    if any(key.startswith("$") for key in path.segments):
        raise InvalidDocumentError(
            f"the path {path.name!r} of a patch has a key that begins with $, which no operator "
            "takes: put() the document with its whole map or list",
            field=path.name,
        )
    return path


_known_path: Final = lru_cache(maxsize=1024)(_checked_path)


def _refuse_operators(path: Path, value: Any, depth: int) -> None:
    """Raises InvalidDocumentError for {"n": {"$inc": 1}}, where {"$inc": {"n": 1}} was meant."""
    if depth > DEPTH_MAX:
        raise InvalidDocumentError(f"the patch has more than {DEPTH_MAX} levels of nesting")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(name, str) and name.startswith("$"):
                raise InvalidDocumentError(
                    f"the patch has {name} inside the value of {path.name!r}: an operator comes "
                    f"first, as in {{'$inc': {{{path.name!r}: 1}}}}; $set stores a value as it is",
                    field=path.name,
                )
            _refuse_operators(path, item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if type(item) not in _SINGLE:
                _refuse_operators(path, item, depth + 1)


_SINGLE: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _refuse_overlap(changes: tuple[Change, ...]) -> None:
    if all(change.path.is_plain and change.operator is _merged for change in changes):
        return  # keys of one map
    paths = sorted((change.path for change in changes), key=lambda path: path.segments)
    for outer, inner in pairwise(paths):
        if _is_within(inner, outer):
            raise InvalidDocumentError(
                f"the patch changes {inner.name!r} twice, the second time as {outer.name!r}: "
                "give one change for each field",
                field=inner.name,
            )


def _touches(change: Change, path: Path) -> bool:
    if _is_within(change.path, path):
        return True
    if not _is_within(path, change.path):
        return False
    value = change.operand if change.operator is _merged else None
    for key in path.segments[len(change.path.segments) :]:
        if not isinstance(value, Mapping):
            return True
        if key not in value:
            return False
        value = value[key]
    return True


def _is_within(inner: Path, outer: Path) -> bool:
    return inner.segments[: len(outer.segments)] == outer.segments


# -- applying --------------------------------------------------------------------------------


def _holder(document: Document, path: Path, *, removes: bool) -> Document:
    """The map that has the last key of the path: a copy, as all maps on the way to it. Missing
    ones, and None, become maps, unless the change removes that key."""
    holder = document
    for key in path.segments[:-1]:
        inner = holder.get(key)
        if type(inner) is dict:
            inner = holder[key] = dict(cast(Document, inner))
            holder = inner
        elif removes and type(inner) is not list:
            return {}
        elif inner is None:
            inner = holder[key] = {}
            holder = inner
        else:
            raise InvalidDocumentError(
                f"the path {path.name!r} goes through {key!r}, which holds a "
                f"{type(inner).__name__}: a patch changes fields of maps; set {key!r} whole",
                field=path.name,
            )
    return holder


def _merged(path: str, old: Any, operand: Any) -> Any:
    """Maps are merged, at every level; any other value replaces the old one."""
    if type(operand) in _SINGLE or not isinstance(operand, Mapping):
        return operand
    merged: Document = dict(old) if type(old) is dict else {}
    for name, value in operand.items():
        if value is REMOVE:
            merged.pop(name, None)
        else:
            merged[name] = _merged(path, merged.get(name), value)
    return merged


def _set(path: str, old: Any, operand: Any) -> Any:
    return operand


def _unset(path: str, old: Any, operand: Any) -> Any:
    raise AssertionError("a removal has no value")


def _inc(path: str, old: Any, operand: Any) -> Any:
    if old is MISSING or old is None:
        old = 0
    try:
        number = plain_scalar(operand)
    except InvalidDocumentError:
        number = None
    if type(number) not in _NUMBERS or type(old) not in _NUMBERS:
        raise InvalidDocumentError(
            f"$inc adds numbers: {path!r} holds {old!r}, and {operand!r} was given", field=path
        )
    return old + number


_NUMBERS: Final = (int, float)


def _push(path: str, old: Any, operand: Any) -> Any:
    if old is MISSING or old is None:
        old = []
    if type(old) is not list:
        raise InvalidDocumentError(
            f"$push appends to a list, and {path!r} holds a {type(old).__name__}: $set a list",
            field=path,
        )
    if not isinstance(operand, Mapping) or not any(str(name)[:1] == "$" for name in operand):
        return [*old, operand]
    items = operand.get("$each")
    if len(operand) != 1 or not isinstance(items, (list, tuple)):
        raise InvalidDocumentError(
            f"$push takes a value, or {{'$each': [values]}}, not {operand!r}", field=path
        )
    return [*old, *items]


def _max(path: str, old: Any, operand: Any) -> Any:
    try:
        new_key = encode(operand)
        old_key = encode(None if old is MISSING else old)
    except InvalidDocumentError as error:
        raise InvalidDocumentError(f"$max of {path!r}: {error.message}", field=path) from None
    if max(new_key, old_key)[0] >= TAG_LIST:
        raise InvalidDocumentError(
            f"$max compares single values, and neither {path!r} nor its operand may be a list or "
            "a map: $set it",
            field=path,
        )
    return operand if new_key > old_key or old is MISSING else old


_OPERATORS: Final[dict[str, Operator]] = {
    "$set": _set,
    "$unset": _unset,
    "$inc": _inc,
    "$push": _push,
    "$max": _max,
}
