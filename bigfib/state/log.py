"""The append-only state log: open, append, commit, close. `records` draws its bytes.

What it promises, and `tests/state` show:

1. An acknowledged step is never lost: once `Log.commit` has returned for it, it survives
   ``kill -9``, and with `Durability.FSYNC` power loss, too. A failed sync is final.
2. A tail torn by a crash is cut off, with a warning, when the log is next opened for writing.
   Damage to what was durable is never taken for a torn tail: the log is then refused.
3. There is one writer. It holds a lock next to the log; the error of a second one names it.
4. The log stays within a few times the size of its live records, or `REWRITE_BYTES`.
5. `reader.read` needs no lock and never changes the file.

Steps that wait for the same sync are coalesced. If a sequence has a record that no sync has
reached, its next step is noted in memory, and `Log.commit` writes that record again, in the same
place, with the last position. The room for it is there already, so that a full disk is still found
before anything is acknowledged. (A file system that copies on write may find it at the commit only,
which then fails.) Measured in the application with 64 coalesced steps, without the sync: 0.68 of
the time of a record for each.
"""

import os
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final

from bigfib.state import files, records
from bigfib.state.errors import Locked, Unusable
from bigfib.state.files import System
from bigfib.state.logfile import LogFile
from bigfib.state.positions import Positions
from bigfib.state.reader import require_log_or_nothing
from bigfib.state.records import DAY_BITS
from bigfib.state.recovery import recover, typical_day
from bigfib.state.rewrite import REWRITE_BYTES, Compaction, Rewrite, logging_failure
from bigfib.state.store import LogFacts, OnCommit, ignore_commit

_DAY_SECONDS: Final = 86_400


class Durability(str, Enum):
    """What a committed step survives."""

    FSYNC = "fsync"
    """Power loss: it is on disk (``fdatasync``)."""

    OS = "os"
    """The end of the process, but not that of the operating system."""


