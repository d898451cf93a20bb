"""What all benchmarks share."""

import os
import platform
import shutil
from importlib.metadata import version
from typing import Any

import pytest

from bigfib.server import serve


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="measure at fewer sizes, and less often")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: left out by --quick")
    # On the disk, where a sync costs what it does; a directory for temporary files may be memory.
    config.option.basetemp = config.option.basetemp or config.rootpath / ".benchmarks/tmp"
    # Medians are steady by then; the default of a second takes the suite past five minutes.
    config.option.benchmark_max_time = 0.05 if config.option.quick else 0.2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.quick:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Say what bears on the numbers, and nothing of whose machine it is."""
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


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["quick"] = config.option.quick
    for benchmark in output_json["benchmarks"]:
        # Every single time; the medians are what is read.
        del benchmark["stats"]["data"]


@pytest.fixture(autouse=True, scope="session")
def memory_as_in_the_service() -> None:
    """Let malloc keep freed memory as it does in the service; the yardsticks profit as much."""
    serve.keep_freed_memory()


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    """Whether time matters more than steady numbers."""
    return bool(pytestconfig.option.quick)


@pytest.fixture(scope="session")
def load_generator() -> None:
    """Ask for what loads a server over a socket; without it, skip, or fail in CI."""
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            reason = f"{program} is not installed (Debian has a package of that name)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
