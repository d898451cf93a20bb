"""The files of a state log: how one comes to be, is replaced, and is locked.

A name in a directory is durable only when the directory has been synced too.
"""

import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from bigfib.state import records

# Ids of sequences are secrets between a client and the service.
_MODE: Final = 0o600


class System(Protocol):
    """The calls by which a log is changed, as module `os` has them.

    Given to the log by those who call, so that tests can record and refuse them.
    """

    def open(self, path: Path, flags: int, mode: int = ..., /) -> int: ...  # noqa: D102
    def close(self, fd: int, /) -> None: ...  # noqa: D102
    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int: ...  # noqa: D102
    def ftruncate(self, fd: int, length: int, /) -> None: ...  # noqa: D102
    def fsync(self, fd: int, /) -> None: ...  # noqa: D102
    def fdatasync(self, fd: int, /) -> None: ...  # noqa: D102
    def rename(self, source: Path, target: Path, /) -> None: ...  # noqa: D102
    def unlink(self, path: Path, /) -> None: ...  # noqa: D102


def write(system: System, fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``.

    Raises:
        OSError: a part, or nothing, has been written.
    """
    written = system.pwrite(fd, data, offset)
    while written < len(data):
        written += system.pwrite(fd, data[written:], offset + written)


def set_appending(fd: int, *, appending: bool) -> None:
    """Let `pwrite` append to the file whatever its offset says, or not.

    A log that another program has truncated then stays shorter than it should be: a write at its
    former end would restore its size, with zeros in place of what is lost.
    """
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND if appending else 0)


def size(fd: int) -> int:
    """Return how many bytes the file has. Measured beside `os.fstat`: 0.3 of the time."""
    return os.lseek(fd, 0, os.SEEK_END)


def create(system: System, path: Path) -> tuple[int, int]:
    """Create a log with no records at ``path``, in place of what is there.

    Returns:
        Its descriptor, and the seed of its checksums.
    """
    header = records.encode_header(os.urandom(records.SALT_SIZE))
    fd = system.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    try:
        write(system, fd, header, 0)
        set_appending(fd, appending=True)
    except OSError:
        system.close(fd)
        raise
    return fd, records.decode_header(header)


def sync_directory(system: System, path: Path) -> None:
    """Make durable which names there are in the directory ``path``."""
    fd = system.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        system.fsync(fd)
    finally:
        system.close(fd)


class Held(Exception):
    """Another process holds the lock.

    Attributes:
        pid: That process.
        contact: Where it can be reached, as it said, or ``""``.
    """

    def __init__(self, pid: str, contact: str) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid
        self.contact = contact


def lock_open(fd: int) -> None:
    """Lock the file that is open as ``fd`` for this process.

    Raises:
        Held: another process holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held("", "") from None


def make_directory(system: System, path: Path) -> None:
    """Create the directory ``path``, and those that lead to it, durably."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        sync_directory(system, directory.parent)


def lock(path: Path, contact: str) -> int:
    """Lock the file ``path`` for this process, and say in it who holds it.

    The lock goes with the returned descriptor, so a process that is killed leaves none behind.

    Raises:
        Held: another process holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
    try:
        lock_open(fd)
    except Held:
        pid, _, holder = os.pread(fd, 1000, 0).decode(errors="replace").partition("\n")
        os.close(fd)
        raise Held(pid, holder.strip()) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n{contact}\n".encode(), 0)
    return fd
