"""Add options to all benchmarks, and record failures and the load of other programs."""

import os
import platform
import shutil
import signal
import time
from collections.abc import Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bigfib.server import serve

_MOST_SECONDS = 180
"""Seconds after which a benchmark fails, so that one that hangs does not stop the run."""

_ELSEWHERE = "benchmarks/bench_elsewhere.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="measure at fewer sizes, and less often")
    parser.addoption("--only", help="run only benchmarks with this in group or name")
    parser.addoption("--url", help="measure the service at this address")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: left out by --quick")
    # Use a directory on the disk, for realistic syncs; the default may be in memory.
    config.option.basetemp = config.option.basetemp or config.rootpath / ".benchmarks/tmp"
    # Medians are steady after this time; with the default, a second, all takes over five minutes.
    config.option.benchmark_max_time = 0.05 if config.option.quick else 0.2
    config.pluginmanager.register(_Observer(), "observer")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def is_wanted(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("benchmark")
        names = f"{item.nodeid} {mark.kwargs['group'] if mark else ''}"
        return (
            not (config.option.quick and item.get_closest_marker("full"))
            and (config.option.only or "") in names
            and bool(config.option.url) == item.nodeid.startswith(_ELSEWHERE)
        )

    config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    items[:] = filter(is_wanted, items)


class _Observer:
    """Record which benchmarks fail, and how many cores other programs use."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}
        self._others: dict[str, float] = {}
        self._began = _Moment()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        began = _Moment()
        result = yield
        self._others[item.nodeid] = began.cores_of_others()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            reason = (lines or ["failed"])[0].removeprefix("E ").strip()
            # Keep the first error: one of its fixtures, later, may be a consequence.
            self._failed.setdefault(report.nodeid, reason)

    def pytest_benchmark_update_json(
        self, config: pytest.Config, output_json: dict[str, Any]
    ) -> None:
        measured = [
            each for each in output_json["benchmarks"] if each["fullname"] not in self._failed
        ]
        for benchmark in measured:
            benchmark["others"] = self._others[benchmark["fullname"]]
            # The time of each round; only the medians are used.
            del benchmark["stats"]["data"]
        output_json |= {
            "benchmarks": measured,
            "failed": self._failed,
            "quick": config.option.quick,
            "seconds": time.monotonic() - self._began.time,
            "others": self._began.cores_of_others(),
        }

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Record the facts that influence the figures, and none that identify the machine."""
        cpu = machine_info["cpu"].get("brand_raw") or platform.processor()
        machine_info.clear()
        libraries = ["bigfib", "bjoern-binary", "falcon", "gmpy2"]
        machine_info |= {
            "CPU": cpu,
            "cores": str(len(os.sched_getaffinity(0))),
            "kernel": f"{platform.system()} {platform.release()}",
            "C library": " ".join(platform.libc_ver()),
            "Python": f"{platform.python_implementation()} {platform.python_version()}",
            **{library: version(library) for library in libraries},
        }


class _Moment:
    """A moment, and the CPU time that other programs had used until then."""

    def __init__(self) -> None:
        self.time = time.monotonic()
        # The columns are user, nice, system, idle, iowait, irq, softirq, steal.
        ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
        busy = sum(ticks[:3]) + ticks[7]
        own = os.times()
        # Children count once they have ended, as servers have at the end of a benchmark.
        self.others = busy / os.sysconf("SC_CLK_TCK") - sum(own[:4])

    def cores_of_others(self) -> float:
        """Return how many cores all other programs have used since."""
        now = _Moment()
        return max(now.others - self.others, 0.0) / (now.time - self.time)


@pytest.fixture(autouse=True)
def limited_time() -> Iterator[None]:
    """Fail a benchmark that takes too long."""

    def give_up(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"it takes more than {_MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_MOST_SECONDS)
    yield
    signal.alarm(0)


@pytest.fixture(autouse=True, scope="session")
def memory_as_in_the_service() -> None:
    """Let malloc keep freed memory as in the service, for yardsticks, too."""
    serve.keep_freed_memory()


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    """Return whether this is a quick run, with rough numbers."""
    return bool(pytestconfig.option.quick)


@pytest.fixture(scope="session")
def load_generator() -> None:
    """Require the programs that load a server over a socket; skip without them, or fail in CI."""
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            reason = f"{program} is not installed (Debian has a package of that name)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
