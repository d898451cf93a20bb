"""A run of benchmarks with chosen costs, as pytest-benchmark writes it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import groups, results
from benchmarks.results import Results


def run_benchmarks(root: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run ``python -m benchmarks`` in ``root``; return its exit status and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=root,
        # It starts another pytest: pytest-benchmark measures nothing in one of pytest-xdist.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def measured(
    group: str, name: str, median: float, others: float = 0.0, **parameters: object
) -> dict[str, Any]:
    """A benchmark that pytest-benchmark has timed, while other programs used some cores."""
    shown = f"[{'-'.join(map(str, parameters.values()))}]" if parameters else ""
    return {
        "group": group,
        "name": f"bench_{name}{shown}",
        "fullname": f"benchmarks/bench_{group}.py::bench_{name}{shown}",
        "params": parameters or None,
        "stats": {"median": median, "iqr": median / 50, "rounds": 5},
        "others": others,
        "extra_info": {},
    }


def turns(group: str, costs: dict[str, list[float]], **parameters: object) -> dict[str, Any]:
    """A benchmark that measured several things in turns."""
    benchmark = measured(group, "turns", 99, 0.0, **parameters)
    benchmark["extra_info"] = {"turns": {group: costs}}
    return benchmark


def whole_run() -> list[dict[str, Any]]:
    """All measurements that the report needs, at 10 thousand digits."""
    at = {"digits": 10_000}
    step = turns(
        groups.STEP,
        {
            "yardstick constant body": [20e-6, 20e-6],
            "fsync": [100e-6, 100e-6],
            "os": [60e-6, 60e-6],
        },
        **at,
    )
    peak = {"yardstick constant body": [10_000_000], "fsync": [40_000_000]}
    step["extra_info"]["turns"][groups.PEAK_MEMORY] = peak
    current = {"yardstick constant body": [20e-6], "current": [25e-6]}
    return [
        measured(groups.STEP_AND_DIGITS, "yardstick_gmpy2", 80e-6, **at),
        measured(groups.STEP_AND_DIGITS, "step", 8e-6, **at),
        measured(groups.STEP_ALONE, "yardstick_gmpy2_alone", 1e-6, **at),
        measured(groups.STEP_ALONE, "step_alone", 3e-6, **at),
        measured(groups.APPEND, "yardstick_pwrite", 1e-6),
        measured(groups.APPEND, "append", 2e-6),
        measured(groups.WITHOUT_SOCKET, "yardstick_constant_body", 1e-6, **at),
        measured(groups.WITHOUT_SOCKET, "next_and_previous_in_turn", 16e-6, **at),
        turns(groups.CURRENT, current, **at),
        step,
    ]


def write(path: Path, benchmarks: list[dict[str, Any]], **facts: object) -> Results:
    """Write the run, with these facts, to a file, and read it as the report does."""
    document = {
        "benchmarks": benchmarks,
        "machine_info": {"CPU": "Abacus <1>"},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "datetime": "2026-11-24T22:00:00+00:00",
        "quick": False,
        "failed": {},
        "seconds": 50.0,
        "others": 0.01,
        **facts,
    }
    path.write_text(json.dumps(document))
    return results.read(path)