class Log(Positions):
    """A state log open for writing.

    Args:
        path: The log's file; its lock is a file next to it, with ``.lock`` appended to the name.
        durability: What a committed step survives.
        owner_url: URL of this service, for the `Locked` error of another writer.
        rewrite_bytes: A log of fewer bytes is not compacted.
        days_kept: A compaction drops sequences last touched more days ago, by the clock at that
            time; None keeps all.
        permanent: The id of a sequence that never expires.
        system: The system calls that change files.
        clock: Returns the seconds since 1970-01-01 (UTC).

    Attributes:
        path: Its file, with links resolved.
        latest: Position and day of each sequence, as `records.pack` joins them. Read-only for
            callers.
        end: The log sequence number (lsn) of the last append. Compaction does not reset it.
        committed: The lsn up to which the log is as durable as asked for.
        records: The number of records.
        on_commit: Called after every sync; without `Durability.FSYNC` there are none.
        rewrites: The number of compactions.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = Durability.FSYNC,
        *,
        owner_url: str = "",
        rewrite_bytes: int = REWRITE_BYTES,
        days_kept: int | None = None,
        permanent: bytes = b"",
        system: System = os,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the log at ``path``, or create it, with its directories; see `recovery`.

        What is then in the log is durable, so that no position is shown that a power loss could
        take back.

        Raises:
            Locked: another process is writing to it.
            Damaged: something that was durable in it is no longer there.
            Unreadable: the disk fails to read it.
            Unusable: there is something else at ``path``, or it may not be written.
        """
        super().__init__(permanent)
        # With links resolved, a compaction replaces the file and not the link.
        self.path = Path(os.path.realpath(path))
        self._syncs = durability is Durability.FSYNC
        self._days_kept = days_kept
        self._system = system
        self._clock = clock
        # Offsets of the records that no sync has reached, and the sequences among them that have
        # been stepped since.
        self._unsynced: dict[bytes, int] = {}
        self._outdated: set[bytes] = set()
        self._changes_since_sync = 0
        self.on_commit: OnCommit = ignore_commit
        self.rewrites = 0
        try:
            # Before anything is created next to a file that is not a log.
            require_log_or_nothing(self.path)
            files.make_directory(system, self.path.parent)
            self._lock = files.lock(self.path, owner_url)
            self._open(path, rewrite_bytes)
        except files.Held as holder:
            raise Locked(path, holder.pid, holder.owner_url) from None
        except OSError as error:
            raise Unusable(path, error) from error

    def _open(self, path: Path, rewrite_bytes: int) -> None:
        try:
            fd, contents = recover(self._system, self.path, path)
        except BaseException:
            os.close(self._lock)
            raise
        self._file = LogFile(self._system, self.path, fd, syncs=self._syncs)
        self._seed = contents.seed
        self.latest = contents.latest
        self.records = contents.records
        self.end = self.committed = self._durable = self._opened_at = contents.end
        # The lsn at offset 0 of the file: compaction moves it.
        self._base = 0
        today = max(self._day_of_clock(), 0)
        self._earliest_day = typical_day(self.latest, self._permanent, today)
        self._set_day()
        self._compaction = Compaction(
            self._system, self.path, self.latest, self._permanent, rewrite_bytes
        )
        if self.end > rewrite_bytes and self._compaction.is_worthwhile(self.records):
            try:
                with logging_failure():
                    self.rewrite()
            except BaseException:
                self._release()
                raise

    @property
    def size(self) -> int:
        """The number of bytes that the log has written to its file."""
        return self.end - self._base

    def log_facts(self) -> LogFacts:
        """Return size, records and compactions; see `Store.log_facts`."""
        return LogFacts(self.size, self.records, self.rewrites)

    def is_lost(self) -> bool:
        """Return False: a log is never out of reach; see `Store.is_lost`."""
        return False

    def check(self) -> None:
        """Return if the log can take changes.

        Raises:
            CommitFailed: it never can again.
        """
        self._file.check()

    def append(self, sequence_id: bytes, position: int | None) -> int:
        """Write the position of the sequence, None to delete it; return the end of the log.

        Raises:
            AppendFailed: a full disk, a quota, a limit or an I/O error; the log is unchanged.
            CommitFailed: an earlier commit failed, or another program has changed the file.
        """
        if self._file.failure:
            raise self._file.failure
        if not self._day_start <= self._clock() < self._day_end:
            self._set_day()
        end = self.end
        if (
            sequence_id in self._unsynced
            and position is not None
            and _size(position) == _size(self.latest[sequence_id] >> DAY_BITS)
        ):
            self.latest[sequence_id] = position << DAY_BITS | self._day
            self._outdated.add(sequence_id)
            self._changes_since_sync += 1
            if self._compaction.running:
                self._compaction.running.touch(sequence_id)
            return end
        offset = end - self._base
        record = records.encode(sequence_id, position, self._stamp, offset, self._seed)
        self._file.append(record, offset)
        self.end = end = end + len(record)
        self.records += 1
        self._outdated.discard(sequence_id)
        if position is None:
            self.latest.pop(sequence_id, None)
            self._unsynced.pop(sequence_id, None)
        else:
            self.latest[sequence_id] = position << DAY_BITS | self._day
            if self._syncs:
                self._unsynced[sequence_id] = offset
        if self._syncs:
            self._changes_since_sync += 1
        else:
            self.committed = end
        if offset >= self._compaction.due_at:
            self._compact_a_little(sequence_id)
        return end

    def commit(self) -> None:
        """Return when all changes are as durable as asked for.

        One sync serves all appends before it, so those that wait together pay for it together.

        Raises:
            CommitFailed: it cannot be made durable, now or at any later call.
        """
        if self.committed == self.end:
            return
        self._file.check()
        began = time.perf_counter()
        self._write_outdated()
        self._file.sync(self.size)
        self.committed = self.end
        self._unsynced.clear()
        self._set_durable(self.size)
        self._report_commit(time.perf_counter() - began)

    def rewrite(self) -> None:
        """Compact the log at once.

        Raises:
            CompactionFailed: it cannot be compacted; it is unchanged.
            CommitFailed: as `commit`.
        """
        if not self._compaction.running:
            self._begin_compaction()
        while self._compaction.running:
            self._compaction.running.wait()
            self._advance_compaction()
        self._file.check()

    def close(self) -> None:
        """Commit what is left, and release the file and the lock.

        Raises:
            CommitFailed: as `commit`.
        """
        try:
            self._compaction.abandon()
            self.commit()
            self._file.check()
            if self.end > self._opened_at:
                # Otherwise another log may have taken its place on purpose, as `store copy` does.
                self._file.require_in_place(self.size)
        finally:
            self._release()

    def _release(self) -> None:
        self._file.close()
        os.close(self._lock)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _day_of_clock(self) -> int:
        return int(self._clock()) // _DAY_SECONDS

    def _set_day(self) -> None:
        """Take the day from the clock; records written from now on have it."""
        # A record written again must keep its length, and so the day that it has.
        self._write_outdated()
        self._unsynced.clear()
        self._today = self._day_of_clock()
        self._day_start = self._today * _DAY_SECONDS
        self._day_end = self._day_start + _DAY_SECONDS
        self._day = min(max(self._today, self._earliest_day), records.MAX_DAY)
        self._set_durable(self._durable)

    def _set_durable(self, offset: int) -> None:
        self._durable = offset
        self._stamp = records.stamp(offset, self._day)

    def _write_outdated(self) -> None:
        """Write the last positions of coalesced steps into their records."""
        if not self._outdated:
            return
        pieces = {}
        for sequence_id in self._outdated:
            offset = self._unsynced[sequence_id]
            position = self.latest[sequence_id] >> DAY_BITS
            pieces[offset] = records.encode(sequence_id, position, self._stamp, offset, self._seed)
        self._file.overwrite(pieces, self.size)
        self._outdated.clear()

    def _report_commit(self, seconds: float | None = None) -> None:
        self.on_commit(seconds, self._changes_since_sync)
        self._changes_since_sync = 0

    def _compact_a_little(self, appended: bytes) -> None:
        with logging_failure():
            if self._compaction.running:
                self._compaction.running.touch(appended)
                self._advance_compaction()
            elif self._compaction.is_worthwhile(self.records):
                self._begin_compaction()

    def _begin_compaction(self) -> None:
        if not self._day_start <= self._clock() < self._day_end:
            self._set_day()
        oldest_day = 0 if self._days_kept is None else self._today - self._days_kept
        self._compaction.begin(self.size, self._day, oldest_day)

    def _advance_compaction(self) -> None:
        rewriting = self._compaction.advance(self.size)
        if rewriting:
            self._switch_to(rewriting)

    def _switch_to(self, new: Rewrite) -> None:
        """Go on in the new file, which has the log's name and every change so far, durably."""
        self._unsynced.clear()
        self._outdated.clear()
        self._seed = new.seed
        self.records = new.records
        self._base = self.end - new.end
        self._file.replace(new.fd)
        self.rewrites += 1
        if self._syncs:
            self._report_commit()
        if not self._file.failure:
            self.committed = self.end
            self._set_durable(new.end)


def _size(position: int) -> int:
    """Return how many bytes of a record a position takes."""
    return (position.bit_length() + 7) >> 3
