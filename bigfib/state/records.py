r"""Encode and decode the bytes of the state log. Pure: no files, no clock.

A log is a header and then records, one after another, with nothing between them::

    log      := header record*

    header   := magic version salt checksum                                 22 bytes
                magic     8 bytes   89 62 69 67 66 69 62 0A  ("\x89bigfib\n")
                version   2 bytes   little-endian, now 1
                salt      8 bytes   random, different in every log
                checksum  4 bytes   little-endian, CRC-32 of the 18 bytes before it

    record   := length kind durable day id position? checksum

                +--------+------+---------+---------+--------+----------+----------+
                | length | kind | durable | day     | id     | position | checksum |
                +--------+------+---------+---------+--------+----------+----------+
                 count    B1     integer   integer   string   integer    4 bytes
                 count    B2     integer   integer   string              4 bytes

                length    bytes from kind to position
                kind      B1: the sequence `id` is at `position`; B2: it is deleted
                durable   offset in this log up to which everything was known to be on disk when
                          the record was written
                day       when the sequence was last touched, in days since 1970-01-01 (UTC)
                checksum  little-endian, CRC-32 of all bytes from length to position, started from
                          (checksum of the header + offset of the record) mod 2^32

    string   := count, then so many bytes
    integer  := string, read big-endian without leading zeros (0 is the empty string)
    count    := 7 bits a byte, the lowest first; the top bit is set in all bytes but the last

Example, sequence ``shared`` at position 300 on day 20000 (2024-10-04), written at offset 22 of a
log whose header's checksum is 0, when the first 22 bytes were durable::

    10  B1  01 16  02 4E 20  06 73 68 61 72 65 64  02 01 2C  14 43 8B 14

Why so:

* No field has a limit: lengths are counts, and integers are strings.
* A record is absolute. Replaying one twice changes nothing, and the last record of an id wins.
* The checksum starts from salt and offset, so that a record is valid in one place only: not in
  another log, not moved, not repeated, and not when a file system returns old blocks.
* `durable` lets a reader distinguish a torn tail from damage: everything before the `durable` of a
  later valid record was once safely on disk.
* No record begins with a zero byte, so a tail that the file system has not filled in yet is not
  mistaken for one.

Known downsides: a valid record after a damaged one is found only by trying every offset that could
begin one, and CRC-32 detects damage, not malice.
"""

import re
from collections.abc import Generator, Iterable
from typing import Final, NamedTuple
from zlib import crc32

VERSION: Final = 1
HEADER_SIZE: Final = 22
SALT_SIZE: Final = 8

_MAGIC: Final = b"\x89bigfib\n"
_POSITION: Final = 0xB1
_REMOVAL: Final = 0xB2
_KINDS: Final = re.compile(b"[\xb1\xb2]")
# `crc32` takes its start value mod 2^32.
CHECKSUM_SIZE: Final = 4
DAY_BITS: Final = 24
MAX_DAY: Final = (1 << DAY_BITS) - 1
_LONGEST_COUNT: Final = 9  # bytes: 63 bits, as many as a file offset has


class NotALog(ValueError):
    """The bytes do not begin like a bigfib state log."""


class UnknownVersion(ValueError):
    """The log has a format version that this program does not know."""


class BadRecord(ValueError):
    """The bytes are not a record; the message describes them."""


class Incomplete(BadRecord):
    """The bytes end before the record does."""


class Record(NamedTuple):
    """The fields of a record.

    Attributes:
        sequence_id: The sequence.
        position: Its position, or None if it is deleted.
        day: The day on which it was last touched.
        durable: The offset up to which the log was known to be on disk.
    """

    sequence_id: bytes
    position: int | None
    day: int
    durable: int


def encode_header(salt: bytes) -> bytes:
    """Return the header of a new log with `SALT_SIZE` random bytes as its ``salt``."""
    header = _MAGIC + VERSION.to_bytes(2, "little") + salt
    return header + crc32(header).to_bytes(CHECKSUM_SIZE, "little")


def decode_header(header: bytes) -> int:
    """Return the seed that the checksums of this log's records start from.

    Raises:
        Incomplete: ``header`` is the beginning of a header, perhaps empty.
        NotALog: it is something else.
        UnknownVersion: it is the header of another format version.
    """
    if not header.startswith(_MAGIC[: len(header)]):
        raise NotALog("it does not begin with the magic bytes of a bigfib state log")
    version = int.from_bytes(header[8:10], "little")
    if len(header) >= 10 and version != VERSION:
        raise UnknownVersion(
            f"it has format version {version}, and this program knows only {VERSION}"
        )
    if len(header) < HEADER_SIZE:
        raise Incomplete("a header that is cut off")
    seed = int.from_bytes(header[18:HEADER_SIZE], "little")
    if crc32(header[:18]) != seed:
        raise NotALog("the checksum of its header is wrong")
    return seed


