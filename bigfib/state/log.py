"""The append-only state log: replay, append, commit, rewrite. Its bytes are drawn in `records`.

What it promises, and `tests/state` show:

1. A step is lost by nothing once `Log.commit` has returned for it: not by ``kill -9``, and with
   `Durability.FSYNC` not by power loss either. A sync that fails is final.
2. A tail that a crash left torn is cut off, with a warning, when the log is next opened for
   writing. Damage to what was once durable is never taken for that: the log is then refused.
3. There is one writer. It holds a lock beside the log; a second one is told who holds it.
4. The log stays within a few times what is still true in it, or `REWRITE_BYTES`.
5. `reader.read` needs no lock and never changes the file.

Those who wait for the same sync share a record, too. Where a sequence has a record that no sync has
reached, the next step is noted in memory, and `Log.commit` writes the record once more, in the same
place, with the position it then has. The room for that is there already, so that a full disk is
still found before anybody is promised anything. (Not where a file system copies what it writes
anew; there it may be found by the commit, which then fails.) Measured in the application, 64 steps
of one sequence at a time and the sync itself left out: 0.68 of the time of a record for each.
"""

import collections
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final

from bigfib.counts import Counter
from bigfib.state import files, records
from bigfib.state.files import System
from bigfib.state.reader import Damaged, LogError, Unusable, inspect, require_log_or_nothing
from bigfib.state.records import DAY_BITS
from bigfib.state.rewrite import Rewrite, new_path
from bigfib.state.store import Commits, Elsewhere, Missing, NoRoom, Present

_logger = logging.getLogger(__name__)

REWRITE_BYTES: Final = 1 << 20
"""A shorter log is not rewritten: its 50 thousand records are read in less than 0.1 s."""

# A longer one is rewritten when it has more than this many records for each sequence: it then
# shrinks to a third, and a step pays for half a record more. With four for each of a million
# sequences, a log took 4.9 s to open.
_RECORDS_FOR_EACH: Final = 3

_DAY_SECONDS: Final = 86_400


class Durability(str, Enum):
    """What a committed step survives."""

    FSYNC = "fsync"
    """Power loss: it is on disk (``fdatasync``)."""

    OS = "os"
    """The end of the process, but not that of the operating system."""


class Locked(LogError):
    """Another process is writing to the log.

    Attributes:
        contact: Where the holder can be reached, as it said when it opened the log, or ``""``.
    """

    def __init__(self, path: Path, holder: files.Held) -> None:
        super().__init__(f"state log {path} is in use by process {holder.pid or 'unknown'}")
        self.contact = holder.contact


class AppendFailed(LogError, NoRoom):
    """The record could not be written (disk full, quota, limit, fault); the log is as before."""


class CompactionFailed(LogError):
    """The log could not be rewritten; it is as before."""


class CommitFailed(LogError):
    """The log could not be made durable. Final: what the disk now holds is unknown.

    A second ``fdatasync`` may succeed although the first one lost the pages, so it is never tried.
    """


