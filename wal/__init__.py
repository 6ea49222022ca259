"""The log: every commit as one record, before anything else is written.

What it promises:
- Once `wait(lsn)` returned, that record and all before it survive power loss.
- What opening finds is a prefix of what was appended: whole records, in order, without holes.
- A torn tail is cut, kept aside and reported; damage in the middle is an error that names file
  and offset, never a silent cut. `repair` is the way out.
- A full disk refuses a record before it has an Lsn. After any other failed write or sync nothing
  is acknowledged until the log is opened again.

It knows bytes, no documents. `append` and `rotate` are called under the writer lock.
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
    "RepairCut",
    "LogRepair",
]
