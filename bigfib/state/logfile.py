"""The file of an open state log: write, sync, and notice what another program does to it."""

import contextlib
import os
from pathlib import Path
from typing import NoReturn

from bigfib.state import files
from bigfib.state.errors import AppendFailed, CommitFailed
from bigfib.state.files import System


class LogFile:
    """A log's file, open for writing.

    Its methods take the size that the file must have, and raise `CommitFailed` if it has another:
    then another program has truncated the file, or written to it.

    Attributes:
        path: The file, with links resolved.
        failure: The `CommitFailed` that every further change raises; None as long as all is well.
    """

    def __init__(self, system: System, path: Path, fd: int, *, syncs: bool) -> None:
        """Take over the open descriptor ``fd`` of the file at ``path``.

        Args:
            system: The system calls that change files.
            path: The file, with links resolved.
            fd: Its descriptor, which this closes.
            syncs: Whether `sync` will check the size; if not, every append does.
        """
        self.path = path
        self.failure: CommitFailed | None = None
        self._system = system
        self._fd = fd
        self._syncs = syncs
        self._identity = _identity(os.fstat(fd))

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure:
            raise self.failure

    def append(self, record: bytes, offset: int) -> None:
        """Write a record at ``offset``, where the file ends.

        Raises:
            AppendFailed: the record cannot be written; the file is unchanged.
        """
        try:
            if (written := self._system.pwrite(self._fd, record, offset)) < len(record):
                files.write(self._system, self._fd, record[written:], offset + written)
        except OSError as error:
            # A part of the record would shift the next one, and a whole record that was refused
            # must not come back at the next start. A file that is shorter must not be extended.
            with contextlib.suppress(OSError):
                if files.size(self._fd) > offset:
                    self._system.ftruncate(self._fd, offset)
            self.require_size(offset)
            raise AppendFailed(f"state log {self.path}: {error.strerror}") from error
        if not self._syncs and files.size(self._fd) != offset + len(record):
            self.require_size(offset + len(record))

    def overwrite(self, pieces: dict[int, bytes], size: int) -> None:
        """Write records again, by offset."""
        try:
            is_whole = files.overwrite(self._system, self._fd, pieces)
        except OSError as error:
            self.stop(f"{error.strerror} while writing", error)
        self._compare_size(size if is_whole else 0, size)

    def sync(self, size: int) -> None:
        """Make the file durable."""
        try:
            self._system.fdatasync(self._fd)
        except OSError as error:
            self.stop(f"{error.strerror} while syncing", error)
        self.require_in_place(size)

    def require_in_place(self, size: int) -> None:
        """Return if the file is at its path and has ``size`` bytes."""
        try:
            status = self.path.stat()
        except OSError as error:
            self.stop("it has been removed", error)
        if _identity(status) != self._identity:
            self.stop("it has been replaced")
        self._compare_size(status.st_size, size)

    def replace(self, fd: int) -> None:
        """Close the file, and go on with the one open as ``fd``, which has its name.

        A failure to make the name durable is not raised here: the change that brought the
        compaction about has succeeded.
        """
        self._system.close(self._fd)
        self._fd = fd
        self._identity = _identity(os.fstat(fd))
        try:
            files.sync_directory(self._system, self.path.parent)
        except OSError as error:
            with contextlib.suppress(CommitFailed):
                self.stop(f"{error.strerror} while syncing its directory", error)

    def require_size(self, size: int) -> None:
        """Return if the file has ``size`` bytes."""
        self._compare_size(files.size(self._fd), size)

    def close(self) -> None:
        """Close the file."""
        self._system.close(self._fd)

    def stop(self, reason: str, cause: OSError | None = None) -> NoReturn:
        """Refuse all changes from now on, and raise the reason."""
        self.failure = CommitFailed(
            f"state log {self.path}: {reason}; steps since the last sync may be lost; restart the "
            "service when the cause is removed"
        )
        raise self.failure from cause

    def _compare_size(self, size: int, expected: int) -> None:
        if size > expected:
            self.stop(f"another program has written to it ({size} bytes instead of {expected})")
        if size < expected:
            self.failure = CommitFailed(
                f"state log {self.path}: another program has truncated it after {expected} bytes "
                "were written; positions in it are lost; before a restart put a copy of the file "
                "in place, such as the one that logrotate makes with copytruncate, and exclude the "
                "file from rotation"
            )
            raise self.failure


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
