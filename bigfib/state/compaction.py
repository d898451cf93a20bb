"""Compact a state log: write its live records to a new file, while appends go on.

`CompactedFile` makes the new file in slices, so that a commit writes one and `Log.tend` several:

1. Write the position of every sequence to a new file next to the log, slice by slice.
2. Sync the new file in a thread, because that may take long.
3. Write and sync the changes made meanwhile, and rename the new file to the log's name.

Until the rename, the log is the old file. A crash leaves the old file or the new one, whole.
`log.Log` decides when to compact, by means of `Compaction`; a backup and a repair make the new file
at once.
"""

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NoReturn

from bigfib.state import files, header, records
from bigfib.state.errors import CompactionFailed
from bigfib.state.files import System
from bigfib.state.packed import MAX_DAY

_logger = logging.getLogger(__name__)

REWRITE_BYTES: Final = 1 << 20
"""A shorter log is not compacted: its 50 thousand records are read in less than 0.1 s."""

# A longer log is compacted when it has more records than this for each sequence. It then shrinks to
# a third, so that compaction writes half a record for each step. With four records for each of a
# million sequences, a log took 4.9 s to open.
_RECORDS_PER_SEQUENCE: Final = 3

# Sequences in a slice: writing this many takes about as long as one sync.
_SLICE: Final = 500


def new_path(path: Path) -> Path:
    """Return the path of the new file for the log at ``path``, before it is renamed."""
    return path.with_name(path.name + ".new")


class CompactedFile:
    """The new file of a log that is being compacted.

    Attributes:
        new_path: Its path until it is finished.
        fd: Its descriptor.
        header: Its header.
        end: The number of bytes in it.
        records: The number of records in it.
    """

    def __init__(
        self,
        system: System,
        path: Path,
        latest: dict[bytes, int],
        *,
        previous: int,
        access: files.Access,
        today: int,
        oldest_day: int,
        permanent: bytes,
    ) -> None:
        """Create the new file.

        Args:
            system: The system calls that change files.
            path: The log to replace.
            latest: Each sequence, packed. Callers report every change with `touch`; this object
                removes expired sequences.
            previous: The seed of the log to replace.
            access: Owner, group and mode of the new file.
            today: The current day.
            oldest_day: Sequences last touched before this day expire.
            permanent: The id of a sequence that never expires.

        Raises:
            OSError: the new file cannot be created.
        """
        self._system = system
        self._path = path
        self.new_path = new_path(path)
        self._latest = latest
        self._today = today
        self._oldest_day = oldest_day
        self._permanent = permanent
        self._remaining = iter(list(latest))
        self._touched: set[bytes] = set()
        self._expired: dict[bytes, int] = {}
        self._durable = header.SIZE
        self._sync: threading.Thread | None = None
        self._sync_error: OSError | None = None
        self.fd, self.header = files.create(system, self.new_path, access, previous)
        self.end = header.SIZE
        self.records = 0

    def touch(self, sequence_ids: Iterable[bytes]) -> None:
        """Note that these sequences have changed since the new file was created."""
        self._touched.update(sequence_ids)

    def advance(self) -> bool:
        """Write the next slice, or start or poll the sync; return whether only `finish` is left.

        Raises:
            OSError: the new file cannot be written or synced.
        """
        if self._sync is None:
            ids = list(islice(self._remaining, _SLICE))
            if ids:
                self._write(ids)
                return False
            self._sync = threading.Thread(target=self._sync_new_file, daemon=True)
            self._sync.start()
        if self._sync.is_alive():
            return False
        if self._sync_error:
            raise self._sync_error
        return True

    def finish(self) -> None:
        """Write the touched sequences, make the file durable, and rename it to the log's name.

        Raises:
            OSError: as `advance`, or the file cannot be renamed.
        """
        self._durable = self.end
        self._write(self._touched)
        self._system.fdatasync(self.fd)
        files.lock_open(self.fd)
        self._system.rename(self.new_path, self._path)

    def wait(self) -> None:
        """Wait for the sync, if one is under way."""
        if self._sync:
            self._sync.join()

    def abandon(self) -> None:
        """Remove the new file, and restore the expired sequences."""
        self.wait()
        for sequence_id, packed in self._expired.items():
            if sequence_id not in self._touched:
                self._latest[sequence_id] = packed
        with contextlib.suppress(OSError):
            self._system.close(self.fd)
            self._system.unlink(self.new_path)

    def _write(self, ids: Iterable[bytes]) -> None:
        """Write the positions of these sequences, in one piece."""
        pieces = records.encode_changes(
            self._changes(ids),
            durable=self._durable,
            today=self._today,
            at=self.end,
            seed=self.header.seed,
        )
        piece = b"".join(pieces)
        files.write(self._system, self.fd, piece, self.end)
        self.end += len(piece)
        self.records += len(pieces)

    def _changes(self, ids: Iterable[bytes]) -> Iterator[tuple[bytes, int | None]]:
        """Yield the current state of these sequences as changes; remove the expired ones."""
        for sequence_id in ids:
            # A deleted sequence gives None: it may be in the new file already.
            packed = self._latest.get(sequence_id)
            if (
                packed is None
                or packed & MAX_DAY >= self._oldest_day
                or sequence_id == self._permanent
            ):
                yield sequence_id, packed
            else:
                self._expired[sequence_id] = self._latest.pop(sequence_id)

    def _sync_new_file(self) -> None:
        try:
            self._system.fdatasync(self.fd)
        except OSError as error:
            self._sync_error = error


