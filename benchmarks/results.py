"""What a run has measured: costs, and their ratios to the yardstick.

A ratio is the yardstick's cost over a measurement's, in the same run: how many times as fast it is,
or as sparing with memory. More is better.
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
"""Rounds from which on a median is not what one disturbance makes of it."""

BUSY_FROM: Final = 0.2
"""Cores in use by other programs from which on the machine is called busy."""

_BENCH: Final = "bench "


class Role(str, Enum):
    """What a measurement is there for; its name begins with it, unless it is bigfib."""

    BIGFIB = ""
    YARDSTICK = "yardstick "
    ALTERNATIVE = "alternative "


class SeveralYardsticks(ValueError):
    """A group has more than one yardstick; the message names it."""


@dataclass(frozen=True)
class Measurement:
    """One thing measured.

    Attributes:
        group: What is compared.
        name: Which of those it is.
        parameters: Under which conditions.
        role: What it is there for.
        cost: Seconds, or bytes; the median of all rounds.
        spread: How far the middle half of the rounds lies around it, as a part of it; None of one.
        ratio: The yardstick's cost over this one; None if the yardstick was not measured.
        rounds: How often it was measured, and its yardstick, at least.
        others: Cores that other programs used meanwhile, or while the yardstick was measured.
        nodes: The tests, as pytest names them, that measure it and its yardstick.
        facts: What else is known of it.
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
        """Whether the machine was too busy to judge by this."""
        return self.others >= BUSY_FROM

    @property
    def digits(self) -> int | None:
        """The number of digits of the terms, where that is a condition."""
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
        """What it is called among the ratios that are kept."""
        where = f", {self.conditions}" if self.parameters else ""
        return f"{self.group}{where}: {self.name}"


@dataclass(frozen=True)
class Results:
    """All of a run.

    Attributes:
        measurements: In the order in which they were made.
        failed: Why each benchmark has no figures that failed, by its name.
        machine: What they were made on.
        quick: Whether time mattered more than steady numbers.
        commit: What was measured.
        date: When.
        seconds: How long the run took.
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
        """What was measured while the machine was busy."""
        return [found for found in self.measurements if found.busy]

    def find(self, group: str, name: str, **parameters: object) -> Measurement | None:
        """Return a measurement, or None if it was not made."""
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
        """Return the ratios of bigfib that are steady enough to be compared with others, by key."""
        return {
            found.key: found.ratio
            for found in self.measurements
            if found.role is Role.BIGFIB
            and found.ratio is not None
            and not found.busy
            # The most memory that is held is nearly the same each time.
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
    """Read what pytest-benchmark, and the hooks in conftest.py, have written.

    Raises:
        SeveralYardsticks: as it says.
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
    """One entry of the document: what was measured, round by round or as a median alone."""

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
    # A yardstick without parameters is one for all.
    matching = [
        yardstick
        for yardstick in yardsticks
        if yardstick.parameters.items() <= entry.parameters.items()
    ]
    if len(matching) > 1:
        raise SeveralYardsticks(
            f"{entry.group}, {entry.parameters}: {len(matching)} yardsticks instead of one"
        )
    # Round by round where they took turns: what disturbed one of them disturbed the other.
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
