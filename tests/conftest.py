"""Fixtures and hooks for all tests."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bigfib.numbers.kernel import Kernel, NoKernel
from bigfib.state.postgres import schema
from tests import proxies
from tests.numbers.kernels import compiled
from tests.postgres import Cluster
from tests.service import Serve, Service, reset

_TRIED = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the campaigns, too")
    parser.addoption(
        "--torture", action="store_true", help="the same, with twenty times as many faults"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TRIED] = Counter()
    config.addinivalue_line("markers", "campaign: takes long; run by `make test-all`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("all") or config.getoption("torture"):
        return
    campaigns = [item for item in items if item.get_closest_marker("campaign")]
    config.hook.pytest_deselected(items=campaigns)
    items[:] = [item for item in items if item not in campaigns]


def pytest_sessionfinish(session: pytest.Session) -> None:
    # With several test processes, another process reports.
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        counts: Counter[str] = session.config.stash[_TRIED]
        output["tried"] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # pytest-xdist has no types
    node.config.stash[_TRIED].update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for what, count in config.stash[_TRIED].items():
        terminalreporter.write_line(f"{what}: {count:,} tried")


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Counter[str]:
    """Count what has been tried; the run prints the counts at its end."""
    return request.config.stash[_TRIED]


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    """How many times as many faults to cause as in an ordinary run."""
    return 20 if request.config.getoption("torture") else 1


@pytest.fixture
def torture(request: pytest.FixtureRequest) -> None:
    """Skip the test in an ordinary run."""
    if not request.config.getoption("torture"):
        pytest.skip("takes long; run by `make torture`")


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The C kernel, compiled from the source under test."""
    try:
        return Kernel(compiled(tmp_path_factory.mktemp("kernel")))
    except NoKernel as error:
        pytest.skip(str(error))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.log"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Start services; ``before`` is a command that runs them, with these descriptors."""
    started = []

    def start(
        *arguments: str, before: list[str] | None = None, inherits: tuple[int, ...] = ()
    ) -> Service:
        service = Service(list(arguments), path, before or [], inherits)
        started.append(service)
        return service

    yield start
    for service in started:
        service.process.kill()
        service.process.communicate()


@pytest.fixture(scope="session")
def lasting_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Service]]:
    """Return the service of `service`; start another one if a test has ended it."""
    started: list[tuple[Service, threading.Thread]] = []

    def running() -> Service:
        if not started or started[-1][0].process.poll() is not None:
            service = Service([], tmp_path_factory.mktemp("service") / "state.log", [])
            # A service blocks when its messages are not read.
            reading = threading.Thread(target=service.said.extend, args=(service.process.stderr,))
            reading.start()
            started.append((service, reading))
        return started[-1][0]

    yield running
    for service, reading in started:
        service.process.terminate()
        service.process.wait(20)
        reading.join()
        assert service.process.stderr is not None
        service.process.stderr.close()
        assert "Traceback" not in "".join(service.said)


@pytest.fixture
def service(lasting_service: Callable[[], Service]) -> Iterator[Service]:
    """A service of the defaults whose shared sequence is at 0.

    Many tests, one after another, use the same one. Each leaves it running, and counts nothing
    that another may have done: sequences, files of the digit cache, metrics.
    """
    service = lasting_service()
    reset(service)
    yield service
    assert service.process.poll() is None, "".join(service.said)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[proxies.Start]:
    """Start nginx; see `tests.proxies`."""
    with proxies.nginx(tmp_path) as start:
        yield start


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[proxies.Start]:
    """Start haproxy; see `tests.proxies`."""
    with proxies.haproxy(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def template() -> Iterator[Cluster]:
    """A stopped cluster with the tables of a store, to be copied by tests that stop theirs."""
    cluster = Cluster()
    cluster.start()
    schema.init(cluster.url())
    cluster.stop()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def shared_cluster(template: Cluster) -> Iterator[Cluster]:
    """A running cluster, shared by all tests that leave it running, each with its own database."""
    cluster = Cluster(template)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def database(shared_cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """The connection string of an empty store, in a cluster that must be left running."""
    name = f"test{abs(hash(request.node.nodeid))}"
    # The template has the tables, and no connections at this moment.
    shared_cluster.sql(f"CREATE DATABASE {name} TEMPLATE postgres", database="template1")
    return shared_cluster.url(name)


@pytest.fixture
def cluster(template: Cluster) -> Iterator[Cluster]:
    """A running cluster with an empty store, which the test may stop or change."""
    cluster = Cluster(template)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """Return the path of a program; if it is missing, skip the test, or fail in CI."""

    def find(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            reason = f"{program} is not installed"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find


@pytest.fixture(scope="session")
def wrong_clock(require: Callable[[str], str]) -> Iterator[Callable[[int], list[str]]]:
    """Return a command that runs a process whose clock is this many days ahead."""
    with tempfile.TemporaryDirectory() as name:
        library = Path(name) / "clock.so"
        source = Path(__file__).with_name("clock.c")
        command = [require("cc"), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        # PostgreSQL is run by another user.
        Path(name).chmod(0o755)
        yield lambda days: ["env", f"LD_PRELOAD={library}", f"DAYS_AHEAD={days}"]
