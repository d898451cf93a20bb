"""Check the open state log in the background, while its service knows every position.

Damage found at a start means lost positions. Found while the service runs, it costs nothing:
`log.Log` then compacts, which writes every position from memory to a new file.

`Scrub` reads the file from beginning to end with the reader that opening uses, one piece a call,
and begins again after a pause. A call takes about a millisecond.

Before it reads a piece, the kernel drops the cached pages and fetches them again, so that damage on
the disk is seen. It does not see damage to pages that are not written yet (with `Durability.OS`),
on file systems that ignore the advice (tmpfs) or have their own cache (ZFS), or behind the cache of
the disk itself. If the disk takes long to fail a read, the service waits that long.

If the log is appended to or compacted faster than it is checked, the check does not reach the end
of the log; the unchecked part was written recently.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import BinaryIO, Final

from bigfib.state.errors import Unreadable
from bigfib.state.header import NotALog, UnknownVersion
from bigfib.state.reader import Reader
from bigfib.state.records import Incomplete

_logger = logging.getLogger(__name__)

INTERVAL: Final = 0.25
"""Seconds between two pieces."""

# Bytes: 64 KiB a second, or 0.4 % of a core.
_PIECE: Final = 1 << 14

# Seconds of pause after a check of the whole file: checking a small log takes less.
_PAUSE: Final = 10.0

_PAGE: Final = 4096


class Scrub:
    """Check the file of a log that is open for writing.

    Attributes:
        checks: How often a file was read to its end and found whole.
        faults: How often damage was found.
        fault: The damage found in this file by the last check; empty if there was none.
    """

    def __init__(self, path: Path) -> None:
        """Check the log at ``path``, once `follow` has been called."""
        self._path = path
        self._fd = -1
        self._file: BinaryIO | None = None
        self._reader: Reader | None = None
        self._begins_at = 0.0
        self.checks = self.faults = 0
        self.fault = ""

    def follow(self, fd: int) -> None:
        """Check the file open as ``fd`` from now on."""
        self.close()
        if self.fault:
            _logger.warning("state log %s has been compacted, and is whole", self._path)
        self._fd = fd
        self._file = self._reader = None
        self._begins_at = 0.0
        self.fault = ""

    def advance(self, now: float) -> bool:
        """Check the next piece, if it is due, and return whether it is damaged.

        The file must end with its last record.

        Args:
            now: The time in seconds.
        """
        if now < self._begins_at:
            return False
        if self._file is None:
            try:
                # Not by its path, where there may be another file by now.
                file = open(f"/proc/self/fd/{self._fd}", "rb", buffering=0)  # noqa: PTH123, SIM115
            except OSError as error:
                _logger.warning("state log %s cannot be checked: %s", self._path, error.strerror)
                self._begins_at = now + _PAUSE
                return False
            self._file = file
        self.fault = ""
        try:
            if not self._read(self._file):
                return False
        except Unreadable:
            at = self._reader.end if self._reader else 0
            self.fault = f"the disk fails to read what is at offset {at}"
        except (NotALog, UnknownVersion, Incomplete) as error:
            self.fault = str(error)
        self._reader = None
        self._begins_at = now + _PAUSE
        if not self.fault:
            self.checks += 1
            return False
        self.faults += 1
        _logger.error(
            "state log %s is damaged on its disk: %s; no step is lost: it is being compacted from "
            "memory; check the disk",
            *(self._path, self.fault),
        )
        return True

    def _read(self, file: BinaryIO) -> bool:
        """Check the next piece, and return whether that was the last one."""
        if self._reader is None:
            _fetch(file, 0)
            self._reader = Reader(file, _PIECE, judges=False)
        reader = self._reader
        start = reader.end
        records: dict[bytes, int] = {}
        while reader.advance(records):
            records.clear()
            # Stop well before the end of the piece, which may cut a record.
            if reader.end - start > _PIECE // 2:
                _fetch(file, reader.end)
                return False
        self.fault = str(reader.fault or "")
        return True

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file:
            self._file.close()


def _fetch(file: BinaryIO, offset: int) -> None:
    """Have the kernel drop the next piece from its cache and start to read it from the disk."""
    start = offset - offset % _PAGE
    for advice in (os.POSIX_FADV_DONTNEED, os.POSIX_FADV_WILLNEED):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), start, _PIECE + _PAGE, advice)
