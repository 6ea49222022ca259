"""Errors: one root, the built-ins they promise, facts as attributes, a way through pickle."""

import pickle

import pytest

import amberdb
from amberdb import AmberError, AmberWarning, ClockWarning, FullScanWarning

BUILT_INS: dict[str, tuple[str, type[BaseException]]] = {
    "NotADatabaseError": ("OpenError", ValueError),
    "DatabaseMissingError": ("OpenError", FileNotFoundError),
    "LockedError": ("OpenError", BlockingIOError),
    "OptionsDifferError": ("OpenError", ValueError),
    "DiskFullError": ("StorageError", OSError),
    "LogTruncatedError": ("StorageError", LookupError),
    "BusyError": ("TransactionError", TimeoutError),
    "CommitUnknownError": ("TransactionError", OSError),
    "ConflictError": ("TransactionError", ValueError),
    "TransactionTooLargeError": ("TransactionError", ValueError),
    "SnapshotExpiredError": ("TransactionError", TimeoutError),
    "ClosedError": ("AmberError", RuntimeError),
    "ForkedError": ("ClosedError", RuntimeError),
    "InvalidDocumentError": ("DocumentError", ValueError),
    "DocumentTooLargeError": ("InvalidDocumentError", ValueError),
    "DuplicateKeyError": ("DocumentError", KeyError),
    "MissingKeyError": ("DocumentError", KeyError),
    "ProjectionError": ("InvalidDocumentError", ValueError),
    "QueryError": ("AmberError", ValueError),
    "CursorError": ("QueryError", ValueError),
    "CollectionError": ("AmberError", ValueError),
    "CollectionMissingError": ("CollectionError", KeyError),
}
"""name: (base among our own, built-in that people catch)"""

ERRORS = [
    kind
    for kind in vars(amberdb).values()
    if isinstance(kind, type) and issubclass(kind, AmberError)
]


def test_all_errors_are_found() -> None:
    names = {kind.__name__ for kind in ERRORS}
    assert set(BUILT_INS) < names
    assert len(ERRORS) > 25


@pytest.mark.parametrize("name", BUILT_INS)
def test_error_is_caught_by_family_and_by_built_in(name: str) -> None:
    kind = getattr(amberdb, name)
    family, built_in = BUILT_INS[name]
    assert issubclass(kind, getattr(amberdb, family))
    assert issubclass(kind, built_in)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error_survives_pickling_with_its_facts(kind: type[AmberError]) -> None:
    error = kind("what to do next", path="/a/b", offset=7, lsn=1 << 41)
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert str(found) == found.message == "what to do next"
    assert (found.path, found.offset, found.lsn) == ("/a/b", 7, 1 << 41)
    assert found.facts == error.facts


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_error_shows_its_message_as_it_is(kind: type[AmberError]) -> None:
    # KeyError would show the repr, and OSError the errno.
    assert str(kind("it's\nhere")) == "it's\nhere"
    assert "it" in repr(kind("it"))


def test_message_may_not_be_given_by_name() -> None:
    # Otherwise a fact named `message` could not be told from it.
    with pytest.raises(TypeError):
        AmberError(message="x")  # type: ignore[call-arg]


def test_an_unknown_fact_is_no_attribute() -> None:
    error: object = AmberError("x", path="p")
    assert not hasattr(error, "offset")


def test_warnings_are_user_warnings() -> None:
    assert issubclass(FullScanWarning, AmberWarning)
    assert issubclass(ClockWarning, AmberWarning)
    assert issubclass(AmberWarning, UserWarning)
