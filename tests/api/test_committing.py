"""When the bytes of a reply may leave."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from bigfib.api.committing import Committer
from bigfib.state.log import Durability, Log

LONG = b"7" * 100_000


class Disk:
    """The system, but for its syncs, which are counted and can fail."""

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


class TestByTurns:
    def test_replies_are_whole_and_one_sync_serves_all(self, path: Path, disk: Disk) -> None:
        with Log(path, system=disk) as log:
            committer = Committer(log)
            committer.end_iteration()
            assert disk.syncs == 0, "nothing was to be committed"
            bodies = [
                committer.body(log.append(b"a", position), b"<", b"%d" % position, b">")
                for position in (1, 2)
            ]
            assert bodies == [[b"<1>"], [b"<2>"]]
            assert committer.body(log.end, b"<", LONG) == (b"<", LONG), "it is not copied"
            committer.commit()
            assert disk.syncs == 0, "a reply without a body waits like the others"
            assert log.committed < log.end
            committer.end_iteration()
            assert disk.syncs == 1
            assert log.committed == log.end
            committer.end_iteration()
            assert disk.syncs == 1

    def test_what_comes_afterwards_comes_once(self, path: Path, disk: Disk) -> None:
        seen = []
        with Log(path, system=disk) as log:
            committer = Committer(log)
            committer.end_iteration()
            log.append(b"a", 1)
            committer.on_commit.append(lambda: seen.append(disk.syncs))
            committer.end_iteration()
            assert seen == [1]
            committer.end_iteration()
            assert seen == [1]

    def test_a_commit_that_fails_is_the_end(self, path: Path, disk: Disk) -> None:
        seen = []
        log = Log(path, system=disk)
        committer = Committer(log)
        committer.end_iteration()
        log.append(b"a", 1)
        committer.on_commit.append(lambda: seen.append("a reply may leave"))
        disk.fails = True
        with pytest.raises(SystemExit, match=r"^1$"):
            committer.end_iteration()
        assert not seen


class TestByReplies:
    def test_the_rest_comes_after_the_sync(self, path: Path, disk: Disk) -> None:
        with Log(path, system=disk) as log:
            committer = Committer(log)
            # Two that wait at the same time: the first syncs for both.
            bodies = [
                iter(committer.body(log.append(b"a", position), b"<", b"%d" % position, b">"))
                for position in (1, 2)
            ]
            assert [next(body) for body in bodies] == [b"<", b"<"], "this much says nothing"
            assert disk.syncs == 0
            assert next(bodies[0]) == b"1>"
            assert disk.syncs == 1
            assert list(bodies[1]) == [b"2>"]
            assert disk.syncs == 1
            log.append(b"a", 3)
            committer.commit()
            assert disk.syncs == 2, "a reply without a body waits before it begins"

    @pytest.mark.parametrize("durability", Durability)
    def test_what_is_committed_leaves_at_once(self, path: Path, durability: Durability) -> None:
        with Log(path, durability) as log:
            lsn = log.append(b"a", 7)
            log.commit(lsn)
            assert Committer(log).body(lsn, b"<", b"7") == [b"<7"]
            assert Committer(log).body(lsn, b"<", LONG) == (b"<", LONG)

    def test_a_commit_that_fails_is_the_end(self, path: Path, disk: Disk) -> None:
        committer = Committer(log := Log(path, system=disk))
        body = iter(committer.body(log.append(b"a", 1), b"<", b"1>"))
        next(body)
        disk.fails = True
        with pytest.raises(SystemExit, match=r"^1$"):
            next(body)
