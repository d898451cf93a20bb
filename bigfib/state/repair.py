"""Save the readable records of a damaged state log in a new one."""

import contextlib
import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from zlib import crc32

from bigfib.state import files, header, reader
from bigfib.state.backup import write_log
from bigfib.state.errors import Unusable
from bigfib.state.floor import Floor, HarmedFloor
from bigfib.state.floor import read as read_floor

# Bytes of the smallest unit that a disk fails to read.
_SECTOR: Final = 512


@dataclass(frozen=True)
class Repair:
    """The result of a repair.

    Attributes:
        source: The damaged log, with links resolved.
        target: The new log.
        sequences: The number of sequences in it.
        records: The number of records read from the damaged log.
        lost: The ranges of the damaged log without readable records, or missing from its end: first
            offset, and offset after the last.
        applied: The ranges after the first lost one whose records are in the new log.
    """

    source: Path
    target: Path
    sequences: int
    records: int
    lost: list[tuple[int, int]]
    applied: list[tuple[int, int]]


class _Salvage(io.FileIO):
    """A file whose unreadable sectors are read as zeros, which are not a record."""

    def read(self, size: int, /) -> bytes:  # type: ignore[override]
        """Return up to ``size`` bytes."""
        try:
            return super().read(size)
        except OSError:
            at = self.tell()
        # Read the rest of this sector alone.
        size = min(size, _SECTOR - at % _SECTOR, self.seek(0, os.SEEK_END) - at)
        self.seek(at)
        try:
            return super().read(size)
        except OSError:
            self.seek(at + size)
            return bytes(size)


def repair(path: Path) -> Repair:
    """Save the readable records of the log at ``path`` in a new log; leave the old one unchanged.

    The new log has the name of the old one with ``.repaired`` appended. A sequence gets the
    position of its last readable record, which may be older than its last one. Records after a
    fault count: each is absolute, and its checksum is valid only at its offset in this log.

    Raises:
        Held: another process is writing to the log.
        Unusable: there is no log at ``path``, or none of its records can be read.
        FileExistsError: the name of the new log is taken.
        OSError: the new log cannot be written.
    """
    path = Path(os.path.realpath(path))
    target = path.with_name(path.name + ".repaired")
    if target.exists():
        raise FileExistsError(errno.EEXIST, f"{target} is in the way; move it", str(target))
    try:
        reader.require_file(path)
        file = _Salvage(path)
    except OSError as error:
        raise Unusable(path, error) from error
    with file, contextlib.ExitStack() as held:
        held.callback(os.close, files.lock(path, ""))
        # Under another name the log has another lock file, so lock the log itself, too. (Some file
        # systems refuse to lock a file that is open for reading only.)
        with contextlib.suppress(OSError):
            files.lock_open(file.fileno())
        latest: dict[bytes, int] = {}
        lost, applied = [], []
        count, at = 0, header.SIZE
        floor = _floor(path)
        seed = _seed(path, file, floor)
        for start, record, after in reader.search(file, 0, seed):
            if start > at:
                lost.append((at, start))
                applied.append((start, after))
            elif applied:
                applied[-1] = applied[-1][0], after
            at = after
            count += 1
            record.apply(latest)
        end = file.seek(0, os.SEEK_END)
        if floor and floor.seed == seed:
            end = max(end, floor.durable)
        if at < end:
            lost.append((at, end))
        # It replaces the damaged log, so that it may be put next to that log's floor.
        write_log(target, latest, previous=seed, access=files.access(path))
    return Repair(path, target, len(latest), count, lost, applied)


def _floor(path: Path) -> Floor | None:
    try:
        return read_floor(path)
    except HarmedFloor:
        return None


def _seed(path: Path, file: BinaryIO, floor: Floor | None) -> int:
    """Return the seed of the records: the header's checksum, stored, computed or in the floor."""
    first = reader.read_at(file, 0, header.SIZE)
    for seed in (
        int.from_bytes(first[18:], "little"),
        crc32(first[:18]),
        *([floor.seed] if floor else []),
    ):
        if next(reader.search(file, 0, seed), None):
            return seed
    raise Unusable(path, "no record in it can be read")