class Compaction:
    """Find out whether a compaction is due, and advance it.

    Attributes:
        due_at: The size from which the log is compacted, if that is worthwhile.
        running: The new file of the compaction under way, or None.
    """

    def __init__(
        self, system: System, path: Path, latest: dict[bytes, int], permanent: bytes, least: int
    ) -> None:
        """Plan the compaction of a log.

        Args:
            system: The system calls that change files.
            path: The log.
            latest: Each sequence, packed.
            permanent: The id of the sequence that never expires.
            least: A log of fewer bytes is not compacted.
        """
        self._system = system
        self._path = path
        self._latest = latest
        self._permanent = permanent
        self._least = self.due_at = least
        self.running: CompactedFile | None = None

    def is_worthwhile(self, count: int) -> bool:
        """Return whether the log would shrink enough, with ``count`` records now."""
        return count > _RECORDS_PER_SEQUENCE * len(self._latest)

    def begin(self, size: int, previous: int, today: int, oldest_day: int) -> None:
        """Begin to compact the log of ``size`` bytes; other arguments as for `CompactedFile`.

        Raises:
            CompactionFailed: the new file cannot be created; retried when the log has doubled.
        """
        try:
            self.running = CompactedFile(
                self._system,
                self._path,
                self._latest,
                previous=previous,
                access=files.access(self._path),
                today=today,
                oldest_day=oldest_day,
                permanent=self._permanent,
            )
        except OSError as error:
            self._fail(size, error)

    def advance(self, size: int) -> CompactedFile | None:
        """Do the next part, and return the new file once it has the log's name.

        Raises:
            CompactionFailed: the new file cannot be written; retried when the log has doubled.
        """
        new = self.running
        if not new:
            return None
        try:
            if not new.advance():
                return None
            new.finish()
        except OSError as error:
            self.abandon()
            self._fail(size, error)
        self.running = None
        self.due_at = max(self._least, 2 * new.end)
        _logger.debug("state log %s is compacted: bytes %d now", self._path, new.end)
        return new

    def abandon(self) -> None:
        """Stop, and remove the new file."""
        if self.running:
            self.running.abandon()
            self.running = None

    def _fail(self, size: int, error: OSError) -> NoReturn:
        self.due_at = 2 * size
        raise CompactionFailed(
            f"state log {self._path} cannot be compacted now: {error.strerror}; it is unchanged; "
            "its directory must have room and be writable, and the log must not be a mount point"
        ) from error


@contextlib.contextmanager
def logging_failure() -> Iterator[None]:
    """Log a warning if a compaction fails; it is retried later."""
    try:
        yield
    except CompactionFailed as error:
        _logger.warning("%s", error)
