"""Compare two runs, or two commits that are measured alternately: what is slower or faster."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.report import Table, seconds
from benchmarks.results import Measurement, Results, Role
from hatch_build import LIBRARY, NUMBERS, SOURCE, compile_kernel

HERE: Final = Path(__file__).parent

CHANGED_BY: Final = 0.15
"""A cost counts as changed if it differs by more than this share, and by more than its noise."""


@dataclass(frozen=True)
class Change:
    """The change of one measurement.

    Attributes:
        key: Its key.
        before: Its cost in the first run or commit.
        after: Its cost in the second.
        factor: The second cost divided by the first; relative to the yardstick, if there is one.
        noise: Half the range of the factors of all turns; for one turn, the sum of the spreads.
        turns: How often each was measured.
        busy: Whether the machine was busy in one of the runs.
    """

    key: str
    before: float
    after: float
    factor: float
    noise: float
    turns: int
    busy: bool

    @property
    def verdict(self) -> str:
        """``slower``, ``faster``, ``?`` if that is doubtful, or empty."""
        # Several turns that agree with each other count even on a busy machine.
        least = 1 + max(CHANGED_BY, self.noise * (2 if self.busy else 1))
        if 1 / least <= self.factor <= least:
            return ""
        if self.busy and self.turns == 1:
            return "?"
        return "slower" if self.factor > 1 else "faster"


def changes(before: Sequence[Results], after: Sequence[Results]) -> list[Change]:
    """Return the change of each measurement of bigfib that all runs have.

    Args:
        before: The runs of one commit.
        after: As many runs of the other, each made right after or before its counterpart.
    """
    runs = [
        {found.key: found for found in run.measurements if found.role is Role.BIGFIB}
        for run in (*before, *after)
    ]
    pairs = list(zip(runs[: len(before)], runs[len(before) :], strict=True))
    return [
        _change([(one[key], other[key]) for one, other in pairs])
        for key in runs[0]
        if all(key in run for run in runs)
    ]


def _change(pairs: list[tuple[Measurement, Measurement]]) -> Change:
    factors = [_factor(before, after) for before, after in pairs]
    befores, afters = zip(*pairs, strict=True)
    if len(pairs) > 1:
        noise = (max(factors) - min(factors)) / 2
    else:
        noise = sum(found.spread or 0.0 for found in pairs[0])
    return Change(
        pairs[0][0].key,
        median(found.cost for found in befores),
        median(found.cost for found in afters),
        median(factors),
        noise,
        len(pairs),
        any(found.busy for pair in pairs for found in pair),
    )


def _factor(before: Measurement, after: Measurement) -> float:
    # The yardstick cancels out what the machine did meanwhile.
    if before.ratio is not None and after.ratio is not None:
        return before.ratio / after.ratio
    return after.cost / before.cost


def table(found: list[Change], names: tuple[str, str]) -> Table:
    """Return a table of the changes, the worst first; what has not changed is only counted."""
    changed = sorted((each for each in found if each.verdict), key=lambda each: -each.factor)
    return Table(
        f"From {names[0]} to {names[1]}",
        ["", "before", "after", "cost", "noise", ""],
        [
            [
                each.key,
                *map(_cost, (each.before, each.after)),
                f"{each.factor - 1:+.0%}",
                f"±{each.noise:.0%}",
                each.verdict,
            ]
            for each in changed
        ],
        f"{len(found) - len(changed)} of {len(found)} have changed by less than {CHANGED_BY:.0%}, "
        "or by less than their noise. Costs are relative to the yardstick of the same run. ?: on a "
        "busy machine.",
    )


def _cost(cost: float) -> str:
    # Costs are seconds, or bytes of memory, which are never as few as that.
    return seconds(cost) if cost < 100_000 else f"{cost / 1e6:.0f} MB"


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Path]:
    """Check out a commit, with the benchmarks of this one and a compiled kernel."""
    git = ("git", "-C", str(HERE.parent), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", directory, revision], check=True)
    try:
        # Measure both commits by the same benchmarks.
        shutil.rmtree(directory / HERE.name, ignore_errors=True)
        shutil.copytree(HERE, directory / HERE.name, ignore=shutil.ignore_patterns("__pycache__"))
        numbers = directory / NUMBERS
        if (numbers / SOURCE).exists():
            compile_kernel(numbers / SOURCE, numbers / LIBRARY)
        yield directory
    finally:
        subprocess.run([*git, "remove", "--force", directory], check=True)
