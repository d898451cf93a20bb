"""Show a progress bar that moves evenly, and the time left.

A computation may report only every few seconds. Between reports the bar advances at the pace so
far, and stops if it gets too far ahead.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

# The largest share that the bar shows before the work is done.
_ALMOST: Final = 0.99


class Pace:
    """Estimate the share of the work that is done, also between its reports."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock; nothing is done yet."""
        self._clock = clock
        self._began = self._at = clock()
        self._done = self._shown = 0.0

    def report(self, done: float) -> None:
        """Note the share of the work that is done, from 0 to 1."""
        self._at, self._done = self._clock(), done
        if not done:
            # The work was waiting in a queue until now.
            self._began = self._at

    def done(self) -> float:
        """Return the estimated share that is done, which never decreases."""
        now = self._clock()
        passed = self._at - self._began
        if self._done and passed:
            # Extrapolate for at most as long as the reported work took.
            ahead = self._done * min((now - self._at) / passed, 1.0)
            self._shown = max(self._shown, min(self._done + ahead, max(self._done, _ALMOST)))
        return self._shown

    def seconds_left(self) -> float | None:
        """Return an estimate of the seconds left, or None if that is unknown."""
        done = self.done()
        return (self._clock() - self._began) * (1 - done) / done if done else None


class ProgressBar(Progress):
    """Show a bar on standard error, within a ``with`` statement."""

    def __init__(self, what: str) -> None:
        """Show a bar for ``what``."""
        self._pace = Pace()
        columns = ("{task.description}", BarColumn(), TaskProgressColumn())
        left = TextColumn("{task.fields[left]}")
        super().__init__(*columns, left, console=Console(stderr=True), transient=True)
        self.add_task(what, total=1, left="")

    def report(self, done: float) -> None:
        """Note the share of the work that is done."""
        self._pace.report(done)
        self.refresh()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Draw the bar at the estimated share; called ten times a second."""
        seconds = self._pace.seconds_left()
        left = "" if seconds is None else f"{round(seconds) // 60}:{round(seconds) % 60:02} left"
        for task in self.task_ids:
            self.update(task, completed=self._pace.done(), left=left)
        yield from super().get_renderables()
