"""Wait for large terms, computed here or by a service, with a progress bar on a terminal."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from gmpy2 import mpz

from bigfib import terms
from bigfib.cli.output import Failure
from bigfib.numbers.decimals import DecimalPair

# Measured in bytes a digit: building a pair takes 6.3, a step 7.3, printing the term 8.4.
_BYTES_A_DIGIT: Final = 12

if TYPE_CHECKING:
    from bigfib.computation import Computation


def digits(n: mpz, base: int = 10) -> Iterator[str]:
    """Compute F(n) and yield its digits in pieces.

    Raises:
        Failure: There is not enough memory, or the process that computes was killed.
    """
    if abs(n) <= terms.INLINE_LIMIT or (base == 10 and abs(n) <= terms.decimal_limit()):
        yield terms.text(n, base).decode()
        return
    from bigfib import computation

    yield from _computed(lambda: computation.of_term(int(n), base))


def row(first: int, count: int, line: Callable[[int, bytes], str]) -> Iterator[str]:
    """Compute ``count`` consecutive terms from F(first), formatted by ``line``; yield pieces.

    Raises:
        IndexTooLarge: |first| is not below `fibonacci.MAX_INDEX`.
        Failure: As `digits`.
    """
    if max(abs(first), abs(first + count - 1)) <= terms.INLINE_LIMIT:
        for n, value in terms.walk(first, count):
            yield line(n, value)
        return
    from bigfib import computation

    yield from _computed(lambda: computation.of_row(first, count, line))


def _computed(begin: "Callable[[], Computation]") -> Iterator[str]:
    """Start a computation, show its progress, and yield its result."""
    from bigfib.computation import ComputationFailed

    try:
        with begin() as computation:
            _watch(computation.what, computation.progress())
            yield from computation.pieces()
    except ComputationFailed as error:
        raise Failure(str(error)) from error


def pair(position: int) -> DecimalPair:
    """Return the terms at a position and after it, each with a progress bar if it is large.

    Raises:
        MemoryError: There is not enough memory to step from there.
        Failure, IndexTooLarge: As `digits`.
    """
    if position <= terms.INLINE_LIMIT:
        return DecimalPair(position)
    this, following = ("".join(digits(mpz(n))).encode() for n in (position, position + 1))
    # Allocate in Python, which raises MemoryError where GMP would abort the process.
    bytearray(_BYTES_A_DIGIT * len(following))
    return DecimalPair.of_digits(position, this, following)


def requested(url: str, n: mpz, base: int, media_type: str) -> Iterator[str]:
    """Request F(n) from the service at ``url``, and yield it in pieces.

    Raises:
        Failure: The service refuses, or does not answer.
    """
    from bigfib.cli import client

    parameters = {} if base == 10 else {"base": str(base)}
    while True:
        _watch(f"F({n})", client.progress(url, str(n), **parameters))
        try:
            yield from client.term(url, str(n), media_type, **parameters)
        except client.NoLongerReady:
            continue  # Another worker of the service answered, or the term has been deleted.
        return


def _watch(what: str, progress: Iterator[float]) -> None:
    """Wait for the end of ``progress``, with a progress bar on a terminal."""
    done = next(progress, None)
    if done is None:
        return
    # No bar without a terminal, even if the environment forces colours.
    if not sys.stderr.isatty():
        for _ in progress:
            pass
        return
    from bigfib.cli.progress_bar import ProgressBar

    with ProgressBar(what) as bar:
        bar.report(done)
        for more in progress:
            bar.report(more)
