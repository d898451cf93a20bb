"""What bigfib is to reach, and what it has reached."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks import groups
from benchmarks.results import Results
from benchmarks.sizes import POSITIONS, label

_FLAT_FROM: Final = 10_000
_FLAT_UP_TO: Final = max(POSITIONS)


@dataclass(frozen=True)
class Target:
    """One number to reach.

    Attributes:
        what: What is measured.
        wanted: The number.
        at_least: Whether more is better, or less.
        measured: What it is; None if it was not measured.
    """

    what: str
    wanted: float
    at_least: bool
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether it is reached, if it was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted


_FAR: Final = 100_000_000

_RATIOS: Final = [
    (groups.STEP_AND_DIGITS, "kernel", 208_988, 350),
    (groups.STEP_AND_DIGITS, "kernel", 2_089_877, 400),
    (groups.STEP_AND_DIGITS, "packed decimal", 208_988, 45),
    (groups.STEP_AND_DIGITS, "packed decimal", 2_089_877, 80),
    (groups.STEP, "fsync", 208_988, 0.50),
    (groups.CURRENT, "current", 10, 0.62),
    (groups.STEP, "os", 10, 0.55),
    (groups.STEP_OF_MANY, "fsync", 10, 0.40),
    (groups.STEP, "fsync", 10, 0.30),
    # What costs 3 % more.
    (groups.COUNTED, "next", None, 0.97),
    (groups.BESIDE_FAR_TERM, "current", None, 0.5),
    (groups.FAR_TERM, "digits", None, 0.8),
]
"""Group, name, digits and the least ratio to the yardstick."""


def targets(results: Results) -> Iterator[Target]:
    """Yield every target with what it has come to."""
    for group, name, digits, wanted in _RATIOS:
        found = results.find(group, name, **({"digits": digits} if digits else {}))
        where = f", {label(digits)} digits" if digits else ""
        yield Target(f"{group}{where}: {name}", wanted, True, found.ratio if found else None)
    far = results.find(groups.FAR_DIGITS, "doubling", n=_FAR)
    yield Target(
        f"{groups.FAR_DIGITS}, n = {_FAR:,}: doubling",
        1.5,
        True,
        far.ratio if far else None,
    )
    kernel = results.find(groups.FAR_DIGITS, "kernel", n=_FAR)
    yield Target(
        f"{groups.FAR_DIGITS}, n = {_FAR:,}: kernel", 8, True, kernel.ratio if kernel else None
    )
    slow = results.find(groups.NEARLY_ALL, "current")
    yield Target(f"{groups.NEARLY_ALL}, in ms", 100, False, slow.cost * 1000 if slow else None)
    fsync = results.find(groups.STEP, "fsync", digits=208_988)
    one_piece = results.find(groups.STEP, "constant body in one piece", digits=208_988)
    yield Target(
        f"{groups.STEP}, 209k digits: fsync beside a constant body in one piece",
        0.5,
        True,
        one_piece.cost / fsync.cost if fsync and one_piece else None,
    )
    alone = results.find(groups.DURABLE_STEP, "durable next")
    syncs = alone.facts["syncs a step"] if alone else None
    yield Target("syncs a step of a single connection", 1, False, syncs)
    in_process = per_digit(results, groups.STEP_AND_DIGITS, "packed decimal")
    yield Target(
        f"{groups.STEP_AND_DIGITS}: cost of a digit from 10k to 2.1M digits, dearest over cheapest",
        1.5,
        False,
        max(in_process) / min(in_process) if in_process else None,
    )
    # What does not depend on the digits is felt at 10k: a digit may become cheaper, but not dearer.
    for group, name in ((groups.STEP_AND_DIGITS, "packed decimal"), (groups.STEP, "fsync")):
        costs = per_digit(results, group, name)
        yield Target(
            f"{group}: cost of a digit from 10k to 2.1M digits, dearest over that at 10k",
            1.5,
            False,
            max(costs) / costs[0] if costs else None,
        )
    memory = results.find(groups.PEAK_MEMORY, "fsync", digits=2_089_877)
    peak = memory.cost / 1e6 if memory else None
    yield Target(f"{groups.PEAK_MEMORY}, 2.1M digits, in MB: fsync", 400, False, peak)


def per_digit(results: Results, group: str, name: str) -> list[float]:
    """Return what a digit costs from the shortest to the longest of the lengths where it is flat.

    Nothing, if one of those two was not measured.
    """
    costs = {
        digits: measurement.cost / digits
        for digits, measurement in sorted(results.by_digits(group, name).items())
        if _FLAT_FROM <= digits <= _FLAT_UP_TO
    }
    return list(costs.values()) if {_FLAT_FROM, _FLAT_UP_TO} <= costs.keys() else []
