"""Large terms in child processes, compared with FLINT."""

import os
import re
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from flint import fmpz

from bigfib import computation
from bigfib.computation import ComputationFailed, Pace
from bigfib.numbers import kernel as kernels
from bigfib.numbers.kernel import Kernel
from tests.numbers.kernels import broken


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("n", [12_345_678, 20_000_001])
def test_digits_without_the_kernel_equal_flint(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(kernels, "load", lambda: None)
    told: list[float] = []
    assert computation.digits(n, told.append) == fmpz.fib_ui(fmpz(n)).str(base=10)
    assert told[-1] == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_digits_by_kernel_equal_flint(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, cores: int
) -> None:
    monkeypatch.setattr(kernels, "load", lambda: kernel)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    n = 12_345_678
    told: list[float] = []
    digits = computation.digits(n, told.append)
    assert not isinstance(digits, str)
    assert bytes(digits).decode() == fmpz.fib_ui(fmpz(n)).str(base=10)
    assert told[-1] == 1
    with computation.Computation(n) as computing:
        assert list(computing.progress())[-1] == 1
        assert "".join(computing.pieces()) == fmpz.fib_ui(fmpz(n)).str(base=10)


def test_digits_that_are_wrong_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = broken(tmp_path, "(u128)w3[c] * high + rest", "(u128)rest")
    monkeypatch.setattr(kernels, "load", lambda: bad)
    with (
        pytest.raises(ComputationFailed, match="check the memory and the processor"),
        computation.Computation(1_000_000) as computing,
    ):
        list(computing.progress())


def test_computation_left_early_leaves_no_process() -> None:
    before = children()
    with computation.Computation(300_000_000) as computing:
        assert next(computing.progress()) == 0
        assert children() > before
    assert children() == before


# Reports its CPU time instead of the time, on one core: so much work is really done.
BY_CPU_TIME = (
    "import os, runpy, sys, time;"
    "time.monotonic = time.process_time;"
    "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    "from bigfib.numbers import kernel;"
    "kernel.load = kernel.load if sys.argv.pop() == 'kernel' else lambda: None;"
    "runpy.run_module('bigfib.computation', run_name='__main__', alter_sys=True)"
)


def shares(monkeypatch: pytest.MonkeyPatch, cache: Path, n: int, way: str) -> list[float]:
    """Return the progress that is shown of F(n) at each hundredth of its work."""
    if way == "kernel" and kernels.load() is None:
        pytest.skip(kernels.description())
    if way != "kernel":
        monkeypatch.setattr(kernels, "load", lambda: None)
    arguments = map(str, (os.getpid(), n, cache, 1 << 30, way))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = subprocess.run(
        [sys.executable, "-c", BY_CPU_TIME, *arguments], capture_output=True, text=True, check=True
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    reports = [
        (float(at), float(done)) for done, at in re.findall("progress ([^ ]+) (.+)\n", written)
    ]
    assert re.search("done [0-9a-f ]+\n$", written)
    now, seconds, shown = 0.0, computation.expected(n), []
    pace = Pace(lambda: now, first=seconds.start / sum(seconds), seconds=seconds.start)
    for hundredth in range(101):
        now = hundredth / 100 * total
        while reports and reports[0][0] <= now:
            at, done = reports.pop(0)
            pace.report(done, at)
        shown.append(pace.done())
    return shown


@pytest.mark.parametrize(("way", "n"), [("kernel", 6_000_000), ("none", 1_500_000)])
def test_progress_never_goes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, n: int
) -> None:
    shown = shares(monkeypatch, tmp_path, n, way)
    assert all(before <= after for before, after in pairwise(shown))
    assert shown[0] == 0
    assert 0.5 < shown[-1] < 1


@pytest.mark.usefixtures("torture")
@pytest.mark.parametrize(
    ("way", "n"),
    [
        *(("kernel", n) for n in (6_000_000, 10**7, 3 * 10**7, 10**8)),
        *(("none", n) for n in (2 * 10**6, 5 * 10**6, 10**7, 10**8)),
    ],
)
def test_progress_from_a_quarter_on_is_true_to_a_tenth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, n: int
) -> None:
    # What others do on this machine harms a run now and then.
    runs = [shares(monkeypatch, tmp_path / str(run), n, way) for run in range(3)]
    off = [
        max(abs(shown[hundredth] - hundredth / 100) for hundredth in range(25, 101))
        for shown in runs
    ]
    assert min(off) <= 0.1, off
