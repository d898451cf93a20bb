"""Reading the results of a run."""

import csv
from pathlib import Path

import pytest

from benchmarks.results import Role, SeveralYardsticks
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


def test_ratio_of_turns_is_the_median_of_those_of_the_rounds(path: Path) -> None:
    # The machine was disturbed in the second round, and more in the third.
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


def test_group_with_two_yardsticks_is_refused(path: Path) -> None:
    found = [measured("steps", f"yardstick_{number}", 1.0) for number in range(2)]
    with pytest.raises(SeveralYardsticks, match=r"steps.*: 2 yardsticks"):
        write(path, [*found, measured("steps", "packed_decimal", 1.0)])


def test_group_whose_yardstick_failed_keeps_its_costs(path: Path) -> None:
    run = write(path, [measured("steps", "packed_decimal", 2.0)], failed={"yardstick": "broken"})
    found = run.find("steps", "packed decimal")
    assert found
    assert (found.cost, found.ratio) == (2.0, None)
    assert run.ratios() == {}


def test_spread_is_half_of_what_the_middle_half_of_the_rounds_takes_up(path: Path) -> None:
    # Quartiles of 1, 2, 3, 4, 5 are 2 and 4.
    costs = {"yardstick bare": [1.0] * 5, "fsync": [5.0, 1.0, 4.0, 2.0, 3.0]}
    run = write(path, [turns("sockets", costs), turns("once", {"yardstick bare": [1.0]})])
    assert {found.group + found.name: found.spread for found in run.measurements} == {
        "socketsbare": 0.0,
        "socketsfsync": pytest.approx(1 / 3),
        "oncebare": None,
    }


def test_figures_of_a_busy_machine_are_not_tracked(path: Path) -> None:
    quiet, busy = 0.01, 0.5
    run = write(
        path,
        [
            measured("a", "yardstick_bare", 1.0, quiet),
            measured("a", "step", 1.0, busy),
            measured("b", "yardstick_bare", 1.0, busy),
            measured("b", "step", 1.0, quiet),
            measured("c", "yardstick_bare", 1.0, quiet),
            measured("c", "step", 1.0, quiet),
        ],
    )
    assert run.ratios() == {"c: step": 1.0}
    assert [found.group for found in run.busy] == ["a", "b", "b"]


def test_csv_has_a_line_for_each_measurement(path: Path, tmp_path: Path) -> None:
    step = measured("one, step", "step", 0.5, 0.25, digits=1000)
    run = write(path, [measured("one, step", "yardstick_bare", 1.0, digits=1000), step])
    run.write_csv(tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[1] == {
        "group": "one, step",
        "conditions": "1k digits",
        "name": "step",
        "role": "bigfib",
        "cost": "0.5",
        "spread": "0.01",
        "ratio": "2.0",
        "rounds": "5",
        "others": "0.25",
    }
    assert [line["role"] for line in lines] == ["yardstick", "bigfib"]


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
