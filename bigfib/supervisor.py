"""Several processes that serve on one port, and one that watches over them.

The workers are forks of the supervisor, which itself does nothing but wait for signals. One that
ends is started again, after a pause that grows while it keeps ending. All end together: when the
supervisor is told to, and when it is killed.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from bigfib.counts import Slots
from bigfib.parent import end_with

_logger = logging.getLogger(__name__)

# Before a worker is started again, in seconds: doubled each time it ends, and the first again when
# it has run for longer than the longest.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

# Longer than a worker lets the replies under way take.
_STOPPING_SECONDS: Final = 10.0

_FOR_EVER: Final = 3600.0

_READY: Final = signal.SIGUSR1
_WAITED_FOR: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, _READY}


class Place(NamedTuple):
    """What a worker knows of itself.

    Attributes:
        number: Which of the workers it is, from 0; the one started in its place has it, too.
        ready: What it has to call when it is ready.
        slots: Where the workers count.
    """

    number: int
    ready: Callable[[], None]
    slots: Slots


class _Worker:
    """One of the processes, which may have to be started again.

    Attributes:
        pid: Its process, or 0 while there is none.
        due: When it is to be started, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.due = 0.0
        self._started = 0.0
        self._pause = _FIRST_PAUSE

    def note_start(self, pid: int) -> None:
        """Take notice that it runs as process ``pid``."""
        self.pid = pid
        self._started = time.monotonic()

    def note_end(self) -> None:
        """Take notice that it has ended."""
        self.pid = 0
        now = time.monotonic()
        if now - self._started > _LONGEST_PAUSE:
            self._pause = _FIRST_PAUSE
        self.due = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def supervise(count: int) -> Place | None:
    """Keep ``count`` workers running until SIGTERM or SIGINT.

    The first has to be ready before the others are started: it says what keeps it from serving, and
    that is the end.

    Returns:
        In a worker: its place. In the supervisor: None, when all have ended.

    Raises:
        SystemExit: the first worker could not serve; with its status.
    """
    supervisor = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    workers = [_Worker() for _ in range(count)]
    slots = Slots(count)

    def start(worker: _Worker) -> bool:
        """Start the worker; return whether this is it."""
        pid = os.fork()
        if pid:
            worker.note_start(pid)
            return False
        slots.own = workers.index(worker)
        # So that it stops as it does when the supervisor tells it to.
        end_with(supervisor, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return True

    def tell() -> None:
        os.kill(supervisor, _READY)

    if start(workers[0]):
        return Place(0, tell, slots)
    ready = False
    while True:
        due = []
        for number, worker in enumerate(workers if ready else ()):
            if not worker.pid and worker.due <= time.monotonic():
                if start(worker):
                    return Place(number, tell, slots)
            elif not worker.pid:
                due.append(worker.due)
        left = max(0.0, min(due) - time.monotonic()) if due else _FOR_EVER
        received = signal.sigtimedwait(_WAITED_FOR, left)
        if received and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            break
        ready = ready or (received is not None and received.si_signo == _READY)
        for pid, status in _ended():
            if not ready:
                raise SystemExit(status if status >= 0 else 1)
            _logger.error("worker %d has ended (status %d); it is started again", pid, status)
            next(worker for worker in workers if worker.pid == pid).note_end()
    _stop([worker.pid for worker in workers if worker.pid])
    return None


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
