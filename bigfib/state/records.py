r"""The bytes of the state log. Pure: no files, no clock.

A log is a header and then records, one after another, with nothing between them::

    log      := header record*

    header   := magic version salt checksum                                 22 bytes
                magic     8 bytes   89 62 69 67 66 69 62 0A  ("\x89bigfib\n")
                version   2 bytes   little-endian, now 1
                salt      8 bytes   random, different in every log
                checksum  4 bytes   little-endian, CRC-32 of the 18 bytes before it

    record   := length kind durable id position checksum

                +--------+------+---------+---------+----------+----------+
                | length | kind | durable | id      | position | checksum |
                +--------+------+---------+---------+----------+----------+
                 count    B1     integer   string    integer    4 bytes

                length    bytes from kind to position
                kind      B1: the sequence `id` is at `position`
                durable   offset in this log up to which everything was known to be on disk when
                          the record was written
                checksum  little-endian, CRC-32 of all bytes from length to position, started from
                          (checksum of the header + offset of the record) mod 2^32

    string   := count, then so many bytes
    integer  := string, read big-endian without leading zeros (0 is the empty string)
    count    := 7 bits a byte, the lowest first; the top bit is set in all bytes but the last

Example, sequence ``shared`` at position 300, written at offset 22 of a log whose header's checksum
is 0, when the first 22 bytes were durable::

    0D  B1  01 16  06 73 68 61 72 65 64  02 01 2C  7B E3 96 3E

Why so:

* No field has a ceiling: lengths are counts, and integers are strings.
* A record is absolute. Replaying one twice changes nothing, and the last one of an id wins.
* The checksum starts from salt and offset, so that a valid record is valid in one place only: not
  in another log, not moved, not repeated, and not when a file system hands back old blocks.
* `durable` lets a reader tell a torn tail from damage: whatever lies before the `durable` of a
  later valid record was once safely on disk.
* A byte of zeros is no record, so neither is a tail that the file system had not filled in yet.

Known downsides: an unharmed record behind a harmed one is found only by trying every offset, and
CRC-32 tells damage, not malice.
"""

from typing import Final, NamedTuple
from zlib import crc32

VERSION: Final = 1
HEADER_SIZE: Final = 22
SALT_SIZE: Final = 8

_MAGIC: Final = b"\x89bigfib\n"
_POSITION: Final = b"\xb1"
_CHECKSUM_SIZE: Final = 4
_MASK: Final = 0xFFFFFFFF
_LONGEST_COUNT: Final = 9  # 63 bits, as many as a file offset has


class NotALog(ValueError):
    """The bytes do not begin like a bigfib state log."""


class UnknownVersion(ValueError):
    """The log was written by another version of bigfib."""


class BadRecord(ValueError):
    """The bytes are not a record; the message says what was found."""


class Incomplete(BadRecord):
    """The bytes end before the record does."""


class Record(NamedTuple):
    """The sequence ``sequence_id`` is at ``position``; the log was durable up to ``durable``."""

    sequence_id: bytes
    position: int
    durable: int


def encode_header(salt: bytes) -> bytes:
    """Return the header of a new log with `SALT_SIZE` random bytes as its ``salt``."""
    header = _MAGIC + VERSION.to_bytes(2, "little") + salt
    return header + crc32(header).to_bytes(_CHECKSUM_SIZE, "little")


def decode_header(header: bytes) -> int:
    """Return the seed that the checksums of this log's records start from.

    Raises:
        Incomplete: ``header`` is the beginning of a header, perhaps empty.
        NotALog: it is something else.
        UnknownVersion: it is the header of a version this code does not know.
    """
    if not header.startswith(_MAGIC[: len(header)]):
        raise NotALog("it does not begin with the magic bytes of a bigfib state log")
    version = int.from_bytes(header[8:10], "little")
    if len(header) >= 10 and version != VERSION:
        raise UnknownVersion(
            f"it has format version {version}, and this bigfib knows only {VERSION}"
        )
    if len(header) < HEADER_SIZE:
        raise Incomplete("the header is cut off")
    seed = int.from_bytes(header[18:HEADER_SIZE], "little")
    if crc32(header[:18]) != seed:
        raise NotALog("the checksum of its header is wrong")
    return seed


def encode(sequence_id: bytes, position: int, durable: int, offset: int, seed: int) -> bytes:
    """Return the record ``(sequence_id, position, durable)`` for the place ``offset`` in a log.

    ``seed`` is what `decode_header` returned for that log.
    """
    body = _POSITION + _integer(durable) + _string(sequence_id) + _integer(position)
    framed = _count(len(body)) + body
    return framed + crc32(framed, seed + offset & _MASK).to_bytes(_CHECKSUM_SIZE, "little")


def decode(buffer: bytes, start: int, offset: int, seed: int) -> tuple[Record, int]:
    """Return the record that begins at ``buffer[start]``, and the index in ``buffer`` after it.

    Args:
        buffer: Bytes of the log.
        start: Index in ``buffer`` of the record.
        offset: Offset in the log of the record.
        seed: What `decode_header` returned.

    Raises:
        Incomplete: ``buffer`` ends before the record does.
        BadRecord: these bytes are not a record at this place of this log.
    """
    length, at = _read_count(buffer, start)
    end = at + length
    after = end + _CHECKSUM_SIZE
    if after > len(buffer):
        raise Incomplete(f"a record of {after - start} bytes is cut off")
    found = int.from_bytes(buffer[end:after], "little")
    if crc32(buffer[start:end], seed + offset & _MASK) != found:
        raise BadRecord("the checksum is wrong")
    # From here on the bytes are as some writer left them.
    if buffer[at : at + 1] != _POSITION:
        raise BadRecord("a record of an unknown kind")
    durable, at = _read_string(buffer, at + 1)
    sequence_id, at = _read_string(buffer, at)
    position, at = _read_string(buffer, at)
    if at != end:
        raise BadRecord("the fields do not fill the record")
    return (
        Record(sequence_id, int.from_bytes(position, "big"), int.from_bytes(durable, "big")),
        after,
    )


def _integer(value: int) -> bytes:
    size = (value.bit_length() + 7) >> 3
    if size < 0x80:
        # The count as one more byte of the number: one conversion instead of two and a join.
        return (size << 8 * size | value).to_bytes(size + 1, "big")
    return _string(value.to_bytes(size, "big"))


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


def _read_string(buffer: bytes, at: int) -> tuple[bytes, int]:
    length, at = _read_count(buffer, at)
    return buffer[at : at + length], at + length
