"""Requests a second beside a bare bjoern application; server on one core, wrk on the other.

Run by ``make bench``. Prints, for each case, medians of five rounds in which the service and the
yardstick take turns, under the same load.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

ROUNDS: Final = 5
SECONDS: Final = 2
HERE: Final = Path(__file__).parent

STEPS: Final = ["-s", str(HERE / "step.lua")]
CURRENT: Final[list[str]] = []

# Name, durability, connections, load.
CASES: Final = [
    ("next and previous", "os", 64, STEPS),
    ("next and previous", "fsync", 64, STEPS),
    ("next and previous", "fsync", 1000, STEPS),
    ("current", "fsync", 64, CURRENT),
]


@contextmanager
def server(*command: str | Path) -> Iterator[tuple[str, int]]:
    """Run a server on the first core; give its URL and its pid."""
    with subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = re.search(r"http://[0-9.:]+", line)
        if not url:
            raise SystemExit(f"{command}: {line}")
        try:
            yield url[0], process.pid
        finally:
            process.kill()


def requests_per_second(url: str, connections: int, load: list[str]) -> float:
    """Load the server from the second core and return its throughput."""
    shown = subprocess.run(
        [
            *("taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}"),
            *(*load, f"{url}/api0/current"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in shown:
        # At the start, `previous` is refused; that is as much work, but should be rare.
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
        total = re.search(r"(\d+) requests in", shown)
        assert refused
        assert total
        if int(refused[1]) > int(total[1]) // 100:
            raise SystemExit(f"too many refusals:\n{shown}")
    found = re.search(r"Requests/sec: +([\d.]+)", shown)
    assert found, shown
    return float(found[1])


def peak_memory(pid: int) -> int:
    """Return the most memory that the process has held, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main() -> None:
    """Measure all cases and print the table."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed, which these measurements need")
    print(f"{'':<18} {'':<10} {'':>11} {'requests/s':>11} {'bare':>8} {'ratio':>6} {'peak MB':>8}")
    for name, durability, connections, load in CASES:
        with (
            tempfile.TemporaryDirectory(dir=HERE) as directory,
            server(HERE / "bare.py") as (bare_url, _),
            server(
                *("-m", "bigfib", "serve", "-p", "0", "--durability", durability),
                *("-f", Path(directory) / "state.log"),
            ) as (url, pid),
        ):
            rates, bare = [], []
            for _ in range(ROUNDS):
                bare.append(requests_per_second(bare_url, connections, load))
                rates.append(requests_per_second(url, connections, load))
            ratio = median(rate / yardstick for rate, yardstick in zip(rates, bare, strict=True))
            print(
                f"{name:<18} {durability:<10} {connections:>6} open {median(rates):>11,.0f} "
                f"{median(bare):>8,.0f} {ratio:>6.2f} {peak_memory(pid):>8}",
                flush=True,
            )


if __name__ == "__main__":
    main()
