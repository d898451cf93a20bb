"""The progress bar of large terms between reports, and on a real terminal."""

import re
import sys
from itertools import pairwise

import pytest

from bigfib.cli.progress_bar import Pace
from tests.cli.command import Command


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(reports: dict[float, float], seconds: float) -> list[float]:
    """Return what the bar shows ten times a second, for reports at these times."""
    clock, found = Clock(), []
    pace = Pace(clock)
    due = sorted(reports)
    for tenth in range(round(seconds * 10) + 1):
        clock.now = 100 + tenth / 10
        while due and due[0] <= tenth / 10:
            pace.report(reports[due.pop(0)])
        found.append(pace.done())
    return found


def test_bar_moves_evenly_between_reports_that_are_far_apart() -> None:
    # Each doubling takes as long as all before it, and is reported when it ends.
    at = shown({0: 0, 1: 0.125, 2: 0.25, 4: 0.5}, 7.8)[11:]
    steps = [after - before for before, after in pairwise(at)]
    assert max(steps) == pytest.approx(0.0125, abs=0.001)
    assert min(steps) == pytest.approx(0.0125, abs=0.003)


def test_bar_never_goes_back_and_is_not_done_before_the_work_is() -> None:
    # The second half takes four times as long as the first.
    at = shown({0: 0, 1: 0.25, 2: 0.5, 6: 0.75, 10: 1.0}, 10)
    assert at == sorted(at)
    assert at[99] <= 0.99 < at[100] == 1.0


def test_time_in_a_queue_does_not_count() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.seconds_left() is None
    clock.now += 60
    pace.report(0)
    clock.now += 1
    pace.report(0.25)
    assert pace.seconds_left() == pytest.approx(3)
    clock.now += 1
    assert pace.done() == pytest.approx(0.5)
    assert pace.seconds_left() == pytest.approx(2)


ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# `decimal` reports only when a doubling is done: at 1/16, 1/8, 1/4 and 1/2.
WITHOUT_KERNEL = (
    "from bigfib.numbers import kernel; kernel.load = lambda: None;"
    "from bigfib.cli.main import main; main(['term', '40000000', '-o', '/dev/null'])"
)


def test_bar_on_a_terminal_moves_between_doublings_and_shows_the_time_left(bigfib: Command) -> None:
    drawn = ESCAPE.sub("", bigfib.on_terminal(program=[sys.executable, "-c", WITHOUT_KERNEL]))
    shares = [int(share) for share in re.findall(r"(\d+)%", drawn)]
    assert shares == sorted(shares)
    assert len(set(shares)) > 10
    assert re.search(r"\d+% 0:0\d left", drawn)
