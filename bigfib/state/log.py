"""The append-only state log: open, note changes, commit, close. `records` describes its bytes.

Its promises, which `tests/state` check:

1. An acknowledged step is never lost: once `Log.commit` has returned for it, it survives
   ``kill -9``, and with `Durability.FSYNC` power loss, too. A failed sync is final.
2. A tail torn by a crash is cut off, with a warning, when the log is next opened for writing.
   Damage to what the floor or a later record proves durable is never taken for a torn tail: the
   log is then refused.
3. There is one writer. It holds a lock next to the log; the error of a second one names the first.
4. The log stays within a few times the size of its live records, or `REWRITE_BYTES`.
5. `reader.read` needs no lock and never changes the file.

Changes wait in memory, those of a sequence coalesced to one, until `Log.commit` writes them in one
piece at the end of the file and syncs it. No byte of the file is written twice. Room for waiting
changes is reserved in advance, so that a full disk is found while a change can still be refused.
Where the file system cannot reserve room (NFS before 4.2, ZFS), or no longer can, each change is
written at once, and only the sync waits. (A file system that copies on write may report a full disk
only at the commit, which then fails.)
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Final

from bigfib.state import files, records
from bigfib.state.compaction import REWRITE_BYTES, Compaction, logging_failure
from bigfib.state.errors import Locked, Unusable
from bigfib.state.files import System
from bigfib.state.floor import FloorFile
from bigfib.state.logfile import LogFile
from bigfib.state.opening import open_file, typical_day
from bigfib.state.packed import MAX_DAY, changed, pack, version_of
from bigfib.state.positions import Positions
from bigfib.state.reader import require_log_or_nothing
from bigfib.state.scrub import INTERVAL, Scrub
from bigfib.state.store import LogFacts, OnCommit, ignore_commit

_DAY_SECONDS: Final = 86_400

# Slices that a compaction because of damage writes at a time: a million sequences take 25 s.
_SLICES: Final = 20

# Seconds without a change after which the floor is synced.
_IDLE: Final = 1.0

# More than a record takes besides the bytes of its id and position.
_RECORD_BYTES: Final = 64


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
        latest: As in `Positions`.
        changes: The number of changes made.
        committed: How many of them are as durable as asked for.
        records: The number of records.
        on_commit: Called after every sync; without `Durability.FSYNC` there are none.
        compactions: The number of compactions.
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
        """Open the log at ``path``, or create it, with its directories; see `opening`.

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
        # The changes since the last commit: as in `latest`, None if deleted.
        self._waiting: dict[bytes, int | None] = {}
        self.changes = self.committed = self.compactions = 0
        self.on_commit: OnCommit = ignore_commit
        try:
            # Check this first: nothing may be created next to a file that is not a log.
            require_log_or_nothing(self.path)
            files.make_directory(system, self.path.parent)
            with contextlib.ExitStack() as opened:
                opened.callback(os.close, files.lock(self.path, owner_url))
                self._open(path, rewrite_bytes, opened)
                self._release = opened.pop_all().close
        except files.Held as holder:
            raise Locked(path, holder.pid, holder.owner_url) from None
        except OSError as error:
            raise Unusable(path, error) from error

    def _open(self, path: Path, rewrite_bytes: int, opened: contextlib.ExitStack) -> None:
        fd, contents = open_file(self._system, self.path, path)
        assert contents.header  # noqa: S101 - every log that is opened has one
        self._header = contents.header
        self._file = LogFile(self._system, self.path, fd, contents.end, is_old=self._header.is_old)
        opened.callback(self._file.close)
        self._floor = FloorFile(self._system, self.path, files.access(self.path))
        opened.callback(self._floor.close)
        self._scrub = Scrub(self.path)
        opened.callback(self._scrub.close)
        self._scrub.follow(fd)
        self.latest = contents.latest
        self.records = contents.records
        self._durable = contents.end
        self._tend_at = self._idle_at = 0.0
        self._tended = -1
        self._floor.write(self._header.seed, contents.end, contents.end)
        self._room = 0
        today = max(self._day_of_clock(), 0)
        self._earliest_day = typical_day(self.latest, self._permanent, today)
        self._set_day()
        self._compaction = Compaction(
            self._system, self.path, self.latest, self._permanent, rewrite_bytes
        )
        if self.size > rewrite_bytes and self._compaction.is_worthwhile(self.records):
            with logging_failure():
                self.compact()

    @property
    def size(self) -> int:
        """The number of bytes that the log has written to its file."""
        return self._file.size

    def log_facts(self) -> LogFacts:
        """Return the sizes and counts of the log; see `Store.log_facts`."""
        scrub = self._scrub
        return LogFacts(self.size, self.records, self.compactions, scrub.checks, scrub.faults)

    def is_lost(self) -> bool:
        """Return False: a log is never out of reach; see `Store.is_lost`."""
        return False

    def check(self) -> None:
        """Check that the log can take changes.

        Raises:
            CommitFailed: it cannot, and never can again.
        """
        self._file.check()

    def version(self, sequence_id: bytes) -> int | None:
        """Return the version, None in a log of the old format, which has none."""
        return None if self._header.is_old else version_of(self.latest.get(sequence_id, 0))

    def note(self, sequence_id: bytes, position: int | None, version: int = 0) -> None:
        """Note position and version of the sequence for the next commit; see `Positions.note`.

        Raises:
            AppendFailed: a full disk, a quota, a limit or an I/O error; the log is unchanged.
            CommitFailed: an earlier commit failed, or another program has changed the file.
        """
        file = self._file
        if file.failure:
            raise file.failure
        if not self._day_start <= self._clock() < self._day_end:
            self._set_day()
        packed = None
        if position is not None:
            if version:
                packed = pack(position, version, self._day)
            else:
                packed = changed(self.latest.get(sequence_id, 0), position, self._day)
        if file.coalesces:
            if not self._waiting:
                self._room = file.room()
            self._room -= _bound(sequence_id, packed)
            if self._room < 0:
                self._make_room(sequence_id, packed)
        if not file.coalesces:
            (record,) = self._encode([(sequence_id, packed)])
            file.append_or_refuse(record)
            self.records += 1
        self._waiting[sequence_id] = packed
        if packed is None:
            self.latest.pop(sequence_id, None)
        else:
            self.latest[sequence_id] = packed
        self.changes += 1

    def commit(self) -> None:
        """Make all changes as durable as asked for.

        All changes since the last commit share one write and one sync.

        Raises:
            CommitFailed: they cannot be made durable, now or at any later call.
        """
        if not self._waiting:
            return
        file = self._file
        file.check()
        began = time.perf_counter()
        if file.coalesces:
            self._append_waiting()
        if self._syncs:
            file.sync()
            self._durable = file.size
        else:
            file.require_size()
        self._floor.write(self._header.seed, self._durable, file.size)
        if self._syncs:
            self.on_commit(time.perf_counter() - began, self.changes - self.committed)
        self.committed = self.changes
        if self._compaction.running:
            self._compaction.running.touch(self._waiting)
        self._waiting.clear()
        if file.size >= self._compaction.due_at:
            self._compact_a_little()

    def tend(self, now: float) -> None:
        """Sync the floor of an idle log; check a piece of the file; compact the log if damaged.

        See `Store.tend`.

        Raises:
            CommitFailed: another program has changed the file.
        """
        if now < self._tend_at or self._file.failure:
            return
        self._tend_at = now + INTERVAL
        self._file.require_size()
        if self.changes != self._tended:
            self._tended = self.changes
            self._idle_at = now + _IDLE
        elif now >= self._idle_at:
            # If this fails, an older floor stays on disk, which is still true.
            with contextlib.suppress(OSError):
                self._floor.sync()
        with logging_failure():
            if self._scrub.fault and self._compaction.running:
                for _ in range(_SLICES):
                    self._advance_compaction()
            elif self._scrub.advance(now) and not self._compaction.running:
                self._begin_compaction()

    def compact(self) -> None:
        """Compact the log at once.

        Raises:
            CompactionFailed: it cannot be compacted; it is unchanged.
            CommitFailed: as `commit`.
        """
        self.commit()
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
            self.commit()
            self._file.check()
            if self.changes:
                # Otherwise another log may have taken its place on purpose, as `store copy` does.
                self._file.require_in_place()
            with contextlib.suppress(OSError):
                self._floor.sync()
        finally:
            self._compaction.abandon()
            self._release()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _day_of_clock(self) -> int:
        return int(self._clock()) // _DAY_SECONDS

    def _set_day(self) -> None:
        """Take the day from the clock; changes from now on have it."""
        self._today = self._day_of_clock()
        self._day_start = self._today * _DAY_SECONDS
        self._day_end = self._day_start + _DAY_SECONDS
        self._day = min(max(self._today, self._earliest_day), MAX_DAY)

    def _make_room(self, sequence_id: bytes, packed: int | None) -> None:
        """Reserve room for the waiting changes and this one, which may replace one of them.

        If the file system can no longer reserve room, write the waiting changes.

        Raises:
            AppendFailed: there is no room.
            CommitFailed: the waiting changes cannot be written.
        """
        needed = sum(
            _bound(name, change) for name, change in self._waiting.items() if name != sequence_id
        ) + _bound(sequence_id, packed)
        if needed > self._file.room():
            self._file.reserve(needed)
            if self._waiting and not self._file.coalesces:
                # From now on changes do not wait, and `commit` writes none.
                self._append_waiting()
        self._room = self._file.room() - needed

    def _append_waiting(self) -> None:
        """Write the records of all waiting changes, for which room is reserved."""
        pieces = self._encode(self._waiting.items())
        self._file.append(b"".join(pieces))
        self.records += len(pieces)

    def _encode(self, changes: Iterable[tuple[bytes, int | None]]) -> list[bytes]:
        """Return the records of these changes, to follow at the end of the file."""
        return records.encode_changes(
            changes,
            durable=self._durable,
            today=self._day,
            at=self._file.size,
            seed=self._header.seed,
            is_old=self._header.is_old,
        )

    def _compact_a_little(self) -> None:
        with logging_failure():
            if self._compaction.running:
                self._advance_compaction()
            elif self._compaction.is_worthwhile(self.records):
                self._begin_compaction()

    def _begin_compaction(self) -> None:
        if not self._day_start <= self._clock() < self._day_end:
            self._set_day()
        oldest_day = 0 if self._days_kept is None else self._today - self._days_kept
        self._compaction.begin(self.size, self._header.seed, self._day, oldest_day)

    def _advance_compaction(self) -> None:
        new = self._compaction.advance(self.size)
        if not new:
            return
        # The new file has the log's name and, durably, every change: none waits after a commit.
        self._header = new.header
        self.records = new.records
        self._durable = new.end
        self.compactions += 1
        self._scrub.follow(new.fd)
        self._file.replace(new.fd, new.end, self._move_floor)

    def _move_floor(self) -> None:
        # Sync it: the log that the next compaction makes names this one as the log that it
        # replaces, and would be refused next to the floor of an earlier one.
        self._floor.write(self._header.seed, self._durable, self._file.size)
        self._floor.sync()


def _bound(sequence_id: bytes, packed: int | None) -> int:
    """Return an upper bound of the size of a change's record, at little cost."""
    return _RECORD_BYTES + len(sequence_id) + ((packed or 0).bit_length() >> 3)