def stamp(durable: int, day: int) -> bytes:
    """Return the encoded fields shared by all records written on ``day``, until the next sync."""
    return _integer(durable) + _integer(day)


def encode(sequence_id: bytes, position: int | None, stamp: bytes, offset: int, seed: int) -> bytes:
    """Return the encoded record of a sequence, for the place ``offset`` in a log.

    Args:
        sequence_id: The sequence.
        position: Its position, or None if it is deleted.
        stamp: The fields encoded by `stamp`.
        offset: Offset in the log of the record.
        seed: The seed of the log, from `decode_header`.
    """
    if position is None:
        body = b"\xb2" + stamp + _string(sequence_id)
    else:
        size = (position.bit_length() + 7) >> 3
        length = len(stamp) + len(sequence_id) + size + 3
        if length < 0x80:
            # All counts take one byte, as in nearly every record: 0.6 of the general cost.
            counts = _SMALL_COUNTS
            name, number = counts[len(sequence_id)], position.to_bytes(size, "big")
            framed = b"".join(
                (counts[length], b"\xb1", stamp, name, sequence_id, counts[size], number)
            )
            return framed + crc32(framed, seed + offset).to_bytes(CHECKSUM_SIZE, "little")
        body = b"\xb1" + stamp + _string(sequence_id) + _integer(position)
    framed = _count(len(body)) + body
    return framed + crc32(framed, seed + offset).to_bytes(CHECKSUM_SIZE, "little")


def encode_changes(
    changes: Iterable[tuple[bytes, int | None]], durable: int, today: int, offset: int, seed: int
) -> list[bytes]:
    """Return the encoded records of several changes, to follow one another from ``offset`` on.

    Args:
        changes: Ids of sequences, each with position and day as `pack` joins them, or None if it is
            deleted.
        durable: The offset up to which the log is known to be on disk.
        today: The day of deletions.
        offset: Offset in the log of the first record.
        seed: The seed of the log, from `decode_header`.
    """
    pieces = []
    stamped, shared = today, stamp(durable, today)
    for sequence_id, packed in changes:
        position, day = (None, today) if packed is None else unpack(packed)
        if day != stamped:
            stamped, shared = day, stamp(durable, day)
        piece = encode(sequence_id, position, shared, offset, seed)
        pieces.append(piece)
        offset += len(piece)
    return pieces


def decode(buffer: bytes, start: int, offset: int, seed: int) -> tuple[Record, int]:
    """Return the record that begins at ``buffer[start]``, and the index in ``buffer`` after it.

    Args:
        buffer: Bytes of the log.
        start: Index in ``buffer`` of the record.
        offset: Offset in the log of the record.
        seed: The seed of the log, from `decode_header`.

    Raises:
        Incomplete: ``buffer`` ends before the record does.
        BadRecord: these bytes are not a record at this place of this log.
    """
    length, at = _read_count(buffer, start)
    end = at + length
    after = end + CHECKSUM_SIZE
    if after > len(buffer):
        raise Incomplete(f"a record of {after - start} bytes that is cut off")
    # Check the fields before the checksum: in a search, that refuses most bytes at less cost.
    kind = buffer[at] if length else None
    if kind not in (_POSITION, _REMOVAL):
        raise BadRecord("bytes that are not a record")
    durable, at = _read_string(buffer, at + 1, end)
    day, at = _read_string(buffer, at, end)
    sequence_id, at = _read_string(buffer, at, end)
    position = None
    if kind == _POSITION:
        encoded, at = _read_string(buffer, at, end)
        position = int.from_bytes(encoded, "big")
    if at != end:
        raise BadRecord("fields that do not fill their record")
    found = int.from_bytes(buffer[end:after], "little")
    if crc32(buffer[start:end], seed + offset) != found:
        raise BadRecord("a record with a wrong checksum")
    return (
        Record(sequence_id, position, int.from_bytes(day, "big"), int.from_bytes(durable, "big")),
        after,
    )


def size(buffer: bytes, start: int) -> int:
    """Return the size of the record at ``buffer[start]``, from its counts alone.

    All counts must fit together, so that random bytes rarely give a size: a reader that trusted
    the first count alone would read far ahead for nothing.

    Args:
        buffer: Bytes of the log, enough for all fields but the last.
        start: Index in ``buffer`` of the record.

    Raises:
        Incomplete: ``buffer`` ends before the last count does.
        BadRecord: these bytes are not the beginning of a record.
    """
    length, at = _read_count(buffer, start)
    end = at + length
    if at >= len(buffer):
        raise Incomplete("a length is cut off")
    kind = buffer[at]
    if kind not in (_POSITION, _REMOVAL):
        raise BadRecord("bytes that are not a record")
    at += 1
    for _ in range(4 if kind == _POSITION else 3):
        if at >= end:
            break
        field, at = _read_count(buffer, at)
        at += field
    if at != end:
        raise BadRecord("fields that do not fill their record")
    return end + CHECKSUM_SIZE - start


