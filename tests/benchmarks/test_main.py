"""``python -m benchmarks run`` on copies of the benchmarks, and on a service."""

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.sequences import SHARED
from bigfib.state import reader
from tests.benchmarks.run import run_benchmarks
from tests.service import Serve

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.campaign


def copied(root: Path) -> Path:
    """Copy the benchmarks, and what they need next to them, to a directory."""
    for name in ("benchmarks", "bigfib"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, root)
    return root


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Run the benchmarks quickly; return the exit status and the output."""
    return run_benchmarks(root, "run", "--quick", *arguments)


def measured(root: Path) -> set[tuple[str, str]]:
    """Return the names and conditions in the CSV of the run."""
    with (root / ".benchmarks/part.csv").open(newline="") as file:
        return {(line["name"], line["conditions"]) for line in csv.DictReader(file)}


def break_in(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


# A second is its time limit.
HANGING = """
import signal
import time


def bench_hanging(benchmark):
    signal.alarm(1)
    benchmark.pedantic(time.sleep, (600,))
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run in which four things are broken, on a machine that another program keeps busy."""
    root = copied(tmp_path_factory.mktemp("broken"))
    before = "def bench_append(benchmark: BenchmarkFixture, path: Path) -> None:\n"
    failing = before + "    raise OSError('planted')\n"
    break_in(root / "benchmarks/bench_log.py", before, failing)
    before = "        os.fdatasync(descriptor)\n\n    benchmark(batch)\n"
    wrong = before + "    assert appends < 64\n"
    break_in(root / "benchmarks/bench_log.py", before, wrong)
    (root / "benchmarks/bench_broken_append.py").write_text("import nothing_of_this_name\n")
    (root / "benchmarks/bench_hanging_append.py").write_text(HANGING)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as load:
        try:
            return root, *run(root, "--only", "append")
        finally:
            load.kill()


def test_broken_benchmark_costs_its_own_figures_and_the_exit_status(
    broken: tuple[Path, int, str],
) -> None:
    root, status, shown = broken
    assert status == 1, shown
    reasons = dict(re.findall(r"^FAILED: benchmarks/(\S+): (.*)$", shown, re.MULTILINE))
    assert reasons == {
        "bench_log.py::bench_append": "OSError: planted",
        # It is measured, but its result is wrong.
        "bench_log.py::bench_yardstick_pwrite_and_fdatasync[64]": "assert 64 < 64",
        # It cannot be imported.
        "bench_hanging_append.py::bench_hanging": "TimeoutError: it takes more than 180 s",
        "bench_broken_append.py": "ModuleNotFoundError: No module named 'nothing_of_this_name'",
    }, shown
    assert "4 benchmarks failed; the others are reported" in shown
    assert measured(root) == {
        ("pwrite", ""),
        ("append and commit", "1 appends"),
        ("append and commit", "64 appends"),
        ("pwrite and fdatasync", "1 appends"),
    }
    assert "FAILED" in (root / ".benchmarks/part.html").read_text()


def test_loaded_machine_is_called_busy(broken: tuple[Path, int, str]) -> None:
    # During a short benchmark, the kernel's clock may miss the use by others.
    words = r"THE MACHINE WAS BUSY: other programs used ([0-9.]+) cores. [1-4] of 4 figures, marked"
    found = re.search(words, broken[2])
    assert found, broken[2]
    assert float(found[1]) > 0.2


def test_service_elsewhere_is_measured_by_its_url(
    tmp_path: Path, serve: Serve, require: Callable[[str], str]
) -> None:
    require("wrk")
    service = serve()
    service.value("next")
    root = copied(tmp_path)
    status, shown = run(root, "--url", service.url, "--only", "[1k]")
    assert status == 0, shown
    names = ("livez", "current", "step", "term")
    assert measured(root) == {(name, "1k digits") for name in names}
    cost = r" +[0-9.]+ [mµ]?s( ±\d+%)?\??"
    assert re.search(rf"^ *1k{cost * 4} *$", shown, re.MULTILINE), shown
    assert service.value("current") == 1, "the shared sequence has moved"
    assert reader.read(service.file).latest.keys() == {SHARED}, "a sequence is left"
