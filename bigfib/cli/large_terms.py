"""Far terms for a person who waits: computed beside, or by a service, with a bar on a terminal."""

import sys
from collections.abc import Iterator

from gmpy2 import mpz

from bigfib import terms
from bigfib.cli.output import Failure
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import DecimalPair


def digits(n: mpz, base: int = 10) -> Iterator[str]:
    """Yield F(n) in pieces, as it is computed here.

    Raises:
        Failure: there is not enough memory, or somebody has ended the process that computes.
    """
    if abs(n) <= terms.INLINE_LIMIT:
        yield terms.text(n, base).decode()
        return
    from bigfib.computation import Computation, ComputationFailed

    with Computation(int(abs(n)), base) as computation:
        try:
            _watch(n, computation.progress())
            if fibonacci.is_negative(n):
                yield "-"
            yield from computation.pieces()
        except ComputationFailed as error:
            raise Failure(str(error)) from error


def pair(position: int) -> DecimalPair:
    """Return the terms at a position, with a bar for each of two far ones."""
    if position <= terms.INLINE_LIMIT:
        return DecimalPair(position)
    this, following = ("".join(digits(mpz(n))).encode() for n in (position, position + 1))
    return DecimalPair.of_digits(position, this, following)


def asked(url: str, n: mpz, base: int, media_type: str) -> Iterator[str]:
    """Yield F(n) in pieces, as the service at ``url`` has it.

    Raises:
        Failure: the service refuses, or does not answer.
    """
    from bigfib.cli import client

    parameters = {} if base == 10 else {"base": str(base)}
    while True:
        _watch(n, client.progress(url, n.digits(), **parameters))
        try:
            yield from client.term(url, n.digits(), media_type, **parameters)
        except client.NoLongerAtHand:
            continue  # Another process of the service may have been asked, or it had no room.
        return


def _watch(n: mpz, progress: Iterator[float]) -> None:
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
        task = bar.add_task(f"F({n.digits()})", total=1)
        bar.update(task, completed=done)
        for more in progress:
            bar.update(task, completed=more)
