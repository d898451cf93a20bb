"""Open a state log for writing: create it, or recover it after a crash.

`recovery` decides what is done. A torn end that is cut off is kept in another file.
"""

import collections
import contextlib
import glob
import logging
import os
from pathlib import Path
from typing import Final

from bigfib.state import files, header
from bigfib.state.compaction import new_path
from bigfib.state.files import System
from bigfib.state.packed import MAX_DAY
from bigfib.state.reader import Contents, inspect
from bigfib.state.recovery import Decision

_logger = logging.getLogger(__name__)

# 2026-11-26, when this was written: an earlier clock is wrong.
_FIRST_DAY: Final = 20_783

_FAR_AHEAD_DAYS: Final = 3_650

# How many torn ends are kept.
_ENDS_KEPT: Final = 3


def open_file(system: System, path: Path, name: Path) -> tuple[int, Contents]:
    """Return the locked descriptor of the log at ``path``, and its records, which are durable.

    The new file of an unfinished compaction is removed, unless the log is refused.

    Args:
        system: The system calls that change files.
        path: The log's file, with links resolved.
        name: The path to name in warnings and errors.

    Raises:
        Held: another process is writing to it.
        Damaged, Unusable, Unreadable: as `Found.refuse`; nothing has changed.
        OSError: it cannot be opened, created or synced.
    """
    fd = -1
    try:
        with contextlib.suppress(FileNotFoundError):
            fd = system.open(path, os.O_RDWR | os.O_CLOEXEC)
            files.make_append_only(fd)
            # Under another name the log has another lock file, so lock the log itself, too.
            files.lock_open(fd)
        contents = inspect(path)
        contents.refuse(name)
        with contextlib.suppress(FileNotFoundError):
            system.unlink(new_path(path))
        decision = contents.case.decision
        if decision is Decision.CREATE:
            fd, contents = _create(system, path)
        else:
            message = contents.message(path)
            if decision is Decision.CUT:
                kept = _cut_off_end(system, fd, path, contents)
                message += f"; the bytes from there on are cut off, and kept in {kept}"
            if message:
                _logger.warning("state log %s: %s", name, message)
            system.fsync(fd)
        files.sync_directory(system, path.parent)
    except BaseException:
        if fd >= 0:
            system.close(fd)
        raise
    return fd, contents


def _create(system: System, path: Path) -> tuple[int, Contents]:
    """Create an empty log; make its header durable before renaming it to its name."""
    new = new_path(path)
    fd, created = files.create(system, new, files.access(path), previous=0)
    try:
        files.lock_open(fd)
        system.fsync(fd)
        system.rename(new, path)
    except BaseException:
        system.close(fd)
        raise
    return fd, Contents(size=header.SIZE, header=created, end=header.SIZE)


def _cut_off_end(system: System, fd: int, path: Path, contents: Contents) -> Path:
    """Move what follows the last record to a new file, and return that file's path."""
    kept = _ends(path)
    number = int(kept[-1].suffix[1:]) + 1 if kept else 1
    target = path.with_name(f"{path.name}.torn.{number}")
    copy = system.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        files.grant(copy, files.access(path))
        files.copy(system, fd, contents.end, copy)
        system.fsync(copy)
    finally:
        system.close(copy)
    files.sync_directory(system, path.parent)
    system.ftruncate(fd, contents.end)
    for oldest in [*kept, target][:-_ENDS_KEPT]:
        system.unlink(oldest)
    return target


def _ends(path: Path) -> list[Path]:
    """Return the files of torn ends, the oldest first."""
    found = [
        each
        for each in path.parent.glob(f"{glob.escape(path.name)}.torn.*")
        if each.suffix[1:].isdecimal()
    ]
    return sorted(found, key=lambda each: int(each.suffix[1:]))


def typical_day(latest: dict[bytes, int], permanent: bytes, today: int) -> int:
    """Return the median day on which sequences were last touched, or today.

    No record gets an earlier day, whatever the clock reports. Otherwise sequences touched under a
    clock that is behind, such as one that starts in 1970, would expire as soon as the clock is set
    right. A few sequences touched under a clock that is ahead do not change the median. If the
    median itself is far ahead of a plausible clock, it is wrong, and today is returned.

    Args:
        latest: Each sequence, as packed by `packed.pack`.
        permanent: The id of the sequence that never expires, which does not count here.
        today: The day of the clock; returned if there are no sequences.
    """
    days = collections.Counter(
        packed & MAX_DAY for sequence_id, packed in latest.items() if sequence_id != permanent
    )
    left = (days.total() + 1) // 2
    for day in sorted(days):
        left -= days[day]
        if left <= 0:
            may_be_right = today >= _FIRST_DAY
            return today if may_be_right and day > today + _FAR_AHEAD_DAYS else day
    return today
