"""Errors of shipping.

Invariants:
- A message says what to do, and has neither a key nor a credential.
- They are of two kinds: TargetUnreachableError passes by itself, every other one needs somebody.
"""

from amberdb import BackupError


class ShipError(BackupError):
    """Archives could not be shipped, listed, fetched or removed."""


class ShipExtraError(ShipError, ImportError):
    """A package that the call needs is not installed: the message says which one to install."""


class TargetUrlError(ShipError, ValueError):
    """The URL, or an option of the target, is wrong: correct it."""


class TargetMissingError(ShipError, FileNotFoundError):
    """The bucket, the folder or the archive does not exist: create it, or correct the URL."""


class TargetAccessError(ShipError, PermissionError):
    """The credentials are wrong or missing, or lack a right: correct them."""


class TargetUnreachableError(ShipError, ConnectionError):
    """The target does not answer, or is full. A shipper tries again by itself."""


class TargetInUseError(ShipError, ValueError):
    """Another database ships to this place: choose one where nothing is."""


class ArchiveKeyError(ShipError, ValueError):
    """The key is missing, is not a key, or is not the one that the archive was encrypted with."""
