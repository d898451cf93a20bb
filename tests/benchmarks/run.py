"""A run of benchmarks, as pytest-benchmark writes it down, with costs chosen by hand."""

import json
from pathlib import Path
from typing import Any

from benchmarks import groups, results
from benchmarks.results import Results


def measured(group: str, name: str, median: float, **parameters: object) -> dict[str, Any]:
    """A benchmark that pytest-benchmark has timed."""
    shown = f"[{'-'.join(map(str, parameters.values()))}]" if parameters else ""
    return {
        "group": group,
        "name": f"bench_{name}{shown}",
        "fullname": f"benchmarks/bench_{group}.py::bench_{name}{shown}",
        "params": parameters or None,
        "stats": {"median": median, "rounds": 5},
        "extra_info": {},
    }


def turns(group: str, costs: dict[str, list[float]], **parameters: object) -> dict[str, Any]:
    """A benchmark whose contestants took turns."""
    benchmark = measured(group, "turns", 99, **parameters)
    benchmark["extra_info"] = {"turns": {group: costs}}
    return benchmark


def whole_run() -> list[dict[str, Any]]:
    """All that the report asks for, at 10 thousand digits."""
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
    how_far = turns(groups.HOW_FAR, {"yardstick mpz": [0.01], "fsync": [0.02]})
    how_far["extra_info"] |= {"seconds": 10, "digits": {"yardstick mpz": 209, "fsync": 104}}
    current = {"yardstick constant body": [20e-6], "current": [25e-6]}
    return [
        measured(groups.STEP_AND_DIGITS, "yardstick_mpz", 80e-6, **at),
        measured(groups.STEP_AND_DIGITS, "packed_decimal", 8e-6, **at),
        measured(groups.STEP_ALONE, "yardstick_mpz_alone", 1e-6, **at),
        measured(groups.STEP_ALONE, "packed_decimal_alone", 3e-6, **at),
        measured(groups.APPEND, "yardstick_pwrite", 1e-6),
        measured(groups.APPEND, "append", 2e-6),
        measured(groups.WITHOUT_SOCKET, "yardstick_constant_body", 1e-6, **at),
        measured(groups.WITHOUT_SOCKET, "next_and_previous_in_turn", 16e-6, **at),
        turns(groups.CURRENT, current, **at),
        step,
        how_far,
    ]


def write(path: Path, benchmarks: list[dict[str, Any]]) -> Results:
    """Write the run to a file, and read it as the report does."""
    document = {
        "benchmarks": benchmarks,
        "machine_info": {"CPU": "Abacus <1>"},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "datetime": "2026-11-24T22:00:00+00:00",
        "quick": False,
    }
    path.write_text(json.dumps(document))
    return results.read(path)
