"""The log: append, wait, recycle, read, recover.

Invariants:
- An Lsn is given only after the record's bytes were written, in order, without gaps.
- Space is allocated before: only a rotation needs more, and a full disk there changes nothing.
- A segment is synced before the next one is used: only the newest can have a torn tail.
- Any other failure of a write or a sync poisons the log: `failed` is set, nothing more is
  written or acknowledged, and only opening again shows which records were kept.
- Nothing is acknowledged in a directory that was removed or replaced: each sync looks, and once in
  each interval of sync_interval_ms an append does before it writes.
- The directory always holds at least one segment, so an empty directory is an error.
"""

import errno
import os
from _thread import LockType
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from time import monotonic
from typing import NoReturn

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock
from amberdb._errors import (
    ClosedError,
    CommitUnknownError,
    DiskFullError,
    PoisonedError,
    ReplacedError,
    StorageError,
)
from amberdb._fs import File, FileSystem, what_is_full
from amberdb._types import LSN_NUMBER_BITS, NO_LSN, Lsn, Sync, lsn_epoch, lsn_number
from amberdb.wal.group_commit import GroupCommit
from amberdb.wal.interval import IntervalSync
from amberdb.wal.reader import LogReader
from amberdb.wal.record import (
    END_SIZE,
    HEADER_SIZE,
    NO_SALT,
    PAYLOAD_BYTES_MAX,
    Record,
    encode,
    record_size,
)
from amberdb.wal.recovery import (
    Recovery,
    list_directory,
    load_segments,
    recover,
)
from amberdb.wal.segment import (
    RECORDS_START,
    Segment,
    SegmentHeader,
    SyncFailedError,
    fill,
    new_salt,
    segment_name,
    size_for,
    sync_names,
    write_header,
)
from amberdb.wal.segment_pool import SegmentPool

