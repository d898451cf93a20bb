"""Saving what can be saved of a damaged state log."""

import os
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from bigfib.state import files, records
from bigfib.state.reader import Unusable
from bigfib.state.rewrite import Rewrite


@dataclass(frozen=True)
class Repair:
    """What has been saved, and what has not.

    Attributes:
        target: The new log.
        sequences: The number of sequences in it.
        records: The number of records that were read to make it.
        lost: Where in the old log there were no records: offset of the first byte, and of the one
            after the last.
    """

    target: Path
    sequences: int
    records: int
    lost: list[tuple[int, int]]


def repair(path: Path) -> Repair:
    """Write a log of all that can still be read in the log at ``path``, which stays as it is.

    The new log has the name of the old one with ``.repaired`` behind it. A sequence in it stands
    where its last readable record says; if a later one is among the lost bytes, that is earlier
    than where it stood.

    Raises:
        Held: a process is writing to the log.
        Unusable: there is no log at ``path``, or none of its records can be read.
        OSError: the new log cannot be written.
    """
    target = path.with_name(path.name + ".repaired")
    if target.exists():
        raise Unusable(path, f"{target} is in the way; move it elsewhere, then try again")
    try:
        buffer = path.read_bytes()
    except OSError as error:
        raise Unusable(path, error) from error
    lock = files.lock(path, "")
    try:
        latest: dict[bytes, int] = {}
        lost = []
        count, at = 0, records.HEADER_SIZE
        for start, record, after in records.search(buffer, 0, _seed(path, buffer)):
            if start > at:
                lost.append((at, start))
            at = after
            count += 1
            if record.position is None:
                latest.pop(record.sequence_id, None)
            else:
                latest[record.sequence_id] = records.pack(record.position, record.day)
        if at < len(buffer):
            lost.append((at, len(buffer)))
        _write(target, latest, files.access(path))
    finally:
        os.close(lock)
    return Repair(target, len(latest), count, lost)


def _seed(path: Path, buffer: bytes) -> int:
    """Return the seed of the log; its header has it twice, should one of them be harmed."""
    header = buffer[: records.HEADER_SIZE]
    for seed in (int.from_bytes(header[18:], "little"), crc32(header[:18])):
        if next(records.search(buffer, 0, seed), None):
            return seed
    raise Unusable(path, "no record in it can be read")


def _write(target: Path, latest: dict[bytes, int], access: files.Access) -> None:
    rewrite = Rewrite(os, target, latest, access=access, today=0, oldest_day=0, permanent=b"")
    try:
        while not rewrite.advance():
            rewrite.wait()
        rewrite.finish()
        os.rename(rewrite.new_path, target)  # noqa: PTH104 - as the log itself does
        files.sync_directory(os, target.parent)
    except OSError:
        rewrite.abandon()
        raise
    os.close(rewrite.fd)
