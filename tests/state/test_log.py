"""The state log on real files: what it promises, and how it fails."""

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bigfib.state import files, header, reader
from bigfib.state.errors import AppendFailed, Locked
from bigfib.state.log import Durability, Log
from bigfib.state.packed import POSITION_SHIFT
from bigfib.state.reader import Contents
from bigfib.state.store import CommitFailed

SHARED = b"shared"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.log"


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let this process write no file beyond ``limit`` bytes: EFBIG, by the kernel itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def store(log: Log, sequence_id: bytes, position: int | None) -> int:
    """Append and commit the position, and return the size of the log."""
    log.note(sequence_id, position)
    log.commit()
    return log.size


def positions(log: Log | Contents) -> dict[bytes, int]:
    """Return the position of every sequence in ``log``."""
    return {name: packed >> POSITION_SHIFT for name, packed in log.latest.items()}


class TestReplay:
    def test_a_new_log_is_empty(self, path: Path) -> None:
        with Log(path) as opened:
            assert positions(opened) == {}
            assert opened.records == 0
        assert path.stat().st_size == header.SIZE

    def test_opening_creates_missing_directories(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "state.log"
        Log(path).close()
        assert path.exists()

    def test_only_the_user_may_read_it(self, path: Path) -> None:
        Log(path).close()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_the_last_position_of_each_sequence_comes_back(self, path: Path) -> None:
        with Log(path) as opened:
            for sequence_id, position in ((SHARED, 1), (b"a", 7), (SHARED, 2), (b"b", 2**5000)):
                opened.note(sequence_id, position)
                opened.commit()
            opened.note(b"a", 6)
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 2, b"a": 6, b"b": 2**5000}
            assert opened.records == 5

    def test_log_read_in_several_pieces_keeps_every_position(self, path: Path) -> None:
        # Records of 1 byte to 300 KB, so that they cross every boundary.
        sizes = [1 << bits for bits in range(0, 2_400_000, 60_000)]
        with Log(path, Durability.OS) as opened:
            for number, position in enumerate(sizes):
                opened.note(b"%d" % number, position)
        assert path.stat().st_size > 5_000_000
        expected = {b"%d" % number: position for number, position in enumerate(sizes)}
        assert positions(reader.read(path)) == expected

    def test_log_opened_through_a_link_keeps_the_link(self, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.log"
        link.symlink_to(path)
        with Log(link) as opened:
            opened.note(SHARED, 5)
        assert link.is_symlink()
        assert positions(reader.read(path)) == {SHARED: 5}

    def test_new_directories_are_durable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced = set()
        real = os.fsync

        def fsync(fd: int) -> None:
            real(fd)
            synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))

        monkeypatch.setattr(os, "fsync", fsync)
        Log(tmp_path / "a" / "b" / "state.log").close()
        assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= synced


