"""The file of an open state log: reserve, append, sync, and detect changes by other programs.

No byte of it is written twice. It is truncated only to remove a record that could not be written.
"""

import contextlib
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from bigfib.state import files
from bigfib.state.errors import AppendFailed
from bigfib.state.files import System
from bigfib.state.store import CommitFailed

# Bytes reserved at a time: some 10 thousand records, so that few commits pay for it. If the process
# is killed, they stay reserved until the log is next compacted.
_RESERVED: Final = 1 << 18

_RESTART: Final = (
    "steps since the last sync may be lost; restart the service when the cause is removed"
)

_CANNOT_RESERVE: Final = (errno.EOPNOTSUPP, errno.ENOSYS)


class LogFile:
    """A log's file, open for writing.

    Its methods raise `CommitFailed` if the size of the file is not what they have written: another
    program has then truncated the file, or written to it.

    Attributes:
        path: The file, with links resolved.
        size: The number of bytes in it.
        failure: The `CommitFailed` that every further change raises; None while there is none.
        coalesces: Whether changes may wait and share records. They may not if the file system
            cannot reserve room for them, or in a log of the old format, whose records are counted.
    """

    def __init__(self, system: System, path: Path, fd: int, size: int, *, is_old: bool) -> None:
        """Take over the open descriptor ``fd`` of the file at ``path``, which has ``size`` bytes.

        Args:
            system: The system calls that change files.
            path: The file, with links resolved.
            fd: Its descriptor, which this closes.
            size: The number of bytes in it.
            is_old: Whether it is of the old format.
        """
        self.path = path
        self.failure: CommitFailed | None = None
        self._reserves = True
        self._system = system
        try:
            self._take(fd, size)
        except OSError:
            system.close(fd)
            raise
        self.coalesces = not is_old

    def _take(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = self._reserved = size
        status = os.fstat(fd)
        self._device, self._inode = status.st_dev, status.st_ino

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure:
            raise self.failure

    def room(self) -> int:
        """Return how many bytes are reserved and may be written.

        The limit of this process for the size of files (``ulimit -f``) applies to writing, but not
        to reserving.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit == resource.RLIM_INFINITY or limit > self._reserved:
            return self._reserved - self.size
        return limit - self.size

    def reserve(self, size: int) -> None:
        """Reserve room for ``size`` bytes at the end, or note that the file system cannot reserve.

        Raises:
            AppendFailed: there is no room; the file is unchanged.
        """
        # Twice the size, so that a commit of very many changes does not reserve for each of them.
        for step in (max(2 * size, _RESERVED), size):
            try:
                files.reserve(self._fd, self.size, step)
            except OSError as error:
                failure = error
                continue
            self._reserved = self.size + step
            if self.room() >= size:
                return
            failure = OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self.coalesces = self._reserves = failure.errno not in _CANNOT_RESERVE
        if self._reserves:
            self.require_size()
            raise AppendFailed(f"state log {self.path}: {failure.strerror}") from failure

    def append(self, data: bytes) -> None:
        """Write ``data`` at the end, into reserved room."""
        try:
            files.write(self._system, self._fd, data, self.size)
        except OSError as error:
            self._stop(f"{error.strerror} while writing", error)
        self.size += len(data)

    def append_or_refuse(self, data: bytes) -> None:
        """Write ``data`` at the end without reserved room.

        Raises:
            AppendFailed: it cannot be written; the file is unchanged.
        """
        try:
            files.write(self._system, self._fd, data, self.size)
        except OSError as error:
            # Part of a record would shift the next one, and a whole record that was refused must
            # not be replayed at the next start. But a file that is too short must not be extended.
            with contextlib.suppress(OSError):
                if files.size(self._fd) > self.size:
                    self._system.ftruncate(self._fd, self.size)
            self.require_size()
            raise AppendFailed(f"state log {self.path}: {error.strerror}") from error
        self.size += len(data)

    def sync(self) -> None:
        """Make the file durable."""
        try:
            self._system.fdatasync(self._fd)
        except OSError as error:
            self._stop(f"{error.strerror} while syncing", error)
        self.require_in_place()

    def require_in_place(self) -> None:
        """Check that the file is at its path and has the expected size."""
        try:
            status = self.path.stat()
        except OSError as error:
            self._stop("it has been removed", error)
        if status.st_ino != self._inode or status.st_dev != self._device:
            self._stop("it has been replaced")
        if status.st_size != self.size:
            self._stop_for_size(status.st_size)

    def require_size(self) -> None:
        """Check that the file has the expected size."""
        size = files.size(self._fd)
        if size != self.size:
            self._stop_for_size(size)

    def replace(self, fd: int, size: int, on_renamed: Callable[[], None]) -> None:
        """Close the file, and go on with the new one open as ``fd``, which has been renamed to it.

        If the name cannot be made durable, later changes raise that, but not this method: the
        commit that started the compaction has succeeded.

        Args:
            fd: The descriptor of the new file.
            size: Its size.
            on_renamed: Called when the name is durable; may raise `OSError`.
        """
        old = self._fd
        self._take(fd, size)
        # The new file has everything that is in the old one, durably.
        with contextlib.suppress(OSError):
            self._system.close(old)
        self.coalesces = self._reserves
        try:
            files.sync_directory(self._system, self.path.parent)
            on_renamed()
        except OSError as error:
            with contextlib.suppress(CommitFailed):
                self._stop(f"{error.strerror} while syncing its directory", error)

    def close(self) -> None:
        """Close the file, and release reserved room that is not used."""
        if self._reserved > self.size and files.size(self._fd) == self.size:
            with contextlib.suppress(OSError):
                self._system.ftruncate(self._fd, self.size)
        self._system.close(self._fd)

    def _stop(self, reason: str, cause: OSError | None = None, advice: str = _RESTART) -> NoReturn:
        """Refuse all changes from now on; raise `CommitFailed` with the reason."""
        self.failure = CommitFailed(f"state log {self.path}: {reason}; {advice}")
        raise self.failure from cause

    def _stop_for_size(self, size: int) -> NoReturn:
        if size > self.size:
            self._stop(f"another program has written to it ({size} bytes instead of {self.size})")
        self._stop(
            f"another program has truncated it after {self.size} bytes were written",
            advice="positions in it are lost; before a restart put a copy of the file in place, "
            "such as the one that logrotate makes with copytruncate, and exclude the file from "
            "rotation",
        )
