"""The demo's second part: what two people say becomes memories, each with a reason, and one of the
two is forgotten.

A line of the story: {entity_id, said, about: words that recall it}.

Invariants:
- Like the demo's proofs, each judgement here compares what was put in with what the files hold.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, cast, final

from amberdb._jsonl.text import loads
from amberdb._types import Document
from amberdb.engine.database.database import Database
from amberdb.engine.database.open import open_database
from amberdb.memory.memory import Memory
from amberdb.memory.rules import RuleExtractor
from amberdb.memory.types import Outcome

Judge = Callable[[str, bool, str], None]
Entry = tuple[str, str, str, str]
"""action, layer, what is remembered, reason."""

FORGOTTEN: Final = "lin"


def read_story() -> list[dict[str, Any]]:
    packaged = files("amberdb.demo") / "story.jsonl"
    return [loads(line) for line in packaged.read_bytes().splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class _Told:
    entity_id: str
    content: str
    outcome: Outcome


@final
class MemoryDemo:
    """One run, in a database of its own; `prove` is told each claim."""

    def __init__(self, path: str, clock: Callable[[], float], prove: Judge) -> None:
        self._path = path
        self._clock = clock
        self._prove = prove
        self._story = read_story()

    def run(self) -> list[Entry]:
        """The log as it was before the forget, oldest first. Raises what the database raises."""
        with open_database(self._path, clock=self._clock) as db:
            memory = Memory(db, extract=RuleExtractor(), clock=self._clock)
            self._remember(memory)
            self._change(memory)
            self._recall(memory)
            entries = self._entries(db)
            self._forget(db, memory)
        return entries

    def _remember(self, memory: Memory) -> None:
        said = [
            outcome
            for line in self._story
            for outcome in memory.remember(line["entity_id"], line["said"], auto_extract=True)
        ]
        stored = {each.memory_id for each in said if each.action == "insert"}
        found = {each["id"] for who in self._who for each in _known(memory, who)}
        logged = memory.logs()
        ignored = len(said) - len(stored)
        self._prove(
            "what was said is sorted into layers, and each decision has a reason in the log",
            found == stored
            and len(said) == len(logged) > len(stored)
            and all(entry["reason"] for entry in logged),
            f"{len(stored)} memories of {len(self._who)} people, {ignored} sentence ignored",
        )

    def _change(self, memory: Memory) -> None:
        fact = memory.profile(FORGOTTEN)[-1]
        changed = f"{fact['content']} (2027)"
        done = memory.update("profile", fact["id"], content=changed, reason="it was dated")
        actions = [(entry["action"], entry["reason"]) for entry in memory.logs(fact["id"])]
        now = memory.get("profile", fact["id"])
        self._prove(
            "a change and its reason are one commit",
            now is not None
            and now["content"] == changed
            and [action for action, _ in actions] == ["update", "insert"]
            and actions[0][1] == done.reason == "it was dated",
            f"{len(actions)} entries of one memory",
        )

    def _recall(self, memory: Memory) -> None:
        right = 0
        for line in self._story:
            found = memory.recall(line["about"], entity_id=line["entity_id"], limit=1)
            right += bool(found) and line["about"] in found[0].document["content"]
        self._prove(
            "each is recalled by a few words, in both languages",
            right == len(self._story),
            f"{right} of {len(self._story)}",
        )

    def _forget(self, db: Database, memory: Memory) -> None:
        gone = [fact["content"] for fact in _known(memory, FORGOTTEN)]
        kept = [fact["content"] for fact in _known(memory, "jo")]
        db.checkpoint()
        before = self._in_files(gone)
        receipt = memory.forget(FORGOTTEN)
        left = self._in_files(gone)
        self._prove(
            "who is forgotten is in no file any more",
            before == len(gone) == receipt.profile + receipt.events
            and left == 0
            and not list(_known(memory, FORGOTTEN))
            and not memory.recall(" ".join(self._about(FORGOTTEN))),
            f"{before} sentences in the bytes of the directory before, {left} after",
        )
        self._prove(
            "the other one is not touched",
            [fact["content"] for fact in _known(memory, "jo")] == kept != [] and db.check().ok,
            f"{len(kept)} memories",
        )

    @property
    def _who(self) -> list[str]:
        return sorted({line["entity_id"] for line in self._story})

    def _about(self, entity_id: str) -> list[str]:
        return [line["about"] for line in self._story if line["entity_id"] == entity_id]

    def _in_files(self, texts: list[str]) -> int:
        """How many of them are in the bytes of the directory."""
        missing = {text.encode() for text in texts}
        for folder, _, names in os.walk(self._path):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read()
                missing = {text for text in missing if text not in data}
        return len(set(texts)) - len(missing)

    @staticmethod
    def _entries(db: Database) -> list[Entry]:
        entries: list[Entry] = []
        for entry in db.collection("log").find({}, order_by="created_at", limit=None):
            layer = cast(str, entry["memory_layer"])
            about: Document | None = None
            if entry["memory_id"]:  # what was ignored has none
                about = db.collection(layer).get(entry["memory_id"])
            content = "" if about is None else about["content"]
            entries.append((entry["action"], layer, content, entry["reason"]))
        return entries


def _known(memory: Memory, entity_id: str) -> Iterator[Document]:
    yield from memory.profile(entity_id)
    yield from memory.events(entity_id)
