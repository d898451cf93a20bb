"""What is shown of a computation between its reports."""

from itertools import pairwise

import pytest

from bigfib.computation import Pace


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(reports: dict[float, float], seconds: float) -> list[float]:
    """Return what the pace shows ten times a second, if these reports come at these times."""
    clock, found = Clock(), []
    pace = Pace(clock)
    due = sorted(reports)
    for tenth in range(round(seconds * 10) + 1):
        clock.now = 100 + tenth / 10
        while due and due[0] <= tenth / 10:
            pace.report(reports[due.pop(0)])
        found.append(pace.done())
    return found


def test_share_grows_evenly_between_reports_that_are_far_apart() -> None:
    # Each doubling takes as long as all before it, and is reported at its end.
    at = shown({0: 0, 1: 0.125, 2: 0.25, 4: 0.5}, 7.8)[11:]
    steps = [after - before for before, after in pairwise(at)]
    assert max(steps) == pytest.approx(0.0125, abs=0.001)
    assert min(steps) == pytest.approx(0.0125, abs=0.003)


def test_share_never_goes_back_and_is_not_done_before_the_work_is() -> None:
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


def test_share_before_the_first_report_grows_as_expected_and_then_waits() -> None:
    clock = Clock()
    pace = Pace(clock, first=0.2, seconds=2)
    assert pace.done() == 0
    clock.now += 1
    assert pace.done() == pytest.approx(0.1)
    clock.now += 3
    assert pace.done() == pytest.approx(0.2)


def test_report_that_is_read_late_counts_from_when_it_was_written() -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += 3
    pace.report(0.25, at=102)
    assert pace.done() == pytest.approx(0.375)
    # It is read again.
    clock.now += 0.5
    pace.report(0.25, at=102)
    assert pace.done() == pytest.approx(0.4375)
