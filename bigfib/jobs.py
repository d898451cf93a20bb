"""Large terms in the background: a few processes, a queue before them, and the digit cache behind.

bjoern's loop has one thread and no timers. So nothing here waits: what the processes have said is
read whenever somebody asks, and on SIGCHLD, which bjoern looks for ten times a second.

Python runs the handler of a signal between any two of its instructions. What is asked here is
therefore done undisturbed, and the handler's work comes after it.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO, Final

from bigfib import terms
from bigfib.computation import StoringProcess, failure_of
from bigfib.counts import Counter, Gauge
from bigfib.digit_cache import DigitCache, Seal, seal
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.numbers.fibonacci import IndexTooLarge

_logger = logging.getLogger(__name__)

MAX_RUNNING: Final = 2
"""Most terms that are computed at a time. Each may keep two cores busy."""

MAX_QUEUED: Final = 64
"""Most terms that wait to be computed."""

FAILURE_SECONDS: Final = 10
"""How long a computation that has failed is not tried again."""

# Beyond so many the first are checked anew when they are asked for; so many cancelled are known.
_CHECKED_KEPT: Final = 10_000

# Measured: F(10^8) takes 1.7 s on two cores that have nothing else to do, F(10^9) ten times that.
_INDICES_A_SECOND: Final = 60_000_000


class State(str, Enum):
    """How a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job:
    """The computation of F(n), n > 0.

    Attributes:
        n: The index.
        state: How it stands.
        progress: How much of the work is done, from 0 to 1.
        failure: Why it has failed, if it has.
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
        """The time that it takes with the cores for itself, roughly."""
        return (1 - self.progress) * self.n / _INDICES_A_SECOND


class TermNotReady(Exception):
    """A large term cannot be shown now; the message says why, and when to ask again.

    Attributes:
        retry_after: In how many seconds to ask again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = int(retry_after) + 1


class InProgress(TermNotReady):
    """It is being computed, or waits to be.

    Attributes:
        job: Its computation.
    """

    def __init__(self, job: Job, retry_after: float) -> None:
        super().__init__(f"F({job.n}) is being computed", retry_after)
        self.job = job


class QueueFull(TermNotReady):
    """Too many others are waited for."""


class TermFailed(TermNotReady):
    """Its computation has failed.

    Attributes:
        job: Its computation.
    """

    def __init__(self, job: Job) -> None:
        left = max(job.ended + FAILURE_SECONDS - time.monotonic(), 0)
        super().__init__(f"F({job.n}) could not be computed: {job.failure}", left)
        self.job = job


