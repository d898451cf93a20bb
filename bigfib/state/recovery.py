"""Open a state log for writing: create it, or recover it as a crash left it.

What `recover` finds at the path, and what it then does:

    nothing, or a part of a header          create the log (a warning, if there was a part)
    records to the end of the file          sync
    records, then a torn tail               cut the tail off with a warning, sync
    records, then a fault where a later     raise `Damaged`, change nothing
      record proves that it was synced
    another file, another format version    raise `Unusable`, change nothing
    bytes that the disk cannot read         raise `Unreadable`, change nothing
    a log open in another process           raise `Held`, change nothing

What a compaction cut short left next to the log is removed, unless nothing may change.
"""

import collections
import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from bigfib.state import files, records
from bigfib.state.errors import Damaged
from bigfib.state.files import System
from bigfib.state.reader import Contents, inspect
from bigfib.state.rewrite import new_path

_logger = logging.getLogger(__name__)

# 2026-11-26, when this was written: no clock that is right is before it.
_FIRST_DAY: Final = 20_783

_FAR_AHEAD_DAYS: Final = 3_650


def recover(system: System, path: Path, name: Path) -> tuple[int, Contents]:
    """Return the locked descriptor of the log at ``path``, and its records, which are durable.

    Args:
        system: The system calls that change files.
        path: The log's file, with links resolved.
        name: The path to name in warnings and errors.

    Raises:
        Held: another process is writing to it.
        Damaged: something that was durable in it is no longer there.
        Unusable: there is something else at ``path``, or it may not be written.
        Unreadable: the disk fails to read it.
        OSError: it cannot be opened, created or synced.
    """
    fd = -1
    try:
        with contextlib.suppress(FileNotFoundError):
            fd = system.open(path, os.O_RDWR | os.O_CLOEXEC)
            files.set_appending(fd, appending=True)
            # Under another name, the log has another lock file.
            files.lock_open(fd)
        contents = inspect(path)
        _refuse_damage(name, contents)
        with contextlib.suppress(FileNotFoundError):
            system.unlink(new_path(path))
        if contents.end:
            if contents.fault:
                _cut_off_tail(system, fd, name, contents)
            system.fsync(fd)
        else:
            if contents.fault:
                _logger.warning("state log %s: header incomplete; creating the log again", name)
            if fd >= 0:
                system.close(fd)
                fd = -1
            fd, contents = _create(system, path)
        files.sync_directory(system, path.parent)
    except BaseException:
        if fd >= 0:
            system.close(fd)
        raise
    return fd, contents


def _refuse_damage(name: Path, contents: Contents) -> None:
    if contents.fault and contents.fault.promised is not None:
        raise Damaged(name, contents.fault)


def _cut_off_tail(system: System, fd: int, name: Path, contents: Contents) -> None:
    _logger.warning(
        "state log %s is torn: %s; cutting off the last %d bytes",
        *(name, contents.fault, contents.size - contents.end),
    )
    system.ftruncate(fd, contents.end)


def _create(system: System, path: Path) -> tuple[int, Contents]:
    """Create an empty log, whose header is durable before the log has its name."""
    new = new_path(path)
    fd, seed = files.create(system, new, files.access(path))
    try:
        files.lock_open(fd)
        system.fsync(fd)
        system.rename(new, path)
    except BaseException:
        system.close(fd)
        raise
    return fd, Contents(seed, {}, 0, records.HEADER_SIZE, records.HEADER_SIZE, None)


def typical_day(latest: dict[bytes, int], permanent: bytes, today: int) -> int:
    """Return the day by which half of the sequences were last touched, or today.

    No record is given an earlier day, whatever the clock reports. Otherwise sequences touched under
    a clock that is behind, such as one that starts in 1970, would expire as soon as the clock is
    set right. A few sequences touched under a clock that is ahead do not change the median. If that
    is far ahead of a clock that may be right, the sequences were touched under a wrong one.

    Args:
        latest: Position and day of each sequence, as `records.pack` joins them.
        permanent: The id of the sequence that never expires, which does not count here.
        today: The day of the clock; returned without sequences.
    """
    days = collections.Counter(
        packed & records.MAX_DAY
        for sequence_id, packed in latest.items()
        if sequence_id != permanent
    )
    left = (days.total() + 1) // 2
    for day in sorted(days):
        left -= days[day]
        if left <= 0:
            may_be_right = today >= _FIRST_DAY
            return today if may_be_right and day > today + _FAR_AHEAD_DAYS else day
    return today
