"""Read the results of a run: costs, and their ratios to the yardstick.

A ratio is the yardstick's cost divided by that of the measurement, in the same run: how many times
as fast the measurement is, or how many times less memory it takes. More is better.
"""

import csv
import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from benchmarks.groups import MEMORY
from benchmarks.sizes import label

STEADY_FROM: Final = 3
"""Least rounds whose median one disturbance does not change much."""

BUSY_FROM: Final = 0.2
"""Cores used by other programs from which on the machine is called busy."""

_BENCH: Final = "bench "


class Role(str, Enum):
    """The role of a measurement, with which its name begins, except for bigfib's own."""

    BIGFIB = ""
    YARDSTICK = "yardstick "
    ALTERNATIVE = "alternative "


class SeveralYardsticks(ValueError):
    """A group has more than one yardstick; the message names the group."""


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes:
        group: The measurements that it is compared with.
        name: Its name within the group.
        parameters: Its conditions.
        role: Its role in the group.
        cost: Seconds, or bytes; the median of all rounds.
        spread: Half the interquartile range, relative to the cost; None for a single round.
        ratio: The yardstick's cost divided by this one; None if the yardstick was not measured.
        rounds: The rounds of this measurement or of its yardstick, whichever are fewer.
        others: Cores that other programs used meanwhile, or while the yardstick was measured.
        nodes: The node ids in pytest of this measurement and its yardstick.
        facts: Other facts, by name.
    """

    group: str
    name: str
    parameters: dict[str, Any]
    role: Role
    cost: float
    spread: float | None
    ratio: float | None
    rounds: int
    others: float
    nodes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether the machine was too busy for a reliable figure."""
        return self.others >= BUSY_FROM

    @property
    def digits(self) -> int | None:
        """The number of digits of the terms, if that is a condition."""
        return self.parameters.get("digits")

    @property
    def conditions(self) -> str:
        """The parameters in words."""
        parts = []
        for name, value in self.parameters.items():
            if name == "digits":
                parts.append(f"{label(value)} digits")
            elif isinstance(value, int):
                parts.append(f"{value:,} {name}" if name != "n" else f"n = {value:,}")
            else:
                parts.append(str(value))
        return ", ".join(parts)

    @property
    def key(self) -> str:
        """The key of its ratio among the accepted ones."""
        where = f", {self.conditions}" if self.parameters else ""
        return f"{self.group}{where}: {self.name}"


@dataclass(frozen=True)
class Results:
    """The results of a run.

    Attributes:
        measurements: The measurements, in their order.
        failed: The reason for the failure of each failed benchmark, by its node id.
        machine: Facts about the machine, by name.
        quick: Whether it was a quick run, with rough numbers.
        commit: The commit that was measured.
        date: The date of the run.
        seconds: The duration of the run.
        others: Cores that other programs used meanwhile.
    """

    measurements: list[Measurement]
    failed: dict[str, str]
    machine: dict[str, str]
    quick: bool
    commit: str
    date: str
    seconds: float
    others: float

    @property
    def busy(self) -> list[Measurement]:
        """The measurements made while the machine was busy."""
        return [found for found in self.measurements if found.busy]

    def find(self, group: str, name: str, **parameters: object) -> Measurement | None:
        """Return a measurement, or None if there is none."""
        for found in self.measurements:
            if (found.group, found.name, found.parameters) == (group, name, parameters):
                return found
        return None

    def by_digits(self, group: str, name: str) -> dict[int, Measurement]:
        """Return the measurements of one name, by the number of digits."""
        return {
            found.digits: found
            for found in self.measurements
            if (found.group, found.name) == (group, name) and found.digits is not None
        }

    def lengths(self) -> list[int]:
        """Return the numbers of digits at which something was measured, the smallest first."""
        return sorted({found.digits for found in self.measurements if found.digits is not None})

    def ratios(self) -> dict[str, float]:
        """Return the reliable ratios of bigfib, by key."""
        return {
            found.key: found.ratio
            for found in self.measurements
            if found.role is Role.BIGFIB
            and found.ratio is not None
            and not found.busy
            # Peak memory hardly varies, so that one round is enough.
            and (found.rounds >= STEADY_FROM or found.group.startswith(MEMORY))
        }

    def write_csv(self, path: Path) -> None:
        """Write a line for each measurement."""
        with path.open("w", newline="") as file:
            lines = csv.writer(file)
            figures = ("cost", "spread", "ratio", "rounds", "others")
            lines.writerow(["group", "conditions", "name", "role", *figures])
            for found in self.measurements:
                what = (found.group, found.conditions, found.name, found.role.strip() or "bigfib")
                lines.writerow([*what, *(getattr(found, name) for name in figures)])


