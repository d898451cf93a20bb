"""Steps a second on a database that services share, beside the state log.

Run by hand: ``python benchmarks/shared_store.py``; it needs wrk and Debian's ``postgresql``. The
database, the services and wrk share the machine's cores as the kernel sees fit, for there are more
of them than cores: what saturates is in the last columns, the CPU time of each in cores.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from bigfib.state import schema  # noqa: E402
from tests.postgres import Cluster  # noqa: E402

ROUNDS: Final = 5
SECONDS: Final = 2
TICKS: Final = os.sysconf("SC_CLK_TCK")


@contextmanager
def service(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run a service; give its URL and its pid."""
    with (
        tempfile.TemporaryDirectory(dir=HERE) as directory,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "bigfib", "serve", "-p", "0", "--cache-dir", directory),
                *(argument.format(directory=directory) for argument in arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://[0-9.:]+", line)
        if not url:
            raise SystemExit(line)
        try:
            yield url[0], process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of all that it has started."""
    total = 0.0
    for process in family(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def family(pid: int) -> list[int]:
    """Return the process and its children, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def steps_per_second(url: str, connections: int) -> float:
    """Load the service with steps of the shared sequence, up and down."""
    shown = subprocess.run(
        [
            *("wrk", "-t1", f"-c{connections}", f"-d{SECONDS}"),
            *("-s", str(HERE / "step.lua"), f"{url}/api0/current"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"Requests/sec: +([\d.]+)", shown)
    assert found, shown
    return float(found[1])


def main() -> None:
    """Measure the log, one worker and two, in turns, and print the table."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed, which these measurements need")
    cluster = Cluster()
    try:
        cluster.start(shared_buffers="128MB")
        schema.init(cluster.url())
        # Far from the start, so that steps back are not refused.
        cluster.sql(r"INSERT INTO bigfib_sequences VALUES ('\x736861726564', 2000, 0)")
        with (
            service("-f", "{directory}/state.log") as log,
            service("--store", cluster.url()) as one,
            service("--store", cluster.url(), "--workers", "2") as two,
        ):
            assert cluster.process is not None
            cases = {"state log": log, "one worker": one, "two workers": two}
            rates: dict[str, list[float]] = {name: [] for name in cases}
            cores: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
            for _ in range(ROUNDS):
                for name, (url, pid) in cases.items():
                    began = time.monotonic()
                    before = cpu_seconds(pid), cpu_seconds(cluster.process.pid)
                    rates[name].append(steps_per_second(url, 64))
                    after = cpu_seconds(pid), cpu_seconds(cluster.process.pid)
                    took = time.monotonic() - began
                    cores[name].append(
                        ((after[0] - before[0]) / took, (after[1] - before[1]) / took)
                    )
            print("64 connections  steps/s  of log  service  database")
            for name in cases:
                service_cores, database_cores = (
                    median(pair[index] for pair in cores[name]) for index in (0, 1)
                )
                print(
                    f"{name:<14} {median(rates[name]):>8,.0f} "
                    f"{median(rates[name]) / median(rates['state log']):>7.2f} "
                    f"{service_cores:>8.2f} {database_cores:>9.2f}"
                )
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
