"""Define the performance targets of bigfib, and compare results with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks import groups
from benchmarks.results import Measurement, Results
from benchmarks.sizes import POSITIONS, label

_FLAT_FROM: Final = 10_000
_FLAT_UP_TO: Final = max(POSITIONS)


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        what: What is measured.
        wanted: The figure to reach.
        measured: The figure that was measured, or None.
        busy: Whether the machine was too busy for a reliable figure.
        at_least: Whether more is better, or less.
    """

    what: str
    wanted: float
    measured: float | None
    busy: bool
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None if it was not measured on a quiet machine."""
        if self.measured is None or self.busy:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted


_RATIOS: Final = [
    (groups.STEP_AND_DIGITS, "step", {"digits": 208_988}, 350),
    (groups.STEP_AND_DIGITS, "step", {"digits": 2_089_877}, 400),
    (groups.STEP_AND_DIGITS, "step without kernel", {"digits": 208_988}, 45),
    (groups.STEP_AND_DIGITS, "step without kernel", {"digits": 2_089_877}, 80),
    (groups.STEP, "fsync", {"digits": 208_988}, 0.50),
    (groups.CURRENT, "current", {"digits": 10}, 0.62),
    (groups.STEP, "os", {"digits": 10}, 0.55),
    (groups.STEP_OF_MANY, "fsync", {"digits": 10}, 0.40),
    (groups.STEP, "fsync", {"digits": 10}, 0.30),
    (groups.DURING_LARGE_TERM, "current", {}, 0.5),
    (groups.LARGE_TERM, "digits", {}, 0.8),
    (groups.LARGE_DIGITS, "without kernel", {"n": 100_000_000}, 1.5),
    (groups.LARGE_DIGITS, "kernel", {"n": 100_000_000}, 8),
]
"""Group, name, conditions, and the ratio to the yardstick that is wanted at least."""


def targets(results: Results) -> Iterator[Target]:
    """Yield every target with its measured figure."""
    for group, name, conditions, wanted in _RATIOS:
        found = results.find(group, name, **conditions)
        where = "".join(
            f", {label(value)} digits" if key == "digits" else f", {key} = {value:,}"
            for key, value in conditions.items()
        )
        ratio = found.ratio if found else None
        yield Target(f"{group}{where}: {name}", wanted, ratio, bool(found and found.busy))
    yield _most(
        f"{groups.NEARLY_ALL}, in ms", 100, 1000, results.find(groups.NEARLY_ALL, "current")
    )
    memory = results.find(groups.PEAK_MEMORY, "fsync", digits=_FLAT_UP_TO)
    yield _most(f"{groups.PEAK_MEMORY}, 2.1M digits, in MB: fsync", 400, 1e-6, memory)
    fsync = results.find(groups.STEP, "fsync", digits=208_988)
    one_piece = results.find(groups.STEP, "constant body in one piece", digits=208_988)
    yield Target(
        f"{groups.STEP}, 209k digits: fsync compared with a constant body in one piece",
        0.5,
        one_piece.cost / fsync.cost if fsync and one_piece else None,
        bool(fsync and fsync.busy),
    )
    alone = results.find(groups.DURABLE_STEP, "durable next")
    syncs = alone.facts["syncs a step"] if alone else None
    yield Target("syncs a step of a single connection", 1, syncs, False, at_least=False)
    # At 10k digits fixed costs still count: beyond, a digit may become cheaper, but not dearer.
    for group, name in ((groups.STEP_AND_DIGITS, "step"), (groups.STEP, "fsync")):
        found_by_digits = results.by_digits(group, name)
        costs = _per_digit(found_by_digits)
        yield Target(
            f"{group}: cost of a digit from 10k to 2.1M digits, dearest over that at 10k",
            1.5,
            max(costs) / costs[0] if costs else None,
            any(found.busy for found in found_by_digits.values()),
            at_least=False,
        )


def _most(what: str, wanted: float, unit: float, found: Measurement | None) -> Target:
    measured = found.cost * unit if found else None
    return Target(what, wanted, measured, bool(found and found.busy), at_least=False)


def _per_digit(found: dict[int, Measurement]) -> list[float]:
    """Return the cost of a digit at each length for which it must be flat, the shortest first.

    Return nothing if the shortest or the longest was not measured.
    """
    costs = {
        digits: measurement.cost / digits
        for digits, measurement in sorted(found.items())
        if _FLAT_FROM <= digits <= _FLAT_UP_TO
    }
    return list(costs.values()) if {_FLAT_FROM, _FLAT_UP_TO} <= costs.keys() else []
