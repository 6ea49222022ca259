"""Every Python sample of docs/ runs.

A sample is a block that opens with ```python. Each runs alone, in a directory of its own, with the
names of `preamble` below; `await` works at its top level. A sample that cannot run has the line
`<!-- not run: the reason -->` in front of it, so that a reader of the page sees it too.
"""

import ast
import asyncio
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import amberdb
from amberdb import Collection, Database, Document, Ordered, Text, Vector, aio

ROOT = Path(__file__).parents[3]
IN_ORDER = {"docs/tutorial.md", "docs/zh/tutorial.md"}
"""Pages whose samples build on each other: test_tutorial.py runs them."""
PAGES = [
    page
    for page in sorted(ROOT.glob("docs/**/*.md"))
    if page.relative_to(ROOT).as_posix() not in IN_ORDER
]
DIM = 8
CLOCK_S = datetime(2026, 2, 23, 12, tzinfo=UTC).timestamp()
"""The time of commits of `db`: backup.md restores to it."""

_SAMPLE = re.compile(
    r"^(?P<mark><!-- not run: [^\n]+ -->\n)?```python\n(?P<code>.*?)^```$", re.M | re.S
)
_FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
_INDENTED = re.compile(r"^\n {4}(from|import|with|async|for|db|def) ", re.M)


def samples() -> list[Any]:
    found: list[Any] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, sample in enumerate(_SAMPLE.finditer(text), 1):
            line = text.count("\n", 0, sample.start("code"))
            reason = sample["mark"]
            marks = [pytest.mark.skip(reason=reason.strip("<>!- \n"))] if reason else []
            parts = (page, line, sample["code"])
            found.append(pytest.param(*parts, id=f"{page.name}-{number}", marks=marks))
    return found


def embed(texts: list[str]) -> list[list[float]]:
    """Vectors of shape (n, DIM) that depend on the text."""
    return [[1.0 + sum(map(ord, text)) % (7 + place) for place in range(DIM)] for text in texts]


def embed_one(text: str) -> list[float]:
    return [1.0 + len(text)] * 384


def embed_each(texts: list[str]) -> list[list[float]]:
    return [embed_one(text) for text in texts]


def summarize(summary: str, messages: Sequence[Document]) -> str:
    return f"{summary} {len(messages)} messages"


def call_model(messages: Sequence[Document]) -> str:
    return f"an answer to {len(messages)} messages"


def split_name(document: Document) -> Document:
    return {**document, "name": str(document["id"]).split()}


def add_kind(document: Document) -> Document:
    return {**document, "kind": "note"}


def preamble(page: str, stack: ExitStack) -> dict[str, Any]:
    """The names that samples may use without making them.

    db        an open database with a collection `event` of two documents; in aio.md an async one
    events, memory, graph, profiles, buffer   a collection and the systems over `db`
    now, since, monday, tuesday               times
    the rest  functions that a program would bring along
    """
    from amberdb.chat import ChatBuffer, CollectionSink
    from amberdb.graph import KnowledgeGraph
    from amberdb.profiles import UserProfiles

    db = stack.enter_context(amberdb.open("page.amber", clock=lambda: CLOCK_S))
    events = db.collection("event", indexes=[Ordered("entity_id", "created_at"), Text("content")])
    now = datetime.fromtimestamp(CLOCK_S, UTC)
    lsn = db.stats().last_lsn
    for name in ("lin", "wang"):
        events.put({"id": name, "entity_id": name, "content": "umbrella", "created_at": now})
    memory = db.collection("note", indexes=[Text("content"), Vector("embedding", dim=DIM)])
    memory.put({"content": "umbrella", "embedding": embed(["umbrella"])[0]})
    graph = KnowledgeGraph(db)
    graph.add_entity("lin", "person")
    profiles = UserProfiles(db)
    profiles.save("u1", user_name="Lin")
    names: dict[str, Any] = {
        "amberdb": amberdb,
        "asyncio": asyncio,
        "datetime": datetime,
        "timedelta": timedelta,
        "UTC": UTC,
        "db": db,
        "events": events,
        "memory": memory,
        "graph": graph,
        "profiles": profiles,
        "buffer": ChatBuffer(db, CollectionSink(db)),
        "path": "other.amber",
        "lsn": lsn,
        "now": now,
        "since": now - timedelta(days=7),
        "monday": now - timedelta(days=2),
        "tuesday": now - timedelta(days=1),
        "embed": embed,
        "dim": DIM,
        "question": "umbrella",
        "summarize": summarize,
        "call_model": call_model,
        "split_name": split_name,
        "add_kind": add_kind,
        "handle": print,
    }
    return names | of_page(page, db)


