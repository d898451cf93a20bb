"""Reading a state log: its records, what they amount to, and what is wrong with it.

Where there is no record although the file goes on, a crash may have left the last writes torn:
nobody was told of those. But each record carries the offset up to which everything was durable when
it was written. If a later record says so of the place of the fault, bytes that were promised have
been damaged.
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

# Read and held at a time: enough that the joins of two pieces do not count.
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Fault:
    """What is in a log in place of a record.

    Attributes:
        offset: Where.
        found: What.
        promised: Offset of a later record, when which was written everything here was durable;
            None if there is none.
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
    """The records of a log, in order, up to the first fault.

    Attributes:
        seed: Where the checksums of this log start from.
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
        """Apply all records to ``latest``, and return how many they are.

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
        """Read from the end of the last record on; return whether that is more than was known."""
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
        Unreadable: the disk does not give them back.
    """
    try:
        file.seek(offset)
        data = file.read(size)
        # Before a bad sector, less is read than was asked for, as at the end.
        while data and len(data) < size and (more := file.read(size - len(data))):
            data += more
    except OSError as error:
        raise Unreadable(Path(os.fsdecode(file.name)), error) from error
    return data


def search(file: BinaryIO, at: int, seed: int) -> Iterator[tuple[int, Record, int]]:
    """Find the records from offset ``at`` on, harmed bytes or not, and hold a piece at a time.

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
                # A hole is long, and has no record: that does not begin with a zero.
                at = file.seek(at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # It goes on to the end.


def _long_record(file: BinaryIO, piece: bytes, at: int, seed: int) -> int:
    """Return the size of the record that begins at ``at`` with ``piece``; 0 if there is none.

    Its checksum is computed first, so that no more is held at once for what is none.
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
    """What a log says.

    Attributes:
        seed: Where its checksums start from.
        latest: Position and day of each sequence, as `records.pack` joins them.
        records: The number of records.
        end: Bytes of header and records before a fault.
        size: Bytes of the file.
        fault: What follows at ``end``; None if nothing does.
    """

    seed: int
    latest: dict[bytes, int]
    records: int
    end: int
    size: int
    fault: Fault | None

    def position(self, sequence_id: bytes) -> int:
        """Return where the sequence is; one that nobody has stepped is at 0."""
        return self.latest.get(sequence_id, 0) >> records.DAY_BITS


def require_log_or_nothing(path: Path) -> None:
    """Return if a log may be opened for writing at ``path``, or created.

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
    """Give the records of the log at ``path``, to be read one after the other.

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
    """Return what the log at ``path`` says before its first fault. One that is not there is empty.

    Args:
        path: The log.
        synced: Whether to return only when what was read is on disk.

    Raises:
        Unusable: there is something else at ``path``, or it may not be read or synced.
        Unreadable: the disk does not give back what is in it.
    """
    contents = _inspect(path, synced=synced)
    if contents.fault and contents.fault.promised is not None:
        # No lock is held: a writer may have cut off a failed append and written in its place
        # between two pieces of reading. It does not happen twice.
        contents = _inspect(path, synced=synced)
    return contents


def read(path: Path, *, synced: bool = False) -> Contents:
    """Return what the log at ``path`` says. One that is not there is empty.

    Arguments as `inspect`.

    Raises:
        Unusable: as `inspect`.
        Damaged: what it says before the fault may not be its last word.
    """
    contents = inspect(path, synced=synced)
    if contents.fault and contents.fault.promised is not None:
        raise Damaged(path, contents.fault)
    return contents


def require_file(path: Path) -> None:
    """Return if there is a file at ``path``, a directory or nothing.

    Anything else might be replaced by a file, or be waited for without end.

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
                # A writer that rewrites the log syncs the new file before, and its name after, the
                # renaming. A reader needs no permission to write for either.
                os.fsync(file.fileno())
                with contextlib.suppress(PermissionError):
                    files.sync_directory(os, Path(os.path.realpath(path)).parent)
            size = max(reader.end, os.fstat(file.fileno()).st_size)
            return Contents(reader.seed, latest, count, reader.end, size, reader.fault)
    except FileNotFoundError:
        return Contents(0, {}, 0, 0, 0, None)
    except (OSError, records.NotALog, records.UnknownVersion) as error:
        raise Unusable(path, error) from error
