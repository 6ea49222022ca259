"""The systems behind one interface: texts with a number and a vector.

Invariants:
- A call of add() that has returned was acknowledged by the system.
"""

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import amberdb
from amberdb import IndexSpec, Text, Vector

DIM: Final = 8


class Store(Protocol):
    """A system with its data in a directory."""

    def add(self, number: int, text: str) -> None: ...

    def count(self) -> int: ...

    def by_words(self, words: str) -> list[str]:
        """The texts that the system finds by words, without a model."""
        ...

    def by_vector(self, limit: int) -> int:
        """How many texts a search by vector finds."""
        ...

    def delete(self, number: int) -> None: ...

    def undone(self) -> str:
        """What is left of a text and its vector when their transaction fails."""
        ...

    def close(self) -> None: ...


def vector(text: str, dim: int = DIM) -> list[float]:
    """A vector that depends on the text."""
    digest = hashlib.sha256(text.encode()).digest()
    return [1.0 + digest[place % 32] for place in range(dim)]


class Amber:
    def __init__(self, path: Path) -> None:
        self._db = amberdb.connect(path / "memory.amber")
        indexes: list[IndexSpec] = [Text("text"), Vector("embedding", dim=DIM)]
        self._notes = self._db.collection("note", indexes=indexes)

    def add(self, number: int, text: str) -> None:
        self._notes.put({"id": str(number), "text": text, "embedding": vector(text)})

    def count(self) -> int:
        return len(self._notes)

    def by_words(self, words: str) -> list[str]:
        return [hit.document["text"] for hit in self._notes.search(words)]

    def by_vector(self, limit: int) -> int:
        return len(self._notes.search(vector=vector("question"), limit=limit))

    def delete(self, number: int) -> None:
        self._db.erase("note", {"id": str(number)}, reason="a check")

    def undone(self) -> str:
        try:
            with self._db.transaction() as tx:
                text = "withdrawn"
                tx["note"].put({"id": "x", "text": text, "embedding": vector(text)})
                raise InterruptedError
        except InterruptedError:
            return f"{len(self.by_words('withdrawn'))} by words, {self.by_vector(10)} by vector"

    def close(self) -> None:
        self._db.close()


class Sqlite:
    """FTS5 with its default tokenizer; sqlite-vec in the SQLite of apsw, which takes extensions."""

    def __init__(self, path: Path) -> None:
        self._file = str(path / "memory.db")
        self._connection = sqlite3.connect(self._file, timeout=60)
        self._connection.execute("create virtual table if not exists note using fts5(text)")
        self._connection.commit()

    def add(self, number: int, text: str) -> None:
        with self._connection:
            self._connection.execute("insert into note(rowid, text) values (?, ?)", (number, text))

    def count(self) -> int:
        (count,) = self._connection.execute("select count(*) from note").fetchone()
        return int(count)

    def by_words(self, words: str) -> list[str]:
        query = "select text from note where note match ? order by rank"
        return [text for (text,) in self._connection.execute(query, (f'"{words}"',))]

    def by_vector(self, limit: int) -> int:
        return min(limit, self.count())  # a scan, in each process

    def delete(self, number: int) -> None:
        with self._connection:
            self._connection.execute("delete from note where rowid = ?", (number,))

    def undone(self) -> str:
        apsw = import_module("apsw")
        connection: Any = apsw.Connection(self._file)
        connection.enable_load_extension(True)
        connection.load_extension(import_module("sqlite_vec").loadable_path())
        connection.execute(f"create virtual table vectors using vec0(e float[{DIM}])")
        try:
            with connection:
                connection.execute("insert into note(text) values ('withdrawn')")
                packed = json.dumps(vector("withdrawn"))
                connection.execute("insert into vectors(rowid, e) values (1, ?)", (packed,))
                raise InterruptedError
        except InterruptedError:
            (count,) = next(connection.execute("select count(*) from vectors"))
            return f"{len(self.by_words('withdrawn'))} by words, {count} by vector"

    def close(self) -> None:
        self._connection.close()


