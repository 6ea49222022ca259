"""The public names, for type checkers and editors; what runs is __init__.py.

An error or a warning that amberdb/_errors.py defines is public by itself.
"""

from amberdb._connect import connect as connect
from amberdb._errors import *  # noqa: F403  # each of its classes
from amberdb._guide import guide as guide
from amberdb._types import Document as Document
from amberdb._types import FieldPath as FieldPath
from amberdb._types import Isolation as Isolation
from amberdb._types import Lsn as Lsn
from amberdb._types import Order as Order
from amberdb._types import Patch as Patch
from amberdb._types import Sync as Sync
from amberdb._types import Where as Where
from amberdb.engine.backup.chain import BackupReport as BackupReport
from amberdb.engine.backup.chain import restore_points as restore_points
from amberdb.engine.backup.chain import verify_backup as verify_backup
from amberdb.engine.backup.history import KnownBackup as KnownBackup
from amberdb.engine.backup.rescue import Rescue as Rescue
from amberdb.engine.backup.restore import RestoreReport as RestoreReport
from amberdb.engine.backup.restore import restore as restore
from amberdb.engine.commit.change_feed import Change as Change
from amberdb.engine.commit.change_feed import Subscriber as Subscriber
from amberdb.engine.database.collection import Collection as Collection
from amberdb.engine.database.database import Database as Database
from amberdb.engine.database.open import open as open
from amberdb.engine.database.readable_collection import ReadableCollection as ReadableCollection
from amberdb.engine.database.repair import repair as repair
from amberdb.engine.database.stats import FileBytes as FileBytes
from amberdb.engine.database.stats import Latency as Latency
from amberdb.engine.database.stats import Stats as Stats
from amberdb.engine.database.transaction import Snapshot as Snapshot
from amberdb.engine.database.transaction import Transaction as Transaction
from amberdb.engine.database.writable_collection import WritableCollection as WritableCollection
from amberdb.engine.failures import JobFailure as JobFailure
from amberdb.engine.integrity.check import CheckReport as CheckReport
from amberdb.engine.integrity.offline import check as check
from amberdb.engine.integrity.repair import RepairReport as RepairReport
from amberdb.engine.maintenance.compaction import CompactReport as CompactReport
from amberdb.engine.maintenance.erasure import Erasure as Erasure
from amberdb.engine.options import OpenOptions as OpenOptions
from amberdb.engine.options import Options as Options
from amberdb.engine.options import RollingBackups as RollingBackups
from amberdb.engine.query.page import Page as Page
from amberdb.engine.query.page import Record as Record
from amberdb.engine.schema.composite_id import key as key
from amberdb.engine.schema.definition import CollectionDef as CollectionDef
from amberdb.engine.schema.documents import REMOVE as REMOVE
from amberdb.engine.schema.documents import Projection as Projection
from amberdb.engine.schema.values import equal as equal
from amberdb.engine.schema.values import to_json as to_json
from amberdb.engine.search.hits import Hit as Hit
from amberdb.engine.search.hits import Hits as Hits
from amberdb.engine.search.ranking import Fusion as Fusion
from amberdb.engine.search.ranking import Neighbors as Neighbors
from amberdb.engine.search.ranking import Recency as Recency
from amberdb.engine.storage.status import Minute as Minute
from amberdb.index.ordered.ordered import Ordered as Ordered
from amberdb.index.ordered.unique import Unique as Unique
from amberdb.index.paths import value_at as value_at
from amberdb.index.registry import IndexSpec as IndexSpec
from amberdb.index.text.text import Text as Text
from amberdb.index.vector.vector import Embed as Embed
from amberdb.index.vector.vector import Vector as Vector

__version__: str
