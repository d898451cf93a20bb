"""Compute large terms for a command in a child process.

Neither ``decimal`` nor GMP lets other code of its process run meanwhile, and GMP aborts its process
when there is not enough memory. So a command forks a child (`Computation`), shows its progress, and
can be interrupted. A service starts a program instead (`storing`).

Both kinds of children write the same lines to their parent. ``progress`` and a number from 0 to 1
may come many times. Then comes ``done``, followed by the result, or (of `storing` only) ``storage``
and why the term cannot be stored. A child that ends without either has failed, and its exit status
says why (`failure_of`).
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, TextIO

from bigfib import terms
from bigfib.numbers import doubling, fibonacci, kernel
from bigfib.numbers.decimals import DecimalPair
from bigfib.signals import die_with, set_handler

Report = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""

Text = str | memoryview
"""Text, or the bytes of ASCII text."""

_PIECE: Final = 1 << 20

# Exit status of a child that had not enough memory.
_NO_MEMORY: Final = 3

# Exit status of a child whose result did not pass its own check.
_WRONG: Final = 4


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


def exit_status(work: Callable[[], object]) -> int:
    """Call ``work`` in a child process, and return the exit status for `failure_of`."""
    try:
        work()
    except MemoryError:
        return _NO_MEMORY
    except doubling.WrongResult:
        return _WRONG
    return 0


def parse_report(line: str) -> tuple[str, str]:
    """Return the first word of a line that a child wrote, and the rest."""
    word, _, rest = line.rstrip("\n").partition(" ")
    return word, rest


class ComputationFailed(Exception):
    """There is no result: the child ended early or could not start. The message says why."""


class Computation:
    """Compute text in a forked process, within a ``with`` statement, which kills it at the end.

    Attributes:
        what: The name of the result in messages.
    """

    def __init__(self, what: str, compute: Callable[[Report], Iterable[Text]]) -> None:
        """Start the child.

        Args:
            what: The name of the result in messages.
            compute: Returns the text in pieces; called in the child.

        Raises:
            ComputationFailed: No process can be started.
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
        """Yield the share of the work that is done, from 0 to 1, until the text is ready.

        Raises:
            ComputationFailed: There is not enough memory, or the child was killed.
        """
        for line in self._pipe:
            word, rest = parse_report(line)
            if word == "done":
                return
            yield float(rest)
        self._require_success()

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces, once `progress` has ended.

        Raises:
            ComputationFailed: As `progress`.
        """
        while piece := self._pipe.read(_PIECE):
            yield piece
        self._require_success()

    def _require_success(self) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child = 0
        if status != 0:
            raise ComputationFailed(f"cannot compute {self.what}: {failure_of(status)}")

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
    """Start to compute F(n), where ``n`` may be negative, in ``base``.

    Raises:
        IndexTooLarge: |n| exceeds `fibonacci.MAX_INDEX`.
        ComputationFailed: No process can be started.
    """
    fibonacci.require_computable(n)

    def compute(report: Report) -> Iterator[Text]:
        text: Text = digits(abs(n), report) if base == 10 else fibonacci.term(abs(n)).digits(base)
        if fibonacci.is_negative(n):
            yield "-"
        yield text

    return Computation(f"F({n})", compute)


def of_row(first: int, count: int, line: Callable[[int, bytes], str]) -> Computation:
    """Start to compute ``count`` consecutive terms from F(first), formatted by ``line``.

    Raises:
        IndexTooLarge: |first| is not below `fibonacci.MAX_INDEX`.
        ComputationFailed: No process can be started.
    """
    position = abs(first)
    fibonacci.require_computable(position + 1)

    def compute(report: Report) -> Iterator[str]:
        if position <= terms.INLINE_LIMIT:
            pair = DecimalPair(position)
        else:
            this = _ascii(digits(position, lambda done: report(done / 2)))
            following = _ascii(digits(position + 1, lambda done: report((1 + done) / 2)))
            pair = DecimalPair.of_digits(position, this, following)
            del this, following
        for n, value in terms.walk(first, count, pair):
            yield line(n, value)

    return Computation(f"the terms from F({first}) on", compute)


def _ascii(text: Text) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _compute(pipe: TextIO, compute: Callable[[Report], Iterable[Text]]) -> None:
    """Write progress, ``done`` and the text to the pipe."""

    def report(done: float) -> None:
        print("progress", done, file=pipe, flush=True)

    report(0)
    # GMP writes a message of its own before it aborts the process for lack of memory.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number, text in enumerate(compute(report)):
        if number == 0:
            pipe.write("done\n")
        if isinstance(text, str):
            pipe.write(text)
        else:
            # Without a copy of the kernel's memory.
            pipe.flush()
            pipe.buffer.write(text)


def digits(n: int, report: Report) -> Text:
    """Return the decimal digits of F(n), n >= 0: from the C kernel in ASCII, or from `decimal`.

    The kernel uses threads, `decimal` one core: it holds the interpreter's lock.

    Raises:
        doubling.WrongResult: The digits do not pass the kernel's check.
    """
    if found := kernel.load():
        return doubling.digits_by_kernel(found, n, len(os.sched_getaffinity(0)), report)
    return doubling.digits(n, report)


def _fork(work: Callable[[TextIO], object]) -> tuple[int, TextIO]:
    """Fork a child that calls ``work`` with a pipe; return its pid and the pipe's other end.

    Raises:
        OSError: No process can be started.
    """
    reader, writer = os.pipe()
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIECE)
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
            # A signal that ends the command ends this process too, without a message of its own.
            set_handler(signal.SIG_DFL, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
            die_with(parent)
            with open(writer, "w", encoding="ascii") as pipe:  # noqa: PTH123 - it has no path
                status = exit_status(lambda: work(pipe))
        finally:
            # The child must never run the rest of the program.
            os._exit(status)
    os.close(writer)
    return child, open(reader, encoding="ascii")  # noqa: PTH123 - the caller closes it
