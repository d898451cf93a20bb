"""Compute large terms in child processes.

``decimal`` and GMP block all other threads of their process, and GMP aborts the process when there
is not enough memory. So a command forks a child (`Computation`), shows its progress, and can be
interrupted. A service starts this module as a program (`StoringProcess`), which puts one term into
the digit cache. If processor time or memory is short, the child gives way to the service.

Children write lines to their parent: repeatedly ``progress``, a number from 0 to 1 and when that
was, by the monotonic clock; then ``done`` and the result, or ``storage`` and why the term cannot be
stored (only in a service). A child that ends without either has failed, and its exit status says
why (`failure_of`).
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from bigfib.digit_cache import DigitCache
from bigfib.numbers import doubling, fibonacci, kernel

# The most that is shown before the work is done.
_ALMOST: Final = 0.99

Report = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""

Text = str | memoryview
"""Text, or the bytes of ASCII text."""

_PIECE: Final = 1 << 20

# Exit status of a child that ran out of memory, or whose result failed its check.
_NO_MEMORY: Final = 3
_WRONG: Final = 4

# At 10^7 .. 10^9 a process that computes F(n) was measured to map at most 23 MB + 0.75 n bytes.
_MIN_MEMORY: Final = 64 << 20

# `bench_current_beside_a_large_term` measures a service on busy cores next to such a process.
_NICENESS: Final = 19

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


class Expected(NamedTuple):
    """The seconds that a `StoringProcess` should take for its start, the digits and their storage.

    Other machines are slower or faster, but mostly in all three alike.
    """

    start: float
    digits: float
    storage: float


def expected(n: int) -> Expected:
    """Return the expected seconds for F(n). Measured at 10^6 .. 10^9, as CPU time."""
    if kernel.load():
        return Expected(0.075, n / 380_000_000, 0.012 + n / 1_100_000_000)
    return Expected(0.075, n / 50_000_000, 0.012 + n / 550_000_000)


def digits(n: int, report: Report) -> Text:
    """Return the decimal digits of F(n), n >= 0: in ASCII by the C kernel, or else by `decimal`.

    The kernel uses threads; `decimal` uses one core, as it holds the interpreter's lock.

    Raises:
        doubling.WrongResult: The digits do not pass the kernel's check.
    """
    if found := kernel.load():
        return doubling.digits_by_kernel(found, n, len(os.sched_getaffinity(0)), report)
    return doubling.digits(n, report)


def failure_of(status: int) -> str:
    """Return why a child ended without a result, from its exit status (negative: a signal)."""
    # GMP aborts the process when an allocation fails.
    if status in (_NO_MEMORY, -signal.SIGABRT):
        return "there is not enough memory"
    if status == _WRONG:
        return "its result is wrong: check the memory and the processor of this machine"
    if status < 0:
        return f"its process was killed ({signal.Signals(-status).name})"
    return f"its process ended with status {status}"


def die_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Raises:
        SystemExit: The parent has ended already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(1)


class ComputationFailed(Exception):
    """There is no result: the child ended early or could not start. The message says why."""


class Computation:
    """Compute F(n) in a forked process, which is killed at the end of a ``with`` statement."""

    def __init__(self, n: int, base: int = 10) -> None:
        """Start the child; ``n`` may be negative.

        Raises:
            IndexTooLarge: |n| exceeds `fibonacci.MAX_INDEX`.
            ComputationFailed: No process can be started.
        """
        fibonacci.require_computable(n)
        self._n = n
        try:
            self._child, self._pipe = _fork(n, base)
        except OSError as error:
            raise ComputationFailed(
                f"cannot start a process to compute F({n}): {error.strerror}; end other processes, "
                "or raise their limit (`ulimit -u`)"
            ) from error

    def progress(self) -> Iterator[float]:
        """Yield the share of the work that is done, from 0 to 1, until the term is ready.

        Raises:
            ComputationFailed: There is not enough memory, or the child was killed.
        """
        for line in self._pipe:
            if line == "done\n":
                return
            yield float(line.split()[1])
        self._require_success()

    def pieces(self) -> Iterator[str]:
        """Yield the digits in pieces, once `progress` has ended; raise as `progress`."""
        while piece := self._pipe.read(_PIECE):
            yield piece
        self._require_success()

    def _require_success(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child = 0
        if status != 0:
            raise ComputationFailed(f"cannot compute F({self._n}): {failure_of(status)}")

    def __enter__(self) -> "Computation":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def _fork(n: int, base: int) -> tuple[int, TextIO]:
    """Fork a child that writes F(n) to a pipe; return its pid and the pipe's other end.

    Raises:
        OSError: No process can be started.
    """
    reader, writer = os.pipe()
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if child == 0:
        status = 1
        try:
            os.close(reader)
            # A signal that ends the command must end this process, too, without another message.
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            die_with(parent)
            with open(writer, "w", encoding="ascii") as pipe:  # noqa: PTH123 - it has no path
                status = _exit_status(lambda: _write(pipe, n, base))
        finally:
            # The child must never run the rest of the program.
            os._exit(status)
    os.close(writer)
    return child, open(reader, encoding="ascii")  # noqa: PTH123 - the caller closes it


def _write(pipe: TextIO, n: int, base: int) -> None:
    """Write progress, ``done`` and F(n) to the pipe."""
    report = _report_to(pipe)
    report(0)
    # Hide the message that GMP writes before it aborts the process for lack of memory.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    text: Text = digits(abs(n), report) if base == 10 else fibonacci.term(abs(n)).digits(base)
    pipe.write("done\n-" if fibonacci.is_negative(n) else "done\n")
    if isinstance(text, str):
        pipe.write(text)
    else:
        # Write the kernel's memory without copying it.
        pipe.flush()
        pipe.buffer.write(text)


def _report_to(pipe: TextIO) -> Report:
    return lambda done: print("progress", done, time.monotonic(), file=pipe, flush=True)


def _exit_status(work: Callable[[], object]) -> int:
    """Call ``work`` in a child process, and return the exit status for `failure_of`."""
    try:
        work()
    except MemoryError:
        return _NO_MEMORY
    except doubling.WrongResult:
        return _WRONG
    return 0


class StoringProcess:
    """Put F(n) into the digit cache in a child process, without waiting for it.

    ``report`` is the last line that the child had written by the last `poll`: its first word, and
    the rest.
    """

    def __init__(self, n: int, cache: DigitCache) -> None:
        """Start the child, or raise `OSError`."""
        arguments = (os.getpid(), n, cache.directory, cache.max_bytes)
        # A Ctrl-C is meant for the service, even before the child has its own process group.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(  # noqa: S603 - numbers and a path
                [sys.executable, "-m", "bigfib.computation", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # Python looks for modules in the working directory first.
                cwd="/",
                # Each arena of the C library takes up to 128 MB of the address space, which is
                # limited; if a thread starts without memory, the process waits for it for ever.
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid = self._process.pid
        self.report = ("", "")
        # Set by the parent, so that it applies to the start of the child, too.
        os.setpriority(os.PRIO_PROCESS, self.pid, _NICENESS)
        assert self._process.stdout is not None  # noqa: S101 - PIPE
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._written = ""

    def poll(self) -> int | None:
        """Update `report`, and return the exit status if the child has ended."""
        # Poll first, then read, so that nothing is missed that the child wrote before its end.
        status = self._process.poll()
        if not self._output.closed:
            self._written += (self._output.read() or b"").decode()
            word, _, rest = self._written.rpartition("\n")[0].rpartition("\n")[2].partition(" ")
            self.report = word, rest
        if status is not None:
            self._output.close()
        return status

    def kill(self) -> None:
        """Kill the child without waiting for its end, which `poll` reports later."""
        self._output.close()
        self._process.kill()

    def wait(self) -> None:
        """Wait for the child's end."""
        self._process.wait()


