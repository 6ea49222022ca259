"""What the tests of the inspector's pages share: a database that has something for every page, one
that is full of HTML and scripts, and what a page may not have.

Invariants:
- Nothing of the database is a tag, an attribute or a script of a page: assert_inert() reads the
  page as a browser does.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any, final

import numpy as np

from amberdb import Database, Ordered, Text, Unique, Vector

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b onmouseover=alert(3)>{{7*7}}"
"""As a name, a key, an id and a text."""

WORDS = ["umbrella", "car", "coffee", "meeting", "garden", "train", "ticket", "invoice", "doctor"]
PEOPLE = ("lin", "maya", "omar", "sofia", "wei")
_CHINESE = ("下午开会讨论预算", "雨伞落在咖啡馆", "周五交房租", "给妈妈打电话")
_BEGIN = datetime(2026, 9, 1, tzinfo=UTC)

SCRIPTS = {
    "/static/vendor/htmx-2.0.11.min.js",
    "/static/vendor/uplot-1.6.32.min.js",
    "/static/app.js",
}


def fill(db: Database, count: int = 400) -> None:
    """Memories of five people with vectors, profiles, a history, and an empty collection."""
    random = np.random.default_rng(3)
    centers = random.standard_normal((len(PEOPLE), 32))
    memories = db.collection(
        "memory",
        indexes=[
            Ordered("entity", "-created_at"),
            Ordered("kind"),
            Text("content"),
            Vector("embedding", dim=32),
        ],
        expires_at="expires",
    )
    documents: list[dict[str, Any]] = []
    for number in range(count):
        person = int(random.integers(len(PEOPLE)))
        first, second = random.choice(WORDS, 2)
        text = f"Remember the {first} and the {second}"
        vector = centers[person] + 0.8 * random.standard_normal(32)
        documents.append(
            {
                "id": f"m{number:06}",
                "entity": PEOPLE[person],
                "kind": ("note", "call", "task")[number % 3],
                "content": text if number % 6 else _CHINESE[number // 6 % len(_CHINESE)],
                "importance": round(float(random.random()), 2),
                "created_at": _BEGIN + timedelta(minutes=7 * number),
                "tags": [str(first), str(second)],
                "embedding": vector.astype(np.float32),
            }
        )
    memories.put_many(documents)
    profiles = db.collection("profile", indexes=[Unique("email", sparse=True)])
    for place, name in enumerate(PEOPLE):
        profiles.put(
            {
                "id": name,
                "name": name.title(),
                "email": f"{name}@example.com",
                "settings": {"language": "zh" if place % 2 else "en", "notify": bool(place % 2)},
            }
        )
    db.collection("audit", indexes=[Ordered("at")])
    for number, city in enumerate(("Oslo", "Bergen", "Oslo")):
        memories.update(
            "m000012",
            {
                "content": f"The umbrella is in the car, said for the {number + 1}. time",
                "importance": 0.25 * (number + 1),
                "place": {"city": city},
            },
        )


def fill_with_markup(db: Database) -> None:
    """One collection whose name, ids, keys and texts are MARKUP."""
    hostile = db.collection(
        MARKUP, indexes=[Text("text"), Vector("vector", dim=2), Ordered(MARKUP)]
    )
    hostile.put(
        {
            "id": MARKUP,
            "text": f"umbrella {MARKUP}",
            MARKUP: MARKUP,
            "map": {MARKUP: [MARKUP, {MARKUP: None}]},
            "vector": [1.0, 0.5],
        }
    )
    hostile.update(MARKUP, {"text": f"umbrella again {MARKUP}", "more": MARKUP})


@final
class _Reader(HTMLParser):
    """The tags of a page, and what is wrong with them."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: set[str] = set()
        self.tags: set[str] = set()
        self.wrong: list[str] = []
        self._is_in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._is_in_script = tag == "script"
        given = dict(attrs)
        if tag == "script":
            self.scripts.add(given.get("src") or "(inline)")
        for name, value in given.items():
            if name.startswith(("on", "hx-on")) or name in ("style", "srcdoc"):
                self.wrong.append(f"<{tag} {name}>")
            if name in ("href", "src", "action", "data-href") and not (value or "").startswith(
                ("/", "#")
            ):
                self.wrong.append(f"<{tag} {name}={value!r}>")
            if name in ("href", "src", "action", "data-href") and (value or "").startswith("//"):
                self.wrong.append(f"<{tag} {name}={value!r}>")

    def handle_endtag(self, tag: str) -> None:
        self._is_in_script = False

    def handle_data(self, data: str) -> None:
        if self._is_in_script and data.strip():
            self.wrong.append(f"script {data[:40]!r}")


def assert_inert(page: str, allowed: Iterable[str] = ()) -> None:
    """Fails if a page has a script, a handler, a style or a link that is not of these pages."""
    reader = _Reader()
    reader.feed(page)
    assert reader.wrong == []
    assert reader.scripts <= SCRIPTS
    assert not reader.tags & {"img", "iframe", "object", "embed", "b", "style", "base"}
