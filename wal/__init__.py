"""The write-ahead log: each commit is one record, written before anything else.

Guarantees:
- Once `wait(lsn)` has returned, that record and all before it survive power loss.
- Opening finds a prefix of the appended records: whole records, in order, without holes.
- A torn tail is cut, kept in a `.broken` file and reported. Damage in the middle is an error that
  names file and offset, never a silent cut; `repair` cuts there.
- On a full disk a record is refused before it has an Lsn. After any other failed write or sync
  nothing is acknowledged until the log is opened again.

The log knows bytes, not documents. `append` is called under the writer lock.

log, group_commit, interval   appending, and the syncs that make records durable
recovery, repair, check       reading a log at open, cutting it at damage, checking it
reader, foreign_log           reading records while the log is written, here or elsewhere
segment, segment_pool         the files of the log, and spare ones for the next segments
record                        the format of one record
"""

from amberdb.wal.check import LogCheck as LogCheck
from amberdb.wal.check import check_log as check_log
from amberdb.wal.check import log_begins as log_begins
from amberdb.wal.check import segment_ids as segment_ids
from amberdb.wal.foreign_log import ForeignLogReader as ForeignLogReader
from amberdb.wal.log import Log as Log
from amberdb.wal.log import LogOptions as LogOptions
from amberdb.wal.record import Record as Record
from amberdb.wal.recovery import CutReport as CutReport
from amberdb.wal.recovery import Recovery as Recovery
from amberdb.wal.repair import LogRepair as LogRepair
from amberdb.wal.repair import RepairCut as RepairCut
from amberdb.wal.repair import repair as repair
from amberdb.wal.repair import sound_records as sound_records

__all__ = [
    "Log",
    "LogOptions",
    "ForeignLogReader",
    "Record",
    "Recovery",
    "CutReport",
    "check_log",
    "LogCheck",
    "log_begins",
    "segment_ids",
    "repair",
    "sound_records",
    "RepairCut",
    "LogRepair",
]
