"""The state log on real files: what it promises, and what it says when it cannot."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bigfib.state import reader, records
from bigfib.state.errors import AppendFailed, CommitFailed, Locked, Unusable
from bigfib.state.log import Durability, Log
from bigfib.state.reader import Contents

SHARED = b"shared"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.log"


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``limit`` bytes: EFBIG, by the kernel itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def positions(log: Log | Contents) -> dict[bytes, int]:
    """Return the position of every sequence in ``log``."""
    return {name: records.unpack(packed)[0] for name, packed in log.latest.items()}


class TestReplay:
    def test_a_new_log_is_empty(self, path: Path) -> None:
        with Log(path) as opened:
            assert positions(opened) == {}
            assert opened.records == 0
        assert path.stat().st_size == records.HEADER_SIZE

    def test_creates_the_directories_to_it(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "state.log"
        Log(path).close()
        assert path.exists()

    def test_only_the_user_may_read_it(self, path: Path) -> None:
        Log(path).close()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_the_last_position_of_each_sequence_comes_back(self, path: Path) -> None:
        with Log(path) as opened:
            for sequence_id, position in ((SHARED, 1), (b"a", 7), (SHARED, 2), (b"b", 2**5000)):
                opened.commit(opened.append(sequence_id, position))
            opened.append(b"a", 6)
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 2, b"a": 6, b"b": 2**5000}
            assert opened.records == 5

    def test_a_log_longer_than_a_piece_of_reading(self, path: Path) -> None:
        # Records of 1 byte to 300 KB, so that they lie across every border.
        sizes = [1 << bits for bits in range(0, 2_400_000, 60_000)]
        with Log(path, Durability.OS) as opened:
            for number, position in enumerate(sizes):
                opened.append(b"%d" % number, position)
        assert path.stat().st_size > 5_000_000
        expected = {b"%d" % number: position for number, position in enumerate(sizes)}
        assert positions(reader.read(path)) == expected

    def test_through_a_link(self, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.log"
        link.symlink_to(path)
        with Log(link) as opened:
            opened.append(SHARED, 5)
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


class TestTornTail:
    def test_cut_at_every_byte(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Log(path) as opened:
            ends = [opened.append(SHARED, position) for position in range(1, 31)]
        whole = path.read_bytes()
        assert len(whole) == ends[-1]
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            # The position is the one of the last record that is there to its end.
            expected = sum(end <= length for end in ends)
            assert reader.read(path).position(SHARED) == expected
            assert path.stat().st_size == length, "reading changed the file"
            caplog.clear()
            with Log(path) as opened:
                assert opened.position(SHARED) == expected
                at_an_end = length in (*ends, records.HEADER_SIZE)
                assert bool(caplog.records) == (not at_an_end)
                opened.append(SHARED, 1000)
            assert positions(reader.read(path)) == {SHARED: 1000}

    def test_the_warning_names_file_offset_and_bytes(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Log(path) as opened:
            end = opened.append(SHARED, 1)
        with path.open("ab") as file:
            file.write(b"\x20torn")
        Log(path).close()
        assert (
            f"{path} is torn: at offset {end} there is a record of 37 bytes that is cut off;"
            in caplog.text
        )
        assert "cutting off the last 5 bytes" in caplog.text
        assert path.stat().st_size == end

    def test_zeros_that_a_file_system_leaves(self, path: Path) -> None:
        with Log(path) as opened:
            opened.append(SHARED, 1)
        with path.open("ab") as file:
            file.write(bytes(4096))
        assert reader.read(path).fault
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 1}

    def test_records_of_another_log_do_not_count(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.log"
        for where, position in ((path, 1), (other, 99)):
            with Log(where) as opened:
                opened.append(SHARED, position)
        with path.open("ab") as file:
            file.write(other.read_bytes()[records.HEADER_SIZE :])
        assert positions(reader.read(path)) == {SHARED: 1}

    def test_a_torn_record_is_not_joined_with_the_next(self, path: Path) -> None:
        with Log(path) as opened:
            opened.append(SHARED, 1)
        torn = path.read_bytes()[:-1]
        path.write_bytes(torn)
        with Log(path) as opened:
            opened.append(SHARED, 2)
        contents = reader.read(path)
        assert (positions(contents), contents.records, contents.fault) == ({SHARED: 2}, 1, None)


class TestCommit:
    def test_syncs_what_was_appended_before_it_returns(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            real(fd)
            synced.append(os.fstat(fd).st_size)

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with Log(path) as opened:
            first = opened.append(SHARED, 1)
            second = opened.append(b"a", 2)
            assert opened.committed < first
            opened.commit(first)
            assert synced == [second], "one sync is for all that was appended"
            assert opened.committed == second
            opened.commit(second)
            assert synced == [second], "what is durable is not synced again"
            third = opened.append(SHARED, 3)
        assert synced == [second, third], "closing commits"

    def test_without_fsync_there_is_nothing_to_wait_for(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Log(path, Durability.OS) as opened:
            monkeypatch.setattr(os, "fdatasync", None)
            lsn = opened.append(SHARED, 1)
            assert opened.committed == lsn
            opened.commit(lsn)

    def test_a_record_says_what_was_durable_before_it(self, path: Path) -> None:
        with Log(path) as opened:
            first = opened.append(SHARED, 1)
            opened.append(b"others", 2)
            opened.commit(first)
            opened.append(SHARED, 3)
            opened.commit(opened.end)
        with path.open("rb") as file:
            found = [(record.position, record.durable) for _, record in reader.Reader(file)]
        second = first + (first - records.HEADER_SIZE)
        assert found == [(1, records.HEADER_SIZE), (2, records.HEADER_SIZE), (3, second)]

    def test_with_os_durability_nothing_is_said_to_be_durable(self, path: Path) -> None:
        with Log(path, Durability.OS) as opened:
            for position in (1, 2, 3):
                opened.append(SHARED, position)
        with path.open("rb") as file:
            assert {record.durable for _, record in reader.Reader(file)} == {records.HEADER_SIZE}

    def test_existing_log_is_synced_before_it_is_shown(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer with durability `os`, or one that was killed, left it unsynced."""
        with Log(path, Durability.OS) as opened:
            opened.append(SHARED, 1)
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
        lsn = opened.append(SHARED, 1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", _fail_with(errno.EIO))
            with pytest.raises(CommitFailed, match="Input/output error"):
                opened.commit(lsn)
        # The disk works again, but what was lost is not known.
        for use in (lambda: opened.commit(lsn), lambda: opened.append(SHARED, 2), opened.close):
            with pytest.raises(CommitFailed):
                use()
        Log(path).close()  # the lock was let go


class TestUnsynced:
    """Steps of a sequence that wait for the same sync share a record."""

    def test_one_record_for_all(self, path: Path) -> None:
        with Log(path) as opened:
            end = opened.append(SHARED, 1)
            for position in range(2, 100):
                assert opened.append(SHARED, position) == end > opened.committed
            assert reader.read(path).position(SHARED) == 1
            opened.commit(end)
            contents = reader.read(path)
            assert (contents.records, contents.position(SHARED)) == (1, 99)
            # What is on disk is not touched again.
            assert opened.append(SHARED, 100) > end
            assert reader.read(path).records == 2

    def test_they_need_no_room(self, path: Path) -> None:
        with Log(path) as opened:
            lsn = opened.append(SHARED, 1)
            with file_size_limit(path.stat().st_size):
                opened.append(SHARED, 2)
                opened.commit(lsn)
        assert reader.read(path).position(SHARED) == 2

    def test_a_longer_position_has_a_record_of_its_own(self, path: Path) -> None:
        with Log(path) as opened:
            ends = [opened.append(SHARED, position) for position in (0, 1, 255, 256, 255, 2)]
            # 0 takes no byte, and 256 takes two.
            assert [end == before for before, end in pairwise(ends)] == [
                *(False, True, False, False, True)
            ]
            opened.commit(ends[-1])
            assert reader.read(path).position(SHARED) == 2

    def test_what_is_removed_stays_removed(self, path: Path) -> None:
        with Log(path) as opened:
            for position in (1, 2, None):
                opened.append(b"a", position)
            opened.commit(opened.end)
            assert positions(reader.read(path)) == {}
            for position in (1, 2, None, 3, 4):
                opened.append(b"a", position)
            opened.commit(opened.end)
            assert positions(reader.read(path)) == {b"a": 4}

    def test_a_day_ends_meanwhile(self, path: Path) -> None:
        # The number of the next day takes a byte more.
        now = 255.0 * 86_400
        with Log(path, clock=lambda: now) as opened:
            for position in (1, 2, 3):
                opened.append(SHARED, position)
            now += 86_400
            for position in (4, 5):
                opened.append(SHARED, position)
            lsn = opened.append(b"a", 1)
            opened.commit(lsn)
            contents = reader.read(path)
            assert (contents.fault, contents.records) == (None, 3)
            assert positions(contents) == {SHARED: 5, b"a": 1}

    def test_positions_kept_in_memory_are_written_when_a_day_ends(self, path: Path) -> None:
        now = 20_000.0 * 86_400
        with Log(path, clock=lambda: now) as opened:
            for position in (1, 2):
                opened.append(b"a", position)
            now += 86_400
            opened.commit(opened.append(SHARED, 1))
            assert positions(reader.read(path)) == {b"a": 2, SHARED: 1}

    def test_a_failed_write_is_final(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Log(path)
        opened.append(SHARED, 1)
        lsn = opened.append(SHARED, 2)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", _fail_with(errno.EIO))
            with pytest.raises(CommitFailed, match="Input/output error while writing"):
                opened.commit(lsn)
        for use in (lambda: opened.commit(lsn), lambda: opened.append(SHARED, 3), opened.close):
            with pytest.raises(CommitFailed):
                use()

    def test_nothing_is_put_off_that_waits_for_no_sync(self, path: Path) -> None:
        with Log(path, Durability.OS) as opened:
            for position in (1, 2):
                opened.append(SHARED, position)
                assert reader.read(path).position(SHARED) == position


class TestAppend:
    def test_without_room_nothing_changes_and_it_resumes(self, path: Path) -> None:
        with Log(path) as opened:
            opened.append(SHARED, 1)
            end, size = opened.end, path.stat().st_size
            for room in range(17):
                with file_size_limit(size + room):
                    with pytest.raises(AppendFailed, match="File too large"):
                        opened.append(b"others", 2)
                    assert (opened.end, positions(opened)) == (end, {SHARED: 1})
                    assert path.stat().st_size == size, "a part of the record stayed"
            opened.append(b"others", 2)
        assert positions(reader.read(path)) == {SHARED: 1, b"others": 2}

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
    def test_other_reasons(self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        with Log(path) as opened:
            with monkeypatch.context() as patched:
                patched.setattr(os, "pwrite", _fail_with(code))
                with pytest.raises(AppendFailed, match=os.strerror(code)):
                    opened.append(SHARED, 1)
            assert positions(opened) == {}

    def test_short_writes_are_completed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:1], offset))
        with Log(path) as opened:
            opened.append(SHARED, 12345)
        assert positions(reader.read(path)) == {SHARED: 12345}


