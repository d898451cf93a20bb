"""Estimate how much of a computation is done between its reports, which may be seconds apart."""

import time
from collections.abc import Callable
from typing import Final

# The most that is shown before the work is done.
_ALMOST: Final = 0.99


class Pace:
    """Estimate the share of the work that is done.

    Between reports it grows at the pace of the work so far, and waits when it was too fast.
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
            ahead = self._done * min((now - self._at) / passed, 1.0) if passed else 0.0
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
