"""The computation of large terms apart from the caller and on two cores, in forked processes."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from types import TracebackType
from typing import Final, TextIO

from bigfib import terms
from bigfib.numbers import doubling, fibonacci
from bigfib.numbers.decimals import DecimalPair
from bigfib.parent import end_with, handle

Report = Callable[[float], None]
"""Is told how much of the work is done, from 0 to 1."""

_PIECE: Final = 1 << 20

# Exit status of a process that had not enough memory.
_NO_MEMORY: Final = 3


class ComputationFailed(Exception):
    """There is no result: its process has ended or could not start; the message says why."""


class Computation:
    """Text that is being computed by a forked process, within a ``with``.

    Neither Python's ``decimal`` nor GMP lets anything else run meanwhile. The caller, who only
    waits, can draw how far it is, is interrupted at once, and outlives a lack of memory, for which
    GMP aborts its process. The end of the ``with`` ends the process.

    Attributes:
        what: The result, as messages name it.
    """

    def __init__(self, what: str, compute: Callable[[Report], Iterable[str]]) -> None:
        """Begin to compute.

        Args:
            what: As the attribute.
            compute: Returns the text in pieces. It is called in the new process.

        Raises:
            ComputationFailed: no process can be started.
        """
        self.what = what
        try:
            self._child, self._pipe = _fork(lambda pipe: _compute(pipe, compute))
        except OSError as error:
            raise ComputationFailed(
                f"cannot start a process to compute {what}: {error.strerror}; end other processes, "
                "or raise their limit (`ulimit -u`)"
            ) from error

    def progress(self) -> Iterator[float]:
        """Yield how much of the work is done, from 0 to 1, until the text is there.

        Raises:
            ComputationFailed: there is not enough memory, or somebody has ended the process.
        """
        for line in self._pipe:
            if line == "\n":
                return
            yield float(line)
        self._require_success()

    def pieces(self) -> Iterator[str]:
        """Yield the text, some at a time, when `progress` has come to its end.

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
            raise ComputationFailed(f"there is not enough memory to compute {self.what}")
        if status < 0:
            name = signal.Signals(-status).name
            raise ComputationFailed(f"the process that computed {self.what} was killed ({name})")
        if status > 0:
            raise ComputationFailed(f"the process that computed {self.what} has failed")

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


def of_term(n: int, base: int = 10) -> Computation:
    """Begin to compute F(n), of either sign of ``n``, in ``base``.

    Raises:
        IndexTooLarge: |n| exceeds `fibonacci.MAX_INDEX`.
        ComputationFailed: no process can be started.
    """
    fibonacci.require_computable(n)

    def compute(report: Report) -> Iterator[str]:
        text = digits(abs(n), report) if base == 10 else fibonacci.term(abs(n)).digits(base)
        if fibonacci.is_negative(n):
            yield "-"
        yield text

    return Computation(f"F({n})", compute)


def of_row(first: int, count: int, line: Callable[[int, bytes], str]) -> Computation:
    """Begin to compute ``count`` terms from F(first) on, as ``line`` writes each.

    Raises:
        IndexTooLarge: |first| is not below `fibonacci.MAX_INDEX`.
        ComputationFailed: no process can be started.
    """
    position = abs(first)
    fibonacci.require_computable(position + 1)

    def compute(report: Report) -> Iterator[str]:
        if position <= terms.INLINE_LIMIT:
            pair = DecimalPair(position)
        else:
            this = digits(position, lambda done: report(done / 2)).encode()
            following = digits(position + 1, lambda done: report((1 + done) / 2)).encode()
            pair = DecimalPair.of_digits(position, this, following)
            del this, following
        for n, value in terms.walk(first, count, pair):
            yield line(n, value)

    return Computation(f"the terms from F({first}) on", compute)


def _compute(pipe: TextIO, compute: Callable[[Report], Iterable[str]]) -> None:
    """Write to the pipe how far the computation is, an empty line, and the text."""

    def report(done: float) -> None:
        print(done, file=pipe, flush=True)

    report(0)
    # Before GMP aborts the process for lack of memory, it says so in words of its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number, text in enumerate(compute(report)):
        if number == 0:
            pipe.write("\n")
        for start in range(0, len(text), _PIECE):
            pipe.write(text[start : start + _PIECE])


def digits(n: int, report: Report) -> str:
    """Return the decimal digits of F(n), for n >= 0, as `doubling.digits` does.

    With a second core it takes 0.83 of the time at 10^8; a third would have nothing to do.
    """
    two_cores = len(os.sched_getaffinity(0)) > 1
    return doubling.digits(n, report, squares_apart if two_cores else None)


def squares_apart(first: Decimal, second: Decimal) -> tuple[Decimal, Decimal]:
    """Return the squares of both, the second of them by a forked process.

    Python's ``decimal`` holds the interpreter's lock, so that a thread would gain nothing.

    Raises:
        MemoryError: there is not enough memory.
    """
    try:
        child, pipe = _fork(lambda pipe: pipe.write(str(doubling.square(second))))
    except OSError:
        # Where no other process can be had, one core is enough.
        return doubling.square(first), doubling.square(second)
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
    """Fork a process that works and writes to a pipe; return its pid and the pipe to read from.

    Raises:
        OSError: no process can be started.
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
            # What ends the command ends this process too, without a message of its own.
            handle(signal.SIG_DFL, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
            end_with(parent)
            with open(writer, "w", encoding="ascii") as pipe:  # noqa: PTH123 - it has no path
                work(pipe)
            status = 0
        except MemoryError:
            status = _NO_MEMORY
        finally:
            # Whatever happens, the rest of the program is not the child's to run.
            os._exit(status)
    os.close(writer)
    return child, open(reader, encoding="ascii")  # noqa: PTH123 - the caller closes it
