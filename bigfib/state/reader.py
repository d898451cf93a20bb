"""Read a state log: its records, the positions they add up to, and its first fault.

A fault is a place where the file goes on without a valid record. It may be a torn tail: writes that
a crash cut short, which were never acknowledged. It is damage if a later record proves that its
range was synced: each record carries the offset up to which the log was durable when the record was
written.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from bigfib.state import files, records
from bigfib.state.errors import Damaged, Unreadable, Unusable
from bigfib.state.records import Record

# Bytes read at a time: enough that the records across two pieces cost nothing noticeable.
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Fault:
    """A place in a log where there should be a record.

    Attributes:
        offset: Its offset.
        found: What is there instead.
        promised: Offset of a later record that proves this range was synced; None if there is none.
    """

    offset: int
    found: str
    promised: int | None

    def __str__(self) -> str:
        text = f"at offset {self.offset} there is {self.found}"
        if self.promised is not None:
            text += f", where the record at offset {self.promised} was written after a sync"
        return text


class Reader:
    """Reads the records of a log, in order, up to the first fault.

    Attributes:
        seed: The seed of this log's checksums.
        end: Offset after the last record read.
        fault: The fault that ended the reading; None at a clean end.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Read the header.

        Raises:
            NotALog, UnknownVersion, Incomplete: as `records.decode_header`.
        """
        self._file = file
        self.seed = records.decode_header(read_at(file, 0, records.HEADER_SIZE))
        self.end = records.HEADER_SIZE
        self.fault: Fault | None = None
        self._piece = b""
        self._at = 0

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        """Yield each record with its offset."""
        while True:
            offset = self.end
            record = self._next()
            if record is None:
                return
            yield offset, record

    def replay(self, latest: dict[bytes, int]) -> int:
        """Apply all records to ``latest``, and return their number.

        Args:
            latest: Position and day of each sequence, as `records.pack` joins them.
        """
        count = 0
        while True:
            at, applied = records.replay(self._piece, self._at, self.end, self.seed, latest)
            self.end += at - self._at
            self._at = at
            record = self._next()
            if record is None:
                return count + applied
            count += applied + 1
            if record.position is None:
                latest.pop(record.sequence_id, None)
            else:
                latest[record.sequence_id] = records.pack(record.position, record.day)

    def _next(self) -> Record | None:
        while True:
            try:
                record, after = records.decode(self._piece, self._at, self.end, self.seed)
            except records.Incomplete as error:
                if self._read_on():
                    continue
                if self._at < len(self._piece):
                    self._find_promise(str(error))
                return None
            except records.BadRecord as error:
                self._find_promise(str(error))
                return None
            self.end += after - self._at
            self._at = after
            return record

    def _read_on(self) -> bool:
        """Read on from the end of the last record, and return whether that gave more bytes."""
        known = len(self._piece) - self._at
        size = _PIECE
        if known >= _PIECE:
            size = _long_record(self._file, self._piece[self._at :], self.end, self.seed)
        if size > known:
            self._piece, self._at = read_at(self._file, self.end, size), 0
        return len(self._piece) - self._at > known

    def _find_promise(self, found: str) -> None:
        promised = None
        for offset, record, _ in search(self._file, self.end, self.seed):
            if record.durable > self.end:
                promised = offset
                break
        self.fault = Fault(self.end, found, promised)


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return the ``size`` bytes at ``offset``, fewer only where the file ends.

    Raises:
        Unreadable: the disk fails to read them.
    """
    try:
        file.seek(offset)
        data = file.read(size)
        # A read ends early before a bad sector, as it does at the end of the file.
        while data and len(data) < size and (more := file.read(size - len(data))):
            data += more
    except OSError as error:
        raise Unreadable(Path(os.fsdecode(file.name)), error) from error
    return data


