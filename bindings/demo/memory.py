"""The second part of the demo: sentences of two people become memories, and one person is
forgotten.

A line of the story: {entity_id, said, about: words that recall it}.

Invariants:
- Each proof compares the input with the answers of the database and the bytes of its files.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, Final, cast, final

import amberdb
from amberdb import Database, Document
from amberdb.demo.data import packaged_lines
from amberdb.memory import Memory, RuleExtractor

Prove = Callable[[str, bool, str], None]
"""(claim, whether it holds, detail)"""
Entry = tuple[str, str, str, str]
"""(action, layer, content of the memory, reason)"""

FORGOTTEN: Final = "lin"


@final
class MemoryDemo:
    """One run, in its own database; `prove` is called with each claim."""

    def __init__(self, path: str, clock: Callable[[], float], prove: Prove) -> None:
        self._path = path
        self._clock = clock
        self._prove = prove
        self._story: list[dict[str, Any]] = packaged_lines("story.jsonl")

    def run(self) -> list[Entry]:
        """The log before one person was forgotten, the oldest entry first. Raises AmberError."""
        with amberdb.open(self._path, clock=self._clock) as db:
            memory = Memory(db, extract=RuleExtractor(), clock=self._clock)
            self._remember(memory)
            self._change(memory)
            self._recall(memory)
            entries = self._entries(db)
            self._forget(db, memory)
        return entries

    def _remember(self, memory: Memory) -> None:
        outcomes = [
            outcome
            for line in self._story
            for outcome in memory.remember(line["entity_id"], line["said"], auto_extract=True)
        ]
        stored = {outcome.memory_id for outcome in outcomes if outcome.action == "insert"}
        found = {each["id"] for name in self._names for each in _memories(memory, name)}
        logged = memory.logs()
        ignored = len(outcomes) - len(stored)
        self._prove(
            "each sentence is kept or ignored for a reason, which is in the log",
            found == stored
            and len(outcomes) == len(logged) > len(stored)
            and all(entry["reason"] for entry in logged),
            f"{len(stored)} memories, {ignored} sentence ignored",
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
            "each memory is recalled by a few words, in both languages",
            right == len(self._story),
            f"{right} of {len(self._story)}",
        )

    def _forget(self, db: Database, memory: Memory) -> None:
        forgotten = [fact["content"] for fact in _memories(memory, FORGOTTEN)]
        kept = [fact["content"] for fact in _memories(memory, "jo")]
        db.checkpoint()
        before = self._in_files(forgotten)
        receipt = memory.forget(FORGOTTEN)
        left = self._in_files(forgotten)
        self._prove(
            "no file holds a memory of the forgotten person",
            before == len(forgotten) == receipt.profile + receipt.events
            and left == 0
            and not list(_memories(memory, FORGOTTEN))
            and not memory.recall(" ".join(self._about(FORGOTTEN))),
            f"{before} sentences in their bytes before, {left} after",
        )
        self._prove(
            "the memories of the other person are unchanged",
            [fact["content"] for fact in _memories(memory, "jo")] == kept != [] and db.check().ok,
            f"{len(kept)} memories",
        )

    @property
    def _names(self) -> list[str]:
        return sorted({line["entity_id"] for line in self._story})

    def _about(self, entity_id: str) -> list[str]:
        return [line["about"] for line in self._story if line["entity_id"] == entity_id]

    def _in_files(self, texts: list[str]) -> int:
        """How many of the texts are in the bytes of the directory."""
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
            if entry["memory_id"]:  # an ignored sentence has none
                about = db.collection(layer).get(entry["memory_id"])
            content = "" if about is None else about["content"]
            entries.append((entry["action"], layer, content, entry["reason"]))
        return entries


def _memories(memory: Memory, entity_id: str) -> Iterator[Document]:
    yield from memory.profile(entity_id)
    yield from memory.events(entity_id)
