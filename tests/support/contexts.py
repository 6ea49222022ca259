"""Agent contexts in which a word is a token, and hooks that tests turn on and off."""

from collections.abc import Callable, Sequence
from typing import Any

from amberdb import Database, Document
from amberdb.context import AgentContext
from support.databases import FakeClock

DIM = 3
BUDGET = 40
CONCEPTS = {"car": 0, "automobile": 0, "tea": 1, "茶": 1}


def embed(texts: list[str]) -> Any:
    """By what is spoken of, and a little by how much."""
    return [
        [sum(at == place for word, at in CONCEPTS.items() if word in text) for place in (0, 1)]
        + [0.001 * len(text)]
        for text in texts
    ]


class Summary:
    """A hook that counts what it was told; it can be made to fail."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        self.answer: str | None = None

    def __call__(self, summary: str, messages: Sequence[Document]) -> str:
        self.during()
        if self.error is not None:
            raise self.error
        self.told += [each["content"] for each in messages]
        return f"{len(self.told)} so far" if self.answer is None else self.answer


def make_context(db: Database, clock: FakeClock, summary: Summary) -> AgentContext:
    """One word is one token, and half of the budget is left filled."""
    return AgentContext(
        db,
        token_budget=BUDGET,
        keep=0.5,
        count_tokens=count_words,
        summarize=summary,
        embed=embed,
        dim=DIM,
        clock=clock,
    )


def count_words(text: str) -> int:
    return len(text.split())


def say(context: AgentContext, session: str, clock: FakeClock, count: int, first: int = 0) -> None:
    """Ten tokens each."""
    for number in range(first, first + count):
        context.append(session, "user", f"message {number}" + " word" * 8)
        clock.advance(60)


def positions(found: Sequence[Any]) -> list[int]:
    return [each["position"] for each in found]


def contents(messages: Sequence[Any]) -> list[str]:
    return [" ".join(each["content"].split()[:2]) for each in messages]
