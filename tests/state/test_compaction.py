"""Compaction of the log: the result is small and complete, and disturbs nobody."""

import threading
from pathlib import Path

import pytest

from bigfib.state import floor, header, reader
from bigfib.state.compaction import new_path
from bigfib.state.errors import CompactionFailed
from bigfib.state.log import Durability, Log
from bigfib.state.store import CommitFailed
from tests.state.test_log import file_size_limit, store

SHARED = b"shared"
DAY = 86_400


def positions(path: Path) -> dict[bytes, int]:
    contents = reader.read(path)
    assert contents.fault is None
    return {name: contents.position(name) for name in contents.latest}


class TestRewrite:
    def test_compaction_keeps_every_position_and_shrinks_the_log(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            for number in range(3000):
                store(log, b"%d" % (number % 10), 2**number)
            before = store(log, b"3", None)
            log.compact()
            assert path.stat().st_size < before / 50
            assert log.records == 9
            log.note(SHARED, 5)
            log.commit()
        expected = {b"%d" % digit: 2 ** (2990 + digit) for digit in range(10) if digit != 3}
        assert positions(path) == {**expected, SHARED: 5}

    def test_begins_by_itself_and_keeps_the_log_small(self, path: Path) -> None:
        largest = 0
        with Log(path, Durability.OS, rewrite_bytes=2000) as log:
            for position in range(1, 20_001):
                largest = max(largest, store(log, SHARED, position))
        # While a thread syncs one file, the other keeps growing.
        assert largest < 200_000
        assert positions(path) == {SHARED: 20_000}

    def test_log_of_mostly_live_records_is_not_compacted(self, path: Path) -> None:
        with Log(path, Durability.OS, rewrite_bytes=2000) as log:
            for number in range(1000):
                store(log, b"%d" % number, 1)
            inode = path.stat().st_ino
            for number in range(1000):
                store(log, b"%d" % number, 2)
            assert path.stat().st_ino == inode

    def test_log_due_for_compaction_is_compacted_when_opened(self, path: Path) -> None:
        with Log(path, Durability.OS, rewrite_bytes=1 << 40) as log:
            for position in range(1000):
                store(log, SHARED, position)
        with Log(path, rewrite_bytes=2000) as log:
            assert (log.records, log.position(SHARED)) == (1, 999)
        assert path.stat().st_size < 100

    def test_compaction_commits_what_waits(self, path: Path) -> None:
        with Log(path) as log:
            for number in range(100):
                log.note(b"%d" % number, 1)
            log.compact()
            assert log.committed == log.changes == 100
            assert len(positions(path)) == 100
            log.note(SHARED, 100)
            assert (log.committed, log.changes) == (100, 101)
            log.commit()
            assert log.committed == 101

    def test_what_is_appended_meanwhile_is_in_both(self, path: Path) -> None:
        """Stopped at any commit of a compaction, the log has every position."""
        for stop in range(1, 60):
            path.unlink(missing_ok=True)
            floor.path_of(path).unlink(missing_ok=True)
            with Log(path, Durability.OS, rewrite_bytes=1) as log:
                # Three slices.
                for _ in range(4):
                    for number in range(1200):
                        log.note(b"%d" % number, 1)
                    log.commit()
                expected = {b"%d" % number: 1 for number in range(1200)}
                for number in range(stop):
                    name = b"%d" % (number * 37 % 1300)
                    store(log, name, None if number % 5 == 0 else number + 2)
                    expected[name] = number + 2
                    if number % 5 == 0:
                        del expected[name]
            assert positions(path) == expected
            assert not new_path(path).exists()

    def test_compaction_stopped_anywhere_keeps_coalesced_steps(self, path: Path) -> None:
        """Stopped at any commit of a compaction, the log has coalesced steps, too."""
        for stop in range(1, 60):
            path.unlink(missing_ok=True)
            floor.path_of(path).unlink(missing_ok=True)
            with Log(path, rewrite_bytes=1) as log:
                for _ in range(4):
                    for number in range(1200):
                        log.note(b"%d" % number, 300)
                    log.commit()
                expected = {b"%d" % number: 300 for number in range(1200)}
                for number in range(stop):
                    for name in (SHARED, b"%d" % (number * 37 % 1200), b"new %d" % number):
                        for _ in range(2):
                            expected[name] = expected.get(name, 300) + 1
                            log.note(name, expected[name])
                    log.commit()
                assert positions(path) == expected
            assert positions(path) == expected

    def test_the_leftover_of_a_killed_one_is_removed(self, path: Path) -> None:
        Log(path).close()
        new_path(path).write_bytes(b"half")
        Log(path).close()
        assert not new_path(path).exists()

    def test_reader_during_compactions_never_sees_a_position_fall(self, path: Path) -> None:
        seen: list[int] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                seen.append(reader.read(path).position(SHARED))

        with Log(path, Durability.OS, rewrite_bytes=500) as log:
            store(log, SHARED, 1)
            looking = threading.Thread(target=look)
            looking.start()
            identities = set()
            for position in range(2, 30_000):
                store(log, SHARED, position)
                if position % 100 == 0:
                    identities.add(path.stat().st_ino)
            done.set()
            looking.join()
        assert len(seen) > 10
        assert seen == sorted(seen)
        assert 0 not in seen
        assert len(identities) > 1

    def test_compaction_through_a_link_keeps_the_link(self, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link.log"
        link.symlink_to(path)
        with Log(link) as log:
            log.note(SHARED, 5)
            log.compact()
        assert link.is_symlink()
        assert positions(path) == {SHARED: 5}

    def test_compaction_keeps_the_mode(self, path: Path) -> None:
        with Log(path) as log:
            log.compact()
        assert path.stat().st_mode & 0o777 == 0o600


class TestExpiry:
    def test_compaction_expires_untouched_sequences(self, path: Path) -> None:
        now = 20_000.0 * DAY
        with Log(path, clock=lambda: now, days_kept=90, permanent=SHARED) as log:
            for name in (SHARED, b"old", b"touched", b"removed"):
                log.note(name, 7)
            now += 50 * DAY
            log.note(b"touched", 8)
            log.note(b"young", 9)
            log.note(b"removed", None)
            now += 40 * DAY
            log.compact()
            assert set(log.latest) == {SHARED, b"old", b"touched", b"young"}, "90 days are kept"
            now += DAY
            log.compact()
            assert set(log.latest) == {SHARED, b"touched", b"young"}
            assert log.position(b"old") == 0
        assert positions(path) == {SHARED: 7, b"touched": 8, b"young": 9}

    def test_days_are_kept_by_a_rewriting_and_a_restart(self, path: Path) -> None:
        now = 20_000.0 * DAY
        with Log(path, clock=lambda: now) as log:
            log.note(b"old", 7)
            now += 80 * DAY
            log.compact()
        now += 11 * DAY
        with Log(path, clock=lambda: now, days_kept=90) as log:
            log.note(b"new", 1)
            log.compact()
            assert set(log.latest) == {b"new"}

    def test_compaction_without_a_number_of_days_expires_nothing(self, path: Path) -> None:
        now = 0.0
        with Log(path, clock=lambda: now) as log:
            log.note(b"old", 7)
            now += 10**6 * DAY
            log.compact()
            assert log.position(b"old") == 7

    def test_a_clock_set_back_makes_nothing_older(self, path: Path) -> None:
        now = 20_000.0 * DAY
        with Log(path, clock=lambda: now, days_kept=90) as log:
            log.note(b"a", 1)
            now -= 1000 * DAY
            log.note(b"b", 2)
        with Log(path, clock=lambda: now, days_kept=90) as log:
            log.note(b"c", 3)
            now += 1050 * DAY
            log.compact()
            assert set(log.latest) == {b"a", b"b", b"c"}

    @pytest.mark.parametrize("reopened", [True, False])
    def test_step_under_a_clock_ahead_makes_no_other_sequence_old(
        self, path: Path, reopened: bool
    ) -> None:
        now = 20_000.0 * DAY

        def opened() -> Log:
            return Log(path, clock=lambda: now, days_kept=90, permanent=SHARED)

        log = opened()
        for name in (SHARED, b"a", b"b", b"c"):
            log.note(name, 7)
        for now in (47_000.0 * DAY, 20_001.0 * DAY):
            if reopened:
                log.close()
                log = opened()
            log.note(SHARED, 8)
            if now > 20_001 * DAY:
                log.note(b"a", 8)
        log.note(b"b", 9)
        log.note(b"new", 1)
        log.compact()
        assert set(log.latest) == {SHARED, b"a", b"b", b"c", b"new"}
        # By the correct clock, they do expire.
        now = 20_091.0 * DAY
        log.compact()
        assert set(log.latest) == {SHARED, b"a", b"b", b"new"}
        now = 20_092.0 * DAY
        log.compact()
        assert set(log.latest) == {SHARED, b"a"}
        log.close()

    @pytest.mark.parametrize("reopened", [True, False])
    def test_clock_that_starts_in_1970_makes_nothing_old(self, path: Path, reopened: bool) -> None:
        now = 20_000.0 * DAY

        def clock() -> float:
            return now

        log = Log(path, clock=clock, days_kept=90)
        for name in (b"a", b"b", b"c"):
            log.note(name, 7)
        for now in (0.0, 20_001.0 * DAY):
            if reopened:
                log.close()
                log = Log(path, clock=clock, days_kept=90)
            log.note(b"a", 8)
            log.note(b"at %d" % now, 8)
            log.compact()
        assert set(log.latest) == {b"a", b"b", b"c", b"at 0", b"at 1728086400"}
        log.close()

    def test_log_begun_under_a_clock_ahead_lets_later_sequences_expire(self, path: Path) -> None:
        now = 47_000.0 * DAY

        def clock() -> float:
            return now

        with Log(path, clock=clock) as log:
            log.note(b"ahead", 1)
        for now in (21_000.0 * DAY, 21_001.0 * DAY):
            with Log(path, clock=clock) as log:
                log.note(b"at %d" % (now // DAY), 1)
        now = 21_100.0 * DAY
        with Log(path, clock=clock, days_kept=30) as log:
            log.note(b"new", 1)
            log.compact()
            assert set(log.latest) == {b"ahead", b"new"}

    def test_a_log_of_the_shared_sequence_alone_trusts_the_clock(self, path: Path) -> None:
        now = 47_000.0 * DAY

        def clock() -> float:
            return now

        with Log(path, clock=clock, permanent=SHARED) as log:
            log.note(SHARED, 8)
        now = 20_000.0 * DAY
        with Log(path, clock=clock, days_kept=90, permanent=SHARED) as log:
            log.note(b"a", 1)
            now += 91 * DAY
            log.compact()
            assert set(log.latest) == {SHARED}

    def test_a_clock_before_1970_is_no_obstacle(self, path: Path) -> None:
        with Log(path, clock=lambda: -5.0 * DAY, days_kept=90) as log:
            log.note(b"a", 1)
            log.compact()
        assert positions(path) == {b"a": 1}

    def test_rewriting_that_fails_drops_nothing(self, path: Path) -> None:
        now = 20_000.0 * DAY
        with Log(path, clock=lambda: now, days_kept=90) as log:
            for number in range(2000):
                log.note(b"old %d" % number, 7)
            log.commit()
            now += 91 * DAY
            for number in range(2000):
                log.note(b"new %d" % number, 7)
            log.commit()
            everything = dict(log.latest)
            with file_size_limit(10_000), pytest.raises(CompactionFailed, match="File too large"):
                log.compact()
            assert log.latest == everything
            log.commit()
            log.compact()
            assert set(log.latest) == {b"new %d" % number for number in range(2000)}

    def test_sequence_touched_while_it_expires_is_kept(self, path: Path) -> None:
        now = 20_000.0 * DAY
        with Log(path, clock=lambda: now, days_kept=90, rewrite_bytes=1) as log:
            for _ in range(4):
                for number in range(2000):
                    log.note(b"%d" % number, 1)
                log.commit()
            now += 91 * DAY
            for number in range(2000):
                store(log, b"%d" % (number % 10), 2)
            log.compact()
            assert set(log.latest) == {b"%d" % number for number in range(10)}
        assert positions(path) == {b"%d" % number: 2 for number in range(10)}


class TestTakenAway:
    def test_a_removed_log_is_the_end(self, path: Path) -> None:
        log = Log(path)
        log.note(SHARED, 1)
        log.commit()
        path.unlink()
        log.note(SHARED, 2)
        with pytest.raises(CommitFailed, match="removed"):
            log.commit()
        with pytest.raises(CommitFailed):
            log.close()

    def test_a_replaced_log_is_the_end(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.log"
        Log(other).close()
        log = Log(path)
        other.replace(path)
        log.note(SHARED, 2)
        with pytest.raises(CommitFailed, match="replaced"):
            log.commit()
        with pytest.raises(CommitFailed):
            log.close()
        assert path.stat().st_size == header.SIZE
