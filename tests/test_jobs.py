"""Jobs interrupted by their own signal handler, with real processes and real signals.

Services compute large terms in tests/api/test_term_jobs.py.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bigfib.computation import Pace
from bigfib.digit_cache import DigitCache
from bigfib.jobs import InProgress, Job, Jobs, State, TermNotReady

LONG = 60_000_000


class Cache(DigitCache):
    """Calls a function when jobs look which process writes, or whether another one computes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1 << 30)
        self.on_part: Callable[[], None] | None = None
        self.on_is_locked: Callable[[], None] | None = None

    def part(self, n: int, pid: int) -> Path:
        if self.on_part:
            self.on_part()
        return super().part(n, pid)

    def is_locked(self, n: int) -> bool:
        if self.on_is_locked:
            self.on_is_locked()
        return super().is_locked(n)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def jobs(cache: Cache) -> Iterator[Jobs]:
    """Jobs that advance on a signal, which those of a service do on SIGCHLD.

    On another one, so that it comes when the test raises it.
    """
    with contextlib.closing(Jobs(cache, LONG + 10)) as jobs:
        before = signal.signal(signal.SIGUSR1, lambda *_: jobs.advance())
        yield jobs
    signal.signal(signal.SIGUSR1, before)


def begin(jobs: Jobs, n: int) -> int:
    """Start the computation of F(n), and return the pid of its process."""
    with pytest.raises(InProgress) as underway:
        jobs.open(n)
    process = underway.value.job.process
    assert process is not None
    return process.pid


def kill(pid: int) -> None:
    """Kill a process, and let its parent find out."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_advance_when_a_signal_comes_while_it_notes_an_end_notes_each_end_once(
    jobs: Jobs, cache: Cache
) -> None:
    for pid in [begin(jobs, n) for n in (LONG, LONG + 1)]:
        kill(pid)
    interrupted: list[float] = []

    def interrupt() -> None:
        interrupted.append(jobs.failed.values[0])
        signal.raise_signal(signal.SIGUSR1)

    cache.on_part = interrupt
    jobs.advance()
    assert interrupted
    assert (jobs.failed.values[0], jobs.running.values[0]) == (2, 0)
    # Another term can be computed.
    begin(jobs, LONG + 2)
    assert jobs.running.values[0] == 1


def test_look_when_a_process_ends_meanwhile_notes_that_afterwards(jobs: Jobs, cache: Cache) -> None:
    pid = begin(jobs, LONG)
    seen: list[float] = []

    def end() -> None:
        kill(pid)
        signal.raise_signal(signal.SIGUSR1)
        # Not while jobs look at the processes.
        seen.append(jobs.failed.values[0])

    cache.on_is_locked = end
    assert jobs.look(LONG + 1) is None
    assert seen == [0]
    assert (jobs.failed.values[0], jobs.running.values[0]) == (1, 0)


@pytest.mark.parametrize(("left", "seconds"), [(0, 1), (0.3, 1), (1, 1), (1.2, 2), (60, 60)])
def test_retry_after_is_in_whole_seconds_of_which_there_is_one_at_least(
    left: float, seconds: int
) -> None:
    assert TermNotReady("", left).retry_after == seconds


def test_seconds_left_come_to_follow_how_fast_a_machine_is() -> None:
    """One that takes four times as long as expected."""
    job = Job(LONG)
    whole = 4 * job.seconds_left
    assert 0 < whole < 60
    now = 100.0
    job.state, job.pace = State.RUNNING, Pace(lambda: now)
    found = []
    for done in (0, 0.25, 0.5, 0.75, 0.9, 1):
        now, job.progress = 100 + done * whole, done
        found.append(job.seconds_left / whole)
    # At first a quarter; then ever nearer to what is left.
    assert found == pytest.approx([0.25, 0.328, 0.313, 0.203, 0.093, 0], abs=0.001)
