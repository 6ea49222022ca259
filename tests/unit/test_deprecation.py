"""The warning for what a later version removes."""

import inspect

import pytest

import amberdb
from amberdb._deprecation import warn_deprecated


def old() -> None:
    warn_deprecated("old()", instead="new()", removed_in="9.0")


def older() -> None:
    _inner()


def _inner() -> None:
    warn_deprecated("older()", instead="new()", removed_in="9.0", depth=2)


def called() -> None:
    for call in (old, older):
        call()  # this line


def test_it_names_the_line_of_the_program_the_replacement_and_the_version() -> None:
    with pytest.warns(amberdb.AmberDeprecationWarning) as told:
        called()
    lines, first = inspect.getsourcelines(called)
    here = first + next(number for number, text in enumerate(lines) if "# this line" in text)
    assert [(each.filename, each.lineno) for each in told] == [(__file__, here)] * 2
    assert str(told[0].message) == (
        "old() is deprecated and will be removed in AmberDB 9.0: use new()"
    )


def test_filters_of_python_and_of_the_package_take_it_for_one_of_theirs() -> None:
    assert issubclass(amberdb.AmberDeprecationWarning, DeprecationWarning)
    assert issubclass(amberdb.AmberDeprecationWarning, amberdb.AmberWarning)