class TestLock:
    def test_a_second_writer_is_told_who_holds_it(self, path: Path) -> None:
        with Log(path, contact="http://127.0.0.1:1234"):
            with pytest.raises(Locked, match=f"in use by process {os.getpid()}") as refusal:
                Log(path)
            assert refusal.value.contact == "http://127.0.0.1:1234"
        Log(path).close()

    def test_from_another_process(self, path: Path) -> None:
        program = (
            "import pathlib, sys; from bigfib.state.log import Log; Log(pathlib.Path(sys.argv[1]))"
        )
        with Log(path):
            second = subprocess.run(
                [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
            )
        assert second.returncode == 1
        assert f"in use by process {os.getpid()}" in second.stderr

    def test_through_another_name(self, path: Path, tmp_path: Path) -> None:
        """The lock beside a hard link is another; so the log itself is locked too."""
        with Log(path) as log:
            other = tmp_path / "other.log"
            other.hardlink_to(path)
            with pytest.raises(Locked):
                Log(other)
            path.with_name("state.log.lock").unlink()
            with pytest.raises(Locked):
                Log(path)
            log.append(SHARED, 1)
            log.rewrite()
            path.with_name("state.log.lock").unlink()
            with pytest.raises(Locked):
                Log(path)
        assert positions(reader.read(path)) == {SHARED: 1}

    def test_a_lock_file_of_odd_bytes(self, path: Path) -> None:
        with Log(path):
            path.with_name("state.log.lock").write_bytes(b"\xff\xfe\n\xff")
            with pytest.raises(Locked):
                Log(path)

    def test_goes_with_a_killed_process(self, path: Path) -> None:
        program = (
            "import os, sys, pathlib; from bigfib.state.log import Log;"
            "Log(pathlib.Path(sys.argv[1])).append(b'shared', 5); os.kill(os.getpid(), 9)"
        )
        killed = subprocess.run([sys.executable, "-c", program, path], check=False)
        assert killed.returncode == -signal.SIGKILL
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 5}

    def test_reading_needs_none(self, path: Path) -> None:
        with Log(path) as opened:
            for position in (1, 2):
                opened.commit(opened.append(SHARED, position))
                assert positions(reader.read(path)) == {SHARED: position}


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
            log.commit(log.append(SHARED, position))
        change(path)
        for position in (20, 21):
            with pytest.raises(CommitFailed, match=message):
                log.commit(log.append(SHARED, position))
        with pytest.raises(CommitFailed, match=message):
            log.close()

    def test_between_append_and_commit_is_noticed(
        self, path: Path, change: Callable[[Path], None], message: str
    ) -> None:
        log = Log(path)
        log.commit(log.append(b"a", 1))
        lsn = log.append(SHARED, 1)
        change(path)
        with pytest.raises(CommitFailed, match=message):
            log.commit(lsn)
        with pytest.raises(CommitFailed):
            log.close()

    def test_record_rewritten_in_place_does_not_hide_it(
        self, path: Path, change: Callable[[Path], None], message: str
    ) -> None:
        log = Log(path)
        log.commit(log.append(b"a", 1))
        log.append(SHARED, 1)
        lsn = log.append(SHARED, 2)
        change(path)
        with pytest.raises(CommitFailed, match=message):
            log.commit(lsn)
        with pytest.raises(CommitFailed):
            log.close()

    def test_during_the_write_in_place_is_noticed(
        self, path: Path, change: Callable[[Path], None], message: str
    ) -> None:
        system = ChangesBeforeWrite(lambda: change(path))
        log = Log(path, system=system)
        log.commit(log.append(b"a", 1))
        log.append(SHARED, 1)
        lsn = log.append(SHARED, 2)
        system.armed = True
        with pytest.raises(CommitFailed, match=message):
            log.commit(lsn)
        with pytest.raises(CommitFailed):
            log.close()

    @pytest.mark.parametrize("durability", Durability)
    def test_before_a_write_is_noticed(
        self, path: Path, change: Callable[[Path], None], message: str, durability: Durability
    ) -> None:
        system = ChangesBeforeWrite(lambda: change(path))
        log = Log(path, durability, system=system)
        log.commit(log.append(b"a", 1))
        system.armed = True
        with pytest.raises(CommitFailed, match=message):
            log.commit(log.append(SHARED, 1))
        with pytest.raises(CommitFailed):
            log.close()

    @pytest.mark.parametrize("durability", Durability)
    def test_while_idle_is_reported_when_closed(
        self, path: Path, change: Callable[[Path], None], message: str, durability: Durability
    ) -> None:
        log = Log(path, durability)
        log.commit(log.append(SHARED, 1))
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
    log.commit(log.append(SHARED, 1))
    change(path)
    size = path.stat().st_size
    with file_size_limit(size), pytest.raises(CommitFailed, match="truncated"):
        log.append(b"others", 2**1000)
    assert path.stat().st_size == size
    with pytest.raises(CommitFailed):
        log.close()


