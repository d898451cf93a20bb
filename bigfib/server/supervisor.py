"""Several processes that serve on one port, and one that watches over them.

The workers are forks of the supervisor, which itself does nothing but wait for signals. One that
ends is started again, after a pause that grows while it keeps ending. One that is to tell that it
answers requests, and does not, is killed. All end together: when the supervisor is told to, and
when it is killed. systemd knows the supervisor only.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from bigfib.computation import die_with
from bigfib.metrics import SharedMemory
from bigfib.server import systemd

_logger = logging.getLogger(__name__)

# Before a worker is started again, in seconds: doubled each time it ends, and the first again when
# it has run for longer than the longest.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

# For longer than a worker takes to connect to its store, or to give up.
_STARTING_SECONDS: Final = 10.0

# Longer than a worker lets the replies under way take.
_STOPPING_SECONDS: Final = 10.0

_FOR_EVER: Final = 3600.0

# Of a real-time signal none is lost.
_ANSWERS: Final = signal.SIGRTMIN
_WAITED_FOR: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, _ANSWERS}


class Place(NamedTuple):
    """What a worker knows of itself.

    Attributes:
        number: Which of the workers it is, from 0; the one started in its place has it, too.
        tell: What it has to call when it answers requests, and then again and again.
        shared: The memory for the metrics of all workers.
    """

    number: int
    tell: Callable[[], None]
    shared: SharedMemory


class _Worker:
    """One of the processes, which may have to be started again.

    Attributes:
        pid: Its process, or 0 while there is none.
        due: When it is to be started, on the monotonic clock.
        heard: When it has last told that it answers requests; before that, until when it may start.
            None while nothing is to be heard of it.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.due = 0.0
        self.heard: float | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE

    def note_start(self, pid: int) -> None:
        """Take notice that it runs as process ``pid``."""
        self.pid = pid
        self._started = time.monotonic()
        self.heard = self._started + _STARTING_SECONDS

    def note_end(self) -> None:
        """Take notice that it has ended."""
        self.pid = 0
        self.heard = None
        now = time.monotonic()
        if now - self._started > _LONGEST_PAUSE:
            self._pause = _FIRST_PAUSE
        self.due = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def supervise(count: int, watchdog: float | None = None) -> Place | None:
    """Keep ``count`` workers running until SIGTERM or SIGINT.

    The first has to be ready before the others are started: it says what keeps it from serving, and
    that is the end.

    Args:
        count: How many.
        watchdog: Within how many seconds a worker has to tell again that it answers requests, and
            systemd wants to hear of the supervisor; None if that goes unwatched.

    Returns:
        In a worker: its place. In the supervisor: None, when all have ended.

    Raises:
        SystemExit: the first worker could not serve; with its status.
    """
    supervisor = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    workers = [_Worker() for _ in range(count)]
    shared = SharedMemory(count)

    def start(worker: _Worker) -> bool:
        """Start the worker; return whether this is it."""
        pid = os.fork()
        if pid:
            worker.note_start(pid)
            return False
        shared.worker = workers.index(worker)
        # So that it stops as it does when the supervisor tells it to.
        die_with(supervisor, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # What one worker says is not said of the service.
        os.environ.pop("NOTIFY_SOCKET", None)
        return True

    def tell() -> None:
        os.kill(supervisor, _ANSWERS)

    if start(workers[0]):
        return Place(0, tell, shared)
    ready = False
    while True:
        due = []
        for number, worker in enumerate(workers if ready else ()):
            if not worker.pid and worker.due <= time.monotonic():
                if start(worker):
                    return Place(number, tell, shared)
            elif not worker.pid:
                due.append(worker.due)
        left = max(0.0, min(due) - time.monotonic()) if due else _FOR_EVER
        if watchdog and ready:
            systemd.notify("WATCHDOG=1")
            _kill_silent(workers, watchdog)
            left = min(left, watchdog / 4)
        received = signal.sigtimedwait(_WAITED_FOR, left)
        if received and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            break
        if received and received.si_signo == _ANSWERS:
            for worker in workers:
                if worker.pid == received.si_pid:
                    worker.heard = time.monotonic()
            if not ready:
                ready = True
                systemd.notify("READY=1", f"STATUS={count} workers")
        for pid, status in _ended():
            if not ready:
                raise SystemExit(status if status >= 0 else 1)
            _logger.error("worker %d has ended (status %d); it is started again", pid, status)
            next(worker for worker in workers if worker.pid == pid).note_end()
    systemd.notify("STOPPING=1")
    _stop([worker.pid for worker in workers if worker.pid])
    return None


def _kill_silent(workers: list[_Worker], watchdog: float) -> None:
    for worker in workers:
        if worker.heard is not None and time.monotonic() - worker.heard > watchdog:
            _logger.error("worker %d has not answered for %g s; it is killed", worker.pid, watchdog)
            worker.heard = None
            os.kill(worker.pid, signal.SIGKILL)


def _ended() -> Iterator[tuple[int, int]]:
    """Yield pid and exit status (or minus the signal) of each worker that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _stop(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOPPING_SECONDS
    left = set(pids)
    while left:
        left -= {pid for pid, _ in _ended()}
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            seconds = _FOR_EVER
        if left:
            signal.sigtimedwait({signal.SIGCHLD}, seconds)
