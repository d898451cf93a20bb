"""The open log is checked while it is written, and compacted if the disk has harmed it."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bigfib.state import header, reader
from bigfib.state.compaction import new_path
from bigfib.state.errors import Damaged, Unusable
from bigfib.state.log import Durability, Log
from bigfib.state.store import CommitFailed
from tests.service import TIMEOUT
from tests.state.test_log import positions, store
from tests.state.test_recovery import OLD

SHARED = b"shared"


class Ticks:
    """Calls `tend` as a service does, without waiting."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._now = 0.0

    def tend(self) -> None:
        self._now += 0.25
        self._log.tend(self._now)

    def until(self, true: Callable[[], object]) -> int:
        """Call `tend` until the condition is true, and return how often."""
        deadline = time.monotonic() + TIMEOUT
        count = 0
        while not true():
            assert time.monotonic() < deadline
            self.tend()
            count += 1
        return count

    def until_checked(self, times: int = 1) -> int:
        """Wait until the whole log has been checked this many times from now on."""
        wanted = self._log.log_facts().checks + times
        return self.until(lambda: self._log.log_facts().checks == wanted)


def fill(log: Log, count: int) -> None:
    """Store this many sequences."""
    for number in range(count):
        log.note(b"%d" % number, number)
    log.commit()


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


class TestWhole:
    def test_log_is_read_to_its_end_piece_by_piece_again_and_again(self, path: Path) -> None:
        with Log(path) as log:
            fill(log, 5000)
            ticks = Ticks(log)
            pieces = ticks.until_checked()
            assert log.size / (1 << 14) < pieces < log.size / (1 << 14) + 3
            # Ten seconds later the check begins again.
            assert 40 < ticks.until_checked() < 50
            assert log.log_facts().faults == 0

    def test_records_of_any_length_are_followed(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            for number, bits in enumerate(range(0, 1_200_000, 30_000)):
                log.note(b"%d" % number, 1 << bits)
                log.note(b"removed", None if number % 2 else number)
            log.commit()
            Ticks(log).until_checked(2)
            assert log.log_facts().faults == 0

    @pytest.mark.parametrize("durability", Durability)
    def test_log_that_grows_and_is_compacted_meanwhile_is_whole(
        self, path: Path, durability: Durability
    ) -> None:
        chance = random.Random(8)
        with Log(path, durability, rewrite_bytes=10_000) as log:
            ticks = Ticks(log)
            fill(log, 100)
            for number in range(1200):
                store(log, b"%d" % chance.randrange(100), number)
                ticks.tend()
            assert log.compactions > 1
            assert log.log_facts().checks > 3
            assert log.log_facts().faults == 0

    def test_log_of_the_old_format_is_whole(self, path: Path) -> None:
        shutil.copy(OLD, path)
        with Log(path) as log:
            Ticks(log).until_checked()
            store(log, SHARED, 4)
            Ticks(log).until_checked()
            assert log.log_facts().faults == 0

    def test_log_truncated_by_another_program_is_not_written_again(self, path: Path) -> None:
        log = Log(path)
        fill(log, 5)
        os.truncate(path, header.SIZE)
        with pytest.raises(CommitFailed, match="another program has truncated it"):
            Ticks(log).tend()
        with pytest.raises(CommitFailed):
            log.close()
        assert path.stat().st_size == header.SIZE


class TestHarmed:
    @pytest.mark.parametrize("durability", Durability)
    # In the header, in a record that others follow, and in the last one.
    @pytest.mark.parametrize("bit", [3, 8 * 12, 8 * (header.SIZE + 9), 8 * (header.SIZE + 40), -3])
    def test_log_with_any_bit_flipped_is_reported_and_compacted(
        self, path: Path, durability: Durability, bit: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Log(path, durability) as log:
            fill(log, 7)
            before = positions(log)
            flip(path, bit % (8 * log.size))
            with pytest.raises((Damaged, Unusable)):
                reader.read(path)
            ticks = Ticks(log)
            ticks.until(lambda: log.compactions)
            assert log.log_facts().faults == 1
            harmed, whole = (record.getMessage() for record in caplog.records)
            assert f"{path} is damaged on its disk" in harmed
            assert whole == f"state log {path} has been compacted, and is whole"
            assert positions(reader.read(path)) == before
            ticks.until_checked()

    def test_changes_during_the_compaction_are_in_the_new_log(self, path: Path) -> None:
        with Log(path) as log:
            # So many that one call does not write all of them.
            fill(log, 25_000)
            flip(path, 8 * 100_000)
            ticks = Ticks(log)
            ticks.until(lambda: log.log_facts().faults)
            # A log that is only appended to causes no message.
            store(log, b"7", 1000)
            with pytest.raises(Damaged):
                reader.read(path)
            ticks.tend()
            store(log, b"24999", None)
            store(log, SHARED, 5)
            ticks.until(lambda: log.compactions)
            store(log, b"8", 2000)
            expected = {b"%d" % number: number for number in range(24_999)}
            expected |= {b"7": 1000, b"8": 2000, SHARED: 5}
            assert positions(reader.read(path)) == expected == positions(log)

    def test_damage_that_cannot_be_compacted_is_reported_until_it_can(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Log(path) as log:
            fill(log, 7)
            flip(path, 8 * 40)
            in_the_way = new_path(path)
            in_the_way.mkdir()
            ticks = Ticks(log)
            ticks.until(lambda: log.log_facts().faults == 3)
            assert caplog.text.count("cannot be compacted now") == 3
            in_the_way.rmdir()
            ticks.until(lambda: log.compactions)
            assert reader.read(path).position(b"6") == 6


@pytest.fixture
def image(tmp_path: Path, require: Callable[[str], str]) -> Iterator[tuple[Path, Path]]:
    """A disk image, and the directory where its file system is mounted."""
    disk, directory = tmp_path / "disk", tmp_path / "mounted"
    directory.mkdir()
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run([require("mkfs.ext4"), "-q", disk], check=True)
    mounted = subprocess.run(
        [require("mount"), "-o", "loop", disk, directory], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file can be mounted: {mounted.stderr.strip()}")
    yield disk, directory
    subprocess.run([require("umount"), directory], check=True)


def test_harm_below_the_page_cache_is_found(image: tuple[Path, Path]) -> None:
    disk, directory = image
    path = directory / "state.log"
    with Log(path) as log:
        fill(log, 3000)
        content = path.read_bytes()
        # A record in the middle, on the disk.
        flip(disk, 8 * disk.read_bytes().index(content[30_000:30_020]))
        assert path.read_bytes() == content, "the page cache does not know it"
        Ticks(log).until(lambda: log.compactions)
        assert len(positions(reader.read(path))) == 3000
