"""What is read from a run of benchmarks."""

from pathlib import Path

import pytest

from benchmarks.results import NoYardstick, Role
from tests.benchmarks.run import measured, turns, write


def test_a_ratio_says_how_many_times_as_fast(path: Path) -> None:
    run = write(
        path,
        [
            measured("steps", "yardstick_mpz", 8.0, digits=10),
            measured("steps", "yardstick_mpz", 100.0, digits=1000),
            measured("steps", "packed_decimal", 2.0, digits=10),
            measured("steps", "packed_decimal", 200.0, digits=1000),
            measured("steps", "alternative_int", 80.0, digits=1000),
        ],
    )
    assert run.ratios() == {
        "steps, 10 digits: packed decimal": 4.0,
        "steps, 1k digits: packed decimal": 0.5,
    }
    alternative = run.find("steps", "int", digits=1000)
    assert alternative
    assert (alternative.role, alternative.ratio) == (Role.ALTERNATIVE, 1.25)
    assert run.find("steps", "int", digits=10) is None
    found = run.by_digits("steps", "packed decimal")
    assert {digits: each.cost for digits, each in found.items()} == {10: 2.0, 1000: 200.0}


def test_of_turns_the_ratio_is_taken_round_by_round(path: Path) -> None:
    # The machine was disturbed in the second round, and more so in the third.
    costs = {"yardstick bare": [1.0, 3.0, 10.0], "fsync": [2.0, 4.0, 40.0]}
    run = write(path, [turns("sockets", costs)])
    (fsync,) = [each for each in run.measurements if each.name == "fsync"]
    assert fsync.cost == 4.0
    assert fsync.ratio == 0.5


def test_one_yardstick_may_serve_for_all_parameters(path: Path) -> None:
    run = write(
        path,
        [
            measured("dearest", "at_the_limit", 2.0, what="base 3"),
            measured("dearest", "at_the_limit", 5.0, what="octets"),
            measured("dearest", "yardstick_base_10", 10.0),
        ],
    )
    assert run.ratios() == {
        "dearest, base 3: at the limit": 5.0,
        "dearest, octets: at the limit": 2.0,
    }


@pytest.mark.parametrize("yardsticks", [0, 2])
def test_group_without_exactly_one_yardstick_is_refused(path: Path, yardsticks: int) -> None:
    found = [measured("steps", f"yardstick_{number}", 1.0) for number in range(yardsticks)]
    with pytest.raises(NoYardstick, match=f"steps.*: {yardsticks} yardsticks"):
        write(path, [*found, measured("steps", "packed_decimal", 1.0)])


def test_what_was_measured_once_is_not_tracked(path: Path) -> None:
    run = write(
        path,
        [
            turns("how far", {"yardstick mpz": [2.0], "fsync": [4.0]}),
            turns("often", {"yardstick mpz": [2.0, 2.0, 2.0], "fsync": [4.0, 4.0, 4.0]}),
            turns("peak memory", {"yardstick constant body": [10], "fsync": [40]}),
        ],
    )
    assert run.ratios() == {"often: fsync": 0.5, "peak memory: fsync": 0.25}
    once = run.find("how far", "fsync")
    assert once
    assert once.ratio == 0.5