class Chroma:
    def __init__(self, path: Path) -> None:
        os.environ["ANONYMIZED_TELEMETRY"] = "False"
        self._client: Any = import_module("chromadb").PersistentClient(path=str(path))
        self._notes: Any = self._client.get_or_create_collection("notes", embedding_function=None)

    def add(self, number: int, text: str) -> None:
        self._notes.add(ids=[str(number)], documents=[text], embeddings=[vector(text)])

    def count(self) -> int:
        return int(self._notes.count())

    def by_words(self, words: str) -> list[str]:
        found: list[str] = self._notes.get(where_document={"$contains": words})["documents"]
        return found

    def by_vector(self, limit: int) -> int:
        found = self._notes.query(query_embeddings=[vector("question")], n_results=limit)
        return len(found["ids"][0])

    def delete(self, number: int) -> None:
        self._notes.delete(ids=[str(number)])

    def undone(self) -> str:
        names = [name for name in dir(self._client) if "transaction" in name or "batch" in name]
        return f"no transactions; of the client: {', '.join(names) or 'nothing'}"

    def close(self) -> None: ...


class Embedder:
    """In place of mem0's embedder, which asks a server."""

    config = None

    def embed(self, text: str, *_: Any, **__: Any) -> list[float]:
        return vector(text, 1536)

    def embed_batch(self, texts: list[str], *_: Any, **__: Any) -> list[list[float]]:
        return [self.embed(text) for text in texts]


def _embedder(*_: Any) -> Embedder:
    return Embedder()


class Mem0:
    def __init__(self, path: Path) -> None:
        os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(path), "OPENAI_API_KEY": "none"}
        factory: Any = import_module("mem0.utils.factory")
        factory.EmbedderFactory.create = _embedder
        configuration = import_module("mem0.configs.base").MemoryConfig()
        configuration.vector_store.config.path = str(path / "qdrant")
        configuration.history_db_path = str(path / "history.db")
        self._memory: Any = import_module("mem0").Memory(configuration)
        self._ids: dict[int, str] = {}

    def add(self, number: int, text: str) -> None:
        added = self._memory.add(text, user_id="lin", infer=False)
        self._ids[number] = added["results"][0]["id"]

    def count(self) -> int:
        return len(self._memory.get_all(filters={"user_id": "lin"}, top_k=1_000_000)["results"])

    def by_words(self, words: str) -> list[str]:
        found: list[Any] = self._memory.vector_store.keyword_search(words, top_k=5) or []
        return [each.payload["data"] for each in found]

    def by_vector(self, limit: int) -> int:
        found = self._memory.search("question", filters={"user_id": "lin"}, top_k=limit)
        return len(found["results"])

    def delete(self, number: int) -> None:
        self._memory.delete(self._ids[number])

    def undone(self) -> str:
        names = [name for name in dir(self._memory) if "transaction" in name]
        return f"no transactions; of the memory: {', '.join(names) or 'nothing'}"

    def close(self) -> None:
        self._memory.vector_store.client.close()


class Mcp:
    def __init__(self, path: Path) -> None:
        package = "node_modules/@modelcontextprotocol/server-memory/dist/index.js"
        server = Path(os.environ["AMBERDB_BESIDE_NPM"]) / package
        self._node = subprocess.Popen(
            [
                "node",
                str(Path(__file__).with_name("mcp.mjs")),
                str(server),
                str(path / "memory.jsonl"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _call(self, name: str, value: Any) -> Any:
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        print(json.dumps([name, value]), file=self._node.stdin, flush=True)
        return json.loads(self._node.stdout.readline())

    def add(self, number: int, text: str) -> None:
        entity = {"name": f"{number}", "entityType": "note", "observations": [text]}
        self._call("createEntities", [entity])

    def count(self) -> int:
        return len(self._call("readGraph", None)["entities"])

    def by_words(self, words: str) -> list[str]:
        found = self._call("searchNodes", words)["entities"]
        return [entity["observations"][0] for entity in found]

    def by_vector(self, limit: int) -> int:
        return self.count()  # it has no vectors: what it reads is what it finds

    def delete(self, number: int) -> None:
        self._call("deleteEntities", [f"{number}"])

    def undone(self) -> str:
        return "no vectors"

    def close(self) -> None:
        assert self._node.stdin is not None
        self._node.stdin.close()
        self._node.wait()


STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "amberdb": Amber,
    "sqlite": Sqlite,
    "chroma": Chroma,
    "mem0": Mem0,
    "mcp": Mcp,
}
