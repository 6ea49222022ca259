"""JSON Schemas of arguments and results, from the types that check them.

Invariants:
- A schema is whole in itself: without references, since not every client follows them.
"""

from typing import Any, Final, TypeAlias

import msgspec

Schema: TypeAlias = dict[str, Any]

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_REFERENCE: Final = "#/$defs/"


def schema_of(kind: type[msgspec.Struct], *, closed: bool = False) -> Schema:
    """The schema of a type; `closed` for results, which have no other keys."""
    whole = msgspec.json.schema(kind)
    definitions = whole.pop("$defs", {})
    return {"$schema": _DRAFT, **_inlined(whole, definitions, closed)}


def _inlined(node: Any, definitions: Schema, closed: bool) -> Any:
    if isinstance(node, list):
        elements: list[Any] = node  # pyright: ignore[reportUnknownVariableType]
        return [_inlined(each, definitions, closed) for each in elements]
    if not isinstance(node, dict):
        return node
    schema: Schema = {**node}
    reference = schema.pop("$ref", None)
    if reference is not None:
        schema = {**definitions[reference.removeprefix(_REFERENCE)], **schema}
    if "properties" not in schema:
        return {name: _inlined(value, definitions, closed) for name, value in schema.items()}
    inner = {
        name: _inlined(value, definitions, closed) for name, value in schema["properties"].items()
    }
    found: Schema = {"type": "object", "properties": inner}
    if schema.get("required"):
        found["required"] = schema["required"]
    if closed:
        found["additionalProperties"] = False
    return found
