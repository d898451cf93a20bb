"""Compute large terms in the background: a queue, a few processes, and the digit cache.

bjoern's loop has one thread and no timers, so nothing here waits. `Jobs.advance` reads what the
processes report; it runs with every request for a large term, and on SIGCHLD. While another method
of `Jobs` runs, `advance` called by the signal's handler only sets a flag, and runs afterwards.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO, Final

from bigfib import terms
from bigfib.computation import failure_of
from bigfib.digit_cache import DigitCache, Seal, seal
from bigfib.metrics import Counter, Gauge
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.storing import StoringProcess

_logger = logging.getLogger(__name__)

MAX_RUNNING: Final = 2
"""Maximum number of terms computed at a time. Each may keep three cores busy."""

MAX_QUEUED: Final = 64
"""Maximum number of terms in the queue."""

FAILURE_SECONDS: Final = 10
"""Seconds before a failed computation is tried again."""

# Bound on the files known to be correct; the oldest are forgotten.
_CHECKED_KEPT: Final = 10_000

# Measured: F(10^8) takes 1.7 s on two idle cores, F(10^9) ten times that.
_INDICES_A_SECOND: Final = 60_000_000


class State(str, Enum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job:
    """The computation of F(n), n > 0.

    Attributes:
        n: The index.
        state: Its state.
        progress: The share of the work that is done, from 0 to 1.
        failure: Why it failed, or an empty string.
        ended: When it failed, on the monotonic clock.
        process: The process that computes it, once there is one.
    """

    def __init__(self, n: int, state: State = State.QUEUED, progress: float = 0.0) -> None:
        self.n = n
        self.state = state
        self.progress = progress
        self.failure = ""
        self.ended = 0.0
        self.process: StoringProcess | None = None

    @property
    def seconds_left(self) -> float:
        """An estimate of the remaining time, if no other job uses the cores."""
        return (1 - self.progress) * self.n / _INDICES_A_SECOND


class TermNotReady(Exception):
    """A large term cannot be shown yet; the message says why.

    Attributes:
        retry_after: Seconds after which to ask again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = int(retry_after) + 1


class InProgress(TermNotReady):
    """The term is being computed or waits in the queue.

    Attributes:
        job: The job that computes it.
    """

    def __init__(self, job: Job, retry_after: float) -> None:
        super().__init__(f"F({job.n}) is being computed", retry_after)
        self.job = job


class QueueFull(TermNotReady):
    """The queue has no room for the term."""


class TermFailed(TermNotReady):
    """The computation of the term failed a moment ago.

    Attributes:
        job: The failed job.
    """

    def __init__(self, job: Job) -> None:
        left = max(job.ended + FAILURE_SECONDS - time.monotonic(), 0)
        super().__init__(f"F({job.n}) could not be computed: {job.failure}", left)
        self.job = job


