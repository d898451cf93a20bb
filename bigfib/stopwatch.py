"""Measure how long a part of a request takes, where that is asked for."""

from time import perf_counter
from typing import Final


class Stopwatch:
    """Sum the seconds of its ``with`` blocks.

    Attributes:
        seconds: The sum; while it is None, nothing is measured.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._began = 0.0

    def __enter__(self) -> None:
        if self.seconds is not None:
            self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.seconds is not None:
            self.seconds += perf_counter() - self._began


TEXT: Final = Stopwatch()
"""Of the conversion of terms into text, of the one request that is answered now."""