class TestCommit:
    def test_commit_syncs_appended_records_before_it_returns(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            real(fd)
            if os.path.sameopenfile(fd, opened._file._fd):
                synced.append(os.fstat(fd).st_size)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with Log(path) as opened:
            opened.note(SHARED, 1)
            opened.note(b"a", 2)
            assert (opened.changes, opened.committed) == (2, 0)
            opened.commit()
            first = opened.size
            assert synced == [first], "one sync is for all that was appended"
            assert opened.committed == 2
            opened.commit()
            assert synced == [first], "what is durable is not synced again"
            opened.note(SHARED, 3)
        assert synced == [first, path.stat().st_size], "closing commits"

    def test_commit_without_fsync_writes_and_does_not_sync(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Log(path, Durability.OS) as opened:
            with monkeypatch.context() as patched:
                patched.setattr(os, "fdatasync", None)
                opened.note(SHARED, 1)
                opened.commit()
            assert opened.committed == 1
            assert reader.read(path).position(SHARED) == 1

    def test_a_record_says_what_was_durable_before_it(self, path: Path) -> None:
        with Log(path) as opened:
            opened.note(SHARED, 1)
            second = store(opened, b"others", 2)
            store(opened, SHARED, 3)
        with path.open("rb") as file:
            found = [(record.position, record.durable) for _, record in reader.Reader(file)]
        assert found == [(1, header.SIZE), (2, header.SIZE), (3, second)]

    def test_records_with_os_durability_claim_nothing_durable(self, path: Path) -> None:
        with Log(path, Durability.OS) as opened:
            for position in (1, 2, 3):
                store(opened, SHARED, position)
        with path.open("rb") as file:
            assert {record.durable for _, record in reader.Reader(file)} == {header.SIZE}

    def test_existing_log_is_synced_before_it_is_shown(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer with durability `os`, or a killed one, did not sync it."""
        with Log(path, Durability.OS) as opened:
            store(opened, SHARED, 1)
        size = path.stat().st_size
        synced = []
        real = os.fsync

        def fsync(fd: int) -> None:
            real(fd)
            synced.append((os.fstat(fd).st_ino, os.fstat(fd).st_size))

        monkeypatch.setattr(os, "fsync", fsync)
        with Log(path) as opened:
            assert opened.position(SHARED) == 1
            assert (path.stat().st_ino, size) in synced

    def test_a_failed_sync_is_final(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Log(path)
        opened.note(SHARED, 1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", _fail_with(errno.EIO))
            with pytest.raises(CommitFailed, match="Input/output error"):
                opened.commit()
        # The disk works again, but what was lost is not known.
        for use in (opened.commit, lambda: opened.note(SHARED, 2), opened.close):
            with pytest.raises(CommitFailed):
                use()
        Log(path).close()  # the lock was released


class Watched:
    """The real system; it records which bytes of the log's file have been written."""

    def __init__(self) -> None:
        self.written: list[range] = []
        self.syncs = 0
        self._floor = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int:
        fd = os.open(path, flags, mode)
        if path.suffix == ".floor":
            self._floor = fd
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        if fd == self._floor:
            return os.pwrite(fd, data, offset)
        # A file that is open for appending is written at its end, whatever the offset.
        assert offset == os.lseek(fd, 0, os.SEEK_END)
        size = os.pwrite(fd, data, offset)
        self.written.append(range(offset, offset + size))
        return size

    def fdatasync(self, fd: int, /) -> None:
        self.syncs += fd != self._floor
        os.fdatasync(fd)


class TestWaiting:
    """Changes wait in memory, and a commit writes them in one piece."""

    def test_no_byte_is_written_twice_and_a_commit_is_one_write(self, path: Path) -> None:
        chance = random.Random(13)
        system = Watched()
        commits = 0
        with Log(path, system=system) as opened:
            assert system.written == [range(header.SIZE)]
            for _ in range(300):
                for _ in range(chance.randrange(1, 20)):
                    name = b"%d" % chance.randrange(5)
                    opened.note(name, chance.choice([None, 1, 2, 2**3000]))
                    assert len(system.written) == commits + 1, "a change was written by itself"
                opened.commit()
                commits += 1
                assert (len(system.written), system.syncs) == (commits + 1, commits)
        end = 0
        for piece in system.written:
            assert piece.start == end
            end = piece.stop
        assert end == path.stat().st_size

    def test_steps_before_a_commit_share_one_record(self, path: Path) -> None:
        with Log(path) as opened:
            for position in range(1, 100):
                opened.note(SHARED, position)
            assert reader.read(path).records == 0
            opened.commit()
            contents = reader.read(path)
            assert (contents.records, contents.position(SHARED)) == (1, 99)
            store(opened, SHARED, 100)
            assert reader.read(path).records == 2

    def test_coalesced_steps_need_no_room(self, path: Path) -> None:
        with Log(path) as opened:
            opened.note(SHARED, 1)
            # What the record of one step may take, and no more.
            with file_size_limit(path.stat().st_size + 80):
                for position in range(2, 1000):
                    opened.note(SHARED, position)
                opened.commit()
        assert reader.read(path).position(SHARED) == 999

    def test_what_is_removed_stays_removed(self, path: Path) -> None:
        with Log(path) as opened:
            for position in (1, 2, None):
                opened.note(b"a", position)
            opened.commit()
            assert positions(reader.read(path)) == {}
            for position in (1, 2, None, 3, 4):
                opened.note(b"a", position)
            opened.commit()
            assert positions(reader.read(path)) == {b"a": 4}

    def test_changes_before_and_after_midnight_keep_their_days(self, path: Path) -> None:
        # The number of the next day takes a byte more.
        now = 255.0 * 86_400
        with Log(path, clock=lambda: now) as opened:
            for name in (SHARED, b"a", b"b"):
                opened.note(name, 1)
            now += 86_400
            opened.note(SHARED, 2)
            opened.note(b"b", None)
            opened.commit()
        with path.open("rb") as file:
            found = [(each.sequence_id, each.position, each.day) for _, each in reader.Reader(file)]
        assert found == [(SHARED, 2, 256), (b"a", 1, 255), (b"b", None, 256)]

    def test_a_failed_write_is_final(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Log(path)
        opened.note(SHARED, 1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", _fail_with(errno.EIO))
            with pytest.raises(CommitFailed, match="Input/output error while writing"):
                opened.commit()
        for use in (opened.commit, lambda: opened.note(SHARED, 3), opened.close):
            with pytest.raises(CommitFailed):
                use()


class TestReservedRoom:
    def test_room_is_reserved_before_it_is_written_and_given_back(self, path: Path) -> None:
        with Log(path) as opened:
            store(opened, SHARED, 1)
            reserved = path.stat().st_blocks * 512
            if not opened._file.coalesces:
                pytest.skip("this file system reserves no room")
            assert reserved > 200_000 > path.stat().st_size
        assert path.stat().st_blocks * 512 <= 8192

    def test_full_disk_is_found_by_the_append(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Log(path) as opened:
            store(opened, SHARED, 1)
            with monkeypatch.context() as patched:
                patched.setattr(files, "reserve", _fail_with(errno.ENOSPC))
                # Takes more room than is reserved.
                with pytest.raises(AppendFailed, match="No space left"):
                    opened.note(SHARED, 2**5_000_000)
            assert (opened.changes, positions(opened)) == (1, {SHARED: 1})
            opened.note(SHARED, 2)
        assert positions(reader.read(path)) == {SHARED: 2}

    def test_many_changes_of_one_commit_reserve_a_few_times(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reserved = []
        real = files.reserve

        def reserve(fd: int, offset: int, size: int) -> None:
            reserved.append(size)
            real(fd, offset, size)

        monkeypatch.setattr(files, "reserve", reserve)
        with Log(path, Durability.OS) as opened:
            for number in range(30_000):
                opened.note(b"%d" % number, 1)
        assert len(reserved) < 10
        assert reader.read(path).records == 30_000

    @pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
    def test_changes_that_wait_when_reserving_is_no_longer_supported_are_committed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """As of a network file system that is moved to an older server."""
        with Log(path) as opened:
            opened.note(b"a", 1)
            opened.note(b"b", 2**80)
            monkeypatch.setattr(files, "reserve", _fail_with(code))
            # Takes more room than is reserved.
            opened.note(SHARED, 2**5_000_000)
            opened.note(b"a", 2)
            opened.commit()
            written = {b"a": 2, b"b": 2**80, SHARED: 2**5_000_000}
            assert positions(reader.read(path)) == positions(opened) == written
            assert reader.read(path).records == opened.records
            opened.note(b"b", 3)
        assert positions(reader.read(path)) == written | {b"b": 3}

    def test_last_room_of_a_disk_is_used(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fewer bytes than are reserved at a time."""
        real = files.reserve

        def reserve(fd: int, offset: int, size: int) -> None:
            if size > 1000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd, offset, size)

        monkeypatch.setattr(files, "reserve", reserve)
        with Log(path) as opened:
            opened.note(SHARED, 1)
            with pytest.raises(AppendFailed):
                opened.note(b"a", 2**8000)
            opened.note(b"a", 2)
        assert positions(reader.read(path)) == {SHARED: 1, b"a": 2}


@pytest.fixture
def _reserves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a file system that cannot reserve room."""
    monkeypatch.setattr(files, "reserve", _fail_with(errno.EOPNOTSUPP))


@pytest.mark.usefixtures("_reserves_nothing")
class TestWithoutReservedRoom:
    def test_each_change_is_written_at_once_and_synced_by_the_commit(self, path: Path) -> None:
        system = Watched()
        with Log(path, system=system) as opened:
            for position in range(1, 5):
                opened.note(SHARED, position)
                assert (reader.read(path).position(SHARED), system.syncs) == (position, 0)
            opened.commit()
            assert system.syncs == 1
        assert len(system.written) == 5
        assert reader.read(path).records == 4

    def test_append_without_room_changes_nothing_and_it_resumes(self, path: Path) -> None:
        with Log(path) as opened:
            opened.note(SHARED, 1)
            size = path.stat().st_size
            for room in range(17):
                with file_size_limit(size + room):
                    with pytest.raises(AppendFailed, match="File too large"):
                        opened.note(b"others", 2)
                    assert (opened.changes, positions(opened)) == (1, {SHARED: 1})
                    assert path.stat().st_size == size, "a part of the record stayed"
            opened.note(b"others", 2)
        assert positions(reader.read(path)) == {SHARED: 1, b"others": 2}

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_append_when_the_system_refuses_the_write_changes_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        with Log(path) as opened:
            with monkeypatch.context() as patched:
                patched.setattr(os, "pwrite", _fail_with(code))
                with pytest.raises(AppendFailed, match=os.strerror(code)):
                    opened.note(SHARED, 1)
            assert positions(opened) == {}


class TestAppend:
    def test_without_room_nothing_changes_and_it_resumes(self, path: Path) -> None:
        with Log(path) as opened:
            size = store(opened, SHARED, 1)
            for room in range(17):
                with file_size_limit(size + room):
                    with pytest.raises(AppendFailed, match="File too large"):
                        opened.note(b"others", 2)
                    assert (opened.changes, positions(opened)) == (1, {SHARED: 1})
                    opened.commit()
                    assert path.stat().st_size == size
            opened.note(b"others", 2)
        assert positions(reader.read(path)) == {SHARED: 1, b"others": 2}

    def test_short_writes_are_completed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1], offset))
        with Log(path) as opened:
            opened.note(SHARED, 12345)
        assert positions(reader.read(path)) == {SHARED: 12345}


class TestLock:
    def test_second_writer_is_refused_with_process_and_url_of_the_first(self, path: Path) -> None:
        with Log(path, owner_url="http://127.0.0.1:1234"):
            with pytest.raises(Locked, match=f"in use by process {os.getpid()}") as refusal:
                Log(path)
            assert refusal.value.owner_url == "http://127.0.0.1:1234"
        Log(path).close()

    def test_second_writer_in_another_process_is_refused(self, path: Path) -> None:
        program = (
            "import pathlib, sys; from bigfib.state.log import Log; Log(pathlib.Path(sys.argv[1]))"
        )
        with Log(path):
            second = subprocess.run(
                [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
            )
        assert second.returncode == 1
        assert f"in use by process {os.getpid()}" in second.stderr

    def test_second_writer_through_a_hard_link_is_refused(self, path: Path, tmp_path: Path) -> None:
        """A hard link to the log has another lock file, so the log itself is locked, too."""
        with Log(path) as log:
            other = tmp_path / "other.log"
            other.hardlink_to(path)
            with pytest.raises(Locked):
                Log(other)
            path.with_name("state.log.lock").unlink()
            with pytest.raises(Locked):
                Log(path)
            log.note(SHARED, 1)
            log.compact()
            path.with_name("state.log.lock").unlink()
            with pytest.raises(Locked):
                Log(path)
        assert positions(reader.read(path)) == {SHARED: 1}

    def test_lock_file_that_is_not_text_still_refuses_a_second_writer(self, path: Path) -> None:
        with Log(path):
            path.with_name("state.log.lock").write_bytes(b"\xff\xfe\n\xff")
            with pytest.raises(Locked):
                Log(path)

    def test_lock_of_a_killed_process_is_released(self, path: Path) -> None:
        program = (
            "import os, sys, pathlib; from bigfib.state.log import Log;"
            "log = Log(pathlib.Path(sys.argv[1])); log.note(b'shared', 5); log.commit();"
            "os.kill(os.getpid(), 9)"
        )
        killed = subprocess.run([sys.executable, "-c", program, path], check=False)
        assert killed.returncode == -signal.SIGKILL
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 5}

    def test_reading_a_locked_log_needs_no_lock(self, path: Path) -> None:
        with Log(path) as opened:
            for position in (1, 2):
                opened.note(SHARED, position)
                opened.commit()
                assert positions(reader.read(path)) == {SHARED: position}


def _fail_with(code: int) -> Callable[..., int]:
    """Return a system call that fails, for cases in which the real one cannot be made to."""

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail
