"""Read the state log as the diagram in `bigfib.state.records` draws it, in the simplest way."""

from typing import NamedTuple
from zlib import crc32

HEADER_SIZE = 22


class Drawn(NamedTuple):
    """A record, its first and last offset, and whether it has the only allowed encoding."""

    start: int
    end: int
    sequence_id: bytes
    position: int | None
    version: int
    day: int
    durable: int
    canonical: bool


class NoRecord(Exception):
    pass


class _Cursor:
    def __init__(self, buffer: bytes, at: int) -> None:
        self.buffer = buffer
        self.at = at
        self.canonical = True

    def byte(self) -> int:
        if self.at >= len(self.buffer):
            raise NoRecord
        self.at += 1
        return self.buffer[self.at - 1]

    def count(self) -> int:
        digits = [self.byte()]
        while digits[-1] & 0x80:
            if len(digits) == 9:
                raise NoRecord
            digits.append(self.byte())
        self.canonical &= len(digits) == 1 or digits[-1] != 0
        return sum((digit & 0x7F) * 128**place for place, digit in enumerate(digits))

    def string(self) -> bytes:
        length = self.count()
        if length > len(self.buffer) - self.at:
            raise NoRecord
        self.at += length
        return self.buffer[self.at - length : self.at]

    def integer(self) -> int:
        octets = self.string()
        self.canonical &= not octets.startswith(b"\0")
        return sum(octet * 256**place for place, octet in enumerate(reversed(octets)))


def read(log: bytes, start: int, seed: int) -> Drawn:
    """Return the record at ``start``.

    Raises:
        NoRecord: there is none.
    """
    cursor = _Cursor(log, start)
    length = cursor.count()
    first = cursor.at
    end = first + length
    if end + 4 > len(log) or crc32(log[start:end], (seed + start) % 2**32) != int.from_bytes(
        log[end : end + 4], "little"
    ):
        raise NoRecord
    # Bytes after its end do not belong to it.
    inner = _Cursor(log[:end], first)
    kind = inner.byte()
    durable = inner.integer() if kind in (0xB1, 0xB2) else inner.count()
    day = inner.integer()
    version = inner.count() if kind == 0xB3 else 0
    sequence_id = inner.string()
    position = inner.integer() if kind in (0xB1, 0xB3) else None
    if kind not in (0xB1, 0xB2, 0xB3, 0xB4) or inner.at != end:
        raise NoRecord
    # The count of changes begins at 1.
    canonical = cursor.canonical and inner.canonical and (kind != 0xB3 or version > 0)
    return Drawn(start, end + 4, sequence_id, position, version, day, durable, canonical)


def read_on(log: bytes, start: int, seed: int) -> list[Drawn]:
    """Return the records from ``start`` on, up to the first invalid byte."""
    found = []
    try:
        while True:
            found.append(read(log, start, seed))
            start = found[-1].end
    except NoRecord:
        return found


def search(log: bytes, start: int, seed: int) -> list[Drawn]:
    """Return the records from ``start`` on, whatever bytes are between them."""
    found = []
    while start < len(log):
        try:
            found.append(read(log, start, seed))
            start = found[-1].end
        except NoRecord:
            start += 1
    return found
