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
    base: int = events.BASE_DOCUMENTS
    large: int = events.GROWTH_DOCUMENTS
    puts: int = 400
    puts_per_thread: int = 100
    put_batches: int = 10
    gets: int = 10_000
    finds: int = 500
    expired: int = 4_000
    replayed: int = 100_000
    checkpoints: int = 10
    idle_s: float = 2.0
    starts: int = 10
    texts: int = 100_000
    vectors: int = 100_000
    dim: int = 384
    questions: int = 200
    builds: int = 2
    """Rounds of rows that build whole search indexes."""


QUICK = Scale(
    rounds=2,
    base=5_000,
    large=20_000,
    puts=50,
    puts_per_thread=10,
    put_batches=2,
    gets=1_000,
    finds=50,
    expired=1_000,
    replayed=5_000,
    checkpoints=3,
    idle_s=0.5,
    starts=3,
    texts=3_000,
    vectors=12_000,
    dim=32,
    questions=40,
    builds=1,
)
