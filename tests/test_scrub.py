"""A running service finds damage to its log on the disk, and compacts the log."""

import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.state import reader
from bigfib.state.log import Durability, Log
from tests.api.test_metrics import scrape
from tests.service import Serve, Service, until
from tests.state.test_log import positions
from tests.state.test_scrub import fill, flip
from tests.test_durability import Client, until_all_step

COUNT = 4000
"""As many sequences in the log that checking its first half takes a second."""


@pytest.fixture
def log(path: Path) -> Path:
    """A log of many sequences."""
    with Log(path, Durability.OS) as log:
        fill(log, COUNT)
    return path


def is_repaired(service: Service) -> bool:
    return scrape(service)["bigfib_log_rewrites_total"] >= 1


def test_damage_under_load_is_reported_and_nothing_acknowledged_is_lost(
    serve: Serve, log: Path
) -> None:
    service = serve()
    clients = [Client(service) for _ in range(4)]
    for client in clients:
        client.start()
    until_all_step(clients)
    flip(log, random.randrange(4 * log.stat().st_size, 8 * log.stat().st_size))
    until(lambda: is_repaired(service))
    assert scrape(service)["bigfib_log_faults_total"] == 1
    done = sum(len(client.acknowledged) for client in clients)
    until(lambda: sum(len(client.acknowledged) for client in clients) > done + 100)
    threading.Timer(0.01, service.process.kill).start()
    assert service.wait() == -signal.SIGKILL
    for client in clients:
        client.join()
    said = "".join(service.said)
    assert f"state log {log} is damaged on its disk: at offset " in said
    assert f"state log {log} has been compacted, and is whole" in said
    contents = reader.read(log)
    assert contents.fault is None
    least = sum(len(client.acknowledged) for client in clients)
    assert least <= contents.position(b"shared") <= sum(client.sent for client in clients)
    found = positions(contents)
    assert [found[b"%d" % number] for number in range(COUNT)] == list(range(COUNT))


def test_idle_service_checks_its_log(serve: Serve) -> None:
    service = serve()
    service.value("next")
    until(lambda: scrape(service)["bigfib_log_checks_total"])
    assert scrape(service)["bigfib_log_faults_total"] == 0


def test_bytes_that_the_disk_fails_to_read_are_written_again(
    serve: Serve, log: Path, tmp_path: Path, require: Callable[[str], str]
) -> None:
    # The first few reads are those of the start.
    failure = "inject=read:error=EIO:when=9"
    trace = ["-D", "-f", "-o", str(tmp_path / "trace"), "-P", str(log), "-e", "trace=read"]
    service = serve(before=[require("strace"), *trace, "-e", failure])
    until(lambda: is_repaired(service))
    assert service.stop(signal.SIGTERM) == 0
    assert "the disk fails to read what is at offset" in "".join(service.said)
    assert len(reader.read(log).latest) == COUNT
