"""What has changed between two runs, and between two commits measured alternately."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import differences
from benchmarks.results import Results
from tests.benchmarks.run import measured, run_benchmarks, turns, write

ROOT = Path(__file__).parents[2]


def run(path: Path, step: float, yardstick: float = 1.0, others: float = 0.0) -> Results:
    """A run in which a step has this cost, and nothing else has changed."""
    return write(path, benchmarks(step, yardstick, others))


def benchmarks(step: float, yardstick: float = 1.0, others: float = 0.0) -> list[dict[str, Any]]:
    return [
        measured("steps", "yardstick_bare", yardstick, others),
        measured("steps", "step", step, others),
        measured("appends", "yardstick_bare", yardstick),
        measured("appends", "append", 2.0 * yardstick),
    ]


def verdicts(before: Sequence[Results], after: Sequence[Results]) -> dict[str, str]:
    return {change.key: change.verdict for change in differences.changes(before, after)}


def test_slowdown_by_a_third_is_found_and_nothing_else(path: Path) -> None:
    before, after = run(path, 1.0), run(path, 1.3)
    assert verdicts([before], [after]) == {"steps: step": "slower", "appends: append": ""}
    assert verdicts([after], [before]) == {"steps: step": "faster", "appends: append": ""}


def test_machine_that_is_slower_throughout_is_no_slowdown(path: Path) -> None:
    assert set(verdicts([run(path, 1.0)], [run(path, 2.0, 2.0)]).values()) == {""}


def test_slowdown_within_the_spread_is_none(path: Path) -> None:
    noisy = {"yardstick bare": [1.0] * 3, "step": [0.6, 1.0, 1.4]}
    before = write(path, [turns("steps", noisy)])
    after = write(path, [turns("steps", noisy | {"step": [0.78, 1.3, 1.82]})])
    assert verdicts([before], [after]) == {"steps: step": ""}


def test_slowdown_on_a_busy_machine_is_doubtful_unless_turns_agree(path: Path) -> None:
    before = run(path, 1.0)

    def verdict(*steps: float) -> str:
        after = [run(path, step, others=0.9) for step in steps]
        return verdicts([before] * len(after), after)["steps: step"]

    assert verdict(1.3) == "?"
    assert verdict(1.1) == ""
    assert verdict(1.28, 1.3, 1.35) == "slower"
    assert verdict(1.0, 1.3, 1.6) == ""


def test_one_disturbed_turn_of_several_does_not_count(path: Path) -> None:
    before = [run(path, step) for step in (1.0, 1.0, 1.0)]
    after = [run(path, step) for step in (1.0, 1.9, 1.0)]
    (step, _) = differences.changes(before, after)
    assert (step.factor, step.verdict) == (1.0, "")
    assert step.noise == pytest.approx(0.45)
    slower = [run(path, step) for step in (1.3, 1.28, 1.35)]
    assert verdicts(before, slower)["steps: step"] == "slower"


def diff(*arguments: str | Path, root: Path = ROOT) -> tuple[int, str]:
    """Run ``python -m benchmarks diff``; return its exit status and its output."""
    return run_benchmarks(root, "diff", *arguments)


def test_diff_of_two_files_fails_where_one_is_slower(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    write(one, benchmarks(1.0))
    write(other, benchmarks(1.3))
    status, shown = diff(one, other)
    assert status == 1
    assert [line.split()[-1] for line in shown.splitlines() if "steps: step" in line] == ["slower"]
    assert "+30%" in shown
    assert "1 of 2 have changed by less" in " ".join(shown.split())
    assert "1 of 2 are slower" in shown
    assert diff(one, one)[0] == diff(other, one)[0] == 0


# By the clock, steps take three tenths longer than before.
PLANTED = """

def _slowed(step):
    from time import perf_counter

    def slower(pair):
        began = perf_counter()
        step(pair)
        end = perf_counter() + 0.3 * (perf_counter() - began)
        while perf_counter() < end:
            pass

    return slower


DecimalPair.forward = _slowed(DecimalPair.forward)
DecimalPair.back = _slowed(DecimalPair.back)
"""


@pytest.mark.usefixtures("torture")
def test_diff_of_two_commits_finds_a_planted_slowdown(tmp_path: Path) -> None:
    clone = tmp_path / "clone"

    def git(*arguments: str | Path) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("clone", "--quiet", ROOT, clone)
    # The files as they are here, committed or not.
    shutil.copytree(ROOT / "benchmarks", clone / "benchmarks", dirs_exist_ok=True)
    with (clone / "bigfib/numbers/decimals.py").open("a") as module:
        module.write(PLANTED)
    git("-C", clone, "commit", "--all", "--message", "Plant a slowdown")
    only = ("--only", "one step alone")
    status, shown = diff("HEAD~1", "HEAD", *only, root=clone)
    assert status == 1, shown
    assert re.search(r"^one step alone, .*: step alone .* slower", shown, re.MULTILINE)
    trees = ["git", "-C", str(clone), "worktree", "list"]
    left = subprocess.run(trees, check=True, capture_output=True, text=True).stdout
    assert len(left.splitlines()) == 1, left
