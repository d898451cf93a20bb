"""Replies wait for the commit of what they show: once a loop iteration, or each for itself."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bigfib.api.commit import Committer
from bigfib.state.log import Log
from bigfib.state.store import CommitFailed


class Disk:
    """The real system calls, except for syncs, which are counted and can fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.fails = False

    def fdatasync(self, fd: int) -> None:
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)
        self.syncs += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def disk() -> Disk:
    return Disk()


class TestWhereIterationsAreFollowed:
    def test_one_sync_at_the_end_of_an_iteration_serves_all(self, path: Path, disk: Disk) -> None:
        with Log(path, system=disk) as log:
            committer = Committer(log)
            committer.end_iteration()
            assert disk.syncs == 0, "nothing was to be committed"
            for position in (1, 2):
                log.note(b"a", position)
                committer.commit()
            assert disk.syncs == 0
            assert log.committed < log.changes
            committer.end_iteration()
            assert disk.syncs == 1
            assert log.committed == log.changes
            committer.end_iteration()
            assert disk.syncs == 1

    def test_functions_are_called_once_after_the_sync(self, path: Path, disk: Disk) -> None:
        seen = []
        with Log(path, system=disk) as log:
            committer = Committer(log)
            committer.end_iteration()
            log.note(b"a", 1)
            committer.when_replies_leave(lambda: seen.append(disk.syncs))
            committer.end_iteration()
            assert seen == [1]
            committer.end_iteration()
            assert seen == [1]

    def test_one_request_may_commit_at_once(self, path: Path, disk: Disk) -> None:
        with Log(path, system=disk) as log:
            committer = Committer(log)
            committer.end_iteration()
            committer.begin_at_once()
            log.note(b"a", 1)
            committer.commit()
            assert disk.syncs == 1
            committer.end_at_once()
            log.note(b"a", 2)
            committer.commit()
            assert disk.syncs == 1

    def test_failed_commit_ends_the_process_before_any_reply(self, path: Path, disk: Disk) -> None:
        seen = []
        log = Log(path, system=disk)
        committer = Committer(log)
        committer.end_iteration()
        log.note(b"a", 1)
        committer.when_replies_leave(lambda: seen.append("a reply may leave"))
        disk.fails = True
        with pytest.raises(SystemExit, match=r"^1$"):
            committer.end_iteration()
        assert not seen
        with pytest.raises(CommitFailed):
            log.close()


class TestWhereIterationsAreNotFollowed:
    def test_each_reply_commits_before_it_begins(self, path: Path, disk: Disk) -> None:
        with Log(path, system=disk) as log:
            committer = Committer(log)
            for position in (1, 2):
                log.note(b"a", position)
                committer.commit()
                assert disk.syncs == position
                assert log.committed == log.changes
            committer.commit()
            assert disk.syncs == 2, "nothing was to be committed"
            committer.begin_at_once()
            committer.end_at_once()
            log.note(b"a", 3)
            committer.commit()
            assert disk.syncs == 3, "still each reply"

    def test_functions_are_called_at_once(self, path: Path) -> None:
        seen = []
        with Log(path) as log:
            Committer(log).when_replies_leave(lambda: seen.append("called"))
        assert seen == ["called"]

    def test_failed_commit_ends_the_process(self, path: Path, disk: Disk) -> None:
        log = Log(path, system=disk)
        log.note(b"a", 1)
        disk.fails = True
        with pytest.raises(SystemExit, match=r"^1$"):
            Committer(log).commit()