def replay(
    buffer: bytes, start: int, offset: int, seed: int, latest: dict[bytes, int]
) -> tuple[int, int]:
    """Apply the records from ``buffer[start]`` on to ``latest``, up to the first uncommon one.

    A common record has a position, and all its counts take one byte. This stops at another record,
    the end of the buffer, or damage: `decode` finds out which. Measured: 0.4 of the time that
    `decode` takes for the same records.

    Args:
        buffer: Bytes of the log.
        start: Index in ``buffer`` of the first record.
        offset: Offset in the log of that record.
        seed: The seed of the log, from `decode_header`.
        latest: Position and day of each sequence, as `pack` joins them.

    Returns:
        The index in ``buffer`` after the last record applied, and the number of those.
    """
    count = 0
    integer = int.from_bytes
    begin = seed + offset - start
    limit = len(buffer) - CHECKSUM_SIZE
    try:
        while True:
            end = start + 1 + buffer[start]
            if end > limit or buffer[start] >= 0x80 or buffer[start + 1] != _POSITION:
                break
            day = start + 3 + buffer[start + 2]
            name = day + 1 + buffer[day]
            position = name + 1 + buffer[name]
            if position + 1 + buffer[position] != end or crc32(
                buffer[start:end], begin + start
            ) != integer(buffer[end : end + CHECKSUM_SIZE], "little"):
                break
            latest[buffer[name + 1 : position]] = integer(
                buffer[position + 1 : end], "big"
            ) << DAY_BITS | integer(buffer[day + 1 : name], "big")
            start = end + CHECKSUM_SIZE
            count += 1
    except IndexError:
        pass
    return start, count


def pack(position: int, day: int) -> int:
    """Return position and day as one integer, to save memory.

    Measured: the dictionary of a million sequences takes 132 MB, with tuples 224 MB.
    """
    return position << DAY_BITS | day


def unpack(packed: int) -> tuple[int, int]:
    """Return the position and the day that `pack` has joined."""
    return packed >> DAY_BITS, packed & MAX_DAY


def search(
    buffer: bytes, offset: int, seed: int, *, more: bool = False
) -> Generator[tuple[int, Record, int], None, int]:
    """Find the valid records in bytes of which some are damaged.

    Args:
        buffer: Bytes of the log.
        offset: Offset in the log of the first of them.
        seed: The seed of the log, from `decode_header`.
        more: Whether the log goes on after them. The last record may then be cut off; the search
            ends where it may begin.

    Yields:
        Index in ``buffer`` of the record, the record, index after it.

    Returns:
        The index from which to search on.
    """
    searched = 0
    for found in _KINDS.finditer(buffer):
        cut_off = None
        # The kind follows a count: bytes with the top bit set, if any, then one below 0x80.
        for start in range(
            found.start() - 1, max(searched, found.start() - _LONGEST_COUNT) - 1, -1
        ):
            if (buffer[start] < 0x80) != (start == found.start() - 1):
                break
            try:
                record, after = decode(buffer, start, offset + start, seed)
            except Incomplete:
                if more and _may_begin(buffer, start):
                    cut_off = start
                continue
            except BadRecord:
                continue
            yield start, record, after
            searched = after
            cut_off = None
            break
        if cut_off is not None:
            return cut_off
    # Keep the bytes that may be the count before a kind in the next piece.
    return max(searched, len(buffer) - _LONGEST_COUNT) if more else len(buffer)


def _may_begin(buffer: bytes, start: int) -> bool:
    """Return whether a record may begin at ``start`` and go on after the buffer."""
    try:
        return start + size(buffer, start) > len(buffer)
    except Incomplete:
        return True
    except BadRecord:
        return False


def _integer(value: int) -> bytes:
    return _string(value.to_bytes((value.bit_length() + 7) >> 3, "big"))


def _string(value: bytes) -> bytes:
    return _count(len(value)) + value


def _count(value: int) -> bytes:
    if value < 0x80:
        return _SMALL_COUNTS[value]
    return bytes([value & 0x7F | 0x80]) + _count(value >> 7)


_SMALL_COUNTS: Final = [bytes([value]) for value in range(0x80)]


def _read_count(buffer: bytes, at: int) -> tuple[int, int]:
    if at < len(buffer) and buffer[at] < 0x80:
        return buffer[at], at + 1  # nearly every count
    value = shift = 0
    for byte in buffer[at : at + _LONGEST_COUNT]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at + shift // 7
    if shift == 7 * _LONGEST_COUNT:
        raise BadRecord("a length that no file can have")
    raise Incomplete("a length is cut off")


def _read_string(buffer: bytes, at: int, end: int) -> tuple[bytes, int]:
    length, at = _read_count(buffer, at)
    if length > end - at:
        raise BadRecord("a field longer than its record")
    return buffer[at : at + length], at + length