class Log:
    """A state log open for writing.

    Attributes:
        path: Its file, where links lead.
        latest: Position and day of each sequence, as `records.pack` joins them. To be read only.
        end: The log sequence number (lsn) of the last append.
        committed: The lsn up to which the durability asked for has been reached.
        records: The number of records.
        commits: What its syncs have come to; without `Durability.FSYNC` there are none.
        rewrites: How often it has been rewritten.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = Durability.FSYNC,
        *,
        contact: str = "",
        rewrite_bytes: int = REWRITE_BYTES,
        days_kept: int | None = None,
        permanent: bytes = b"",
        system: System = os,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the log at ``path``, or create it, with the directories that lead to it.

        A torn tail is cut off, with a warning. What is then in the log is made durable, so that no
        position is shown that a power loss could take back.

        Args:
            path: The log's file; its lock lies beside it, with ``.lock`` behind the name.
            durability: What a committed step survives.
            contact: Where the writer can be reached, for those who find the log locked.
            rewrite_bytes: Not to be rewritten while it has fewer bytes.
            days_kept: Sequences not touched for more days, by the clock at that time, are
                dropped when the log is rewritten; None keeps all.
            permanent: The id of a sequence that is always kept.
            system: How files are changed.
            clock: Seconds since 1970-01-01 (UTC).

        Raises:
            Locked: another process is writing to it.
            Damaged: something that was durable in it is no longer there.
            Unusable: there is something else at ``path``, or it may not be written.
        """
        # Where links lead, so that the renaming of a new log replaces the file and not the link.
        self.path = Path(os.path.realpath(path))
        self._syncs = durability is Durability.FSYNC
        self._rewrite_bytes = self._rewrite_at = rewrite_bytes
        self._days_kept = days_kept
        self._permanent = permanent
        self._system = system
        self._clock = clock
        self._failure: CommitFailed | None = None
        self._rewriting: Rewrite | None = None
        # Offsets of the records that no sync has reached, and of which of them the position has
        # changed since.
        self._unsynced: dict[bytes, int] = {}
        self._outdated: set[bytes] = set()
        # Since the last sync.
        self._changes = 0
        self.commits = Commits()
        self.rewrites = Counter()
        try:
            # First of all, so that nothing is left beside a file that is none of ours.
            require_log_or_nothing(self.path)
            files.make_directory(system, self.path.parent)
            self._lock = files.lock(self.path, contact)
        except files.Held as holder:
            raise Locked(path, holder) from None
        except OSError as error:
            raise Unusable(path, error) from error
        self._fd = -1
        try:
            self._open(path)
        except (OSError, LogError, files.Held) as error:
            self._let_go()
            if isinstance(error, files.Held):
                raise Locked(path, error) from None
            if isinstance(error, OSError):
                raise Unusable(path, error) from error
            raise

    def _open(self, path: Path) -> None:
        """Open the file; ``path`` is what the caller calls it."""
        with contextlib.suppress(FileNotFoundError):
            self._fd = self._system.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            files.set_appending(self._fd, appending=True)
            # The log may have another name too, whose lock beside it is another.
            files.lock_open(self._fd)
        contents = inspect(self.path)
        fault = contents.fault
        if fault and fault.promised is not None:
            raise Damaged(path, fault)
        with contextlib.suppress(FileNotFoundError):
            # Of a rewriting that came to no end.
            self._system.unlink(new_path(self.path))
        if contents.end == 0:
            if fault:
                _logger.warning("state log %s: no whole header; beginning anew", path)
            if self._fd >= 0:
                self._system.close(self._fd)
                self._fd = -1
            self._fd, self._seed = files.create(
                self._system, new_path(self.path), files.access(self.path)
            )
            files.lock_open(self._fd)
            # The header is on disk before the log has its name: no crash leaves half of it.
            self._system.fsync(self._fd)
            self._system.rename(new_path(self.path), self.path)
            end = records.HEADER_SIZE
        else:
            self._seed = contents.seed
            end = contents.end
            if fault:
                _logger.warning(
                    "state log %s is torn: %s; cutting off the last %d bytes",
                    *(path, fault, contents.size - end),
                )
                self._system.ftruncate(self._fd, end)
            self._system.fsync(self._fd)
        files.sync_directory(self._system, self.path.parent)
        self._identity = _identity(os.fstat(self._fd))
        self.latest = contents.latest
        self.records = contents.records
        self.end = self.committed = self._durable = end
        # Lsns go on through a rewriting; offsets in the file begin anew.
        self._base = 0
        self._earliest_day = self._usual_day()
        self._begin_day()
        if end > self._rewrite_at and self._has_more_records_than_needed():
            with _warning():
                self.rewrite()

    @property
    def size(self) -> int:
        """How many bytes its file has."""
        return self.end - self._base

    def position(self, sequence_id: bytes) -> int:
        """Return where the sequence is; one that nobody has stepped is at 0."""
        return self.latest.get(sequence_id, 0) >> DAY_BITS

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None if the log has none of this id."""
        packed = self.latest.get(sequence_id)
        return None if packed is None else packed >> DAY_BITS

    def step(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> int:
        """Append that the sequence has moved by so many terms, and return its position.

        Raises:
            Missing: the log has none of this id.
            Elsewhere: it is not in ``lowest`` .. ``highest``.
            AppendFailed, CommitFailed: as `append`.
        """
        packed = self.latest.get(sequence_id)
        if packed is None:
            raise Missing
        position = packed >> DAY_BITS
        if not lowest <= position <= highest:
            raise Elsewhere(position)
        position += by
        self.append(sequence_id, position)
        return position

    def put(self, sequence_id: bytes, position: int, expected: int | None = None) -> None:
        """Append that the sequence is at ``position``; see `Store.put`.

        Raises:
            AppendFailed, CommitFailed: as `append`.
        """
        self._require(sequence_id, expected)
        self.append(sequence_id, position)

    def create(self, sequence_id: bytes, position: int) -> None:
        """Append a new sequence; see `Store.create`.

        Raises:
            AppendFailed, CommitFailed: as `append`.
        """
        if sequence_id in self.latest:
            raise Present
        self.append(sequence_id, position)

    def delete(self, sequence_id: bytes, expected: int | None = None) -> None:
        """Append that the sequence is no more; see `Store.delete`.

        Raises:
            AppendFailed, CommitFailed: as `append`.
        """
        self._require(sequence_id, expected)
        self.append(sequence_id, None)

    def holds(self, count: int) -> bool:
        """Return whether there are ``count`` sequences at least, not counting the permanent one."""
        return len(self.latest) - (self._permanent in self.latest) >= count

    def is_lost(self) -> bool:
        """Return False: it is at hand; see `Store.is_lost`."""
        return False

    def check(self) -> None:
        """Return if the log can take changes.

        Raises:
            CommitFailed: it cannot, for ever.
        """
        if self._failure:
            raise self._failure

    def _require(self, sequence_id: bytes, expected: int | None) -> None:
        position = self.find(sequence_id)
        if position is None:
            raise Missing
        if expected is not None and position != expected:
            raise Elsewhere(position)

    def append(self, sequence_id: bytes, position: int | None) -> int:
        """Write that the sequence is at ``position``, or is no more, and return the lsn to commit.

        Raises:
            AppendFailed: the disk is full, a quota or limit is reached, or the system cannot
                write; nothing has changed, and a later append may succeed.
            CommitFailed: an earlier commit failed.
        """
        if self._failure:
            raise self._failure
        if not self._day_start <= self._clock() < self._day_end:
            self._begin_day()
        end = self.end
        if (
            sequence_id in self._unsynced
            and position is not None
            and _size(position) == _size(self.latest[sequence_id] >> DAY_BITS)
        ):
            self.latest[sequence_id] = position << DAY_BITS | self._day
            self._outdated.add(sequence_id)
            self._changes += 1
            if self._rewriting:
                self._rewriting.touch(sequence_id)
            return end
        offset = end - self._base
        record = records.encode(sequence_id, position, self._stamp, offset, self._seed)
        length = len(record)
        try:
            if (written := self._system.pwrite(self._fd, record, offset)) < length:
                files.write(self._system, self._fd, record[written:], offset + written)
        except OSError as error:
            # A part of the record would shift the next one, and a whole record that was refused
            # must not come back at the next start. A log that is shorter must not be extended.
            with contextlib.suppress(OSError):
                if files.size(self._fd) > offset:
                    self._system.ftruncate(self._fd, offset)
            self._require_size(files.size(self._fd))
            raise AppendFailed(f"state log {self.path}: {error.strerror}") from error
        if not self._syncs and files.size(self._fd) != offset + length:
            raise self._changed_by_another(files.size(self._fd), offset + length)
        self.end = end = end + length
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
            self._changes += 1
        else:
            self.committed = end
        if offset >= self._rewrite_at:
            self._rewrite_a_little(sequence_id)
        return end

    def commit(self, lsn: int) -> None:
        """Return when everything up to ``lsn`` is as durable as was asked for.

        One sync serves all appends before it, so those who wait together pay for it together.

        Raises:
            CommitFailed: it cannot be; now and at every later call.
        """
        if lsn <= self.committed:
            return
        if self._failure:
            raise self._failure
        began = time.perf_counter()
        self._update_records()
        end = self.end
        try:
            self._system.fdatasync(self._fd)
        except OSError as error:
            raise self._fail(f"{error.strerror} while syncing") from error
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._fail("it has been removed") from error
        if _identity(status) != self._identity:
            raise self._fail("it has been replaced")
        self._require_size(status.st_size)
        self.committed = end
        self._unsynced.clear()
        self._set_durable(end - self._base)
        self.commits.seconds.observe(time.perf_counter() - began)
        self._count_committed()

    def rewrite(self) -> None:
        """Rewrite the log, without stopping until that is done.

        Raises:
            CompactionFailed: it cannot be done.
            CommitFailed: as `commit`.
        """
        if not self._rewriting:
            self._begin_rewriting()
        while self._rewriting:
            self._rewriting.wait()
            self._go_on(self._rewriting)
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Commit what is left, and let go of the file and the lock.

        Raises:
            CommitFailed: as `commit`.
        """
        try:
            if self._rewriting:
                self._rewriting.abandon()
                self._rewriting = None
            self.commit(self.end)
            self.check()
            self._require_size(files.size(self._fd))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            self._system.close(self._fd)
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

    def _begin_day(self) -> None:
        # What is written once more is to have the length that it had, and so the same stamp.
        self._update_records()
        self._unsynced.clear()
        self._today = int(self._clock()) // _DAY_SECONDS
        self._day_start = self._today * _DAY_SECONDS
        self._day_end = self._day_start + _DAY_SECONDS
        self._day = min(max(self._today, self._earliest_day), records.MAX_DAY)
        self._set_durable(self._durable)

    def _usual_day(self) -> int:
        """Return the day before which no record is dated, whatever the clock says.

        Sequences touched under a clock that is behind, such as one that starts in 1970, would be
        old as soon as the clock is set right. The day of the last touch of half the sequences is
        not in doubt, and a few that were touched under a clock ahead do not change it. A log
        without sequences trusts its clock.
        """
        days = collections.Counter(
            packed & records.MAX_DAY
            for sequence_id, packed in self.latest.items()
            if sequence_id != self._permanent
        )
        left = (days.total() + 1) // 2
        for day in sorted(days):
            left -= days[day]
            if left <= 0:
                return day
        return max(int(self._clock()) // _DAY_SECONDS, 0)

    def _update_records(self) -> None:
        """Write the unsynced records whose position has changed once more, in place.

        In a log that another program has truncated, the last one may restore the size. So the bytes
        in front of that one are compared, too: they would then be zeros.
        """
        if not self._outdated:
            return
        last = max(self._outdated, key=self._unsynced.__getitem__)
        before = self._unsynced[last] - records.CHECKSUM_SIZE
        checksum = os.pread(self._fd, records.CHECKSUM_SIZE, before)
        files.set_appending(self._fd, appending=False)
        self._update_record(last)
        if os.pread(self._fd, records.CHECKSUM_SIZE, before) != checksum:
            raise self._changed_by_another(0, self.size)
        self._outdated.remove(last)
        for sequence_id in self._outdated:
            self._update_record(sequence_id)
        files.set_appending(self._fd, appending=True)
        self._outdated.clear()

    def _update_record(self, sequence_id: bytes) -> None:
        offset = self._unsynced[sequence_id]
        position = self.latest[sequence_id] >> DAY_BITS
        record = records.encode(sequence_id, position, self._stamp, offset, self._seed)
        try:
            files.write(self._system, self._fd, record, offset)
        except OSError as error:
            raise self._fail(f"{error.strerror} while writing") from error

    def _set_durable(self, offset: int) -> None:
        self._durable = offset
        self._stamp = records.stamp(offset, self._day)

    def _count_committed(self) -> None:
        if self._changes:
            self.commits.replies.observe(self._changes)
            self._changes = 0

    def _fail(self, what: str) -> CommitFailed:
        self._failure = CommitFailed(
            f"state log {self.path}: {what}; steps since the last sync may be lost, so bigfib "
            "stops here; restart it when that is mended"
        )
        return self._failure

    def _require_size(self, size: int) -> None:
        """Return if ``size`` is how many bytes the log has written.

        Raises:
            CommitFailed: another program has truncated the file, or written to it.
        """
        if size != self.size:
            raise self._changed_by_another(size, self.size)

    def _changed_by_another(self, size: int, expected: int) -> CommitFailed:
        if size > expected:
            return self._fail(
                f"another program has written to it ({size} bytes instead of {expected})"
            )
        self._failure = CommitFailed(
            f"state log {self.path}: another program has truncated it, after {expected} bytes were "
            "written; positions in it are lost, so bigfib stops here; before a restart put a copy "
            "of the file in place, such as the one that logrotate has made with copytruncate, and "
            "exclude the file from rotation"
        )
        return self._failure

    def _has_more_records_than_needed(self) -> bool:
        return self.records > _RECORDS_FOR_EACH * len(self.latest)

    def _rewrite_a_little(self, appended: bytes) -> None:
        if self._rewriting:
            self._rewriting.touch(appended)
            with _warning():
                self._go_on(self._rewriting)
        elif self._has_more_records_than_needed():
            with _warning():
                self._begin_rewriting()

    def _begin_rewriting(self) -> None:
        if not self._day_start <= self._clock() < self._day_end:
            self._begin_day()
        try:
            self._rewriting = Rewrite(
                self._system,
                self.path,
                self.latest,
                access=files.access(self.path),
                today=self._day,
                oldest_day=0 if self._days_kept is None else self._today - self._days_kept,
                permanent=self._permanent,
            )
        except OSError as error:
            raise self._rewrite_later(error) from error

    def _go_on(self, rewriting: Rewrite) -> None:
        try:
            if not rewriting.advance():
                return
            rewriting.finish()
            files.lock_open(rewriting.fd)
            self._system.rename(rewriting.new_path, self.path)
        except OSError as error:
            rewriting.abandon()
            raise self._rewrite_later(error) from error
        # From here on the old file is no more, whatever happens.
        self._rewriting = None
        self._unsynced.clear()
        self._outdated.clear()
        self._system.close(self._fd)
        self._fd, self._seed = rewriting.fd, rewriting.seed
        self._identity = _identity(os.fstat(self._fd))
        if self._syncs:
            # Those who wait for the log are served by this.
            self._count_committed()
        self.rewrites.add()
        self.records = rewriting.records
        self._base = self.end - rewriting.end
        self._rewrite_at = max(self._rewrite_bytes, 2 * rewriting.end)
        try:
            files.sync_directory(self._system, self.path.parent)
        except OSError as error:
            self._fail(f"{error.strerror} while syncing its directory")
        else:
            self.committed = self.end
            self._set_durable(rewriting.end)

    def _rewrite_later(self, error: OSError) -> CompactionFailed:
        self._rewriting = None
        self._rewrite_at = 2 * (self.end - self._base)
        return CompactionFailed(
            f"state log {self.path} cannot be rewritten now: {error.strerror}; it is as before; "
            "its directory must have room and be writable, and the log must be no mount point"
        )


@contextlib.contextmanager
def _warning() -> Iterator[None]:
    """Log a warning if the log could not be rewritten; that is tried again later."""
    try:
        yield
    except CompactionFailed as error:
        _logger.warning("%s", error)


def _size(position: int) -> int:
    """Return how many bytes of a record a position takes."""
    return (position.bit_length() + 7) >> 3


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