def _store(n: int, cache: DigitCache) -> None:
    """Put F(n) into the digit cache unless it is there, and report to the parent on stdout."""
    seconds, report = expected(n), _report_to(sys.stdout)

    def report_digits(done: float) -> None:
        report((seconds.start + done * seconds.digits) / sum(seconds))

    try:
        with cache.lock(n):
            kept = cache.check(n)
            if kept is None:
                report_digits(0)
                text = digits(n, report_digits)
                report_digits(1)
                kept = cache.store(n, text)
    except (OSError, ValueError) as error:
        print("storage", str(error).replace("\n", " "), flush=True)
    else:
        print("done", *kept.seal, *(digest.hex() for digest in kept.digests), flush=True)


def _yield_to_parent(parent: int, n: int) -> None:
    """Limit this process, which computes F(n), so that it never harms the service."""
    die_with(parent)
    # A Ctrl-C is meant for the service. A new session would also keep it away, but Linux divides
    # the cores among sessions first, and by niceness only within a session.
    os.setpgid(0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # Already mapped: Python and, on some systems, the archive of all locales.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MIN_MEMORY + n
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError):
        # If the system runs out of memory, the kernel kills this process and not the service.
        Path("/proc/self/oom_score_adj").write_text("1000")


class Pace:
    """Estimate the share of a computation that is done.

    Between reports, which may be seconds apart, the estimate grows at the pace of the work so far,
    and pauses if it was too fast.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        first: float = 0.0,
        seconds: float = 1.0,
    ) -> None:
        """Start the clock; nothing is done yet.

        The share of the work before its first report, ``first``, should take ``seconds``.
        """
        self._clock = clock
        self._first, self._seconds = first, seconds
        self._began = self._at = clock()
        self._done = self._shown = 0.0

    def report(self, done: float, at: float | None = None) -> None:
        """Note the share that was done ``at`` a time by the clock, by default now."""
        if not done:
            # Until now the work has waited in a queue.
            self._began = self._clock()
        elif done != self._done:
            self._at, self._done = self._clock() if at is None else at, done

    def done(self) -> float:
        """Return the estimated share that is done, which never decreases."""
        now = self._clock()
        # Extrapolate for at most as long as the reported work took.
        if self._done:
            passed = self._at - self._began
            ahead = self._done * min((now - self._at) / passed, 1.0) if passed > 0 else 0.0
        else:
            ahead = self._first * min((now - self._began) / self._seconds, 1.0)
        self._shown = max(self._shown, min(self._done + ahead, max(self._done, _ALMOST)))
        return self._shown

    def elapsed(self) -> float:
        """Return the seconds since the work began."""
        return self._clock() - self._began

    def seconds_left(self) -> float | None:
        """Return an estimate of the seconds left, or None if that is unknown."""
        done = self.done()
        return self.elapsed() * (1 - done) / done if done else None


if __name__ == "__main__":
    _parent, _n, _directory, _max_bytes = sys.argv[1:]
    _yield_to_parent(int(_parent), int(_n))
    _cache = DigitCache(Path(_directory), int(_max_bytes))
    sys.exit(_exit_status(lambda: _store(int(_n), _cache)))
