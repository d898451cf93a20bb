"""The computation of a far term beside the caller and on two cores, in forked processes."""

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import TracebackType
from typing import Final, TextIO

from bigfib.numbers import doubling, fibonacci, kernel
from bigfib.parent import end_with

_PIECE: Final = 1 << 20

# How a process says that memory was not enough.
_NO_MEMORY: Final = 3

# How it says that the term is wrong.
_WRONG: Final = 4


class ComputationFailed(Exception):
    """There is no term, because its process has ended before; the message says why."""


class Computation:
    """F(n), n >= 0, as it is being computed by a process of its own, within a ``with``.

    Neither Python's ``decimal`` nor GMP lets anything else run meanwhile. The caller, who only
    waits, can draw how far it is, is interrupted at once, and outlives a lack of memory, for which
    GMP ends a process. At the end of the ``with`` the process is no more.
    """

    def __init__(self, n: int, base: int = 10) -> None:
        """Begin to compute F(n) in ``base``.

        Raises:
            IndexTooLarge: n exceeds `fibonacci.MAX_INDEX`.
        """
        fibonacci.require_computable(n)
        self._n = n
        self._child, self._pipe = _fork(lambda pipe: self._compute(pipe, base))

    def _compute(self, pipe: TextIO, base: int) -> None:
        def report(done: float) -> None:
            print(done, file=pipe, flush=True)

        report(0)
        # Before GMP ends the process for lack of memory, it says so in words of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        text = digits(self._n, report) if base == 10 else fibonacci.term(self._n).digits(base)
        pipe.write("\n")
        if isinstance(text, str):
            pipe.write(text)
        else:
            # Straight from the kernel's memory.
            pipe.flush()
            pipe.buffer.write(text)

    def progress(self) -> Iterator[float]:
        """Yield how much of the work is done, from 0 to 1, until the digits are there.

        Raises:
            ComputationFailed: there is not enough memory, or somebody has ended the process.
        """
        for line in self._pipe:
            if line == "\n":
                return
            yield float(line)
        self._require_success()

    def pieces(self) -> Iterator[str]:
        """Yield the digits, some at a time, when `progress` has come to its end.

        Raises:
            ComputationFailed: as `progress`.
        """
        while piece := self._pipe.read(_PIECE):
            yield piece
        self._require_success()

    def _require_success(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child = 0
        if status in (_NO_MEMORY, -signal.SIGABRT):
            raise ComputationFailed(f"there is not enough memory to compute F({self._n})")
        if status == _WRONG:
            raise ComputationFailed(
                f"F({self._n}) was computed and is wrong: the memory or the processor of this "
                "machine is at fault; check them"
            )
        if status < 0:
            name = signal.Signals(-status).name
            raise ComputationFailed(f"the process that computed F({self._n}) was killed ({name})")
        if status > 0:
            raise ComputationFailed(f"the process that computed F({self._n}) has failed")

    def __enter__(self) -> "Computation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pipe.close()
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def digits(n: int, report: Callable[[float], None]) -> str | memoryview:
    """Return the decimal digits of F(n), for n >= 0: by the C kernel in threads, or by `decimal`.

    The kernel's are in ASCII.

    With a second core `decimal` takes 0.83 of the time at 10^8; a third would have nothing to do.
    """
    cores = len(os.sched_getaffinity(0))
    if found := kernel.load():
        return doubling.digits_by_kernel(found, n, cores, report)
    return doubling.digits(n, report, squares_apart if cores > 1 else None)


def squares_apart(first: Decimal, second: Decimal) -> tuple[Decimal, Decimal]:
    """Return the squares of both, the second of them by a forked process.

    Python's ``decimal`` holds the interpreter's lock, so that a thread would gain nothing.

    Raises:
        MemoryError: there is not enough memory.
    """
    child, pipe = _fork(lambda pipe: pipe.write(str(doubling.square(second))))
    try:
        with pipe:
            first = doubling.square(first)
            text = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if os.waitpid(child, 0)[1] != 0:
        # It was killed, or had no memory: with the other one done there may be enough of it.
        return first, doubling.square(second)
    return first, Decimal(text)


def _fork(work: Callable[[TextIO], object]) -> tuple[int, TextIO]:
    """Let a forked process work and write to a pipe; return its pid and what it writes."""
    reader, writer = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIECE)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            # A Ctrl-C is meant for all processes of a command; this one ends without a word.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            end_with(parent)
            with open(writer, "w", encoding="ascii") as pipe:  # noqa: PTH123 - it has no path
                work(pipe)
            status = 0
        except MemoryError:
            status = _NO_MEMORY
        except doubling.WrongResult:
            status = _WRONG
        finally:
            # Whatever happens, the rest of the program is not the child's to run.
            os._exit(status)
    os.close(writer)
    return child, open(reader, encoding="ascii")  # noqa: PTH123 - the caller closes it
