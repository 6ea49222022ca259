"""The table of docs/tuning.md: what indexes and options cost a write."""

import json
from typing import Any

from bench.report.kept import RESULTS

FILE = "2026-11-30-options.json"


def option_table() -> str:
    kept: dict[str, Any] = json.loads((RESULTS / FILE).read_text(encoding="utf-8"))
    ratios: dict[str, dict[str, float]] = kept["ratios"]
    classes = [name for name in ratios if name.startswith("sync=")]
    lines = [
        "| index or option | a put | a document of a put_many | bytes on disk |",
        "|---|---|---|---|",
    ]
    for name in ratios:
        if name not in classes:
            one = ratios[name]
            cells = (f"{one[part]:.2f}x" for part in ("put", "put_many", "bytes"))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| durability class | a put |", "|---|---|", '| sync="os" | 1.00x |']
    for name in classes:
        lines.append(f"| {name} | {ratios[name]['put_wall']:.2f}x |")
    lines += [
        "",
        f"Kept in `bench/results/{FILE}`: {len(kept['rounds']['no index'])} rounds in turns, "
        f"medians, {kept['cores']} cores, Python {kept['python']}, load {kept['load_before']} to "
        f"{kept['load_after']} of other work.",
        "",
    ]
    return "\n".join(lines)
