"""The append-only state log: lock, replay, append, commit. Its bytes are drawn in `records`.

What it promises:

* A step is lost by nothing once `Log.commit` has returned for it: not by ``kill -9``, and with
  `Durability.FSYNC` not by power loss either.
* A tail that a crash left torn is cut off, with a warning, when the log is next opened for writing.
* There is one writer. It holds a lock beside the log; a second one is told who holds it.
* `Reader` and `read` need no lock and never change the file.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

from bigfib.state import records
from bigfib.state.records import Record

_logger = logging.getLogger(__name__)

# Replay reads this much at a time: enough that the joins of two pieces do not count.
_PIECE: Final = 1 << 20


class Durability(str, Enum):
    """What a committed step survives."""

    FSYNC = "fsync"
    """Power loss: it is on disk (``fdatasync``)."""

    OS = "os"
    """The end of the process, but not that of the operating system."""


class LogError(Exception):
    """The state log cannot be used as asked; the message names the file and what to do."""


class Unusable(LogError):
    """The path is not a log that this program can open."""


class Locked(LogError):
    """Another process is writing to the log.

    Attributes:
        contact: Where the holder can be reached, as it said when it opened the log, or ``""``.
    """

    def __init__(self, path: Path, pid: str, contact: str) -> None:
        super().__init__(f"state log {path} is in use by process {pid or 'unknown'}")
        self.contact = contact


class AppendFailed(LogError):
    """The record could not be written (disk full, quota, limit, fault); the log is as before."""


class SyncFailed(LogError):
    """The log could not be made durable. Final: what the disk now holds is unknown.

    A second ``fdatasync`` may succeed although the first one lost the pages, so it is never tried.
    """


class Reader:
    """Iterates over a log's records as ``(offset, record)``, up to the first that is none.

    Attributes:
        seed: Where the checksums of this log start from.
        end: Offset after the last good record so far.
        fault: What was found at ``end``, once the iteration is over; empty at a clean end.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Raises:
            NotALog, UnknownVersion, Incomplete: as `records.decode_header`.
        """
        self._file = file
        file.seek(0)
        self.seed = records.decode_header(file.read(records.HEADER_SIZE))
        self.end = records.HEADER_SIZE
        self.fault = ""

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        piece, at = b"", 0
        while True:
            try:
                record, after = records.decode(piece, at, self.end, self.seed)
            except records.Incomplete as error:
                # Twice the length each time, so that a record of any size is read in linear time.
                more = self._file.read(max(_PIECE, len(piece)))
                if not more:
                    self.fault = str(error) if at < len(piece) else ""
                    return
                piece, at = piece[at:] + more, 0
                continue
            except records.BadRecord as error:
                self.fault = str(error)
                return
            offset = self.end
            self.end += after - at
            at = after
            yield offset, record


@dataclass(frozen=True)
class Contents:
    """What a log says.

    Attributes:
        positions: The position of every sequence, by its id.
        records: The number of records.
        end: Bytes of header and good records; the offset of the fault, if there is one.
        size: Bytes of the file.
        fault: What was found at ``end``; empty where the log ends cleanly.
    """

    positions: dict[bytes, int]
    records: int
    end: int
    size: int
    fault: str


def read(path: Path) -> Contents:
    """Return what the log at ``path`` says, without a lock. A log that is not there is empty.

    Raises:
        Unusable: there is something else at ``path``, or it may not be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return _replay(path, file)[0]
    except FileNotFoundError:
        return Contents({}, 0, 0, 0, "")
    except OSError as error:
        raise _unusable(path, error) from error


