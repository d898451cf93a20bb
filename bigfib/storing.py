"""Put large terms into the digit cache, in child processes for which a service never waits.

The service starts ``python -m bigfib.storing`` (`StoringProcess`), which computes one term, stores
it (`store`), and reports to the service as `computation` describes. Where time or memory is short,
this process lacks it first.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from bigfib import computation
from bigfib.digit_cache import DigitCache
from bigfib.signals import die_with

# Measured at 10^7 .. 10^9: a process maps at most 23 MB and 0.75 bytes for each index.
_MIN_MEMORY: Final = 64 << 20

# Measured next to a service under full load on both cores: `bench_current_beside_a_large_term`.
_NICENESS: Final = 19


class StoringProcess:
    """Put F(n) into the digit cache in a child process, without waiting for it.

    Attributes:
        pid: The child's process id.
        report: Word and rest of the last line that the child wrote, as of the last `poll`.
    """

    def __init__(self, n: int, cache: DigitCache) -> None:
        """Start the child.

        Raises:
            OSError: No process can be started.
        """
        arguments = (os.getpid(), n, cache.directory, cache.max_bytes)
        # A Ctrl-C is for the service, also before the child has a process group of its own.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(  # noqa: S603 - numbers and a path
                [sys.executable, "-m", "bigfib.storing", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                # Python looks for modules in this directory first.
                cwd="/",
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.pid = self._process.pid
        self.report = ("", "")
        # Not left to the child, whose start alone takes a while.
        os.setpriority(os.PRIO_PROCESS, self.pid, _NICENESS)
        assert self._process.stdout is not None  # noqa: S101 - PIPE
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._written = ""

    def poll(self) -> int | None:
        """Update `report`, and return the exit status if the child has ended."""
        # In this order nothing is missed that the child wrote before its end.
        status = self._process.poll()
        if not self._output.closed:
            self._written += (self._output.read() or b"").decode()
            self.report = computation.parse_report(
                self._written.rpartition("\n")[0].rpartition("\n")[2]
            )
        if status is not None:
            self._output.close()
        return status

    def kill(self) -> None:
        """Kill the child without waiting for its end, which `poll` returns later."""
        self._output.close()
        self._process.kill()

    def wait(self) -> None:
        """Wait for the child's end."""
        self._process.wait()


def store(n: int, cache: DigitCache) -> None:
    """Put F(n) into the digit cache unless it is there, and report to the parent on stdout.

    Raises:
        MemoryError, doubling.WrongResult: As `computation.digits`.
    """
    try:
        with cache.lock(n):
            seal = cache.check(n)
            if seal is None:
                text = computation.digits(n, lambda done: print("progress", done, flush=True))
                seal = cache.store(n, text)
    except (OSError, ValueError) as error:
        print("storage", str(error).replace("\n", " "), flush=True)
    else:
        print("done", *seal, flush=True)


def _yield_to_parent(parent: int, n: int) -> None:
    """Make sure that this process, which computes F(n), never harms the service."""
    die_with(parent)
    # A Ctrl-C is for the service. A session of its own would do as well, but Linux divides the
    # cores among sessions first, and by niceness only within a session.
    os.setpgid(0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    # What is mapped already: Python and, on some systems, the archive of all locales.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MIN_MEMORY + n
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with contextlib.suppress(OSError):
        # If the system runs out of memory, the kernel kills this process and not the service.
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    _parent, _n, _directory, _max_bytes = sys.argv[1:]
    _yield_to_parent(int(_parent), int(_n))
    _cache = DigitCache(Path(_directory), int(_max_bytes))
    sys.exit(computation.exit_status(lambda: store(int(_n), _cache)))
