"""Items of JSON in documents, which come back as they were.

    item  the item, where a document holds it exactly
    json  any other as JSON: an int beyond 64 bits, infinity, half of an emoji, many levels

Invariants:
- An item comes back equal, with its types.
"""

import json
from typing import Any

from amberdb import Document
from amberdb._shared.equality import equal_in_type
from amberdb._shared.storable import storable


def stored_item(item: Any) -> dict[str, Any]:
    """The fields of a document that hold the item. Raises TypeError and ValueError for what is no
    JSON and cannot be stored either."""
    if equal_in_type(storable(item), item):
        return {"item": item}
    return {"json": json.dumps(item)}


def item_of(document: Document) -> Any:
    """The item in a document."""
    return json.loads(document["json"]) if "json" in document else document["item"]
