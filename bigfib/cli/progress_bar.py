"""Show a progress bar that moves evenly, and the time left.

A computation may report only every few seconds; `Pace` moves the bar in between.
"""

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bigfib.computation import Pace


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
