"""Keep accepted ratios, and find those that have become worse."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.results import Results

ACCEPTED: Final = Path(__file__).with_name("ratios.json")

WORSE_BY: Final = 0.2
"""A ratio is worse if it has decreased by more than this share."""


class Worse(NamedTuple):
    """A ratio that has become worse."""

    key: str
    accepted: float
    measured: float


def read_accepted(path: Path = ACCEPTED) -> dict[str, float]:
    """Return the accepted ratios, by key.

    Raises:
        ValueError: the file has other content.
    """
    accepted: dict[str, float] = json.loads(path.read_text())
    if not isinstance(accepted, dict) or not all(
        isinstance(ratio, float | int) for ratio in accepted.values()
    ):
        raise ValueError("it has no ratios by key")
    return accepted


def accept(ratios: Mapping[str, float], path: Path = ACCEPTED) -> None:
    """Write the ratios to the file, with three digits, which exceeds their precision."""
    rounded = {key: float(f"{ratio:.3g}") for key, ratio in sorted(ratios.items())}
    path.write_text(json.dumps(rounded, indent=2) + "\n")


def find_worse(accepted: Mapping[str, float], measured: Mapping[str, float]) -> list[Worse]:
    """Return the ratios that are worse, of those that were both accepted and measured."""
    return [
        Worse(key, ratio, measured[key])
        for key, ratio in accepted.items()
        if key in measured and measured[key] < ratio * (1 - WORSE_BY)
    ]


def find_worse_twice(
    accepted: Mapping[str, float],
    results: Results,
    measure_again: Callable[[list[str]], Results],
) -> list[Worse]:
    """Return the ratios that are worse, and worse again when they are measured again.

    Args:
        accepted: The ratios to compare with.
        results: The results of the first measurement.
        measure_again: Measures the tests with these node ids.
    """
    suspicious = {worse.key for worse in find_worse(accepted, results.ratios())}
    if not suspicious:
        return []
    nodes = [
        node
        for measurement in results.measurements
        if measurement.key in suspicious
        for node in measurement.nodes
    ]
    again = measure_again(list(dict.fromkeys(nodes)))
    # A ratio that could not be measured again keeps its first value.
    measured = {**{key: results.ratios()[key] for key in suspicious}, **again.ratios()}
    return [worse for worse in find_worse(accepted, measured) if worse.key in suspicious]