class Jobs:
    """The computations of large terms, and access to their results.

    Attributes:
        max_term: The largest |n| that clients may request.
        queued: Number of terms in the queue.
        running: Number of terms being computed.
        done: Number of terms computed so far.
        failed: Number of computations that failed.
        cancelled: Number of computations that were cancelled.
        hits: Number of requested terms that were in the digit cache.
        misses: Number of requested terms that were not.
    """

    def __init__(self, cache: DigitCache, max_term: int) -> None:
        """Store terms in ``cache``."""
        self.max_term = max_term
        self._cache = cache
        self._jobs: dict[int, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []
        # Killed, but not yet ended: the kernel takes a while to free much memory.
        self._dying: list[Job] = []
        self._checked: dict[int, Seal] = {}
        self._busy = False
        self._due = False
        self.queued, self.running = Gauge(), Gauge()
        self.done, self.failed, self.cancelled = Counter(), Counter(), Counter()
        self.hits, self.misses = Counter(), Counter()

    def open(self, n: int) -> BinaryIO:
        """Return the file with the digits of F(n), n > 0, open at its beginning.

        If there is no file, or this process has not checked it, start a job.

        Raises:
            TermNotReady: One of its subclasses says why.
            IndexTooLarge: n exceeds `fibonacci.MAX_INDEX`, or the digits the digit cache.
        """
        self.advance()
        with self._uninterrupted():
            file = self._open_checked(n)
            if file:
                self.hits.add()
                return file
            self.misses.add()
            job = self._jobs.get(n) or self._enqueue(n)
            if job.state is State.FAILED:
                raise TermFailed(job)
            raise InProgress(job, min(self._seconds_until_done(job), 60))

    def pair(self, position: int) -> DecimalPair:
        """Return the terms at ``position`` >= 0 and after it, to step from.

        Raises:
            TermNotReady, IndexTooLarge: As `open`; the digit cache must have room for both.
        """
        if position <= terms.INLINE_LIMIT:
            return DecimalPair(position)
        self._require_room_for(position, 2)
        with contextlib.ExitStack() as opened:
            files, missing = [], []
            for n in (position, position + 1):
                try:
                    files.append(opened.enter_context(self.open(n)))
                except TermNotReady as reason:
                    missing.append(reason)
            if missing:
                raise missing[0]
            this, following = (file.read() for file in files)
        return DecimalPair.of_digits(position, this, following)

    def look(self, n: int) -> Job | None:
        """Return the job that computes F(n), or None if there is none; start nothing.

        A job of another process that shares the digit cache is reported as queued while it runs.
        """
        self.advance()
        with self._uninterrupted():
            file = self._open_checked(n)
            if file:
                file.close()
                return Job(n, State.DONE, 1.0)
            job = self._jobs.get(n)
            # A process that was killed holds its lock until it has ended.
            is_dying = any(each.n == n for each in self._dying)
            if job is None and not is_dying and self._cache.is_locked(n):
                return Job(n)
            return job

    def cancel(self, n: int) -> bool:
        """Cancel the job of F(n), or forget its failure; return whether there was one."""
        self.advance()
        with self._uninterrupted():
            job = self._jobs.pop(n, None)
            if job is None:
                return False
            if job.state is not State.FAILED:
                self.cancelled.add()
            if job.state is State.QUEUED:
                self._queue.remove(job)
            elif job.state is State.RUNNING:
                self._running.remove(job)
                self._kill(job)
                self._start_queued()
            return True

    def cached_bytes(self) -> int:
        """Return the size of the digit cache in bytes, including files of other services."""
        return self._cache.size()

    def close(self) -> None:
        """Kill all processes, and wait for their end."""
        with self._uninterrupted():
            self._queue.clear()
            while self._running:
                self._kill(self._running.pop())
            for job in self._dying:
                assert job.process is not None  # noqa: S101 - since it ran
                job.process.wait()
            self._reap()
            self._jobs.clear()

    def advance(self) -> None:
        """Handle the ends of processes and start queued jobs; signal handlers may call this."""
        if self._busy:
            self._due = True
            return
        self._due = False
        with self._uninterrupted():
            self._reap()
            for job in self._running.copy():
                self._read_reports(job)
            self._start_queued()
            self._forget_failures()

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """Make `advance` wait for the end of the block if a signal handler calls it."""
        self._busy = True
        try:
            yield
        finally:
            self.queued.set(len(self._queue))
            self.running.set(len(self._running))
            self._busy = False
            if self._due:
                self.advance()

    def _start_queued(self) -> None:
        while self._queue and len(self._running) + len(self._dying) < MAX_RUNNING:
            if not self._start(self._queue.popleft()):
                return  # No process can be started for another one either.

    def _forget_failures(self) -> None:
        forgotten = time.monotonic() - FAILURE_SECONDS
        for job in list(self._jobs.values()):
            if job.state is State.FAILED and job.ended <= forgotten:
                del self._jobs[job.n]

    def _open_checked(self, n: int) -> BinaryIO | None:
        if n not in self._checked:
            return None
        try:
            file = self._cache.open(n)
            if seal(file) == self._checked[n]:
                self._cache.note_use(file)
                return file
            file.close()
        except OSError:
            pass  # It was removed, to make room or by hand.
        del self._checked[n]
        return None

    def _seconds_until_done(self, job: Job) -> float:
        if job.state is State.RUNNING:
            return job.seconds_left
        before = list(self._queue)[: self._queue.index(job)]
        return job.seconds_left + sum(each.seconds_left for each in (*self._running, *before))

    def _require_room_for(self, n: int, count: int) -> None:
        """Return if ``count`` terms as long as F(n) can be computed and stored."""
        fibonacci.require_computable(n)
        size = count * int(fibonacci.digit_count(n))
        if size > self._cache.max_bytes:
            raise IndexTooLarge(
                f"this takes {size} digits, and the service keeps {self._cache.max_bytes} at most"
            )

    def _enqueue(self, n: int) -> Job:
        self._require_room_for(n, 1)
        if len(self._queue) >= MAX_QUEUED:
            left = sum(job.seconds_left for job in (*self._running, *self._queue))
            raise QueueFull(f"{MAX_QUEUED} other terms wait to be computed", min(left, 60))
        job = self._jobs[n] = Job(n)
        self._queue.append(job)
        self._start_queued()
        return job

    def _start(self, job: Job) -> bool:
        """Start the process of a job; return whether that was possible."""
        try:
            job.process = StoringProcess(job.n, self._cache)
        except OSError as error:
            self._fail(job, f"no process can be started for it ({error.strerror})")
            return False
        job.state = State.RUNNING
        self._running.append(job)
        return True

    def _read_reports(self, job: Job) -> None:
        """Read the reports of a running job's process, and handle its end."""
        process = job.process
        assert process is not None  # noqa: S101 - since it runs
        status = process.poll()
        word, rest = process.report
        if word == "progress":
            job.progress = round(float(rest), 3)
        if status is None:
            return
        self._running.remove(job)
        if word == "done":
            inode, size, mtime_ns = map(int, rest.split())
            self._checked[job.n] = Seal(inode, size, mtime_ns)
            if len(self._checked) > _CHECKED_KEPT:
                del self._checked[next(iter(self._checked))]
            job.state, job.progress = State.DONE, 1.0
            _logger.debug("F(%d) is computed, by process %d", job.n, process.pid)
            self.done.add()
            self._jobs.pop(job.n, None)
            return
        self._remove_part(job.n, process.pid)
        if word == "storage":
            # The reason has a path, which is for the operator only.
            _logger.error("F(%d) cannot be kept: %s", job.n, rest)
            self._fail(job, "its digits cannot be kept")
        else:
            self._fail(job, failure_of(status))

    def _fail(self, job: Job, failure: str) -> None:
        _logger.error("F(%d) is not computed: %s", job.n, failure)
        self.failed.add()
        job.state, job.failure, job.ended = State.FAILED, failure, time.monotonic()

    def _kill(self, job: Job) -> None:
        """Kill the process of a job; `_reap` handles its end later."""
        assert job.process is not None  # noqa: S101 - since it runs
        job.process.kill()
        self._dying.append(job)

    def _reap(self) -> None:
        """Forget killed processes that have ended."""
        for job in self._dying.copy():
            assert job.process is not None  # noqa: S101 - since it ran
            if job.process.poll() is not None:
                self._dying.remove(job)
                self._remove_part(job.n, job.process.pid)

    def _remove_part(self, n: int, pid: int) -> None:
        """Remove the unfinished file of a process that ended early."""
        with contextlib.suppress(OSError):
            self._cache.part(n, pid).unlink(missing_ok=True)
