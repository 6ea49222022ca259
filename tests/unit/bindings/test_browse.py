"""`amberdb browse`: the screens of the terminal, driven by keys."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

import amberdb
from amberdb import Database, Ordered, Text, Vector
from amberdb.inspector.terminal import Browser
from amberdb.inspector.terminal.texts import escaped, size

NASTY = "[red]x[/red] \x1b[31m\x1b]0;title\x07 \u202egnp.exe"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "b.amber"
    generator = np.random.default_rng(7)
    with amberdb.open(path) as writer:
        notes = writer.collection(
            "note", indexes=[Ordered("who"), Text("content"), Vector("v", dim=4)]
        )
        for number in range(120):
            notes.put(
                {
                    "id": f"n{number:03}",
                    "who": "lin" if number % 2 else "wang",
                    "content": f"umbrella number {number} 雨伞 {NASTY}",
                    "v": generator.normal(size=4).astype(np.float32),
                }
            )
        notes.update("n003", {"who": "zhao"})
        writer.collection("empty")
    with amberdb.open(path, read_only=True) as reader:
        yield reader
    assert amberdb.check(path).ok


class Keys:
    """Presses keys, and waits until what they began has ended."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self._pilot = pilot
        self.app = pilot.app

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self._pilot.pause()
        await self.app.workers.wait_for_complete()  # pyright: ignore[reportUnknownMemberType]
        await self._pilot.pause()

    async def enter(self, text: str) -> None:
        """Puts a text into the input that has the focus, and enters it."""
        field = self.app.screen.focused
        assert isinstance(field, Input)
        field.value = text
        await self.press("enter")

    @property
    def says(self) -> str:
        return str(self.app.screen.query_one("#says", Static).content)

    def column(self, number: int = 0) -> list[str]:
        table = self.app.screen.query_one(DataTable[object])
        return [str(table.get_row_at(row)[number]) for row in range(table.row_count)]

    def text(self, name: str) -> str:
        return str(self.app.screen.query_one(f"#{name}", Static).content)


def drive(db: Database, steps: Callable[[Keys], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Browser(db).run_test(size=(120, 40)) as pilot:
            keys = Keys(pilot)
            await keys.press()
            await steps(keys)

    asyncio.run(run())


def test_collections_with_counts_and_indexes(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        assert keys.column() == ["empty", "note"]
        assert keys.column(1) == ["0", "120"]
        assert keys.column(3)[1] == "ordered(who)  text(content)  vector(v)"
        await keys.press("escape")  # the first screen stays
        assert keys.column() == ["empty", "note"]
        await keys.press("enter")
        assert "no document matches" in keys.says

    drive(db, steps)


def test_pages_filter_and_order(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        await keys.press("down", "enter")
        first = keys.column()
        assert first == [f"n{number:03}" for number in range(50)]
        await keys.press("n")
        await keys.press("n")
        assert keys.column() == [f"n{number:03}" for number in range(100, 120)]
        assert "(end)" in keys.says
        await keys.press("n")  # says so, and stays
        await keys.press("p")
        await keys.press("p")
        assert keys.column() == first
        await keys.press("slash")
        await keys.enter('{"who": "lin"}')
        assert 'where {"who": "lin"}' in keys.says
        assert "index ordered:who" in keys.says
        assert keys.column()[:2] == ["n001", "n005"]
        await keys.press("o")
        await keys.enter("-id")
        assert keys.column()[:2] == ["n119", "n117"]
        await keys.press("escape")
        assert keys.column() == ["empty", "note"]

    drive(db, steps)


def test_a_wrong_filter_is_said_and_leaves_the_page(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        await keys.press("down", "enter")
        for wrong in ("{", '{"who": {"$like": 1}}', "[red]"):
            await keys.press("slash")
            await keys.enter(wrong)
            assert len(keys.column()) == 50
            (*_, told) = list(keys.app._notifications)  # pyright: ignore[reportPrivateUsage]
            assert told.severity == "error"

    drive(db, steps)


def test_a_document_with_its_history(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        await keys.press("down", "enter")
        await keys.press("down", "down", "down", "enter")
        assert keys.says.startswith("note / n003  version ")
        assert '"who": "zhao"' in keys.text("document")
        assert "v: 4 numbers" in keys.text("document")
        await keys.press("h")
        assert "who: lin zhao" in keys.text("history")
        assert "the log begins at Lsn" in keys.text("history")
        await keys.press("escape")
        assert len(keys.column()) == 50

    drive(db, steps)


def test_search_by_words_and_by_a_document(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        await keys.press("down", "s")
        await keys.enter("number 77")
        assert keys.column(1)[0] == "n077"
        assert keys.column(3)[0].startswith("text:content ")
        await keys.press("l")
        assert keys.column(1)[0] == "n077"
        assert keys.column(3)[0].startswith("vector:v 1.000")
        first = keys.column(1)
        await keys.press("n")
        assert keys.column(1)
        assert not set(keys.column(1)) & set(first)
        await keys.press("enter")
        assert keys.says.startswith("note / ")

    drive(db, steps)


def test_stored_text_is_neither_markup_nor_control(db: Database) -> None:
    async def steps(keys: Keys) -> None:
        await keys.press("down", "enter")
        (content,) = {text for text in keys.column(2) if "number 0 " in text}
        assert "[red]x[/red]" in content
        assert escaped(content) == content
        await keys.press("enter")
        assert "\x1b" not in keys.text("document")
        await keys.press("question_mark")
        assert keys.app.screen.query("HelpPanel")
        await keys.press("question_mark", "ctrl+t")
        assert keys.app.theme == "amber-light"

    drive(db, steps)


def test_escapes_and_sizes() -> None:
    assert escaped("a\x1b\u202eb\nc\u200d") == "a\\u001b\\u202eb\nc\u200d"
    assert [str(size(value)) for value in (None, 5, 2048, 3 * 1024**3)] == [
        "", "5 B", "2.0 KiB", "3.0 GiB",
    ]  # fmt: skip
