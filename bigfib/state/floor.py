r"""The durable floor: how far a state log is known to be whole, in a small file next to it.

The log's own records prove what was durable before the last sync only. The floor is written after
each sync, and synced itself only when the log is closed or rewritten, or has not changed for a
second. So after a power failure it may be an old one: what it says is true, and it is never relied
on to be new. After the end of the process, however sudden, it is that of the last commit. ::

    floor    := magic seed durable written boot checksum                     48 bytes
                magic     8 bytes   89 66 6C 6F 6F 72 31 0A  ("\x89floor1\n")
                seed      4 bytes   the checksum in the header of the log
                durable   8 bytes   offset up to which the log is on disk
                written   8 bytes   offset up to which it was handed to the operating system, which
                                    is as good until the machine is restarted
                boot     16 bytes   /proc/sys/kernel/random/boot_id, or zeros
                checksum  4 bytes   CRC-32 of the 44 bytes before it

Numbers are little-endian. `bigfib.state.recovery` says what follows from it.
"""

import logging
import os
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from bigfib.state import files
from bigfib.state.files import Access, System

_logger = logging.getLogger(__name__)

_MAGIC: Final = b"\x89floor1\n"
_FIELDS: Final = Struct("<8sIQQ16s")
_SIZE: Final = _FIELDS.size + 4

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
NO_BOOT: Final = bytes(16)


class HarmedFloor(ValueError):
    """The file is not a floor that was written as one."""


class Floor(NamedTuple):
    """The fields of a floor, as drawn above."""

    seed: int
    durable: int
    written: int
    boot: bytes


def path_of(log: Path) -> Path:
    """Return the path of the floor of the log at ``log``."""
    return log.with_name(log.name + ".floor")


def encode(floor: tuple[int, int, int, bytes]) -> bytes:
    """Return the bytes of a floor, whose fields are those of `Floor`."""
    fields = _FIELDS.pack(_MAGIC, *floor)
    return fields + crc32(fields).to_bytes(4, "little")


def decode(content: bytes) -> Floor:
    """Return the floor of these bytes.

    Raises:
        HarmedFloor: they are not those of a floor.
    """
    fields = content[: _FIELDS.size]
    if len(content) != _SIZE or crc32(fields).to_bytes(4, "little") != content[_FIELDS.size :]:
        raise HarmedFloor
    magic, *rest = _FIELDS.unpack(fields)
    if magic != _MAGIC:
        raise HarmedFloor
    return Floor(*rest)


def read(log: Path) -> Floor | None:
    """Return the floor of the log at ``log``, or None if it has none.

    Raises:
        HarmedFloor: it cannot be read.
    """
    try:
        return decode(path_of(Path(os.path.realpath(log))).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HarmedFloor from error


def boot() -> bytes:
    """Return what tells this run of the machine from others, `NO_BOOT` if that is unknown."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text().replace("-", ""))[:16]
    except (OSError, ValueError):
        return NO_BOOT


class FloorFile:
    """The floor of a log that is open for writing."""

    def __init__(self, system: System, log: Path, access: Access) -> None:
        """Open the floor of the log at ``log``, or create it.

        Args:
            system: The system calls that change files.
            log: The log, with links resolved.
            access: Owner, group and mode of a new file.
        """
        self._path = path_of(log)
        self._system = system
        self._boot = boot()
        self._fd = files.open_beside(system, self._path, access)
        self._has_durable_name = False
        self.is_synced = True

    def write(self, seed: int, durable: int, written: int) -> None:
        """Write that the log of this seed is on disk, and written, up to these offsets.

        A floor that cannot be written is an old one, which is as true.
        """
        try:
            files.write(self._system, self._fd, encode((seed, durable, written, self._boot)), 0)
        except OSError as error:
            _logger.warning(
                "%s cannot be written: %s; damage to the state log may go unnoticed",
                *(self._path, error.strerror),
            )
        self.is_synced = False

    def sync(self) -> None:
        """Make the floor durable.

        Raises:
            OSError: it cannot be synced.
        """
        if not self.is_synced:
            # Before: what is written meanwhile is not synced.
            self.is_synced = True
            self._system.fdatasync(self._fd)
            if not self._has_durable_name:
                files.sync_directory(self._system, self._path.parent)
                self._has_durable_name = True

    def close(self) -> None:
        """Close the file."""
        self._system.close(self._fd)
