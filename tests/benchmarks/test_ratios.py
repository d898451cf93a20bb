"""Ratios that became worse, and whether they are worse again."""

from pathlib import Path

import pytest

from benchmarks import ratios
from benchmarks.ratios import Worse
from benchmarks.results import Results
from tests.benchmarks.run import measured, write


def run(path: Path, **costs: float) -> Results:
    """A run in which the yardstick of each measurement costs 100."""
    benchmarks = []
    for name, cost in costs.items():
        benchmarks += [measured(name, "yardstick", 100.0), measured(name, "step", cost)]
    for benchmark in benchmarks[::2]:
        benchmark["name"] = "bench_yardstick_bare"
    return write(path, benchmarks)


def test_worse_is_what_lost_more_than_a_fifth() -> None:
    accepted = {"a": 1.0, "b": 1.0, "c": 50.0, "gone": 1.0}
    measured = {"a": 0.80, "b": 0.79, "c": 100.0, "new": 0.01}
    assert ratios.find_worse(accepted, measured) == [Worse("b", 1.0, 0.79)]


def test_what_is_worse_once_is_measured_again_with_its_yardstick(path: Path) -> None:
    asked: list[list[str]] = []

    def measure_again(nodes: list[str]) -> Results:
        asked.append(nodes)
        return run(path, slow=200.0, noisy=101.0)

    accepted = {"slow: step": 1.0, "noisy: step": 1.0, "well: step": 1.0}
    first = run(path, slow=190.0, noisy=190.0, well=100.0)
    assert ratios.find_worse_twice(accepted, first, measure_again) == [
        Worse("slow: step", 1.0, 0.5)
    ]
    assert asked == [
        [
            "benchmarks/bench_slow.py::bench_step",
            "benchmarks/bench_slow.py::bench_yardstick",
            "benchmarks/bench_noisy.py::bench_step",
            "benchmarks/bench_noisy.py::bench_yardstick",
        ]
    ]


def test_ratio_that_is_worse_only_the_second_time_does_not_count(path: Path) -> None:
    accepted = {"slow: step": 1.0, "well: step": 1.0}
    first = run(path, slow=200.0, well=100.0)
    again = run(path, slow=100.0, well=200.0)
    assert ratios.find_worse_twice(accepted, first, lambda _: again) == []


def test_what_cannot_be_measured_again_stays_worse(path: Path) -> None:
    first = run(path, slow=200.0, well=100.0)
    again = run(path, well=100.0)
    assert ratios.find_worse_twice({"slow: step": 1.0}, first, lambda _: again) == [
        Worse("slow: step", 1.0, 0.5)
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": null}', '{"a": "1"}'])
def test_file_without_ratios_is_refused(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        ratios.read_accepted(path)


def test_nothing_is_measured_again_where_nothing_is_worse(path: Path) -> None:
    def measure_again(nodes: list[str]) -> Results:
        raise AssertionError(nodes)

    first = run(path, well=100.0)
    assert ratios.find_worse_twice({"well: step": 1.0}, first, measure_again) == []


def test_accepted_ratios_are_kept_in_order_and_rounded(path: Path) -> None:
    ratios.accept({"b": 12.3456, "a": 0.0123456}, path)
    assert path.read_text() == '{\n  "a": 0.0123,\n  "b": 12.3\n}\n'
    assert ratios.read_accepted(path) == {"a": 0.0123, "b": 12.3}
