"""Measure steps a second with a shared store, compared with the state log, and what limits them.

Run it by hand on an idle machine, ``python benchmarks/shared_store.py [SECONDS]``; it needs wrk and
Debian's ``postgresql``. The database, the services and wrk share the machine's cores. The table
shows how much of them each uses, from ``/proc``: cores, and microseconds a step. If together they
use all cores, the cores are the limit. The steps a second with more cores are computed from the
microseconds, and marked as computed.
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
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from bigfib.state.postgres import schema  # noqa: E402
from tests.postgres import Cluster  # noqa: E402

ROUNDS: Final = 5
SECONDS: Final = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


@contextmanager
def service(*arguments: str) -> Iterator[tuple[str, int]]:
    """Run a service, and yield its URL and its pid."""
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
    """Return the CPU time of a process and its descendants."""
    total = 0.0
    for process in family(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def family(pid: int) -> list[int]:
    """Return the process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


class Use(NamedTuple):
    """The result of one measurement.

    Attributes:
        steps: Steps a second.
        service: Cores that the service's processes used.
        database: Cores that the database's processes used.
        load: Cores that wrk used.
        machine: Cores that were not idle.
    """

    steps: float
    service: float
    database: float
    load: float
    machine: float


def busy_seconds() -> float:
    """Return the seconds for which cores have not been idle, summed over all cores."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICKS


def measure(url: str, service: int, database: int, connections: int) -> Use:
    """Load the service with steps of the shared sequence, forward and back."""
    began = time.monotonic()
    before = cpu_seconds(service), cpu_seconds(database), busy_seconds()
    with subprocess.Popen(
        [
            *("wrk", "-t1", f"-c{connections}", f"-d{SECONDS:.0f}"),
            *("-s", str(HERE / "step.lua"), f"{url}/api0/current"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as wrk:
        assert wrk.stdout is not None
        shown = wrk.stdout.read()
        _, status, used = os.wait4(wrk.pid, 0)
        wrk.returncode = os.waitstatus_to_exitcode(status)
    after = cpu_seconds(service), cpu_seconds(database), busy_seconds()
    took = time.monotonic() - began
    found = re.search(r"Requests/sec: +([\d.]+)", shown)
    if wrk.returncode != 0 or not found:
        raise SystemExit(shown)
    cores = [(one - other) / took for one, other in zip(after, before, strict=True)]
    load = (used.ru_utime + used.ru_stime) / took
    return Use(float(found[1]), cores[0], cores[1], load, cores[2])


def middle(uses: list[Use]) -> Use:
    """Return the median of each attribute."""
    return Use(*(median(values) for values in zip(*uses, strict=True)))


def show(uses: dict[str, Use], cores: int) -> None:
    """Print the table, and the conclusions."""
    print(f"64 connections, {cores} cores; medians of {ROUNDS} rounds of {SECONDS:.0f} s")
    print(f"{'':<12} {'steps/s':>8} {'of log':>6}  {'cores: service':>14} {'database':>8} ", end="")
    print(f"{'load':>5} {'sum':>5} {'machine':>7}  {'us/step: service':>16} {'database':>8} load")
    for name, use in uses.items():
        took = (use.service, use.database, use.load)
        each = [1e6 * one / use.steps for one in took]
        print(
            f"{name:<12} {use.steps:>8,.0f} {use.steps / uses['state log'].steps:>6.2f}  "
            f"{took[0]:>14.2f} {took[1]:>8.2f} {took[2]:>5.2f} {sum(took):>5.2f} "
            f"{use.machine:>7.2f}  {each[0]:>16.1f} {each[1]:>8.1f} {each[2]:>4.1f}"
        )
    one, two = uses["one worker"], uses["two workers"]
    others = two.machine - two.service - two.database - two.load
    print(
        f"\ntwo workers, one sequence: {two.steps / one.steps:.2f} of one; service, database and "
        f"load take {two.machine - others:.2f} of {cores} cores, all others {others:.2f}"
    )
    # Even with enough cores, a worker makes at most as many steps as one alone.
    needed = (two.service + two.database + two.load) / two.steps
    for more in (1, 2):
        possible = min(2 * one.steps, (cores + more) / needed)
        print(
            f"computed, not measured: with {cores + more} cores at most {possible:,.0f} steps/s, "
            f"{possible / one.steps:.2f} of one worker (cores over CPU time a step; twice one "
            "worker at most; the row and the disk not counted)"
        )


def main() -> None:
    """Measure the log, one worker and two, in turns, and print the table."""
    if not shutil.which("wrk"):
        raise SystemExit("these measurements need wrk, which is not installed")
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
            uses: dict[str, list[Use]] = {name: [] for name in cases}
            for _ in range(ROUNDS):
                for name, (url, pid) in cases.items():
                    uses[name].append(measure(url, pid, cluster.process.pid, 64))
        show({name: middle(each) for name, each in uses.items()}, len(os.sched_getaffinity(0)))
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
