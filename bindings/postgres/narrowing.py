"""What a filter lets the server leave out: conditions in jsonpath.

Invariants:
- Every document that the filter matches meets the condition; others may meet it too, and the filter
  decides. A path in jsonpath looks into lists, as one of a filter does.
- Leaving a condition out changes no answer.
- A condition holds names and values of the program as JSON texts, and goes to the server as a
  parameter.
"""

from collections.abc import Sequence
from typing import Final, final

from amberdb.engine.query.condition import Condition
from amberdb.engine.query.filter import Filter
from amberdb.index.paths import Path
from amberdb.postgres.json_text import MARK, literal

_LITERALS_MAX: Final = 100


@final
class Narrowing:
    """The conditions of one filter: its equalities with texts and bools."""

    __slots__ = ("_conditions",)

    def __init__(self, where: Filter) -> None:
        self._conditions: list[tuple[str, str]] = []
        """Of a path, each."""
        for part in where.parts:
            if isinstance(part, Condition) and part.operator in ("$eq", "$in"):
                condition = _condition(part)
                if condition is not None:
                    self._conditions.append((part.path, condition))

    def behind(self, fields: Sequence[str]) -> str | None:
        """What is left to ask of the documents in a range of an index over these fields, as one
        condition: a range fixes the leading fields that are equal to something."""
        fixed: set[str] = set()
        asked = {path for path, _ in self._conditions}
        for path in fields:
            if path not in asked:
                break
            fixed.add(path)
        left = [condition for path, condition in self._conditions if path not in fixed]
        return " && ".join(left) or None


def condition_of(where: Filter) -> str | None:
    """All that is asked of the documents of a filter, where no range fixes anything."""
    return Narrowing(where).behind(())


def _condition(part: Condition) -> str | None:
    path = Path.of(part.path).segments
    if any("\0" in name or name.startswith(MARK) for name in path):
        return None
    operands = part.operand if part.operator == "$in" else [part.operand]
    literals = [literal(operand) for operand in operands]
    if not 0 < len(literals) <= _LITERALS_MAX or None in literals:
        return None
    left = "$" + "".join(f".{literal(name)}" for name in path)
    return "(" + " || ".join(f"{left} == {each}" for each in literals) + ")"