class Log:
    """A state log open for writing.

    Attributes:
        positions: The position of every sequence, by its id. To be read, and changed by `append`.
        end: Offset after the last record; the log sequence number (lsn) of the last append.
        committed: The lsn up to which the durability asked for has been reached.
        records: The number of records.
    """

    def __init__(
        self, path: Path, durability: Durability = Durability.FSYNC, contact: str = ""
    ) -> None:
        """Open the log at ``path``, or create it, with the directories that lead to it.

        A torn tail is cut off, with a warning. What is then in the log is made durable, so that no
        position is shown that a power loss could take back.

        Args:
            path: The log's file; its lock lies beside it, with ``.lock`` behind the name.
            durability: What a committed step survives.
            contact: Where the writer can be reached, for those who find the log locked.

        Raises:
            Locked: another process is writing to it.
            Unusable: there is something else at ``path``, or it may not be written.
        """
        # Where links lead, so that the renaming of a new log replaces the file and not the link.
        self.path = Path(os.path.realpath(path))
        self._syncs = durability is Durability.FSYNC
        self._failure: SyncFailed | None = None
        with contextlib.ExitStack() as opened:
            try:
                # First of all, so that nothing is left beside a file that is none of ours.
                _has_header(self.path)
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = _lock(self.path, contact)
                opened.callback(os.close, lock)
                if _has_header(self.path):
                    self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
                else:
                    if self.path.exists():
                        _logger.warning("state log %s: no whole header; beginning anew", path)
                    self._fd = _create(self.path)
                opened.callback(os.close, self._fd)
                with open(self._fd, "rb", buffering=0, closefd=False) as file:
                    contents, self._seed = _replay(self.path, file)
                if contents.end < contents.size:
                    _logger.warning(
                        "state log %s: torn at offset %d (%s); cutting off the last %d bytes",
                        *(path, contents.end, contents.fault, contents.size - contents.end),
                    )
                    os.ftruncate(self._fd, contents.end)
                os.fsync(self._fd)
            except OSError as error:
                raise _unusable(path, error) from error
            self._closing = opened.pop_all()
        self.positions = contents.positions
        self.records = contents.records
        self.end = self.committed = self._durable = contents.end

    def append(self, sequence_id: bytes, position: int) -> int:
        """Write that the sequence is at ``position``, and return the lsn to commit.

        Raises:
            AppendFailed: the disk is full, a quota or limit is reached, or the system cannot
                write; nothing has changed, and a later append may succeed.
            SyncFailed: an earlier commit failed.
        """
        if self._failure:
            raise self._failure
        record = records.encode(sequence_id, position, self._durable, self.end, self._seed)
        try:
            written = os.pwrite(self._fd, record, self.end)
            while written < len(record):
                written += os.pwrite(self._fd, record[written:], self.end + written)
        except OSError as error:
            # What was written would be overwritten by the next append anyway; but a whole record
            # that nobody was told of must not come back at the next start.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.end)
            raise AppendFailed(f"state log {self.path}: {error.strerror}") from error
        self.end += len(record)
        self.records += 1
        self.positions[sequence_id] = position
        if not self._syncs:
            self.committed = self.end
        return self.end

    def commit(self, lsn: int) -> None:
        """Return when everything up to ``lsn`` is as durable as was asked for.

        One sync serves all appends before it, so those who wait together pay for it together.

        Raises:
            SyncFailed: the disk could not; now and at every later call.
        """
        if lsn <= self.committed:
            return
        if self._failure:
            raise self._failure
        end = self.end
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._failure = SyncFailed(
                f"state log {self.path}: {error.strerror} while syncing; steps since the last "
                "sync may be lost, so bigfib stops here; restart it when the disk is well"
            )
            raise self._failure from error
        self._durable = self.committed = end

    def close(self) -> None:
        """Commit what is left, and let go of the file and the lock.

        Raises:
            SyncFailed: as `commit`.
        """
        with self._closing:
            self.commit(self.end)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _has_header(path: Path) -> bool:
    """Return whether there is a log at ``path``; a header that is cut off is none.

    Raises:
        Unusable: there is something else.
        OSError: it cannot be read or written.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            records.decode_header(file.read(records.HEADER_SIZE))
    except (FileNotFoundError, records.Incomplete):
        return False
    except (records.NotALog, records.UnknownVersion) as error:
        raise _unusable(path, error) from error
    return True


def _lock(path: Path, contact: str) -> int:
    """Return the descriptor of the lock file beside ``path``, locked, with pid and contact in it.

    The lock goes with the descriptor, so a process that is killed leaves none behind.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, contact = os.pread(lock, 1000, 0).decode().partition("\n")
        os.close(lock)
        raise Locked(path, pid, contact.strip()) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n{contact}\n".encode(), 0)
    return lock


def _create(path: Path) -> int:
    """Create an empty log at ``path`` and return its descriptor."""
    # The header is on disk before the log has its name: no crash leaves half of it.
    unnamed = path.with_name(path.name + ".new")
    # Ids of sequences are secrets between a client and the service, hence the mode.
    fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(fd, records.encode_header(os.urandom(records.SALT_SIZE)))
    os.fsync(fd)
    unnamed.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    return fd


def _replay(path: Path, file: BinaryIO) -> tuple[Contents, int]:
    """Return what the log in ``file`` says, and its seed."""
    try:
        reader = Reader(file)
    except records.Incomplete as error:
        size = os.fstat(file.fileno()).st_size
        return Contents({}, 0, 0, size, str(error) if size else ""), 0
    except (records.NotALog, records.UnknownVersion) as error:
        raise _unusable(path, error) from error
    positions = {}
    count = 0
    for _, record in reader:
        positions[record.sequence_id] = record.position
        count += 1
    size = max(reader.end, os.fstat(file.fileno()).st_size)
    return Contents(positions, count, reader.end, size, reader.fault), reader.seed


def _unusable(path: Path, error: Exception) -> Unusable:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Unusable(f"cannot use {path} as state log: {reason}; name another file with --file")
