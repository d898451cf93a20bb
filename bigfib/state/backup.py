"""Write a whole log at once: a backup of another log, or the result of a repair."""

import errno
import os
from pathlib import Path

from bigfib.state import files, reader
from bigfib.state.compaction import CompactedFile
from bigfib.state.reader import Contents


def backup(log: Path, target: Path) -> Contents:
    """Write a compacted copy of the log to ``target``, and return its contents.

    A service may write to the log meanwhile. The copy has all steps acknowledged before the call.
    A file at ``target`` is replaced when the copy is complete, verified and on disk.

    Raises:
        Unusable, Damaged, Unreadable: as `reader.read`.
        OSError: the copy cannot be written.
    """
    if target.exists() and target.samefile(log):
        raise OSError(errno.EINVAL, "it is the log itself")
    contents = reader.read(log, synced=True)
    write_log(target, contents.latest, previous=0, access=files.access(log))
    return contents


def write_log(
    target: Path, latest: dict[bytes, int], *, previous: int, access: files.Access
) -> None:
    """Write a log of these sequences; it gets its name when it is verified and on disk.

    Args:
        target: The new log.
        latest: Each sequence, as packed by `packed.pack`.
        previous: The seed of the log that it replaces; 0 if there is none.
        access: Owner, group and mode of the new log.

    Raises:
        OSError: it cannot be written, or its content differs when it is read again.
    """
    copy = CompactedFile(
        *(os, target, latest),
        previous=previous,
        access=access,
        today=0,
        oldest_day=0,
        permanent=b"",
    )
    try:
        while not copy.advance():
            copy.wait()
        _require_same(copy.new_path, latest)
        copy.finish()
        files.sync_directory(os, target.parent)
    except BaseException:
        copy.abandon()
        raise
    os.close(copy.fd)


def _require_same(path: Path, latest: dict[bytes, int]) -> None:
    if reader.read(path).latest != latest:
        raise OSError(errno.EIO, "its content differs when it is read again")