def of_page(page: str, db: Database) -> dict[str, Any]:
    """The names and files of one page."""
    names: dict[str, Any] = {}
    if page == "backup.md":
        Path("mnt/usb").mkdir(parents=True)
    if page == "queries.md":
        names |= {"turns": with_turns(db), "Ordered": Ordered}
    if page == "context.md":
        from amberdb.context import AgentContext

        context = AgentContext(db)
        lin = context.sessions.find_or_create_user("lin")
        session = context.sessions.create(lin, "tutor")
        names |= {"context": context, "lin": lin, "session": session}
    if page in ("search.md", "ranking.md"):
        names["embed"] = embed_one
        names["memory"] = db.collection(
            "long_term", indexes=[Text("content"), Vector("embedding", dim=384)]
        )
        names["embed_all"] = embed_each
        names |= {"notes": with_notes(db), "Ordered": Ordered, "Text": Text, "Vector": Vector}
    if page in ("profiles.md", "coming-from.md"):
        Path("users.json").write_text('{"u3": {"user_name": "Chen"}}')
        Path("profiles").mkdir()
        Path("profiles/u2.json").write_text('{"user_id": "u2", "user_name": "Wang"}')
        make_sqlite("memories.db")
    if page in ("memory.md", "coming-from.md"):
        make_zmemory("zmemory.db")
        Path("mem0.json").write_text('[{"id": "m", "memory": "Likes tea", "user_id": "lin"}]')
    if page in ("graph.md", "coming-from.md"):
        Path("memory.jsonl").write_text(
            '{"type": "entity", "name": "wang", "entityType": "person", "observations": []}\n'
        )
    return names


def with_turns(db: Database) -> Collection:
    """The collection of the first sample of queries.md."""
    turns = db.collection("turn", indexes=[Ordered("session", "at"), Ordered("kind")])
    turns.put_many(
        {"id": f"t{n:02}", "session": f"s{n % 3}", "at": n, "kind": ["note", "call"][n % 2],
         "text": f"turn {n}", "tags": ["work", "home"][: n % 3], "place": {"city": "Oslo"}}
        for n in range(30)
    )  # fmt: skip
    return turns


def with_notes(db: Database) -> Collection:
    """The collection of the first sample of search.md."""
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    first = _SAMPLE.search(text)
    assert first is not None
    names: dict[str, Any] = {"db": db, "Ordered": Ordered, "Text": Text, "Vector": Vector}
    exec(first["code"], names)
    notes: Collection = names["notes"]
    return notes


def make_sqlite(path: str) -> None:
    """A database with the table that import_sqlite() reads."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("create table user_memories (user_id text, user_name text)")
        connection.execute("insert into user_memories values ('u3', 'Zhao')")
    connection.close()


def make_zmemory(path: str) -> None:
    """A database with one of the tables that import_zmemory() reads."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("create table event_memories (id text, entity_id text, content text)")
        connection.execute("insert into event_memories values ('e1', 'lin', 'went hiking')")
    connection.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Database]]:
    """The databases that a sample opens: those that it leaves open are closed after it."""
    monkeypatch.chdir(tmp_path)
    found: list[Database] = []
    real = amberdb.open

    def recorded(*args: Any, **settings: Any) -> Database:
        found.append(real(*args, **settings))
        return found[-1]

    monkeypatch.setattr(amberdb, "open", recorded)
    yield found
    for database in found:
        database.close()


@pytest.mark.parametrize(("page", "line", "code"), samples())
def test_a_sample_runs(page: Path, line: int, code: str, opened: list[Database]) -> None:
    code = code.replace('"/mnt/', '"mnt/')  # a disk that is not here
    tree = ast.increment_lineno(ast.parse(code), line)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile(tree, str(page), "exec", flags=flags)
    with ExitStack() as stack:
        names = preamble(page.name, stack)
        if compiled.co_flags & inspect.CO_COROUTINE:
            asyncio.run(asyncio.wait_for(awaited(page.name, compiled, names), 60))
        else:
            exec(compiled, names)


async def awaited(page: str, compiled: Any, names: dict[str, Any]) -> None:
    if page != "aio.md":
        await eval(compiled, names)
        return
    before = asyncio.all_tasks()
    async with aio.open("aio.amber") as db:
        await eval(compiled, {**names, "db": db})
        for task in asyncio.all_tasks() - before:
            task.cancel()


def test_samples_are_found() -> None:
    found = [each.id for each in samples()]
    assert len(found) >= 20
    assert {name.partition(".md")[0] for name in found if name} >= {"api", "memory", "queries"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_samples_are_fenced(page: Path) -> None:
    # An indented sample has no colours, and would not run here.
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    assert _INDENTED.search(text) is None


def test_a_wrong_sample_is_noticed(opened: list[Database], tmp_path: Path) -> None:
    page = tmp_path / "planted.md"
    with pytest.raises(AttributeError, match="no_such_method") as raised:
        test_a_sample_runs(page, 41, "events.count()\nevents.no_such_method()\n", opened)
    assert raised.traceback[-1].lineno == 42  # counted from 0: line 43 of the page
