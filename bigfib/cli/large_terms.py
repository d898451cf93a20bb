"""Large terms for a person who waits: computed here or by a service, with a bar on a terminal."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from gmpy2 import mpz

from bigfib import terms
from bigfib.cli.output import Failure
from bigfib.numbers.decimals import DecimalPair

# Measured: to build a pair takes 6.3 bytes for each digit, a step 7.3, to print the term 8.4.
_BYTES_A_DIGIT: Final = 12

if TYPE_CHECKING:
    from bigfib.computation import Computation


def digits(n: mpz, base: int = 10) -> Iterator[str]:
    """Yield F(n) in pieces, as it is computed here.

    Raises:
        Failure: there is not enough memory, or somebody has ended the process that computes.
    """
    if abs(n) <= terms.INLINE_LIMIT:
        yield terms.text(n, base).decode()
        return
    from bigfib import computation

    yield from _computed(lambda: computation.of_term(int(n), base))


def row(first: int, count: int, line: Callable[[int, bytes], str]) -> Iterator[str]:
    """Yield ``count`` terms from F(first) on, as ``line`` writes each, in pieces.

    Raises:
        IndexTooLarge: |first| is not below `fibonacci.MAX_INDEX`.
        Failure: as `digits`.
    """
    if max(abs(first), abs(first + count - 1)) <= terms.INLINE_LIMIT:
        for n, value in terms.walk(first, count):
            yield line(n, value)
        return
    from bigfib import computation

    yield from _computed(lambda: computation.of_row(first, count, line))


def _computed(begin: "Callable[[], Computation]") -> Iterator[str]:
    """Yield what the computation gives, with a bar until it is there."""
    from bigfib.computation import ComputationFailed

    try:
        with begin() as computation:
            _watch(computation.what, computation.progress())
            yield from computation.pieces()
    except ComputationFailed as error:
        raise Failure(str(error)) from error


def pair(position: int) -> DecimalPair:
    """Return the terms at a position, with a bar for each of two large ones.

    Raises:
        MemoryError: there is not enough memory to step from there.
        Failure, IndexTooLarge: as `digits`.
    """
    if position <= terms.INLINE_LIMIT:
        return DecimalPair(position)
    this, following = ("".join(digits(mpz(n))).encode() for n in (position, position + 1))
    # Python reports a lack of memory, for which GMP would abort the process.
    bytearray(_BYTES_A_DIGIT * len(following))
    return DecimalPair.of_digits(position, this, following)


def requested(url: str, n: mpz, base: int, media_type: str) -> Iterator[str]:
    """Yield F(n) in pieces, as the service at ``url`` has it.

    Raises:
        Failure: the service refuses, or does not answer.
    """
    from bigfib.cli import client

    parameters = {} if base == 10 else {"base": str(base)}
    while True:
        _watch(f"F({n})", client.progress(url, str(n), **parameters))
        try:
            yield from client.term(url, str(n), media_type, **parameters)
        except client.NoLongerAtHand:
            continue  # Another process of the service may have been asked, or it had no room.
        return


def _watch(what: str, progress: Iterator[float]) -> None:
    """Wait for the end of ``progress``, with a bar if a person waits too."""
    done = next(progress, None)
    if done is None:
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

    terminal = Console(stderr=True)
    bar = Progress(
        *("{task.description}", BarColumn(), TaskProgressColumn(), TimeElapsedColumn()),
        console=terminal,
        # Colours are for terminals, whatever the environment says of forcing them.
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=1)
        bar.update(task, completed=done)
        for more in progress:
            bar.update(task, completed=more)
