"""Values of documents as short text, and documents as JSON text, for people.

Invariants:
- Text is as it is stored: who shows it escapes it, a page as HTML and a terminal its control
  characters.
- Text is cut at a limit, and says so; the value in the database is never changed by that.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from amberdb import Document, value_at
from amberdb._jsonl.text import dumps, iso

CELL_CHARS_MAX: Final = 120
JSON_CHARS_MAX: Final = 200_000
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_ITEMS_SHOWN: Final = 20
"""Of a list in a cell: those after them would be cut in any case."""


class JsonText(NamedTuple):
    """A document as indented JSON text."""

    text: str
    is_cut: bool
    """The text ends at JSON_CHARS_MAX."""


def cell(value: Any, chars_max: int = CELL_CHARS_MAX) -> str:
    """A value as one line of text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value if len(value) <= chars_max * 4 else value[: chars_max * 4]
    elif isinstance(value, datetime):
        text = iso(value)
    elif isinstance(value, bytes):
        text = f"{len(value):,} bytes"
    elif isinstance(value, np.ndarray):
        text = vector_words(value)
    elif isinstance(value, Mapping | list | tuple):
        text = dumps(_beginning(shown(value)))
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= chars_max else text[: chars_max - 1] + "\u2026"


def cell_at(document: Document, column: str) -> str:
    """The cell of a column, which is a dotted path, as filters read it."""
    return cell(value_at(document, column))


def kind_of(value: Any) -> str:
    """The class of a value in the order of filters: "number", "text" and so on."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (type(None), "none"),
        (bool, "bool"),
        ((int, float), "number"),
        (str, "text"),
        (bytes, "bytes"),
        (datetime, "time"),
        (np.ndarray, "vector"),
        (Mapping, "map"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "list")


def size_text(size_bytes: float) -> str:
    """Bytes in the unit that a person reads."""
    unit = 0
    while size_bytes >= 1024 and unit < len(_UNITS) - 1:
        size_bytes, unit = size_bytes / 1024, unit + 1
    return f"{size_bytes:,.{min(unit, 1)}f} {_UNITS[unit]}"


def vectors_in(value: Any) -> NDArray[Any] | None:
    """The vectors of a field, of shape (n, dim); None when the value is none."""
    if not isinstance(value, np.ndarray) or not value.size:
        return None
    stored = cast(NDArray[Any], value)
    return stored.reshape(-1, stored.shape[-1])


def vector_words(vector: Any) -> str:
    """What stands for a vector in a cell and in the text of a document."""
    dim, count = vector.shape[-1], 1 if vector.ndim == 1 else vector.shape[0]
    return f"vector of {dim} numbers" if count == 1 else f"{count} vectors of {dim} numbers"


def shown(value: Any) -> Any:
    """The value with words in place of each vector."""
    if isinstance(value, np.ndarray):
        return vector_words(value)
    if isinstance(value, Mapping):
        items = cast(Mapping[str, Any], value).items()
        return {name: shown(item) for name, item in items}
    if isinstance(value, list | tuple):
        return [shown(item) for item in cast(Sequence[Any], value)]
    return value


def json_text(document: Document, chars_max: int = JSON_CHARS_MAX) -> JsonText:
    """The document as indented JSON, with words in place of each vector."""
    text = dumps(shown(document), indent=2)
    return JsonText(text[:chars_max], len(text) > chars_max)


def _beginning(value: Any) -> Any:
    """The first items of a list or a map, which a cell shows."""
    if isinstance(value, Mapping):
        return dict(list(cast(Mapping[str, Any], value).items())[:_ITEMS_SHOWN])
    return list(cast(Sequence[Any], value)[:_ITEMS_SHOWN])