class TestReadingBesideAWriter:
    def test_what_is_replaced_between_two_pieces_is_read_again(self, path: Path) -> None:
        """A part of a failed append is read; then the writer cuts it off and goes on in its place.

        The second piece then has records that promise what the first has not.
        """
        with Log(path) as log:
            log.commit(log.append(SHARED, 1))
        torn = path.stat().st_size
        before = path.read_bytes()
        with Log(path) as log:
            for position in range(2, 5):
                log.commit(log.append(SHARED, position))
            for number in range(70_000):
                log.append(b"%d" % number, number)
            log.commit(log.append(SHARED, 5))
        after = path.read_bytes()
        assert len(after) > 1 << 20, "it is read in more than one piece"
        path.write_bytes(before + b"\xee" * (len(after) - torn))

        class Raced(type(path)):  # type: ignore[misc]
            """The path of a log to which the writer comes after the first piece is read."""

            opened = 0

            def open(self, *_: Any, **__: Any) -> Any:
                Raced.opened += 1
                return Racing(str(self))

        class Racing(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size)
                if size == 1 << 20:
                    path.write_bytes(after)
                return data

        contents = reader.read(Raced(path))
        assert (contents.fault, contents.position(SHARED)) == (None, 5)
        assert Raced.opened == 2


class TestUnusable:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"root:x:0:0:root:/root:/bin/bash\n", "magic bytes"),
            (b"\x00" * 16, "magic bytes"),  # the state of the service that bigfib replaces
            (b"\x89bigfib\n\x09\x00", "version 9"),
            (b"\x89bigfib\n\x01\x00saltsaltbad!", "checksum of its header"),
        ],
    )
    def test_another_file_is_refused_and_left_alone(
        self, path: Path, content: bytes, reason: str
    ) -> None:
        path.write_bytes(content)
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match=f"{path}.*{reason}"):
                use(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_a_directory(self, tmp_path: Path) -> None:
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match="Is a directory"):
                use(tmp_path)

    def test_below_a_file(self, path: Path) -> None:
        path.touch()
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match="Not a directory"):
                use(path / "state.log")

    def test_reading_what_is_not_there(self, path: Path) -> None:
        assert positions(reader.read(path)) == {}
        assert not path.exists()


def _fail_with(code: int) -> Callable[..., int]:
    """Return a system call that fails, where the real one cannot be made to."""

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail
