"""Run servers on one core, and load them from another."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pytest_benchmark.fixture import BenchmarkFixture

from bigfib.client import Client

HERE: Final = Path(__file__).parent

STEPS: Final = ("-s", str(HERE / "step.lua"))
"""Arguments of wrk that make it step the sequence at a URL forward and back."""

_PERCENTILE: Final = ("-s", str(HERE / "percentile.lua"))

_START_SECONDS: Final = 60


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    url: str
    pid: int


@contextmanager
def server(*command: str | Path, cores: Collection[int] = ()) -> Iterator[Server]:
    """Run a server on ``cores``, by default on the first one."""
    on = ",".join(map(str, cores or [min(os.sched_getaffinity(0))]))
    # A file, because a pipe could fill: bjoern prints a line for each connection that wrk aborts.
    with (
        tempfile.TemporaryFile("w+", dir=HERE) as said,
        subprocess.Popen(
            ["taskset", "-c", on, sys.executable, *command],
            stdout=said,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Server(
                _wait_for_url(process, lambda: os.pread(said.fileno(), 1 << 16, 0)), process.pid
            )
        finally:
            process.kill()


def _wait_for_url(process: "subprocess.Popen[bytes]", said: Callable[[], bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while not (url := re.search(rb"listens on (http://[0-9.:]+)", said())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not serve: {said().decode()}")
        time.sleep(0.01)
    return url[1].decode()


def compute(url: str, n: int) -> None:
    """Have the service at ``url`` compute F(n), and wait until it has it."""
    for _ in Client(url).progress(n):
        pass


def peak_memory(pid: int | Literal["self"]) -> int:
    """Return the peak memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def yardstick(name: str, *arguments: object) -> AbstractContextManager[Server]:
    """Run one of the `benchmarks.yardsticks`."""
    return server(HERE / "yardsticks.py", name, *map(str, arguments))


def seconds_per_request(
    url: str, seconds: float, arguments: Sequence[str] = (), connections: int = 64
) -> float:
    """Load the server from the last core, and return the time that it takes for one request.

    Args:
        url: The URL to request.
        seconds: The duration of the load.
        arguments: More arguments of wrk.
        connections: How many requests wait at a time.
    """
    shown = _wrk(url, seconds, *arguments, connections=connections)
    rate = re.search(r"Requests/sec: +([\d.]+)", shown)
    if not rate or not float(rate[1]):
        raise RuntimeError(f"wrk on {url} says: {shown}")
    return 1 / float(rate[1])


def seconds_of_nearly_all(url: str, seconds: float, *, connections: int) -> float:
    """Load the server as `seconds_per_request` does; return the 99.9th percentile of latency."""
    shown = _wrk(url, seconds, *_PERCENTILE, connections=connections)
    slow = re.search(r"99.9 %: (\d+) us", shown)
    if not slow:
        raise RuntimeError(f"wrk on {url} says: {shown}")
    return int(slow[1]) / 1e6


def _wrk(url: str, seconds: float, *arguments: str, connections: int) -> str:
    core = max(os.sched_getaffinity(0))
    wrk = ("wrk", "-t1", f"-c{connections}", "-d1h", *arguments, url)
    # wrk takes whole seconds only, so interrupt it; it then reports what it has done.
    shown = subprocess.run(
        ["taskset", "-c", str(core), "timeout", "--signal=INT", str(seconds), *wrk],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout
    done = re.search(r"(\d+) requests in", shown)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", shown)
    # `previous` is refused at the start of the sequence; that costs as much, but should be rare.
    if (
        not done
        or (refused and int(refused[1]) > int(done[1]) // 100)
        or (broken and any(map(int, broken.groups())))
    ):
        raise RuntimeError(f"wrk on {url} says: {shown}")
    return shown


def take_turns(
    benchmark: BenchmarkFixture, rounds: int, measurements: Mapping[str, Callable[[], float]]
) -> None:
    """Measure in turns, in alternating order, so that a disturbance affects all.

    Args:
        benchmark: The fixture, whose ``extra_info`` gets the results.
        rounds: How often to measure each.
        measurements: By name, a function that returns a cost. The yardstick's name begins with
            "yardstick ".
    """
    costs: dict[str, list[float]] = {name: [] for name in measurements}
    order = list(measurements)

    def one_round() -> None:
        for name in order:
            costs[name].append(measurements[name]())
        order.reverse()

    benchmark.pedantic(one_round, rounds=rounds)
    record(benchmark, benchmark.group, costs)


def record(benchmark: BenchmarkFixture, group: str, costs: Mapping[str, Sequence[float]]) -> None:
    """Record costs that the fixture has not measured itself."""
    benchmark.extra_info.setdefault("turns", {})[group] = costs
