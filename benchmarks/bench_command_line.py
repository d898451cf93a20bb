"""Measure ``python -m bigfib current``, compared with its largest imports alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bigfib.state.log import Log

pytestmark = pytest.mark.full


@pytest.mark.benchmark(group="command line")
def bench_current(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = tmp_path / "state.log"
    with Log(path) as log:
        for position in range(1, 1001):
            log.note(b"shared", position)
            log.commit()
    command = [sys.executable, "-m", "bigfib", "current", "-f", str(path)]
    benchmark(_run, command)


@pytest.mark.benchmark(group="command line")
def bench_yardstick_imports(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-c", "import gmpy2, argparse"]
    benchmark(_run, command)


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
