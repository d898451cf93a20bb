"""Compute large terms in the background: a queue, a few processes, and the digit cache.

bjoern's loop has one thread and no timers, so nothing here waits. `Jobs.advance` reads what the
processes report; it runs with every request for a large term, and on SIGCHLD. If SIGCHLD
arrives while another method of `Jobs` runs, `advance` only sets a flag, and runs after that method.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from typing import BinaryIO, Final

from bigfib import terms
from bigfib.computation import Pace, StoringProcess, expected, failure_of
from bigfib.digit_cache import DigitCache, Kept, Seal, seal
from bigfib.metrics import Counter, Gauge
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import IndexTooLarge

_logger = logging.getLogger(__name__)

MAX_RUNNING: Final = 2
"""Maximum number of terms computed at a time. Each may keep three cores busy."""

MAX_QUEUED: Final = 64
"""Maximum number of terms in the queue."""

FAILURE_SECONDS: Final = 10
"""Seconds before a failed computation is tried again."""

# Maximum of `Retry-After` while a term is computed.
_LONGEST_RETRY: Final = 60

# Maximum number of files remembered as correct; the oldest are forgotten.
_CHECKED_KEPT: Final = 10_000


class State(str, Enum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(eq=False)
class Job:
    """The computation of F(n), n > 0.

    Attributes:
        progress: The share of the work that is done, from 0 to 1.
        failure: Why it failed, or an empty string.
        ended: When it failed, on the monotonic clock.
        process, pace: The process that computes it, and how fast; unset before it runs.
    """

    n: int
    state: State = State.QUEUED
    progress: float = 0.0
    failure: str = ""
    ended: float = 0.0
    process: StoringProcess = field(init=False, repr=False)
    pace: Pace = field(init=False, repr=False)

    @property
    def seconds_left(self) -> float:
        """An estimate of the remaining time, if no other job uses the cores.

        At first it is the expected time; the more is done, the more the time taken so far counts.
        """
        left = 1 - self.progress
        elapsed = self.pace.elapsed() if self.state is State.RUNNING else 0
        return left * (elapsed + left * sum(expected(self.n)))


class TermNotReady(Exception):
    """A large term cannot be shown yet; the message says why.

    ``retry_after`` is the number of whole seconds after which to ask again, at least 1.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(ceil(retry_after), 1)


class InProgress(TermNotReady):
    """The term is being computed by ``job``, or waits in the queue."""

    def __init__(self, job: Job, retry_after: float) -> None:
        super().__init__(f"F({job.n}) is being computed", retry_after)
        self.job = job


