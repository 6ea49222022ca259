"""backup(): the pages of one LMDB read transaction, or the records of the log since another backup.

    full          checkpoint -> one read transaction -> its leaf pages, keys ascending
    incremental   sync -> the records after the base's last Lsn, up to the durable Lsn
    both          staging file -> synced -> read back whole -> renamed -> directory synced

Invariants:
- Readers and writers are not blocked: the only lock held is that between backups.
- A file gets its final name after it was read back and every checksum compared; a failure leaves
  no file.
- A document whose checksum fails, or a counter that differs from the number of documents, stops a
  backup: it would replace a better one.
- While a backup runs the log is kept from its start; after it, with `hold_log`, from its end,
  within the limit of subscribers.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from amberdb._call_lock import CallLock
from amberdb._errors import (
    AmberError,
    BackupChainError,
    BackupError,
    BackupExistsError,
    LogTruncatedError,
)
from amberdb._fs import replace_file, staged_for
from amberdb._plain import has_surrogate
from amberdb._types import Lsn, Progress
from amberdb._worker import long_work
from amberdb.engine.backup.ahead import ahead
from amberdb.engine.backup.archive import (
    Content,
    Header,
    Kind,
    archive_blocks,
    archive_path,
    file_errors,
)
from amberdb.engine.backup.chain import BackupReport, follows, read_header, verify_chain
from amberdb.engine.backup.history import BackupHistory
from amberdb.engine.backup.pages import page_contents
from amberdb.engine.backup.traffic import Traffic
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.jobs import YIELD_S, Turns
from amberdb.engine.options import Options
from amberdb.engine.schema.codec import encode
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import APPLIED, DATABASE_ID, LAST_TIME
from amberdb.engine.storage.data_file import lmdb_version
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.view import NEWEST, View, stored_view

if TYPE_CHECKING:
    from amberdb.engine.storage.tree_file import TreeReader

logger = logging.getLogger("amberdb.engine")

Compress: TypeAlias = Literal["zstd"] | None
BLOCK_BYTES: Final = 1 << 16
"""A block ends after the pair or record that reaches this size. Larger blocks compress no better,
and hold the interpreter longer."""
SENT_BLOCK_BYTES: Final = 1 << 13
"""Of an archive that is sent away: those are taken again and again while others commit, who get the
interpreter between two blocks."""
_SHORT_RECORDS: Final = 4096
PLACE_BYTES_MAX: Final = 2000
_SLEEP_S: Final = 0.1
"""The longest sleep between two calls of `progress`, which may raise to end the backup."""


class Backups:
    """Takes backups of an open database, one at a time."""

    def __init__(
        self, directory: str, committer: Committer, checkpointer: Checkpointer,
        history: BackupHistory, options: Options,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._committer = committer
        self._checkpointer = checkpointer
        self._history = history
        self._options = options
        self._fs = options.fs
        self.mutex = CallLock()
        """Held while a backup is taken."""

    def run(
        self,
        path: str | os.PathLike[str],
        base: str | os.PathLike[str] | None,
        compress: Compress,
        rate_bytes_s: float | None,
        hold_log: bool,
        progress: Progress | None,
        sent_to: str | None = None,
    ) -> BackupReport:
        """See Database.backup()."""
        if compress not in (None, "zstd"):
            raise ValueError(f"compress={compress!r}: use 'zstd' or None")
        if rate_bytes_s is not None and not rate_bytes_s > 0:
            raise ValueError(f"rate_bytes_s={rate_bytes_s!r}: give a number above 0, or None")
        if sent_to is not None and not 0 < len(sent_to.encode()) <= PLACE_BYTES_MAX:
            raise ValueError(f"sent_to={sent_to!r}: give a text of 1 to {PLACE_BYTES_MAX} bytes")
        target = archive_path(path)
        pace = _Pace(rate_bytes_s, progress)
        with long_work(), self.mutex, file_errors(target):
            self._fs.check_directory()
            self._check_target(target)
            base_path = None if base is None else archive_path(base)
            header = None if base_path is None else read_header(self._fs, base_path)
            log = self._committer.log
            after = log.durable_lsn if header is None else Lsn(header.last_lsn)
            with self._history.hold_log(after):
                how = _How(compress is not None, sent_to is None, pace)
                if header is None or base_path is None:
                    report = self._full(target, how)
                else:
                    report = self._incremental(target, header, base_path, how)
                self._remember(report, hold_log, sent_to)
        return report

    def _check_target(self, target: str) -> None:
        parent = os.path.dirname(target)
        if has_surrogate(target):
            raise BackupError(f"{target!r} is not UTF-8, as the catalog is: choose another name")
        if self._fs.exists(target):
            raise BackupExistsError(f"{target} exists: choose another name", path=target)
        if not self._fs.is_dir(parent):
            raise BackupError(f"the directory {parent} does not exist: create it", path=target)
        if target.startswith(os.path.join(self._directory, "")):
            raise BackupError(
                f"{target} is inside the database: choose a path outside it", path=target
            )

    def _full(self, target: str, how: "_How") -> BackupReport:
        self._checkpointer.run()
        is_busy = Traffic(self._last_lsn).is_busy
        with self._snapshot(is_busy) as (view, tree):
            schemas = view.catalog.by_keyspace()
            counts = {
                schema.name: CollectionCounters.unpack(view.get(schema.counters_key)).documents
                for schema in schemas.values()
            }
            header = self._header(
                base=b"",
                after_lsn=0,
                last_lsn=int.from_bytes(view.get(APPLIED) or b""),
                time_us=int.from_bytes(view.get(LAST_TIME) or b""),
                documents=counts,
                page_size=tree.page_size,
                lmdb_version=lmdb_version(),
            )
            pages = page_contents(tree, header, schemas, counts, is_busy)
            with closing(ahead(pages, "amberdb-backup", is_busy)) as contents:
                return self._write(target, header, contents, how)

    def _last_lsn(self) -> int:
        return self._committer.log.last_lsn

    @contextmanager
    def _snapshot(self, is_busy: Callable[[], bool]) -> "Generator[tuple[View, TreeReader]]":
        """A view of LMDB, and the tree that it reads."""
        from amberdb.engine.storage.tree_file import TreeReader, meta_of  # bring numpy

        while True:
            store = self._committer.store
            with stored_view(store, Memtable(), NEWEST, self._options) as view:
                try:
                    meta = meta_of(self._fs, store.path, view.store_id[1])
                    data = None if meta is None else self._fs.map(store.path)
                except FileNotFoundError:  # compact() has just replaced it
                    if self._committer.store is store:
                        raise
                    continue
                if meta is not None and data is not None:
                    with closing(TreeReader(data, meta, is_busy)) as tree:
                        yield view, tree
                    return

    def _incremental(self, target: str, base: Header, base_path: str, how: "_How") -> BackupReport:
        log = self._committer.log
        after = Lsn(base.last_lsn)
        self._check_base(base, base_path)
        log.sync()
        last = log.durable_lsn
        if last < after:
            raise BackupChainError(
                f"{base_path} ends at Lsn {after}, and the database at {last}: it has lost "
                "commits since, or is an older copy: take a full backup",
                path=base_path,
            )
        try:
            time_us = self._time_us(base, last)
            header = self._header(
                base=base.id, after_lsn=after, last_lsn=last, time_us=time_us, documents={}
            )
            size = BLOCK_BYTES if how.durable else SENT_BLOCK_BYTES
            return self._write(target, header, self._records(after, last, size), how)
        except LogTruncatedError as error:
            raise BackupChainError(
                f"the log no longer reaches back to Lsn {after}, where {base_path} ends: take a "
                "full backup (with hold_log=True the log is kept for the next one, up to "
                "subscriber_log_bytes_max)",
                path=base_path,
            ) from error

    def _time_us(self, base: Header, last: Lsn) -> int:
        """The time of the commit `last`. The log knows where the base ends, and would look for any
        other place from the beginning of a segment: a short increment is read instead."""
        time_us = base.time_us
        after = Lsn(base.last_lsn)
        records = islice(self._committer.log.read(after, upto=last), _SHORT_RECORDS)
        for record in Turns().between(records):
            after, time_us = record.lsn, record.time_us
        for record in self._committer.log.read(Lsn(last - 1), upto=last) if after < last else ():
            time_us = record.time_us
        return time_us

    def _check_base(self, base: Header, path: str) -> None:
        if base.database_id != self._committer.store.get(DATABASE_ID):
            raise BackupChainError(
                f"{path} is a backup of another database: take a full one", path=path
            )
        if self._history.archived is None:
            raise BackupChainError(
                f"the data was rewritten after {path} by repair or compaction: take a full backup",
                path=path,
            )

    def _header(self, **facts: Any) -> Header:
        return Header(
            **facts,
            id=os.urandom(16),
            database_id=self._committer.store.get(DATABASE_ID) or b"",
            created_us=int(self._options.clock() * 1_000_000),
        )

    def _records(self, after: Lsn, last: Lsn, block_bytes: int) -> Iterator[Content]:
        block: list[tuple[int, int, int, bytes]] = []
        size = 0
        before = after
        for record in Turns().between(self._committer.log.read(after, upto=last)):
            if not follows(record.lsn, before):
                raise BackupChainError(
                    f"the log continues after Lsn {before} with {record.lsn}: the commits between "
                    "them are lost: take a full backup"
                )
            before = record.lsn
            block.append((record.lsn, record.time_us, record.kind, record.payload))
            size += len(record.payload)
            if size >= block_bytes:
                yield Content(Kind.RECORDS, len(block), encode(block))
                block, size = [], 0
        if block:
            yield Content(Kind.RECORDS, len(block), encode(block))

    def _write(
        self,
        target: str,
        header: Header,
        contents: Iterable[Content],
        how: "_How",
    ) -> BackupReport:
        fs, pace = self._fs, how.pace
        blocks = archive_blocks(header, contents, compress=how.compress)
        verified: list[BackupReport] = []

        def verify(staging: str) -> None:
            reached = pace.for_verification().reached
            (report,) = verify_chain([staging], fs, reached, looks_at_pages=False)
            if fs.exists(target):  # created by another process meanwhile
                raise BackupExistsError(f"{target} exists: choose another name", path=target)
            verified.append(replace(report, path=target))

        self._remove_unfinished(os.path.dirname(target), os.path.basename(target))
        parts = self._paced(target, blocks, pace)
        try:
            replace_file(
                fs, target, next(blocks), parts, private=True, verify=verify, durable=how.durable
            )
        except BaseException:
            if verified:  # possibly renamed
                with suppress(OSError):
                    fs.unlink(target)
            raise
        return verified[0]

    def _remove_unfinished(self, directory: str, target: str) -> None:
        """Removes archives that a crash left unfinished: files with a staging name of the target,
        and with this database's id inside."""
        own = self._committer.store.get(DATABASE_ID)
        for name in self._fs.listdir(directory):
            if staged_for(name) == target:
                path = os.path.join(directory, name)
                with suppress(AmberError, OSError):
                    if read_header(self._fs, path).database_id == own:
                        self._fs.unlink(path)

    def _paced(self, target: str, blocks: Iterator[bytes], pace: "_Pace") -> Iterator[bytes]:
        size = 0
        for block in blocks:
            self._committer.check_open()
            yield block
            size += len(block)
            pace.reached(target, size)

    def _remember(self, report: BackupReport, hold_log: bool, sent_to: str | None) -> None:
        try:
            if sent_to is None:
                self._history.record(report, hold_log=hold_log)
            else:
                self._history.record_sent(report, sent_to)
        except AmberError as error:  # the backup itself is complete
            logger.warning("the log is not kept for the next incremental backup: %s", error)


class _How(NamedTuple):
    """How an archive is written."""

    compress: bool
    durable: bool
    """Whether it has to survive a power loss; one that is sent away is taken again."""
    pace: "_Pace"


class _Pace:
    """Calls `progress`, lets other threads run, and limits the rate in bytes per second."""

    def __init__(self, rate_bytes_s: float | None, progress: Progress | None = None) -> None:
        self._rate_bytes_s = rate_bytes_s
        self._progress = progress
        self._last = ("", 0)
        self._start = monotonic()

    def for_verification(self) -> "_Pace":
        """The pace of reading the file back: `progress` is called with its last arguments, so that
        it can still end the backup."""
        progress, last = self._progress, self._last
        return _Pace(self._rate_bytes_s, progress and (lambda _, size: progress(*last)))

    def reached(self, path: str, size: int) -> None:
        """To be called with the bytes of `path` written or read so far."""
        due = 0.0 if self._rate_bytes_s is None else size / self._rate_bytes_s
        self._last = (path, size)
        left = _SLEEP_S + 1.0
        while left > _SLEEP_S:  # at least once, so that other threads run
            if self._progress is not None:
                self._progress(path, size)
            left = self._start + due - monotonic()
            sleep(min(max(YIELD_S, left), _SLEEP_S))
