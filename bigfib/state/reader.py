"""Read a state log: its records, the resulting positions, and its first fault.

A fault is a place where the file goes on without a valid record. It may be a torn end: writes that
a crash cut short, which were never acknowledged. It is damage if the floor or a later record proves
that its range was synced; `recovery` has all cases.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from bigfib.state import files, floor, header, packed, records
from bigfib.state.errors import Unreadable, Unusable
from bigfib.state.records import Record
from bigfib.state.recovery import Decision, Fault, Found

# Bytes read at a time: so many that it costs nothing noticeable to read again a record that the end
# of a piece cuts.
_PIECE: Final = 1 << 20


class Reader:
    """Read the records of a log, in order, up to the first fault.

    Attributes:
        header: The header of the log.
        end: Offset after the last record read.
        fault: The fault that ended the reading; None at a clean end.
    """

    def __init__(self, file: BinaryIO, piece: int = _PIECE, *, judges: bool = True) -> None:
        """Read the header.

        Args:
            file: The log.
            piece: How many bytes to read at a time.
            judges: Whether to search after a fault for a record that proves it to be damage.

        Raises:
            NotALog, UnknownVersion, Incomplete: as `header.decode`.
            Unreadable: the disk fails to read it.
        """
        self._file = file
        self._size = piece
        self._judges = judges
        self.header = header.decode(read_at(file, 0, header.SIZE))
        self._seed = self.header.seed
        self.end = header.SIZE
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
            latest: Each sequence, as packed by `packed.pack`.
        """
        count = 0
        while applied := self.advance(latest):
            count += applied
        return count

    def advance(self, latest: dict[bytes, int]) -> int:
        """Apply the next record to ``latest``, and the common ones that follow it in the piece.

        `records.replay` defines which are common. Return the number applied, 0 at the end or at a
        fault.
        """
        record = self._next()
        if record is None:
            return 0
        record.apply(latest)
        at, count = records.replay(self._piece, self._at, self.end, self._seed, latest)
        self.end += at - self._at
        self._at = at
        return count + 1

    def _next(self) -> Record | None:
        while True:
            try:
                record, after = records.decode(self._piece, self._at, self.end, self._seed)
            except records.Incomplete as error:
                if self._read_on():
                    continue
                if self._at < len(self._piece):
                    self._note_fault(str(error))
                return None
            except records.BadRecord as error:
                self._note_fault(str(error))
                return None
            self.end += after - self._at
            self._at = after
            return record

    def _read_on(self) -> bool:
        """Read a piece from the end of the last record on; return whether that gave more bytes."""
        known = len(self._piece) - self._at
        size = self._size
        if known >= size:
            size = _long_record(self._file, self._piece[self._at :], self.end, self._seed)
        if size > known:
            self._piece, self._at = read_at(self._file, self.end, size), 0
        return len(self._piece) - self._at > known

    def _note_fault(self, found: str) -> None:
        self.fault = Fault(self.end, found)
        if not self._judges:
            return
        for offset, record, _ in search(self._file, self.end, self._seed):
            proven_by = offset if record.durable > self.end else None
            self.fault = Fault(self.end, found, proven_by, later=True)
            if proven_by is not None:
                break


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return the ``size`` bytes at ``offset``, fewer only at the end of the file.

    Raises:
        Unreadable: the disk fails to read them.
    """
    try:
        file.seek(offset)
        data = file.read(size)
        # A read also ends early before a bad sector; only the next one fails.
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
    """Return the size of the record at ``at``, which is longer than ``piece``; 0 if it is invalid.

    The checksum is computed piece by piece, before the record is read into memory: a corrupt length
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
class Contents(Found):
    """What is at the path of a log, and the positions that result from its records.

    Attributes:
        latest: Each sequence, as packed by `packed.pack`.
        records: The number of records.
    """

    latest: dict[bytes, int] = field(default_factory=dict)
    records: int = 0

    def position(self, sequence_id: bytes) -> int:
        """Return the position of the sequence, 0 if it has never been stepped."""
        return self.latest.get(sequence_id, 0) >> packed.POSITION_SHIFT


def require_log_or_nothing(path: Path) -> None:
    """Check that ``path`` is a log that may be written, by its header, or that nothing is there.

    Raises:
        Unusable: it is something else, or may not be written.
    """
    try:
        require_file(path)
        with path.open("r+b", buffering=0) as file:
            header.decode(read_at(file, 0, header.SIZE))
    except (FileNotFoundError, records.Incomplete):
        pass
    except (OSError, header.NotALog, header.UnknownVersion) as error:
        raise Unusable(path, error) from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """Open the log at ``path``, and yield a reader of its records.

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
        except (OSError, records.Incomplete, header.NotALog, header.UnknownVersion) as error:
            raise Unusable(path, error) from error
        yield records_of_file


def inspect(path: Path, *, synced: bool = False) -> Contents:
    """Return what is at ``path``, with the contents before the first fault.

    Args:
        path: The log.
        synced: Whether to sync what was read before returning it.

    Raises:
        Unusable: it is not a file, or may not be read or synced.
    """
    contents = _inspect(path, synced=synced)
    if contents.case.decision in (Decision.REPAIR, Decision.REFUSE):
        # Nothing is locked: between the reads of two pieces a writer may have replaced a failed
        # append by another, or compacted the log. Read again; that hardly happens twice.
        contents = _inspect(path, synced=synced)
    return contents


def read(path: Path, *, synced: bool = False) -> Contents:
    """Return the contents of the log at ``path``; empty if there is no log. Arguments as `inspect`.

    Raises:
        Unusable, Unreadable, Damaged: as `Found.refuse`.
    """
    contents = inspect(path, synced=synced)
    contents.refuse(path)
    return contents


def require_file(path: Path) -> None:
    """Refuse devices, pipes and sockets at ``path``.

    A device must not be replaced by a file, and opening a pipe may block forever.

    Raises:
        Unusable: ``path`` exists, and is neither a file nor a directory.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise Unusable(path, "it is not a file")


def _inspect(path: Path, *, synced: bool) -> Contents:
    # Read the floor first: a writer may raise it meanwhile.
    try:
        found = Contents(floor=floor.read(path), boot=floor.boot())
    except floor.HarmedFloor:
        found = Contents(floor_is_harmed=True)
    try:
        require_file(path)
        with path.open("rb", buffering=0) as file:
            found = replace(found, size=os.fstat(file.fileno()).st_size)
            try:
                reader = Reader(file)
                count = reader.replay(found.latest)
            except records.Incomplete:
                return found
            except (Unreadable, header.NotALog, header.UnknownVersion) as problem:
                return replace(found, problem=problem)
            if synced:
                # A compaction syncs the new file before renaming it, and the directory afterwards.
                # This read may fall between the two. Syncing needs no permission to write.
                os.fsync(file.fileno())
                with contextlib.suppress(PermissionError):
                    files.sync_directory(os, Path(os.path.realpath(path)).parent)
            return replace(
                found,
                size=max(reader.end, os.fstat(file.fileno()).st_size),
                header=reader.header,
                end=reader.end,
                fault=reader.fault,
                records=count,
            )
    except FileNotFoundError:
        return found
    except OSError as error:
        raise Unusable(path, error) from error
