"""What has become slower or faster between two runs, or between two commits measured in turns."""

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
"""A cost that has changed by more than this part, and by more than its spread, is a change."""


@dataclass(frozen=True)
class Change:
    """What has become of one measurement.

    Attributes:
        key: What it is called.
        before: Its cost in the first run or commit.
        after: Its cost in the second.
        factor: How many times as much it costs, by the yardstick of its run where there is one.
        noise: How far from the factor others are that are as likely.
        turns: How often each was measured.
        busy: Whether the machine was too busy in one of the runs to judge by that alone.
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
        """``slower``, ``faster``, ``?`` where that is doubtful, or nothing."""
        # Of turns that agree with each other something can be said on a busy machine, too.
        least = 1 + max(CHANGED_BY, self.noise * (2 if self.busy else 1))
        if 1 / least <= self.factor <= least:
            return ""
        if self.busy and self.turns == 1:
            return "?"
        return "slower" if self.factor > 1 else "faster"


def changes(before: Sequence[Results], after: Sequence[Results]) -> list[Change]:
    """Return what has become of each measurement of bigfib that all of the runs have.

    Args:
        before: The runs of one commit.
        after: As many of the other, each made right after or before its counterpart.
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
    # The yardstick takes out what the machine did meanwhile.
    if before.ratio is not None and after.ratio is not None:
        return before.ratio / after.ratio
    return after.cost / before.cost


def table(found: list[Change], names: tuple[str, str]) -> Table:
    """Return the changes as a table, the worst first; what has not changed is only counted."""
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
        "or by less than their noise. Costs are measured by the yardstick of the same run. ?: on a "
        "busy machine.",
    )


def _cost(cost: float) -> str:
    # Seconds, but for memory, which is never as little as that.
    return seconds(cost) if cost < 100_000 else f"{cost / 1e6:.0f} MB"


@contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Path]:
    """Check a commit out, with the benchmarks of this one, and the kernel compiled."""
    git = ("git", "-C", str(HERE.parent), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", directory, revision], check=True)
    try:
        # The same benchmarks measure both.
        shutil.rmtree(directory / HERE.name, ignore_errors=True)
        shutil.copytree(HERE, directory / HERE.name, ignore=shutil.ignore_patterns("__pycache__"))
        numbers = directory / NUMBERS
        if (numbers / SOURCE).exists():
            compile_kernel(numbers / SOURCE, numbers / LIBRARY)
        yield directory
    finally:
        subprocess.run([*git, "remove", "--force", directory], check=True)
