r"""Encode and decode the header of a state log. Pure: no files, no clock.

::

    header   := magic version salt previous checksum                        22 bytes
                magic     8 bytes   89 62 69 67 66 69 62 0A  ("\x89bigfib\n")
                version   2 bytes   little-endian, now 2
                salt      4 bytes   random, different in every log
                previous  4 bytes   the checksum in the header of the log that this one replaced,
                                    by a compaction or a repair; 0 if there is none
                checksum  4 bytes   little-endian, CRC-32 of the 18 bytes before it

Version 1 has 8 random bytes in place of salt and previous, and other records.
"""

from typing import Final, NamedTuple
from zlib import crc32

from bigfib.state.records import Incomplete

SIZE: Final = 22
SALT_SIZE: Final = 4

_MAGIC: Final = b"\x89bigfib\n"
_VERSION: Final = 2
_OLD_VERSION: Final = 1


class NotALog(ValueError):
    """The bytes do not begin like a bigfib state log."""


class UnknownVersion(ValueError):
    """The log has a format version that this program does not know."""


class Header(NamedTuple):
    """The fields of a log's header.

    Attributes:
        seed: Its checksum, from which the checksums of the records start.
        previous: The checksum in the header of the log that this one replaced; 0 if there is none.
        is_old: Whether the log is of version 1.
    """

    seed: int
    previous: int
    is_old: bool


def encode(salt: bytes, previous: int) -> bytes:
    """Return the header of a new log.

    Args:
        salt: `SALT_SIZE` random bytes.
        previous: The seed of the log that it replaces; 0 if there is none.
    """
    header = _MAGIC + _VERSION.to_bytes(2, "little") + salt + previous.to_bytes(4, "little")
    return header + crc32(header).to_bytes(4, "little")


def decode(header: bytes) -> Header:
    """Return the fields of a header.

    Raises:
        Incomplete: ``header`` is the beginning of a header, perhaps empty.
        NotALog: it is something else.
        UnknownVersion: it is the header of another format version.
    """
    if not header.startswith(_MAGIC[: len(header)]):
        raise NotALog("it does not begin with the magic bytes of a bigfib state log")
    version = int.from_bytes(header[8:10], "little")
    if len(header) >= 10 and version not in (_OLD_VERSION, _VERSION):
        raise UnknownVersion(
            f"it has format version {version}, and this program knows only "
            f"{_OLD_VERSION} and {_VERSION}"
        )
    if len(header) < SIZE:
        raise Incomplete("a header that is cut off")
    seed = int.from_bytes(header[18:SIZE], "little")
    if crc32(header[:18]) != seed:
        raise NotALog("the checksum of its header is wrong")
    is_old = version == _OLD_VERSION
    return Header(seed, 0 if is_old else int.from_bytes(header[14:18], "little"), is_old)
