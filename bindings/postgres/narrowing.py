"""What a filter lets the server leave out: conditions in jsonpath.

Invariants:
- Every document that the filter matches meets the condition; others may meet it too, and the filter
  decides. A path in jsonpath looks into lists, as one of a filter does.
- A condition holds names and values of the program as JSON texts, and goes to the server as a
  parameter.
"""

from typing import Final

from amberdb.engine.query.condition import Condition
from amberdb.engine.query.filter import Filter
from amberdb.index.paths import Path
from amberdb.postgres.json_text import MARK, literal

_LITERALS_MAX: Final = 100


def condition_of(where: Filter) -> str | None:
    """The condition of a filter: of its equalities with texts and bools. None without any."""
    found: list[str] = []
    for part in where.parts:
        if not isinstance(part, Condition) or part.operator not in ("$eq", "$in"):
            continue
        path = Path.of(part.path).segments
        if any("\0" in name or name.startswith(MARK) for name in path):
            continue
        operands = part.operand if part.operator == "$in" else [part.operand]
        literals = [literal(operand) for operand in operands]
        if 0 < len(literals) <= _LITERALS_MAX and None not in literals:
            left = "$" + "".join(f".{literal(name)}" for name in path)
            found.append("(" + " || ".join(f"{left} == {each}" for each in literals) + ")")
    return " && ".join(found) or None