class Jobs:
    """The computations of large terms, and access to their results.

    Attributes:
        max_term: The largest |n| that clients may request.
        queued, running, done, failed, cancelled: Numbers of terms, for the metrics.
        hits, misses: Numbers of requested terms that were or were not in the digit cache.
    """

    def __init__(self, cache: DigitCache, max_term: int) -> None:
        """Store terms in ``cache``."""
        self.max_term = max_term
        self.cache = cache
        self._jobs: dict[int, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []
        # Killed, but not yet ended: the kernel takes a while to free much memory.
        self._dying: list[Job] = []
        self._checked: dict[int, Kept] = {}
        self._busy = False
        self._due = False
        self.queued, self.running = Gauge(), Gauge()
        self.done, self.failed, self.cancelled = Counter(), Counter(), Counter()
        self.hits, self.misses = Counter(), Counter()

    def open(self, n: int) -> BinaryIO:
        """Return the file with the digits of F(n), n > 0, open at its beginning.

        If there is no file, or this process has not checked it, start a job.

        Raises:
            TermNotReady: The term is being computed, the queue is full, or the computation failed
                less than `FAILURE_SECONDS` ago.
            IndexTooLarge: n exceeds `fibonacci.MAX_INDEX`, or its digits exceed the digit cache.
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
                left = max(job.ended + FAILURE_SECONDS - time.monotonic(), 0)
                raise TermNotReady(f"F({n}) could not be computed: {job.failure}", left)
            ahead: list[Job] = []
            if job.state is State.QUEUED:
                ahead = [*self._running, *list(self._queue)[: self._queue.index(job)]]
            raise InProgress(job, _retry_after(*ahead, job))

    def digest(self, n: int, frame: terms.Frame) -> bytes | None:
        """Return the SHA-256 of the digits of F(n), n > 0, in ``frame``.

        Return None unless the file with the digits was checked by this process.
        """
        kept = self._checked.get(n)
        return kept and kept.digests[terms.decimal_frames(n).index(frame)]

    def pair(self, position: int) -> DecimalPair:
        """Return the terms at ``position`` >= 0 and at the next one, to step from.

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
            if job is None and not is_dying and self.cache.is_locked(n):
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
                self._kill(job)
                self._start_queued()
            return True

    def close(self) -> None:
        """Kill all processes, and wait for their end."""
        with self._uninterrupted():
            self._queue.clear()
            for job in self._running.copy():
                self._kill(job)
            for job in self._dying:
                job.process.wait()
            self._reap()
            self._jobs.clear()

    def advance(self) -> None:
        """Handle ended processes and start queued jobs; signal handlers may call this."""
        if self._busy:
            self._due = True
            return
        self._due = False
        with self._uninterrupted():
            self._reap()
            for job in self._running.copy():
                self._read_reports(job)
            self._start_queued()
            forgotten = time.monotonic() - FAILURE_SECONDS
            for job in list(self._jobs.values()):
                if job.state is State.FAILED and job.ended <= forgotten:
                    del self._jobs[job.n]

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

    def _open_checked(self, n: int) -> BinaryIO | None:
        if n not in self._checked:
            return None
        # The file may have been removed, to make room or by hand.
        with contextlib.suppress(OSError):
            file = self.cache.open(n)
            if seal(file) == self._checked[n].seal:
                self.cache.note_use(file)
                return file
            file.close()
        del self._checked[n]
        return None

    def _require_room_for(self, n: int, count: int) -> None:
        """Check that ``count`` terms as long as F(n) can be computed and stored."""
        fibonacci.require_computable(n)
        size = count * int(fibonacci.digit_count(n))
        if size > self.cache.max_bytes:
            raise IndexTooLarge(
                f"this takes {size} digits, and the service keeps {self.cache.max_bytes} at most"
            )

    def _enqueue(self, n: int) -> Job:
        self._require_room_for(n, 1)
        if len(self._queue) >= MAX_QUEUED:
            raise TermNotReady(
                f"{MAX_QUEUED} other terms wait to be computed",
                _retry_after(*self._running, *self._queue),
            )
        job = self._jobs[n] = Job(n)
        self._queue.append(job)
        self._start_queued()
        return job

    def _start_queued(self) -> None:
        while self._queue and len(self._running) + len(self._dying) < MAX_RUNNING:
            job = self._queue.popleft()
            try:
                job.process = StoringProcess(job.n, self.cache)
            except OSError as error:
                self._fail(job, f"no process can be started for it ({error.strerror})")
                return
            seconds = expected(job.n)
            job.pace = Pace(first=seconds.start / sum(seconds), seconds=seconds.start)
            job.state = State.RUNNING
            self._running.append(job)

    def _read_reports(self, job: Job) -> None:
        """Read the reports of a running job's process, and handle its end."""
        status = job.process.poll()
        word, rest = job.process.report
        if word == "progress":
            job.pace.report(*map(float, rest.split()))
        job.progress = round(job.pace.done(), 3)
        if status is None:
            return
        self._running.remove(job)
        if word == "done":
            inode, size, mtime_ns, *digests = rest.split()
            self._checked[job.n] = Kept(
                Seal(int(inode), int(size), int(mtime_ns)), tuple(map(bytes.fromhex, digests))
            )
            if len(self._checked) > _CHECKED_KEPT:
                del self._checked[next(iter(self._checked))]
            job.state, job.progress = State.DONE, 1.0
            _logger.debug("F(%d) was computed by process %d", job.n, job.process.pid)
            self.done.add()
            del self._jobs[job.n]
            return
        self._remove_part(job)
        if word == "storage":
            # The reason names a path, which only the operator may see.
            _logger.error("F(%d) cannot be stored: %s", job.n, rest)
            self._fail(job, "its digits cannot be stored")
        else:
            self._fail(job, failure_of(status))

    def _fail(self, job: Job, failure: str) -> None:
        _logger.error("F(%d) could not be computed: %s", job.n, failure)
        self.failed.add()
        job.state, job.failure, job.ended = State.FAILED, failure, time.monotonic()

    def _kill(self, job: Job) -> None:
        """Kill the process of a running job; `_reap` handles its end later."""
        self._running.remove(job)
        job.process.kill()
        self._dying.append(job)

    def _reap(self) -> None:
        """Forget killed processes that have ended."""
        for job in self._dying.copy():
            if job.process.poll() is not None:
                self._dying.remove(job)
                self._remove_part(job)

    def _remove_part(self, job: Job) -> None:
        """Remove the unfinished file of a process that ended early."""
        with contextlib.suppress(OSError):
            self.cache.part(job.n, job.process.pid).unlink(missing_ok=True)


def _retry_after(*jobs: Job) -> float:
    return min(sum(job.seconds_left for job in jobs), _LONGEST_RETRY)
