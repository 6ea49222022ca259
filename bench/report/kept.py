"""The kept results that the page shows, as ratios of a peer's time to AmberDB's.

Invariants:
- A later file takes the place of an earlier one for the measures, states and peers that it has.
- Nothing is computed but what a file has: a ratio is that of the medians of one run, and a spread
  that of its rounds.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"

FILES = (
    "2026-11-29-states.json",
    "2026-11-29-killed.json",
    "2026-11-30-stall.json",
    "2026-11-30-search.json",
)
"""The whole run, and what was measured again after it."""

SETTLED = "settled"
UNEQUAL = ("strata, not synced",)
"""Peers that do not do the same: that one loses what it acknowledged when it is killed."""


@dataclass(frozen=True)
class Ratio:
    """A peer's time over AmberDB's: above 1 AmberDB is faster."""

    ratio: float
    least: float
    most: float
    file: str


States = dict[str, Ratio]
"""By state."""


@dataclass(frozen=True)
class Run:
    """Where and when a file was made."""

    file: str
    started: str
    machine: Mapping[str, Any]


def runs() -> list[Run]:
    found: list[Run] = []
    for name in FILES:
        kept = _kept(name)
        found.append(Run(name, kept["started"], kept["machine"]))
    return found


def ratios() -> dict[tuple[str, str], dict[str, States]]:
    """By (row, title) the ratios of each peer in each state; "" where a measure has no states."""
    found: dict[tuple[str, str], dict[str, States]] = {}
    for name in FILES:
        for line in _kept(name)["lines"]:
            peers = found.setdefault((line["row"], line["title"].strip()), {})
            for peer, one in line["ratios"].items():
                if peer not in UNEQUAL:
                    least, most = one["spread"]
                    ratio = Ratio(one["ratio"], least, most, name)
                    peers.setdefault(peer, {})[line["state"]] = ratio
    return found


def _kept(name: str) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return kept