def search(file: BinaryIO, at: int, seed: int) -> Iterator[tuple[int, Record, int]]:
    """Find the valid records from offset ``at`` on, skipping damaged bytes.

    Only one piece of the file is held in memory at a time.

    Yields:
        Offset of the record, the record, offset after it.
    """
    while True:
        piece = read_at(file, at, _PIECE)
        more = len(piece) == _PIECE
        found = records.search(piece, at, seed, more=more)
        while True:
            try:
                start, record, after = next(found)
            except StopIteration as end:
                searched = end.value
                break
            yield at + start, record, at + after
        if not more:
            return
        if searched == 0:
            searched = _long_record(file, piece, at, seed)
            if searched:
                record, _ = records.decode(read_at(file, at, searched), 0, at, seed)
                yield at, record, at + searched
        at += searched or 1
        if not piece.rstrip(b"\0"):
            try:
                # Skip a hole in the file: no record begins with a zero.
                at = file.seek(at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # The hole reaches the end of the file.


def _long_record(file: BinaryIO, piece: bytes, at: int, seed: int) -> int:
    """Return the size of the record at ``at``, longer than ``piece``; 0 if there is none.

    The checksum is computed piece by piece, before the record is read into memory: a wrong length
    must not cost memory.
    """
    try:
        size = records.size(piece, 0)
    except records.BadRecord:
        return 0
    if at + size > file.seek(0, os.SEEK_END):
        return 0
    end = at + size - records.CHECKSUM_SIZE
    checksum = seed + at
    for offset in range(at, end, _PIECE):
        checksum = crc32(read_at(file, offset, min(_PIECE, end - offset)), checksum)
    written = int.from_bytes(read_at(file, end, records.CHECKSUM_SIZE), "little")
    return size if checksum == written else 0


@dataclass(frozen=True)
class Contents:
    """What the records of a log add up to.

    Attributes:
        seed: The seed of its checksums.
        latest: Position and day of each sequence, as `records.pack` joins them.
        records: The number of records.
        end: Offset after the last record before a fault.
        size: Size of the file.
        fault: The fault at ``end``; None if the file ends there.
    """

    seed: int
    latest: dict[bytes, int]
    records: int
    end: int
    size: int
    fault: Fault | None

    def position(self, sequence_id: bytes) -> int:
        """Return the position of the sequence, 0 if it has never been stepped."""
        return self.latest.get(sequence_id, 0) >> records.DAY_BITS


def require_log_or_nothing(path: Path) -> None:
    """Return if ``path`` is a log that may be written, or if nothing is there yet.

    Raises:
        Unusable: there is something else, or it may not be written.
    """
    try:
        require_file(path)
        with path.open("r+b", buffering=0) as file:
            records.decode_header(read_at(file, 0, records.HEADER_SIZE))
    except (FileNotFoundError, records.Incomplete):
        pass
    except (OSError, records.NotALog, records.UnknownVersion) as error:
        raise Unusable(path, error) from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open the log at ``path``, to read its records one after the other.

    Raises:
        Unusable: there is no log at ``path``, or it may not be read.
    """
    try:
        require_file(path)
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise Unusable(path, error) from error
    with file:
        try:
            records_of_file = Reader(file)
        except (OSError, records.Incomplete, records.NotALog, records.UnknownVersion) as error:
            raise Unusable(path, error) from error
        yield records_of_file


def inspect(path: Path, *, synced: bool = False) -> Contents:
    """Return the contents of the log at ``path`` before its first fault; empty if there is no log.

    Args:
        path: The log.
        synced: Whether to sync what was read before returning it.

    Raises:
        Unusable: there is something else at ``path``, or it may not be read or synced.
        Unreadable: the disk fails to read it.
    """
    contents = _inspect(path, synced=synced)
    if contents.fault and contents.fault.promised is not None:
        # Without a lock, a writer may have cut off a failed append and written another in its
        # place, between the reads of two pieces. That does not happen twice.
        contents = _inspect(path, synced=synced)
    return contents


def read(path: Path, *, synced: bool = False) -> Contents:
    """Return the contents of the log at ``path``; empty if there is no log. Arguments as `inspect`.

    Raises:
        Unusable, Unreadable: as `inspect`.
        Damaged: records after the fault are missing from the contents.
    """
    contents = inspect(path, synced=synced)
    if contents.fault and contents.fault.promised is not None:
        raise Damaged(path, contents.fault)
    return contents


def require_file(path: Path) -> None:
    """Return if there is a file at ``path``, a directory or nothing.

    A device must not be replaced by a file, and opening a pipe may block forever.

    Raises:
        Unusable: there is something else.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Unusable(path, "it is not a file")


def _inspect(path: Path, *, synced: bool) -> Contents:
    try:
        require_file(path)
        with path.open("rb", buffering=0) as file:
            try:
                reader = Reader(file)
            except records.Incomplete as error:
                size = os.fstat(file.fileno()).st_size
                return Contents(0, {}, 0, 0, size, Fault(0, str(error), None))
            latest: dict[bytes, int] = {}
            count = reader.replay(latest)
            if synced:
                # A compaction syncs the new file before renaming it, and the directory after. A
                # reader may come between, and can sync both without permission to write.
                os.fsync(file.fileno())
                with contextlib.suppress(PermissionError):
                    files.sync_directory(os, Path(os.path.realpath(path)).parent)
            size = max(reader.end, os.fstat(file.fileno()).st_size)
            return Contents(reader.seed, latest, count, reader.end, size, reader.fault)
    except FileNotFoundError:
        return Contents(0, {}, 0, 0, 0, None)
    except (OSError, records.NotALog, records.UnknownVersion) as error:
        raise Unusable(path, error) from error
