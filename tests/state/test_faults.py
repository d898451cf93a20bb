"""Cause every fault that can be caused, on logs that must survive it."""

import contextlib
import errno
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bigfib.state import files, floor, reader
from bigfib.state.errors import (
    AppendFailed,
    CompactionFailed,
    Damaged,
    LogError,
    Unusable,
)
from bigfib.state.log import Durability, Log
from bigfib.state.packed import POSITION_SHIFT
from bigfib.state.store import CommitFailed
from tests.state.crash import PAGE, Disk, Recorder

IDS = [b"shared", b"a", b"b", bytes(16)]

# So few bytes that a log of some records is already compacted.
REWRITE_BYTES = 150

# The bytes of the records of `TestPowerLoss`.
LONGEST_RECORD = 1200


class Unsynced:
    """The real system, except for the time that syncs take."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, _fd: int) -> None:
        pass

    fdatasync = fsync


def put(directory: Path, files: dict[str, bytes]) -> None:
    """Replace the files in ``directory`` by these."""
    for entry in directory.iterdir():
        entry.unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)


class TestPowerLoss:
    def work(
        self, path: Path, recorder: Recorder, chance: random.Random, least: int = REWRITE_BYTES
    ) -> None:
        """Step, remove, commit and compact at random, from a size of ``least`` bytes on."""
        with Log(path, system=recorder, rewrite_bytes=least) as log:
            shown = {sequence_id: log.position(sequence_id) for sequence_id in IDS}
            recorder.acknowledge(dict(shown))
            for _ in range(40):
                sequence_id = chance.choice(IDS)
                position: int | None = log.position(sequence_id) + 1
                if chance.random() < 0.1:
                    position = chance.choice([None, 2**64, 2 ** chance.randrange(9_000)])
                recorder.append(sequence_id, position)
                log.note(sequence_id, position)
                if chance.random() < 0.4:
                    log.commit()
                    recorder.acknowledge({name: log.position(name) for name in IDS})
                if chance.random() < 0.03:
                    log.compact()
        recorder.acknowledge({name: log.position(name) for name in IDS})

    def test_no_acknowledged_step_is_lost(
        self, tmp_path: Path, tried: Counter[str], times: int
    ) -> None:
        chance = random.Random(6)
        work, crashed = tmp_path / "work", tmp_path / "crashed"
        work.mkdir()
        crashed.mkdir()
        files: dict[str, bytes] = {}
        for generation in range(8 * times):
            # Every other log goes on from what a crash has left of the one before.
            if generation % 2 == 0:
                files = {}
            put(work, files)
            found = {name: reader.read(work / "state.log").position(name) for name in IDS}
            recorder = Recorder()
            self.work(work / "state.log", recorder, chance)
            disk = Disk(files)
            disk.do(("acknowledged", found))
            end = chance.randrange(len(recorder.calls))
            for number, call in enumerate(recorder.calls):
                disk.do(call)
                for _ in range(5):
                    survivors = disk.survivors(chance)
                    put(crashed, survivors)
                    self.check(crashed / "state.log", disk)
                    tried["crash states"] += 1
                if number == end:
                    files = survivors

    def check(self, path: Path, disk: Disk) -> None:
        """Open what a crash has left: it opens, and nothing acknowledged is lost."""
        before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
        shown = reader.read(path)
        assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == before
        with Log(path, system=Unsynced(), rewrite_bytes=1 << 40) as log:
            for sequence_id in IDS:
                honest = disk.honest(sequence_id)
                assert log.position(sequence_id) in honest
                assert shown.position(sequence_id) in honest
            log.note(b"shared", 12345)
        assert reader.read(path).position(b"shared") == 12345

    def test_loss_on_a_disk_without_powersafe_overwrite_is_small_and_reported(
        self, tmp_path: Path, tried: Counter[str], times: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        chance = random.Random(9)
        work, crashed = tmp_path / "work", tmp_path / "crashed"
        work.mkdir()
        crashed.mkdir()
        found: Counter[str] = Counter()
        for generation in range(4 * times):
            put(work, {})
            recorder = Recorder()
            self.work(
                work / "state.log", recorder, chance, REWRITE_BYTES * (1 + generation % 2 * 99)
            )
            disk = Disk({})
            for call in recorder.calls:
                disk.do(call)
                for _ in range(5):
                    put(crashed, disk.survivors(chance, powersafe=False))
                    caplog.clear()
                    found[self.judge(crashed / "state.log", disk, caplog)] += 1
        for what, count in found.items():
            tried[f"sectors and pages harmed in a power loss: {what}"] += count
        assert set(found) == {"nothing lost", "refused", "lost, with a warning"}
        assert found["nothing lost"] > found["refused"] > 0

    def judge(self, path: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> str:
        """Return the result of a start with what is left; every loss is reported."""
        try:
            shown = reader.read(path)
        except (Damaged, Unusable):
            return "refused"
        if all(shown.position(name) in disk.honest(name) for name in IDS):
            return "nothing lost"
        content = path.read_bytes()
        Log(path, system=Unsynced(), rewrite_bytes=1 << 40).close()
        assert "cut off, and kept in" in caplog.text
        (kept,) = path.parent.glob("*.torn.1")
        assert content[: shown.end] + kept.read_bytes() == content
        # All of it was in the sector or page in which the next commit was being written.
        assert shown.end > disk.synced("state.log") // PAGE * PAGE - LONGEST_RECORD
        return "lost, with a warning"

    def test_end_that_is_cut_off_is_kept_whenever_the_power_fails(self, tmp_path: Path) -> None:
        """The record is in the log, or in another file, and is not lost with the next one."""
        chance = random.Random(4)
        path = tmp_path / "state.log"
        with Log(path, system=Unsynced()) as log:
            for position in range(1, 60):
                log.note(b"shared", position)
                log.commit()
            whole = log.size
        # Three ends are kept already, so that the oldest is removed.
        content = path.read_bytes() + b"\x15\xb3" + chance.randbytes(1500)
        files = {f"state.log.torn.{number}": b"%d" % number for number in (1, 2, 3)}
        files |= {"state.log": content}
        put(tmp_path, files)
        recorder = Recorder()
        with Log(path, system=recorder) as log:
            log.note(b"shared", 60)
            log.commit()
        disk = Disk(files)
        cut = 0
        for call in recorder.calls:
            disk.do(call)
            for _ in range(50):
                survivors = disk.survivors(chance)
                if not survivors["state.log"].startswith(content):
                    assert survivors["state.log.torn.4"] == content[whole:]
                    cut += 1
                assert {name for name in files if name != "state.log.torn.1"} <= set(survivors)
        assert cut > 200

    def test_harm_to_a_log_that_was_idle_for_a_second_is_reported(self, tmp_path: Path) -> None:
        """The log's floor is on the disk, and so is the floor's name."""
        chance = random.Random(2)
        work, crashed = tmp_path / "work", tmp_path / "crashed"
        work.mkdir()
        crashed.mkdir()
        recorder = Recorder()
        with Log(work / "state.log", system=recorder) as log:
            for position in range(1, 4):
                log.note(b"shared", position)
                log.commit()
                log.tend(position)
            # Not before a second has passed.
            log.tend(3.9)
            assert recorder.calls[-1][0] == "write"
            log.tend(4.2)
            disk = Disk({})
            for call in recorder.calls:
                disk.do(call)
        for _ in range(200):
            survivors = disk.survivors(chance)
            content = bytearray(survivors["state.log"])
            content[-chance.randint(1, 20)] ^= 1 << chance.randrange(8)
            put(crashed, {**survivors, "state.log": bytes(content)})
            with pytest.raises(Damaged, match="it was whole up to offset"):
                reader.read(crashed / "state.log")


class TestDamage:
    """A log in which some records were promised; its bytes may then be harmed."""

    @pytest.fixture
    def history(self, path: Path) -> list[dict[bytes, int]]:
        """Create the log, and return the positions after each of its records."""
        history: list[dict[bytes, int]] = [{}]
        with Log(path) as log:
            for number in range(1, 13):
                # Not twice between two commits: both would share one record.
                sequence_id = IDS[number % 3]
                log.note(sequence_id, number * 1000)
                history.append({**history[-1], sequence_id: number * 1000})
                if number % 3 == 0:
                    log.commit()
        return history

    @pytest.fixture
    def content(self, path: Path, history: list[dict[bytes, int]]) -> bytes:
        assert history
        return path.read_bytes()

    def present(self, path: Path, content: bytes) -> dict[bytes, int] | None:
        """Return the positions in a log of this content without a floor; None if it is refused."""
        path.write_bytes(content)
        floor.path_of(path).unlink(missing_ok=True)
        try:
            contents = reader.read(path)
        except (Damaged, Unusable) as refusal:
            with pytest.raises(type(refusal), match=re.escape(str(refusal))):
                Log(path, system=Unsynced())
            assert path.read_bytes() == content
            return None
        with Log(path, system=Unsynced()) as log:
            assert log.latest == contents.latest
        if contents.fault:
            # Nothing is thrown away.
            kept = max(path.parent.glob("*.torn.*"), key=lambda each: int(each.suffix[1:]))
            assert path.read_bytes() + kept.read_bytes() == content
        return {name: packed >> POSITION_SHIFT for name, packed in contents.latest.items()}

    def test_log_with_any_bit_flipped_loses_no_promised_record(
        self, path: Path, history: list[dict[bytes, int]], content: bytes, tried: Counter[str]
    ) -> None:
        with path.open("rb") as file:
            found = list(reader.Reader(file))
        promised = found[-1][1].durable
        for bit in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            shown = self.present(path, bytes(flipped))
            if bit // 8 < promised:
                assert shown is None, "what was promised is damaged, and nobody says so"
            else:
                assert shown in history
            tried["damaged files"] += 1

    def test_message_of_damage_names_fault_and_later_record(
        self, path: Path, content: bytes
    ) -> None:
        with path.open("rb") as file:
            offsets = [offset for offset, _ in reader.Reader(file)]
        harmed = bytearray(content)
        harmed[offsets[1] + 5] ^= 0xFF
        path.write_bytes(harmed)
        floor.path_of(path).unlink()
        # The third record was the first to be synced, so the fourth is the first that proves it.
        with pytest.raises(
            Damaged,
            match=f"{path} is damaged: at offset {offsets[1]} there is .*; the record at "
            f"offset {offsets[3]} proves that this place was synced$",
        ):
            Log(path)

    def test_harm_to_a_log_with_its_floor_is_never_a_silent_loss(
        self,
        path: Path,
        history: list[dict[bytes, int]],
        content: bytes,
        tried: Counter[str],
        times: int,
    ) -> None:
        """Whatever is harmed, the log is refused, or has every position."""
        chance = random.Random(21)
        harms: list[bytes] = []
        for bit in range(8 * len(content)):
            harmed = bytearray(content)
            harmed[bit // 8] ^= 1 << bit % 8
            harms.append(bytes(harmed))
        harms += [content[:end] for end in range(len(content))]
        while len(harms) < 20_000 * times:
            start, end = sorted(chance.choices(range(len(content) + 1), k=2))
            harms.append(content[:start] + bytes(end - start) + content[end:])
            harms.append(content[:start] + content[end:])
        losses = refusals = 0
        for number, each in enumerate(harms):
            path.write_bytes(each)
            try:
                shown = {
                    name: packed >> POSITION_SHIFT
                    for name, packed in reader.read(path).latest.items()
                }
            except (Damaged, Unusable):
                refusals += 1
                if number % 100 == 0:
                    with pytest.raises((Damaged, Unusable)):
                        Log(path, system=Unsynced())
                    assert path.read_bytes() == each
            else:
                losses += shown != history[-1]
        assert losses == 0
        # If nothing is harmed, such as by an empty range, the log is not refused.
        assert len(harms) * 0.99 < refusals < len(harms)
        tried["harms to a log with its floor"] += len(harms)
        tried["silent losses"] += losses

    @pytest.mark.campaign
    def test_log_with_blocks_moved_or_lost_is_refused_or_whole(
        self,
        path: Path,
        history: list[dict[bytes, int]],
        content: bytes,
        tried: Counter[str],
        times: int,
    ) -> None:
        chance = random.Random(7)
        for _ in range(2000 * times):
            size = chance.choice([1, 7, 16, 24, 64])
            a, b = (chance.randrange(len(content)) for _ in range(2))
            changed = bytearray(content)
            match chance.randrange(6):
                case 0:
                    changed[a : a + size] = bytes(len(changed[a : a + size]))
                case 1:
                    changed[a : a + size], changed[b : b + size] = (
                        changed[b : b + size],
                        changed[a : a + size],
                    )
                case 2:
                    changed[a:a] = content[b : b + size]
                case 3:
                    del changed[a : a + size]
                case 4:
                    changed[a:] = content[b:]
                case 5:
                    changed += content[b:]
            shown = self.present(path, bytes(changed))
            assert shown is None or shown in history
            tried["damaged files"] += 1

    def test_log_after_another_in_one_file_is_not_read(
        self, path: Path, history: list[dict[bytes, int]], content: bytes, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.log"
        with Log(other) as log:
            for position in range(1, 50):
                log.note(b"shared", position)
                log.commit()
        assert self.present(path, content + other.read_bytes()) == history[-1]
        assert self.present(path, content + content) == history[-1]
        # The magic bytes and the version, 10 bytes, are the same in both.
        for cut in range(11, len(content), 7):
            shown = self.present(path, content[:cut] + other.read_bytes()[cut:])
            assert shown is None or shown in history


class Failing:
    """The real system, whose k-th call fails."""

    def __init__(self, k: int, error: int | None, reserves: bool) -> None:
        self.left = k
        self._error = error
        self._reserves = reserves

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any) -> Any:
            if name == "close":
                return real(*arguments)
            self.left -= 1
            if self.left == 0:
                self._fail()
                if name == "pwrite":
                    fd, data, offset = arguments
                    return real(fd, data[: len(data) // 2], offset)
            if name in ("fsync", "fdatasync"):
                return None
            return real(*arguments)

        return call

    def _fail(self) -> None:
        if self._error is not None:
            raise OSError(self._error, os.strerror(self._error))

    def reserve(self, fd: int, offset: int, size: int) -> None:
        """Reserve room; this call is not one of module `os`."""
        self.left -= 1
        if self.left == 0:
            self._fail()
        if not self._reserves:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        _reserve(fd, offset, size)


_reserve = files.reserve


class TestCallsThatFail:
    ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR, None)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode.get(error, "short"))
    @pytest.mark.parametrize("durability", Durability)
    @pytest.mark.parametrize("reserves", [True, False], ids=["reserves", "reserves nothing"])
    def test_any_system_call_that_fails_loses_no_acknowledged_step(
        self,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        tried: Counter[str],
        error: int | None,
        durability: Durability,
        reserves: bool,
    ) -> None:
        k = 0
        while True:
            k += 1
            for entry in path.parent.iterdir():
                entry.unlink()
            system = Failing(k, error, reserves)
            monkeypatch.setattr(files, "reserve", system.reserve)
            acknowledged = self.work(path, system, durability)
            shown = reader.read(path)
            for sequence_id, position in acknowledged.items():
                assert shown.position(sequence_id) >= position
            tried["failed calls"] += 1
            if system.left > 0:
                break
        assert k > 50

    def work(self, path: Path, system: Failing, durability: Durability) -> dict[bytes, int]:
        """Step and compact until a call fails; return what was acknowledged."""
        acknowledged: dict[bytes, int] = {}
        try:
            with Log(path, durability, system=system, rewrite_bytes=REWRITE_BYTES) as log:
                for number in range(40):
                    sequence_id = IDS[number % 3]
                    before = log.latest.copy(), log.changes
                    try:
                        log.note(sequence_id, log.position(sequence_id) + 1)
                    except AppendFailed:
                        assert (log.latest, log.changes) == before
                        continue
                    if number % 3 == 0:
                        log.commit()
                        acknowledged = {name: log.position(name) for name in IDS}
                    if number % 10 == 0:
                        with contextlib.suppress(CompactionFailed):
                            log.compact()
        except CommitFailed as final:
            with pytest.raises(CommitFailed, match=str(final).split(";")[0]):
                log.note(b"shared", 1)
        except LogError:
            assert not acknowledged
        return acknowledged


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
