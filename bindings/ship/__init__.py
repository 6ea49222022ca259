"""Backups that are shipped to an S3 bucket or a folder as they are made: docs/backup.md.

Invariants:
- Importing it loads neither obstore nor cryptography; a call that needs one says what to install.
"""

from amberdb.ship.archives import Shipped
from amberdb.ship.contents import prune, shipped
from amberdb.ship.errors import (
    ArchiveKeyError,
    ShipError,
    ShipExtraError,
    TargetAccessError,
    TargetInUseError,
    TargetMissingError,
    TargetUnreachableError,
    TargetUrlError,
)
from amberdb.ship.keys import key_from
from amberdb.ship.restoring import restore_from
from amberdb.ship.shipper import Shipper, ShipStatus, ship
from amberdb.ship.target import S3Options

__all__ = [
    "ship",
    "restore_from",
    "shipped",
    "prune",
    "key_from",
    "Shipper",
    "ShipStatus",
    "Shipped",
    "S3Options",
    "ShipError",
    "ShipExtraError",
    "ArchiveKeyError",
    "TargetAccessError",
    "TargetInUseError",
    "TargetMissingError",
    "TargetUnreachableError",
    "TargetUrlError",
]