class Jobs:
    """All computations of large terms, and their results.

    Attributes:
        max_term: The largest |n| whose term clients are given.
        queued: How many terms wait to be computed.
        running: How many are being computed.
        done: How many have been computed.
        failed: How many could not be.
        cancelled: How many were not to be any more.
        hits: How often a term that was asked for was there.
        misses: How often it was not.
    """

    def __init__(self, cache: DigitCache, max_term: int) -> None:
        """Compute into ``cache``."""
        self.max_term = max_term
        self._cache = cache
        self._jobs: dict[int, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: list[Job] = []
        # Killed, and not yet ended: to free much memory takes the kernel a while.
        self._dying: list[Job] = []
        self._checked: dict[int, Seal] = {}
        # A dictionary, for that is in order.
        self._cancelled: dict[int, None] = {}
        self._busy = False
        self._due = False
        self.queued, self.running = Gauge(), Gauge()
        self.done, self.failed, self.cancelled = Counter(), Counter(), Counter()
        self.hits, self.misses = Counter(), Counter()

    def open(self, n: int) -> BinaryIO:
        """Return the file with the digits of F(n), n > 0, open at its beginning.

        If there is none, or nobody has checked it yet, that is begun.

        Raises:
            TermNotReady: one of its kinds.
            IndexTooLarge: n exceeds `fibonacci.MAX_INDEX`, or its digits are more than the digit
                cache takes.
        """
        self.advance()
        with self._undisturbed():
            self._cancelled.pop(n, None)
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
        """Return the terms at ``position`` >= 0 and behind it, to step from.

        Raises:
            TermNotReady, IndexTooLarge: as `open`; the digit cache has to take both.
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
        """Return how the computation of F(n) stands, or None if it was cancelled here.

        Another process may have told of it, on this machine or another: what is not known here is
        begun, as by `open`. Not so while one that shares the digit cache computes it; it is begun
        by the next look after that, and finds the term there.

        Raises:
            IndexTooLarge: as `open`.
        """
        self.advance()
        with self._undisturbed():
            file = self._open_checked(n)
            if file:
                file.close()
                return Job(n, State.DONE, 1.0)
            if n in self._cancelled:
                return None
            job = self._jobs.get(n)
            if job:
                return job
            self._require_room_for(n, 1)
            if self._cache.is_locked(n):
                # To wait for it would take the place of one that could be computed.
                return Job(n)
            try:
                return self._enqueue(n)
            except QueueFull:
                # By the time that somebody looks again there may be room.
                return Job(n)

    def cancel(self, n: int) -> bool:
        """End the computation of F(n), or forget that it has failed; return whether it was one."""
        self.advance()
        with self._undisturbed():
            job = self._jobs.pop(n, None)
            if job is None:
                return False
            # Whoever still looks at it does not begin it again.
            self._cancelled[n] = None
            if len(self._cancelled) > _CHECKED_KEPT:
                del self._cancelled[next(iter(self._cancelled))]
            if job.state is not State.FAILED:
                self.cancelled.add()
            if job.state is State.QUEUED:
                self._queue.remove(job)
            elif job.state is State.RUNNING:
                self._running.remove(job)
                self._kill(job)
                self._start_what_can()
            return True

    def cached_bytes(self) -> int:
        """Return how many bytes of digits there are in the cache, whoever has put them there."""
        return self._cache.size()

    def close(self) -> None:
        """End all computations."""
        with self._undisturbed():
            self._queue.clear()
            while self._running:
                self._kill(self._running.pop())
            for job in self._dying:
                assert job.process is not None  # noqa: S101 - since it ran
                job.process.wait()
            self._reap()
            self._jobs.clear()

    def advance(self) -> None:
        """Take notice of what has ended, and begin what can be begun.

        A signal handler may call it at any moment.
        """
        if self._busy:
            self._due = True
            return
        self._due = False
        with self._undisturbed():
            self._reap()
            for job in self._running.copy():
                self._listen(job)
            self._start_what_can()
            self._forget_failures()

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Put off what a signal handler asks for until what is done within is done."""
        self._busy = True
        try:
            yield
        finally:
            self.queued.set(len(self._queue))
            self.running.set(len(self._running))
            self._busy = False
            if self._due:
                self.advance()

    def _start_what_can(self) -> None:
        while self._queue and len(self._running) + len(self._dying) < MAX_RUNNING:
            if not self._start(self._queue.popleft()):
                return  # Nor could others be.

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
            pass  # It has been removed to make room, or by hand.
        del self._checked[n]
        return None

    def _seconds_until_done(self, job: Job) -> float:
        if job.state is State.RUNNING:
            return job.seconds_left
        before = list(self._queue)[: self._queue.index(job)]
        return job.seconds_left + sum(each.seconds_left for each in (*self._running, *before))

    def _require_room_for(self, n: int, count: int) -> None:
        """Return if ``count`` terms as long as F(n) can be computed and kept."""
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
        self._start_what_can()
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

    def _listen(self, job: Job) -> None:
        """Read what the process of a running job has said, and whether it has ended."""
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
            self.done.add()
            self._jobs.pop(job.n, None)
            return
        self._clear_away(job.n, process.pid)
        if word == "storage":
            # Where that is, is the operator's business.
            _logger.error("F(%d) cannot be kept: %s", job.n, rest)
            self._fail(job, "its digits cannot be kept")
        else:
            self._fail(job, failure_of(status))

    def _fail(self, job: Job, failure: str) -> None:
        _logger.error("F(%d) is not computed: %s", job.n, failure)
        self.failed.add()
        job.state, job.failure, job.ended = State.FAILED, failure, time.monotonic()

    def _kill(self, job: Job) -> None:
        """Kill the process of a job without waiting for its end, which `_reap` notices."""
        assert job.process is not None  # noqa: S101 - since it runs
        job.process.kill()
        self._dying.append(job)

    def _reap(self) -> None:
        """Take notice of killed processes that have ended."""
        for job in self._dying.copy():
            assert job.process is not None  # noqa: S101 - since it ran
            if job.process.poll() is not None:
                self._dying.remove(job)
                self._clear_away(job.n, job.process.pid)

    def _clear_away(self, n: int, pid: int) -> None:
        """Remove what a process has left that could not do so itself."""
        with contextlib.suppress(OSError):
            self._cache.part(n, pid).unlink(missing_ok=True)
