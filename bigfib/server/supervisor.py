"""Keep several processes serving on one port.

The workers are forks of the supervisor, which only waits for signals. A worker that ends is started
again, after a pause that doubles if it soon ends again. A worker that stops reporting is killed.
When the supervisor is stopped or killed, all workers end. Only the supervisor notifies systemd.
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
from bigfib.server import CannotServe, systemd

_logger = logging.getLogger(__name__)

# The pause in seconds before a worker is started again. It doubles each time the worker ends; a
# run longer than the longest pause resets it.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

STARTING_SECONDS: Final = 10.0
"""Seconds that a worker may take to connect to its store, before it is expected to report."""

# Longer than the 5 s that a worker gives the replies under way.
_STOPPING_SECONDS: Final = 10.0

_FOR_EVER: Final = 3600.0

# Sent by a worker as its report. Real-time signals are queued, so none is lost.
_ALIVE: Final = signal.SIGRTMIN


class Place(NamedTuple):
    """The place of a worker among the others.

    Attributes:
        number: The worker's number, from 0; its replacement gets the same.
        notify: Reports to the supervisor; the worker calls it at intervals.
        shared: The memory for the metrics of all workers.
    """

    number: int
    notify: Callable[[], None]
    shared: SharedMemory


class Worker:
    """A worker process, which is started again when it ends.

    Attributes:
        pid: Its process id, or 0 while it does not run.
        due: When it is started next, on the monotonic clock.
        last_report: When it last reported; before the first report, when `STARTING_SECONDS` end.
            None if no report is expected.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.due = 0.0
        self.last_report: float | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE

    def note_start(self, pid: int) -> None:
        """Note that the worker runs as process ``pid``."""
        self.pid = pid
        self._started = time.monotonic()
        self.last_report = self._started + STARTING_SECONDS

    def note_end(self) -> None:
        """Note that the worker has ended, and schedule its restart."""
        self.pid = 0
        self.last_report = None
        if time.monotonic() - self._started > _LONGEST_PAUSE:
            self._pause = _FIRST_PAUSE
        self.delay()

    def delay(self) -> None:
        """Schedule its start after a pause, which doubles each time."""
        self.due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def kill_if_silent(self, timeout: float) -> None:
        """Kill the worker if it has not reported for ``timeout`` seconds."""
        if self.last_report is not None and time.monotonic() - self.last_report > timeout:
            _logger.error("worker %d has not answered for %g s; it is killed", self.pid, timeout)
            self.last_report = None
            os.kill(self.pid, signal.SIGKILL)


class Supervisor:
    """The process that starts the workers."""

    def __init__(self, count: int, timeout: float | None) -> None:
        """Prepare to start ``count`` workers.

        Each has to report to the supervisor every ``timeout`` seconds, and the supervisor to
        systemd. If ``timeout`` is None, no reports are expected.
        """
        self._pid = os.getpid()
        self._timeout = timeout
        self._workers = [Worker() for _ in range(count)]
        self._shared = SharedMemory(count)
        self._ready = False
        self._stops_on = {signal.SIGTERM}
        # A shell without job control starts commands in the background with SIGINT ignored.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._stops_on.add(signal.SIGINT)
        self._signals = {*self._stops_on, signal.SIGCHLD, _ALIVE}
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def run(self) -> Place | None:
        """Keep the workers running until SIGTERM or SIGINT.

        The first worker must be ready before the others are started.

        Returns:
            In a worker: its place. In the supervisor: None, when all have ended.

        Raises:
            CannotServe: The first worker cannot be started.
            SystemExit: The first worker could not serve, and has logged why. The exit status is
                the worker's.
        """
        try:
            place = self._start(self._workers[0])
        except OSError as error:
            raise CannotServe(
                f"cannot start a worker process: {error.strerror}; allow more processes "
                "(ulimit -u, TasksMax= in the unit)"
            ) from error
        while not place:
            received = signal.sigtimedwait(self._signals, self._seconds_left())
            if received and received.si_signo in self._stops_on:
                systemd.notify("STOPPING=1")
                _stop([worker.pid for worker in self._workers if worker.pid])
                return None
            if received and received.si_signo == _ALIVE:
                self._note_report(received.si_pid)
            self._note_ends()
            if self._ready and self._timeout:
                systemd.notify("WATCHDOG=1")
                for worker in self._workers:
                    worker.kill_if_silent(self._timeout)
            if self._ready:
                place = self._start_due()
        return place

    def _start(self, worker: Worker) -> Place | None:
        """Fork the worker; return its place in the new process, and None in the supervisor.

        Raises:
            OSError: The system allows no more processes, or lacks memory.
        """
        pid = os.fork()
        if pid:
            worker.note_start(pid)
            return None
        number = self._shared.worker = self._workers.index(worker)
        # If the supervisor is killed, the worker stops as if the supervisor had stopped it.
        die_with(self._pid, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)
        # Only the supervisor may notify systemd: one worker is not the service.
        os.environ.pop("NOTIFY_SOCKET", None)
        return Place(number, lambda: os.kill(self._pid, _ALIVE), self._shared)

    def _start_due(self) -> Place | None:
        for number, worker in enumerate(self._workers):
            if worker.pid or worker.due > time.monotonic():
                continue
            try:
                place = self._start(worker)
            except OSError as error:
                _logger.error(  # noqa: TRY400 - the traceback says nothing more
                    "cannot start worker %d: %s; trying again", number + 1, error.strerror
                )
                worker.delay()
                continue
            if place:
                return place
        return None

    def _seconds_left(self) -> float:
        """Return how many seconds to wait for a signal."""
        if not self._ready:
            return _FOR_EVER
        waits = [max(0.0, each.due - time.monotonic()) for each in self._workers if not each.pid]
        return min(_FOR_EVER, self._timeout / 4 if self._timeout else _FOR_EVER, *waits)

    def _note_report(self, pid: int) -> None:
        for worker in self._workers:
            if worker.pid == pid:
                worker.last_report = time.monotonic()
        if not self._ready:
            self._ready = True
            systemd.notify("READY=1", f"STATUS={len(self._workers)} workers")

    def _note_ends(self) -> None:
        for pid, status in _ended():
            if not self._ready:
                raise SystemExit(status if status >= 0 else 1)
            _logger.error("worker %d has ended (status %d); it is started again", pid, status)
            next(worker for worker in self._workers if worker.pid == pid).note_end()


def _ended() -> Iterator[tuple[int, int]]:
    """Yield pid and exit status (or minus the signal) of each worker that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _stop(pids: list[int]) -> None:
    """Stop the workers, and kill those that take too long."""
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
