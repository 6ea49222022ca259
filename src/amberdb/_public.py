"""The mark of a class or function that `amberdb` exports.

Invariants:
- What is marked says `__module__ == "amberdb"` from its definition on, whether or not a program has
  used it by its public name, so that pickles, errors and help() never show an inner module.
"""

from typing import TypeVar

_T = TypeVar("_T")


def public(thing: _T) -> _T:
    """Marks a definition whose name is in amberdb/__init__.py."""
    thing.__module__ = "amberdb"
    return thing
