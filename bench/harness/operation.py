"""Operations: calls that are declared once and timed in each state.

Invariants:
- All engines of an operation get the same items in the same order.
- Their answers to a sample of the items are compared, or checked, in every round of a fresh process
  and once otherwise: before the calls, or after them if they write.
- Each is named by its row and its place there, so that another process finds it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from bench.engines.database import Database
from bench.harness.family import Family
from bench.harness.line import AMBER, Budget
from bench.harness.sampler import Sampler
from bench.harness.scale import Scale
from bench.harness.state import STATES, State
from bench.workloads.events import Document

E = TypeVar("E", bound=Database)
Item = TypeVar("Item")
Notes: TypeAlias = dict[str, Any]

Contender: TypeAlias = tuple[str, Callable[[E, Item], object]]
"""An engine's name, and a call."""

SAMPLE = 20
"""Items whose answers are compared."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What the items of a round are drawn from."""

    scale: Scale
    number: int
    """Of the round."""
    stored: tuple[range, ...]
    """Numbers of the documents that every engine has."""
    fresh: Callable[[int], list[Document]]
    """New documents, which no engine has."""
    calls_max: int
    """Calls of a round, at most."""

    def count(self, usual: int) -> int:
        """Calls of a round: in some states fewer than usual."""
        return min(usual, self.calls_max)

    def place(self, share: float) -> int:
        """The number of the stored document at this share, of [0, 1), of all."""
        at = int(share * sum(map(len, self.stored)))
        for numbers in self.stored:
            if at < len(numbers):
                return numbers[at]
            at -= len(numbers)
        raise ValueError(f"{share} is not below 1")


def agree(answers: Mapping[str, Sequence[Any]], draw: Draw) -> Notes:
    """Raises RuntimeError unless all engines give equal answers."""
    del draw
    first, *others = answers
    if differing := [name for name in others if answers[name] != answers[first]]:
        raise RuntimeError(f"{', '.join(differing)} and {first} differ")
    return {}


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[E, Item]):
    """One line of the report in each state."""

    title: str
    """With fields of the scale in braces, `{scale.base:,}`."""
    family: Family[E]
    items: Callable[[Draw], Sequence[Item]]
    call: Callable[[E, Item], object]
    answer: Callable[[E, Item], Any] | None = None
    """What the engines have to agree on, as JSON; None: nothing is compared."""
    check: Callable[[Mapping[str, Sequence[Any]], Draw], Notes] = agree
    """Given the answers by engine; returns notes. Raises RuntimeError."""
    checked: tuple[str, ...] = ()
    """Names of the engines whose answers are compared; (): all."""
    budget: Budget | None = None
    kinds: tuple[str, ...] = ()
    """Names of the engines; (): all of the family."""
    ways: Mapping[str, Callable[[E, Item], object]] = field(
        default_factory=dict[str, Callable[[E, Item], object]]
    )
    """Other calls on AmberDB, to compare with; each after `call` was made once."""
    states: tuple[State, ...] = STATES
    writes: bool = False
    is_short: bool = False
    """Whether a round is timed as a whole, since reading the clock would distort it."""
    threads: int = 1
    documents: int = 1
    """In one call: figures are per document."""
    opens: bool = False
    """Whether opening the database is part of the first call, the only one of a round."""
    restaged: bool = False
    """Whether each round begins with a database that was just brought into the state."""

    def contenders(self, names: Sequence[str]) -> dict[str, Contender[E, Item]]:
        """By name in the report: the engine, and the call."""
        found: dict[str, Contender[E, Item]] = {name: (name, self.call) for name in names}
        if AMBER in names:
            found |= {way: (AMBER, call) for way, call in self.ways.items()}
        return found

    @property
    def is_apart(self) -> bool:
        """Whether the first call in a state has a row of its own, and is not timed here."""
        return self.family.has_first_row and not self.restaged and not self.opens

    def is_checked(self, name: str) -> bool:
        return self.answer is not None and (not self.checked or name in self.checked)

    def answers(self, engine: E, items: Sequence[Item]) -> list[Any]:
        assert self.answer is not None
        return [self.answer(engine, item) for item in items[:SAMPLE]]

    def time(
        self,
        sampler: Sampler,
        engine: E,
        call: Callable[[E, Item], object],
        items: Sequence[Item],
        *,
        before: Sequence[Document] = (),
        is_first: bool = False,
    ) -> None:
        """One round. `before`: a document for each item, put untimed before its call."""

        def one(item: Item) -> object:
            return call(engine, item)

        if before:
            sampler.after_each(engine.put, before, one, items)
        elif self.threads > 1:
            shares = [items[thread :: self.threads] for thread in range(self.threads)]
            sampler.threads(one, shares)
        elif self.is_short and not is_first:
            sampler.all(one, items)
        else:
            sampler.each(one, items)
