"""Create, write and lock the files of a state log.

A file's name is durable only after its directory has been synced, too.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from bigfib.state import header

# Ids of sequences are secrets between a client and the service.
_MODE: Final = 0o600

# Bytes copied at a time.
_PIECE: Final = 1 << 20

# From <linux/falloc.h>.
_KEEP_SIZE: Final = 1

_fallocate: Any = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class System(Protocol):
    """The system calls that change a log, with the signatures of module `os`.

    The log takes them as a parameter, so that tests can record them and make them fail.
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
        OSError: only a part of it, or nothing, has been written.
    """
    written = system.pwrite(fd, data, offset)
    while written < len(data):
        written += system.pwrite(fd, data[written:], offset + written)


def make_append_only(fd: int) -> None:
    """Make `pwrite` append to the file open as ``fd``, regardless of its offset.

    If another program truncates the file, a write at the former end would restore its size, with
    zeros in place of the lost records. Appending leaves it too short, which is then noticed.
    """
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)


def reserve(fd: int, offset: int, size: int) -> None:
    """Reserve ``size`` bytes on the disk, from ``offset`` on, without extending the file.

    `os.posix_fallocate` would extend it, so that a crash leaves zeros at its end; where the file
    system cannot reserve, it would write the zeros.

    Raises:
        OSError: there is no room, or the file system cannot reserve any.
    """
    while _fallocate(fd, _KEEP_SIZE, offset, size):
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def size(fd: int) -> int:
    """Return the size of the file, in 0.3 of the time of `os.fstat`."""
    return os.lseek(fd, 0, os.SEEK_END)


class Access(NamedTuple):
    """The owner, group and permissions of a file."""

    uid: int
    gid: int
    mode: int


def access(log: Path) -> Access:
    """Return the access of the log; before it exists, grant access to the owner of its directory.

    Files that root creates for a log must be accessible to the service that owns it.
    """
    try:
        status = log.stat()
    except FileNotFoundError:
        status = log.parent.stat()
        return Access(status.st_uid, status.st_gid, _MODE)
    return Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o777)


def grant(fd: int, access: Access) -> None:
    """Set owner, group and mode of the new file open as ``fd``, as far as permitted.

    Only root may change the owner, and other users may only set groups they are in. If the group
    cannot be set, the file's group gets no permissions.
    """
    status = os.fstat(fd)
    if status.st_uid != access.uid:
        with contextlib.suppress(OSError):
            os.fchown(fd, access.uid, -1)
    mode = access.mode
    if status.st_gid != access.gid:
        try:
            os.fchown(fd, -1, access.gid)
        except OSError:
            mode &= ~stat.S_IRWXG
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode)


def create(system: System, path: Path, access: Access, previous: int) -> tuple[int, header.Header]:
    """Create a log without records at ``path``, replacing any file there.

    Args:
        system: The system calls that change files.
        path: The new file.
        access: Its owner, group and mode.
        previous: The seed of the log to replace; 0 if there is none.

    Returns:
        Its descriptor and its header.
    """
    encoded = header.encode(os.urandom(header.SALT_SIZE), previous)
    # `grant` would change the owner of the file that a link there leads to.
    with contextlib.suppress(FileNotFoundError):
        system.unlink(path)
    fd = system.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        grant(fd, access)
        write(system, fd, encoded, 0)
        make_append_only(fd)
    except OSError:
        system.close(fd)
        raise
    return fd, header.decode(encoded)


def open_beside(system: System, path: Path, access: Access) -> int:
    """Open the file at ``path`` for writing; create it, accessible like the log next to it.

    Raises:
        OSError: it cannot be opened or created, or is not a regular file.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = system.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
    except FileExistsError:
        fd = system.open(path, flags)
    else:
        # It must be writable even if the log is not.
        grant(fd, Access(access.uid, access.gid, access.mode | _MODE))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        system.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return fd


def copy(system: System, source: int, start: int, target: int) -> None:
    """Copy the file open as ``source``, from offset ``start`` on, to the empty file ``target``.

    Holes, such as a crash may leave at the end of a log, stay holes.
    """
    end = size(source)
    at = start
    while at < end:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # A hole reaches to the end.
        hole = os.lseek(source, at, os.SEEK_HOLE)
        while at < hole:
            piece = os.pread(source, min(hole - at, _PIECE), at)
            write(system, target, piece, at - start)
            at += len(piece)
    system.ftruncate(target, end - start)


def sync_directory(system: System, path: Path) -> None:
    """Make the names in the directory ``path`` durable."""
    fd = system.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        system.fsync(fd)
    finally:
        system.close(fd)


class Held(Exception):
    """Another process holds the lock.

    Attributes:
        pid: The id of that process, or ``""`` if it is unknown.
        owner_url: The URL of its service, or ``""``.
    """

    def __init__(self, pid: str, owner_url: str) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid
        self.owner_url = owner_url


def lock_open(fd: int) -> None:
    """Lock the file open as ``fd`` for this process.

    Raises:
        Held: another process holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held("", "") from None


def make_directory(system: System, path: Path) -> None:
    """Create the directory ``path`` and its parents, durably."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        sync_directory(system, directory.parent)


def lock(log: Path, owner_url: str) -> int:
    """Lock the log at ``log``, and write process id and URL into its lock file.

    The lock lasts until the returned descriptor is closed, so a killed process leaves none behind.

    Raises:
        Held: another process holds it.
    """
    fd = open_beside(os, log.with_name(log.name + ".lock"), access(log))
    try:
        lock_open(fd)
    except Held:
        pid, _, holder = os.pread(fd, 1000, 0).decode(errors="replace").partition("\n")
        os.close(fd)
        raise Held(pid, holder.strip()) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n{owner_url}\n".encode(), 0)
    return fd
