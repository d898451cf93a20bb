"""Wait for large terms, computed here or by a service, with a progress bar on a terminal."""

import sys
from collections.abc import Iterator
from typing import Final

from gmpy2 import mpz

from bigfib import terms
from bigfib.cli.output import Failure
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair

# Building a pair takes 6.3 bytes a digit, a step 7.3, and printing the term 8.4.
_BYTES_A_DIGIT: Final = 12


def digits(n: mpz, base: int = 10) -> Iterator[str]:
    """Compute F(n) and yield its digits in pieces.

    Raises:
        Failure: There is not enough memory, or the process that computes was killed.
    """
    if abs(n) <= terms.INLINE_LIMIT or (base == 10 and abs(n) <= terms.decimal_limit()):
        yield terms.text(n, base).decode()
        return
    from bigfib.computation import Computation, ComputationFailed

    try:
        with Computation(int(n), base) as computation:
            _watch(f"F({n})", computation.progress())
            yield from computation.pieces()
    except ComputationFailed as error:
        raise Failure(str(error)) from error


def pair(position: int) -> DecimalPair:
    """Return the terms at ``position`` and after it, with a progress bar for each large one.

    Raises:
        MemoryError: There is not enough memory to step from there.
        Failure, IndexTooLarge: As `digits`.
    """
    if position <= terms.INLINE_LIMIT:
        return DecimalPair(position)
    fibonacci.require_computable(position + 1)
    this, following = ("".join(digits(mpz(n))).encode() for n in (position, position + 1))
    # Allocate in Python, which raises MemoryError where GMP would abort the process.
    bytearray(_BYTES_A_DIGIT * len(following))
    return DecimalPair.of_digits(position, this, following)


def requested(url: str, n: mpz, base: int, media_type: str) -> Iterator[str]:
    """Request F(n) from the service at ``url``, and yield it in pieces.

    Raises:
        ServiceError: The service refuses, or does not answer.
    """
    from bigfib.client import Client

    client = Client(url)
    _watch(f"F({n})", client.progress(n, base))
    yield from client.pieces(n, base, media_type)


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