NO_SPACE = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_REFUSE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Sizes and times of a log. Each segment is twice as large as the previous, within limits."""

    segment_bytes_min: int = 1 << 20
    segment_bytes_max: int = 16 << 20
    sync_interval_ms: int = 100
    free_segments_max: int = 2
    slow_sync_ms: int = 1000


class Log:
    """An append-only log of commits in one directory. Make one with `create` or `open`.

    `append`, `renew` and `close` are called under the writer lock; everything else is thread-safe.
    """

    required_lsn: int
    """The last Lsn appended with "always": durable before any later commit is acknowledged."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        *,
        database_id: bytes,
        options: LogOptions,
        pool: SegmentPool,
        segments: list[Segment],
        last_lsn: Lsn,
        epoch: int,
        chain: int,
    ) -> None:
        self._group = GroupCommit(
            last_lsn, options.slow_sync_ms, self._refuse_appends, fs.check_lock
        )
        self.required_lsn = last_lsn
        self._fs = fs
        self._directory = directory
        self._database_id = database_id
        self._options = options
        self._pool = pool
        self._segments = segments
        self._layout = CallLock()
        """Guards _segments."""
        self._recycling = CallLock()
        self._next = (epoch << LSN_NUMBER_BITS) | (lsn_number(last_lsn) + 1)
        self._chain = chain
        self.last_offset: int | None = None
        """Where the last record is in its segment; None when it was not written or read here. Asked
        for under the writer lock."""
        self._closed = False
        self._is_rotating = False
        """A new segment is being started, or the call that did was interrupted."""
        self._before_first: Callable[[], None] | None = None
        # The file in use: none before the first append.
        self._salt = NO_SALT
        self._pwrite: Callable[[bytes, int], None] = _no_file
        self._end = 0
        self._limit = 0
        self._soft_limit = 0  # checked by append: half of the segment, then its limit
        self._look_at = 0.0  # by the monotonic clock: when to look for the directory again
        self._look_s = options.sync_interval_ms / 1000
        self._interval = IntervalSync(self.sync, options.sync_interval_ms / 1000)
        self._reader = LogReader(fs, self._list_segments)

    # -- opening ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        fs: FileSystem,
        directory: str,
        *,
        database_id: bytes,
        options: LogOptions,
        epoch: int = 1,
        last_lsn: Lsn = NO_LSN,
    ) -> "Log":
        """Starts a log in an empty directory, after `last_lsn`. Raises DiskFullError or
        StorageError."""
        log = cls(
            fs,
            directory,
            database_id=database_id,
            options=options,
            pool=SegmentPool(fs, directory, options.free_segments_max),
            segments=[],
            last_lsn=last_lsn,
            epoch=epoch,
            chain=0,
        )
        log._start_segment(0)
        return log

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        directory: str,
        *,
        database_id: bytes,
        options: LogOptions,
        applied: Lsn,
        clean_last: Lsn | None,
        epoch: int,
        replay: Callable[[Record], None],
        applied_offset: int | None = None,
    ) -> "tuple[Log, Recovery]":
        """Reads a log, calls `replay` with each record after `applied`, and continues it.

        `clean_last` is the last Lsn of a clean close, None after a crash; then `epoch` must be
        new. `applied_offset`: where the applied record is, if that is known. Raises
        CorruptionError, FormatError, DiskFullError or StorageError.
        """
        try:
            names, spare_names = list_directory(fs, directory)
            segments = load_segments(fs, names, database_id)
            tail, recovery = recover(
                fs,
                directory,
                segments,
                applied=applied,
                clean_last=clean_last,
                replay=replay,
                applied_offset=applied_offset,
            )
            pool = SegmentPool(fs, directory, options.free_segments_max)
            for name in spare_names:
                pool.adopt(name)
            log = cls(
                fs,
                directory,
                database_id=database_id,
                options=options,
                pool=pool,
                segments=segments,
                last_lsn=recovery.last_lsn,
                epoch=epoch,
                chain=tail.chain,
            )
            if tail.starts:
                log.last_offset = tail.starts[-1][0]
            if log._next <= recovery.last_lsn:
                raise ValueError(
                    f"epoch {epoch} is older than the last record, Lsn {recovery.last_lsn}"
                )
            if (
                segments
                and clean_last is not None
                and lsn_epoch(segments[-1].header.first_lsn) == epoch
            ):
                log._use(segments[-1], fs.open(segments[-1].path), tail.end, tail.chain)
            return log, recovery
        except StorageError:
            raise
        except OSError as error:
            error.filename = error.filename or directory  # a read names no file
            _refuse(error, f"the log in {directory} could not be opened")

    def before_first(self, call: Callable[[], None]) -> None:
        """Calls `call` before the first record is written. An error of it is one of `append`, and
        nothing is stored."""
        self._before_first = call
        self._soft_limit = _REFUSE

    # -- durability ------------------------------------------------------------------------

    @property
    def last_lsn(self) -> Lsn:
        """The last record that was appended."""
        return self._group.last_lsn

    @property
    def durable_lsn(self) -> Lsn:
        """The last record that survives power loss."""
        return self._group.durable_lsn

    @property
    def failed(self) -> BaseException | None:
        """Why nothing is written or acknowledged any more; None while the log is healthy."""
        return self._group.failed

    def on_durable(self, callback: Callable[[int, float], None]) -> None:
        """Calls `callback` with each new durable Lsn, and the microseconds of its sync, before any
        thread that waits for it returns."""
        self._group.on_durable = callback

    def wait(self, lsn: int) -> None:
        """Returns when `durable_lsn >= lsn`. Raises CommitUnknownError after a failed sync."""
        self._group.wait(lsn)

    def wake_at(self, lsn: int, gate: LockType) -> None:
        """See GroupCommit."""
        self._group.wake_at(lsn, gate)

    def forget(self, gate: LockType) -> None:
        """See GroupCommit."""
        self._group.forget(gate)

    def sync(self) -> None:
        """Makes everything appended so far durable. Raises CommitUnknownError."""
        self._group.sync()

    def poison(self, error: BaseException) -> None:
        """No more writes and no more acknowledgements until the log is reopened."""
        self._group.poison(error)

    # -- writing ---------------------------------------------------------------------------

    @property
    def next_lsn(self) -> Lsn:
        return Lsn(self._next)

    def append(
        self, payload: bytes, time_us: int, kind: int, sync: Sync, *, lsn: int | None = None
    ) -> Lsn:
        """Writes one record and gives it the next Lsn; `wait` makes it durable. A call that was
        interrupted is repeated with the same arguments and the `lsn` that was next before it.

        Raises DiskFullError and ReplacedError (nothing was stored, the log goes on),
        PoisonedError, ClosedError, or CommitUnknownError when this very write failed.
        """
        if lsn is None:
            lsn = self._next
        if lsn == self._next:
            self._write(lsn, payload, time_us, kind)
        self._group.last_lsn = Lsn(lsn)
        if sync == "always":
            self.required_lsn = lsn
        elif sync == "interval" and not self._interval.armed and not self._interval.arm():
            self.required_lsn = lsn  # without a thread to sync it, its commit does
        return Lsn(lsn)

    def _write(self, lsn: int, payload: bytes, time_us: int, kind: int) -> None:
        if monotonic() >= self._look_at:
            self._look()
        length = len(payload)
        offset = self._end
        end = offset + ((HEADER_SIZE + length + 7) & -8)
        if end > self._soft_limit:
            self._make_room(length)
            offset = self._end
            end = offset + record_size(length)
        data, crc = encode(
            self._salt, self._chain, lsn, self._group.durable_lsn, time_us, kind, payload
        )
        try:
            if failpoints.on:
                failpoints.reach("commit.before-write")
            self._pwrite(data, offset)
            if failpoints.on:
                failpoints.reach("commit.written")
        except OSError as error:
            self._append_failed(error, data, offset)
        # No interruption is between them.
        self.last_offset, self._end, self._chain, self._next = offset, end, crc, lsn + 1

    def prepare_renewal(self) -> None:
        """Prepares the file of the next `renew`, which then takes no time under the writer lock.
        Raises ReplacedError, DiskFullError, StorageError."""
        self._keep_no_old_file()
        try:
            self._pool.secure(self._next_size(0))
        except OSError as error:
            _refuse(error, "no new log segment could be made")

    def renew(self) -> None:
        """Continues in a segment whose file has never held a record, and keeps no file of an old
        segment until `reuse`. Raises as `append` does."""
        self._check_writable()
        self._keep_no_old_file()
        if self._group.file is None or self._end > RECORDS_START:
            self._start_segment(0)
        elif self._segments[-1].header.recycled:
            try:
                fill(self._group.file, RECORDS_START, self._segments[-1].size)
                self._group.file.sync()
            except OSError as error:
                _refuse(error, "the log's segment could not be overwritten")

    def _keep_no_old_file(self) -> None:
        try:
            self._pool.set_capacity(0)
        except OSError as error:
            _refuse(error, "a spare file of the log could not be removed")

    def reuse(self) -> None:
        """Recycles files of old segments again, after `renew`."""
        self._pool.set_capacity(self._options.free_segments_max)

    def _check_writable(self) -> None:
        if self._closed:
            raise ClosedError("the log is closed")
        if self.failed is not None:
            raise PoisonedError(
                f"an earlier write or sync of the log failed: {self.failed}; reopen to write"
            ) from self.failed
        self._fs.check_lock()

    def _look(self) -> None:
        """Raises ReplacedError: commits that wait for no sync would be acknowledged in a directory
        that has gone."""
        self._fs.check_lock()
        self._look_at = monotonic() + self._look_s

    def _make_room(self, length: int) -> None:
        """Off the hot path: the segment is full or half full, or the log refuses writes."""
        self._check_writable()
        if length > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a log record cannot hold {length} bytes")
        if self._before_first is not None:
            self._begin(self._before_first)
        size = record_size(length)
        if self._is_rotating or self._end + size > self._limit:
            self._start_segment(size)
        if self._end + size > self._soft_limit:
            self._set_soft_limit(self._limit)
            self._pool.prepare(self._next_size(0))

    def _begin(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OSError as error:
            _refuse(error, "the first record could not be written")
        self._before_first = None
        if self._limit:
            self._set_soft_limit(min(self._limit, self._segments[-1].size // 2))

    def _set_soft_limit(self, limit: int) -> None:
        self._soft_limit = limit
        if self.failed is not None or self._closed:  # possibly since the caller checked
            self._soft_limit = _REFUSE

    def _refuse_appends(self) -> None:
        self._soft_limit = _REFUSE

    def _append_failed(self, error: BaseException, data: bytes, offset: int) -> NoReturn:
        """Poisons the log, unless the disk is full and no reader can take the record for whole."""
        if isinstance(error, OSError) and error.errno in NO_SPACE and self._end == offset:
            file = self._group.file
            assert file is not None
            whole = len(data) - END_SIZE
            try:
                if file.pread(whole, offset) == data[:whole]:
                    file.pwrite(bytes(END_SIZE), offset)
                    file.sync()
            except OSError as second:
                error = second
            else:
                _refuse(error, "the record could not be written")
        self.poison(error)
        if isinstance(error, OSError):
            raise CommitUnknownError(
                f"writing to the log failed: {error}; reopen to learn what was kept",
                lsn=self._next,
            ) from error
        raise error

    # -- segments --------------------------------------------------------------------------

    def _list_segments(self) -> list[Segment]:
        with self._layout:
            return list(self._segments)

    def _next_size(self, record_bytes: int) -> int:
        options = self._options
        previous = self._segments[-1].header.size if self._segments else 0
        preferred = min(options.segment_bytes_max, max(options.segment_bytes_min, 2 * previous))
        return size_for(record_bytes, preferred)

    def _start_segment(self, record_bytes: int) -> None:
        """Allocates space, syncs the current segment, and continues in a new one. When it was
        interrupted the next append does it again: the new segment may have its name already, and
        then nothing may be appended to the old one."""
        self._is_rotating = True
        self._soft_limit = _REFUSE
        try:
            self._rotate(record_bytes)
        except StorageError:
            self._set_soft_limit(self._limit)
            self._is_rotating = False
            raise

    def _rotate(self, record_bytes: int) -> None:
        try:
            spare, size, recycled = self._pool.take(self._next_size(record_bytes))
        except OSError as error:
            self._refuse_segment(error)
        if failpoints.on:
            failpoints.reach("rotation.spare-taken")
        with self._group.lead():
            self._check_writable()
            if self.durable_lsn < self.last_lsn:
                try:
                    self._group.sync_file()
                except CommitUnknownError:
                    self._check_writable()
            if failpoints.on:
                failpoints.reach("rotation.old-synced")
            header = SegmentHeader(
                database_id=self._database_id,
                salt=new_salt(),
                first_lsn=Lsn(self._next),
                previous_first=self._segments[-1].header.first_lsn if self._segments else NO_LSN,
                previous_last=self.last_lsn,
                previous_crc=self._chain,
                size=size,
                recycled=recycled,
            )
            if self._is_empty():  # and too small: the new one takes its name
                empty = self._segments[-1].header
                header = replace(
                    header, previous_first=empty.previous_first, previous_crc=empty.previous_crc
                )
            self._install(spare, header)

    def _install(self, spare: str, header: SegmentHeader) -> None:
        path = os.path.join(self._directory, segment_name(header.first_lsn))
        try:
            write_header(self._fs, spare, header)
            if failpoints.on:
                failpoints.reach("rotation.header-written")
            self._fs.rename(spare, path)
            if failpoints.on:
                failpoints.reach("rotation.renamed")
        except OSError as error:
            self._refuse_segment(error)
        self._pool.mark_used(spare)
        try:
            sync_names(self._fs, self._directory)
            if failpoints.on:
                failpoints.reach("rotation.names-synced")
            file = self._fs.open(path)
        except (OSError, ReplacedError) as error:
            if self._is_empty():  # the segment with this name was replaced
                self.poison(error)
                self._check_writable()
            try:  # an unused segment would contradict the following ones
                self._fs.unlink(path)
                self._fs.sync_dir(self._directory)
            except (OSError, ReplacedError) as second:
                self.poison(second)
                self._check_writable()
            self._refuse_segment(error)
        segment = Segment(path, header, header.size)
        with self._layout:
            kept = self._segments[:-1] if self._is_empty() else self._segments
            self._segments = [*kept, segment]
        old = self._group.file
        self._use(segment, file, RECORDS_START, header.salt.chain)
        if failpoints.on:
            failpoints.reach("rotation.in-use")
        if old is not None:
            old.close()

    def _is_empty(self) -> bool:
        """Whether the newest segment has no record."""
        return bool(self._segments) and self._segments[-1].header.first_lsn == self._next

    def _refuse_segment(self, error: OSError | ReplacedError) -> NoReturn:
        """Raises. No record is lost and the old segment stays in use; a failed sync poisons."""
        if isinstance(error, SyncFailedError) and error.errno not in NO_SPACE:
            self.poison(error)
            self._check_writable()
        _refuse(error, "no new log segment could be made")

    def _use(self, segment: Segment, file: File, end: int, chain: int) -> None:
        self._group.file = file
        self._pwrite = file.pwrite
        self._salt = segment.header.salt
        self._chain = chain
        self._end = end
        self._limit = segment.size - END_SIZE
        self._set_soft_limit(min(self._limit, segment.size // 2))
        self._is_rotating = False

    def recycle(self, below: Lsn) -> int:
        """Removes the segments whose records are all `<= below`, oldest first, never the newest.

        Returns the bytes removed from the log; two files are kept for the next segments, or one
        when there is no record above `below`. Raises StorageError; segments removed before that
        stay removed.
        """
        freed = 0
        with self._recycling:
            while (segment := self._pop_oldest(below)) is not None:
                useful = range(self._next_size(0), self._options.segment_bytes_max + 1)
                try:
                    self._pool.recycle(segment.path, segment.size, useful)
                except FileNotFoundError:
                    pass  # by an earlier call, before it raised ReplacedError
                except (OSError, ReplacedError) as error:
                    # Removing later segments first would leave a gap, which open() refuses.
                    if isinstance(error, ReplacedError) or self._fs.exists(segment.path):
                        with self._layout:
                            self._segments.insert(0, segment)
                    _refuse(error, f"{segment.path} could not be recycled")
                freed += segment.size
        if below >= self.last_lsn:
            self._pool.trim()
        return freed

    def _pop_oldest(self, below: Lsn) -> Segment | None:
        with self._layout:
            if len(self._segments) < 2 or self._segments[1].header.previous_last > below:
                return None
            return self._segments.pop(0)

    # -- reading ---------------------------------------------------------------------------

    def read(self, after: Lsn, *, upto: Lsn | None = None) -> Iterator[Record]:
        """The records after `after`, up to `upto` or the last that is durable at the call.

        Raises LogTruncatedError (at once or while iterating) with `resume`, the Lsn to read
        after instead, when records were recycled; CorruptionError on damage.
        """
        last = self.durable_lsn if upto is None else min(upto, self.last_lsn)
        return self._reader.read(after, last)

    @property
    def first_lsn(self) -> Lsn:
        """The oldest record in the log, or the next one when it is empty."""
        with self._layout:
            for segment, later in pairwise(self._segments):
                if later.header.previous_last >= segment.header.first_lsn:
                    return segment.header.first_lsn
            if self._segments and self.last_lsn >= self._segments[-1].header.first_lsn:
                return self._segments[-1].header.first_lsn
        return self.next_lsn

    @property
    def bytes_used(self) -> int:
        """The size of the segments, without spare files."""
        with self._layout:
            return sum(segment.size for segment in self._segments)

    def stats(self) -> dict[str, int | float]:
        return {
            "segments": len(self._segments),
            "bytes": self.bytes_used,
            "free_segments": self._pool.count(),
            "free_bytes": self._pool.size_bytes(),
            **self._group.stats(),
        }

    # -- closing ---------------------------------------------------------------------------

    def close(self) -> None:
        """Syncs unless the log has failed, and ends its threads. Raises CommitUnknownError.

        A second call does nothing.
        """
        self._closed = True
        self._soft_limit = _REFUSE
        self._interval.close()
        self._pool.close()
        with self._group.lead():
            file = self._group.file
            if file is None:  # a second call, or no record was appended
                return
            try:
                if self.failed is None and self.durable_lsn < self.last_lsn:
                    self._group.sync_file()
            finally:
                self._group.file = None
                self._pwrite = _no_file
                file.close()


def _no_file(data: bytes, offset: int) -> None:
    raise ClosedError("the log is closed")


def _refuse(error: OSError | ReplacedError, what: str) -> NoReturn:
    if isinstance(error, ReplacedError):
        raise error
    if error.errno in NO_SPACE:
        lacking = what_is_full(error.filename or "")
        raise DiskFullError(f"{what}: {lacking}", path=error.filename) from error
    raise StorageError(f"{what}: {error}", path=error.filename) from error
