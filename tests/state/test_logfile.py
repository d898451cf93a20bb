"""If another program truncates the open log, or writes to it, the log refuses all changes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigfib.state.log import Durability, Log
from bigfib.state.store import CommitFailed
from tests.state.test_log import file_size_limit

SHARED = b"shared"


def truncate_to_zero(path: Path) -> None:
    os.truncate(path, 0)


def truncate_to_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append_a_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"a line\n")


class ChangesBeforeWrite:
    """The real system; once armed, another program acts just before each write."""

    def __init__(self, change: Callable[[], None]) -> None:
        self._change = change
        self.armed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        if self.armed:
            self._change()
        return os.pwrite(fd, data, offset)


def append_and_commit(log: Log, position: int) -> None:
    log.note(SHARED, position)
    log.commit()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate_to_zero, "another program has truncated it.* lost.* put a copy .* in place"),
        (truncate_to_half, "another program has truncated it.* lost.* put a copy .* in place"),
        (append_a_line, "another program has written to it .* instead of .* restart the service"),
    ],
)
class TestChangedByAnother:
    """Another program truncates the open log (``: > state.log``, copytruncate) or writes to it."""

    @pytest.mark.parametrize("durability", Durability)
    def test_next_step_is_refused_for_good(
        self, path: Path, change: Callable[[Path], None], message: str, durability: Durability
    ) -> None:
        log = Log(path, durability)
        for position in range(1, 20):
            log.note(SHARED, position)
            log.commit()
        change(path)
        for position in (20, 21):
            with pytest.raises(CommitFailed, match=message):
                append_and_commit(log, position)
        with pytest.raises(CommitFailed, match=message):
            log.close()

    def test_change_between_append_and_commit_is_noticed(
        self, path: Path, change: Callable[[Path], None], message: str
    ) -> None:
        log = Log(path)
        log.note(b"a", 1)
        log.commit()
        log.note(SHARED, 1)
        change(path)
        with pytest.raises(CommitFailed, match=message):
            log.commit()
        with pytest.raises(CommitFailed):
            log.close()

    @pytest.mark.parametrize("durability", Durability)
    def test_change_before_a_write_is_noticed(
        self, path: Path, change: Callable[[Path], None], message: str, durability: Durability
    ) -> None:
        system = ChangesBeforeWrite(lambda: change(path))
        log = Log(path, durability, system=system)
        log.note(b"a", 1)
        log.commit()
        system.armed = True
        with pytest.raises(CommitFailed, match=message):
            append_and_commit(log, 1)
        with pytest.raises(CommitFailed):
            log.close()

    @pytest.mark.parametrize("durability", Durability)
    def test_change_while_idle_is_reported_when_closed(
        self, path: Path, change: Callable[[Path], None], message: str, durability: Durability
    ) -> None:
        log = Log(path, durability)
        log.note(SHARED, 1)
        log.commit()
        change(path)
        with pytest.raises(CommitFailed, match=message):
            log.close()
        with pytest.raises(CommitFailed, match=message):
            log.check()


@pytest.mark.parametrize("change", [truncate_to_zero, truncate_to_half])
@pytest.mark.parametrize("durability", Durability)
def test_append_without_room_to_a_truncated_log_does_not_extend_it(
    path: Path, change: Callable[[Path], None], durability: Durability
) -> None:
    log = Log(path, durability)
    log.note(SHARED, 1)
    log.commit()
    change(path)
    size = path.stat().st_size
    with file_size_limit(size), pytest.raises(CommitFailed, match="truncated"):
        log.note(b"others", 2**1000)
    assert path.stat().st_size == size
    with pytest.raises(CommitFailed):
        log.close()


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_close_of_a_log_that_is_no_longer_at_its_path_fails(
    path: Path, durability: Durability, replaced: bool
) -> None:
    log = Log(path, durability)
    log.note(SHARED, 1)
    log.commit()
    content = path.read_bytes()
    path.unlink()
    if replaced:
        path.write_bytes(content)
    with pytest.raises(CommitFailed, match="replaced" if replaced else "removed"):
        log.close()


class CloseOfReplacedFileFails:
    """The real system, but closing a file reports what NFS could not write (close(2))."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def close(self, fd: int, /) -> None:
        is_replaced = str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(" (deleted)")
        os.close(fd)
        if is_replaced:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_log_goes_on_after_a_compaction_though_closing_its_old_file_fails(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Log(path, system=CloseOfReplacedFileFails()) as log:
        append_and_commit(log, 1)
        log.compact()
        append_and_commit(log, 2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with Log(path) as log:
        assert log.find(SHARED) == 2
