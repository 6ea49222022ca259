"""Composite ids: several values in one text, which sorts as the values do.

    key("lin", 7)  ->  slin!nbffc...!        (each value: a letter of its class, the value, "!")

    None a | bool b | number n | str s | bytes t | datetime w

Invariants:
- key(*a) < key(*b) exactly when a sorts before b, part by part, in the order of an index.
- key(*a) begins with key(*b) exactly when a begins with the parts b, so {"$prefix": key(*b)} finds
  all ids with these first parts, and key("ab") is no prefix of key("abc").
- Text stays readable: "!" and what sorts before it, and `"`, are escaped; nothing else is.
"""

from datetime import datetime
from typing import Any, Final

from amberdb._errors import InvalidDocumentError
from amberdb._plain import plain_scalar
from amberdb._public import public
from amberdb.engine.schema.documents import encode_id
from amberdb.index.ordered.keys import encode

_END: Final = "!"
_ESCAPED: Final = {code: '"' + chr(ord("@") + code) for code in range(ord('"') + 1)}
"""Sorts after the end, before all other characters, and in the order of what it stands for."""


@public
def key(*parts: Any) -> str:
    """An id of several values, which sorts as they do: `key("lin", 7) < key("lin", 10)`.

        notes.put({"id": amberdb.key(user, created_at), ...})
        notes.find({"id": {"$prefix": amberdb.key(user)}})   # all of this user

    Parts are None, bool, int, float, str, bytes or aware datetimes. Raises InvalidDocumentError for
    anything else, and when the id would have more than 480 bytes.
    """
    if not parts:
        raise InvalidDocumentError("a composite id has at least one part", field="id")
    try:
        id = "".join(f"{_text(plain_scalar(part))}{_END}" for part in parts)
    except InvalidDocumentError as error:
        raise InvalidDocumentError(f"a part of an id is {error.message}", field="id") from None
    encode_id(id)
    return id


def _text(part: Any) -> str:
    if type(part) is str:
        return "s" + part.translate(_ESCAPED)
    if type(part) is datetime:
        return "w" + part.isoformat(timespec="microseconds")[: -len("+00:00")]
    if type(part) is bytes:
        return "t" + part.hex()
    if type(part) is bool:
        return f"b{part:d}"
    return "a" if part is None else "n" + encode(part)[1:].hex()