def read(path: Path) -> Results:
    """Read the file written by pytest-benchmark and the hooks in conftest.py.

    Raises:
        SeveralYardsticks: a group has more than one.
    """
    document = json.loads(path.read_text())
    commit = document["commit_info"]
    return Results(
        _measurements(document["benchmarks"]),
        document["failed"],
        document["machine_info"],
        document["quick"],
        commit["id"][:12] + (", changed" if commit["dirty"] else ""),
        document["datetime"][:10],
        document["seconds"],
        document["others"],
    )


@dataclass(frozen=True)
class _Costs:
    """The costs of one measurement: of each round, or only their median."""

    group: str
    name: str
    parameters: dict[str, Any]
    costs: list[float]
    spread: float | None
    rounds: int
    others: float
    node: str
    facts: dict[str, Any]


def _measurements(benchmarks: list[dict[str, Any]]) -> list[Measurement]:
    entries = [entry for benchmark in benchmarks for entry in _entries(benchmark)]
    yardsticks: dict[str, list[_Costs]] = {}
    for entry in entries:
        if entry.name.startswith(Role.YARDSTICK):
            yardsticks.setdefault(entry.group, []).append(entry)
    return [_measurement(entry, yardsticks.get(entry.group, [])) for entry in entries]


def _entries(benchmark: dict[str, Any]) -> list[_Costs]:
    parameters = benchmark["params"] or {}
    facts = benchmark["extra_info"].copy()
    turns = facts.pop("turns", None)
    where = (benchmark["others"], benchmark["fullname"], facts)
    if turns is not None:
        return [
            _Costs(group, name, parameters, costs, _spread(costs), len(costs), *where)
            for group, taken in turns.items()
            for name, costs in taken.items()
        ]
    name = benchmark["name"].partition("[")[0].replace("_", " ").removeprefix(_BENCH)
    stats = benchmark["stats"]
    middle = stats["median"]
    spread = stats["iqr"] / 2 / middle if stats["rounds"] > 1 else None
    return [_Costs(benchmark["group"], name, parameters, [middle], spread, stats["rounds"], *where)]


def _spread(costs: list[float]) -> float | None:
    if len(costs) < 2:
        return None
    first, middle, third = quantiles(costs, method="inclusive")
    return (third - first) / 2 / middle


def _measurement(entry: _Costs, yardsticks: list[_Costs]) -> Measurement:
    # A yardstick without parameters counts for all measurements of its group.
    matching = [
        yardstick
        for yardstick in yardsticks
        if yardstick.parameters.items() <= entry.parameters.items()
    ]
    if len(matching) > 1:
        raise SeveralYardsticks(
            f"{entry.group}, {entry.parameters}: {len(matching)} yardsticks instead of one"
        )
    # If they took turns, compare round by round: a disturbance affects both.
    ratios = [
        theirs / ours
        for each in matching
        for theirs, ours in zip(each.costs, entry.costs, strict=True)
    ]
    role = next(role for role in reversed(Role) if entry.name.startswith(role))
    measured = [entry, *matching]
    return Measurement(
        entry.group,
        entry.name.removeprefix(role),
        entry.parameters,
        role,
        median(entry.costs),
        entry.spread,
        median(ratios) if ratios else None,
        min(each.rounds for each in measured),
        max(each.others for each in measured),
        tuple(dict.fromkeys(each.node for each in measured)),
        entry.facts,
    )
