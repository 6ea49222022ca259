"""How much each row measures: document counts, calls, rounds.

Invariants:
- QUICK runs every row in its smallest useful size; none of its figures counts.
"""

from dataclasses import dataclass

from bench.workloads import events


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes and counts; `--quick`, `--rounds` and `--size` change them."""

    rounds: int = events.ROUNDS
    search_rounds: int = 3
    """Of searches by text and vector."""
    process_rounds: int = 3
    """Fresh processes for each engine."""
    first_calls: int = 100
    """Calls of a fresh process that are timed, at most."""
    alternations: int = 200
    """Calls of a round that each have a put before them, at most."""
    fresh: int = 5_000
    full: int = 50_000
    killed: int = 15_000
    """Documents of the states: see bench/harness/state.py."""
    base: int = events.BASE_DOCUMENTS
    large: int = events.GROWTH_DOCUMENTS
    puts: int = 400
    puts_per_thread: int = 100
    put_batches: int = 10
    gets: int = 10_000
    batched_gets: int = 100
    finds: int = 300
    mixed: int = 400
    deletes: int = 5
    expired: int = 4_000
    replayed: int = 100_000
    checkpoints: int = 10
    idle_s: float = 2.0
    starts: int = 20
    texts: int = 100_000
    vectors: int = 100_000
    dim: int = 384
    questions: int = 60
    recall_questions: int = 200
    builds: int = 2
    """Rounds of rows that build whole search indexes."""


QUICK = Scale(
    rounds=2,
    search_rounds=1,
    process_rounds=1,
    first_calls=20,
    alternations=20,
    fresh=1_000,
    full=3_000,
    killed=1_000,
    base=5_000,
    large=20_000,
    puts=50,
    puts_per_thread=10,
    put_batches=2,
    gets=1_000,
    batched_gets=10,
    finds=50,
    mixed=50,
    deletes=2,
    expired=1_000,
    replayed=5_000,
    checkpoints=3,
    idle_s=0.5,
    starts=3,
    texts=3_000,
    vectors=12_000,
    dim=32,
    questions=20,
    recall_questions=40,
    builds=1,
)
