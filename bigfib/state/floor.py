r"""Keep the durable floor: a small file that says how far the state log next to it must be whole.

The records of the log prove only what was durable before the last sync. The floor is written after
each sync, but synced only when the log is closed or compacted, or has not changed for a second. So
a power failure may leave an older floor; it is still true, and nothing relies on its being new.
After a crash of the process alone, the floor is that of the last commit. ::

    floor    := magic seed durable written boot checksum                     48 bytes
                magic     8 bytes   89 66 6C 6F 6F 72 31 0A  ("\x89floor1\n")
                seed      4 bytes   the checksum in the header of the log
                durable   8 bytes   offset up to which the log is on disk
                written   8 bytes   offset up to which it was handed to the operating system, which
                                    keeps it until the machine is restarted
                boot     16 bytes   /proc/sys/kernel/random/boot_id, or zeros
                checksum  4 bytes   CRC-32 of the 44 bytes before it

Numbers are little-endian. `bigfib.state.recovery` decides what a floor means for its log.
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
    """The file is not a valid floor."""


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
    """Return the floor that ``content`` encodes.

    Raises:
        HarmedFloor: it is not a valid floor.
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
    """Return the id of this boot of the machine; `NO_BOOT` if it is unknown."""
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
        self._is_synced = True

    def write(self, seed: int, durable: int, written: int) -> None:
        """Write the offsets up to which the log of this seed is on disk, and written.

        If that fails, the old floor stays, which is still true.
        """
        try:
            files.write(self._system, self._fd, encode((seed, durable, written, self._boot)), 0)
        except OSError as error:
            _logger.warning(
                "%s cannot be written: %s; damage to the state log may go unnoticed",
                *(self._path, error.strerror),
            )
        self._is_synced = False

    def sync(self) -> None:
        """Make the floor durable.

        Raises:
            OSError: it cannot be synced.
        """
        if not self._is_synced:
            # Set before the sync, which may miss a write made meanwhile.
            self._is_synced = True
            self._system.fdatasync(self._fd)
            if not self._has_durable_name:
                files.sync_directory(self._system, self._path.parent)
                self._has_durable_name = True

    def close(self) -> None:
        """Close the file."""
        self._system.close(self._fd)
