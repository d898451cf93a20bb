"""Histories of real clients are linearizable, whatever happens to the service and its store."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import ExitStack

from tests.histories.checker import check
from tests.histories.clients import SHARED, Address, Client
from tests.histories.history import Recorder
from tests.histories.load import Anything, Owner, Task, work, working
from tests.histories.model import At
from tests.postgres import Cluster, free_port, synchronous_standby
from tests.service import Serve, Service, full_disk, until
from tests.shared_store.test_workers import await_children

CLIENTS = 6


def address(service: Service) -> Address:
    return Address(service.host, service.port)


class History:
    """Record what clients of some services ask until the end of the test, and check it."""

    def __init__(self, seed: int) -> None:
        self.recorder = Recorder()
        self.anything = Anything(random.Random(seed))
        self.owner = Owner()
        self.pushed = Owner(alone=False)

    def clients(self, services: list[Service]) -> list[tuple[Client, Task]]:
        """Return clients of the services by turns, and what each does."""
        tasks: list[Task] = [self.owner, self.pushed, self.pushed.push_back]
        tasks += [self.anything] * (CLIENTS - len(tasks))
        return [
            (Client(number, address(services[number % len(services)]), self.recorder), task)
            for number, task in enumerate(tasks)
        ]

    def more(self, count: int) -> None:
        """Wait until this many more requests have been answered."""
        before = self.recorder.counts()["answered"]
        until(lambda: self.recorder.counts()["answered"] >= before + count)

    def refusals(self, count: int) -> None:
        """Wait until this many more requests have been refused."""
        before = self.recorder.failed
        until(lambda: self.recorder.failed >= before + count)

    def check(self, service: Service, tried: Counter[str], what: str) -> None:
        """Read all positions, and check the history."""
        work([(Client(CLIENTS, address(service), self.recorder), self.anything.look)], 1)
        check(self.recorder.histories(), {SHARED: At(0)})
        tried[f"operations in histories: {what}"] += self.recorder.counts()["answered"]


def test_history_over_kills_under_load_is_linearizable(
    serve: Serve, tried: Counter[str], times: int
) -> None:
    chance = random.Random(8)
    for number in range(times):
        history = History(number)
        for life in range(5):
            service = serve(*(["--rewrite-bytes", "1000"] if life % 2 else []))
            clients = history.clients([service])
            if life == 4:
                work(clients, 50)
                break
            killer = threading.Timer(chance.uniform(0.05, 0.25), service.process.kill)
            killer.start()
            work(clients, 1 << 30)
            assert service.wait() == -signal.SIGKILL
            history.recorder.settle()
        assert history.owner.retries > 0
        history.check(service, tried, "kills")
        assert service.stop(signal.SIGTERM) == 0
        service.file.unlink()


def test_history_over_a_disk_that_is_full_now_and_then_is_linearizable(
    serve: Serve, tried: Counter[str], times: int
) -> None:
    # Compaction would give it room again.
    service = serve()
    history = History(1)
    with working(history.clients([service])):
        for _ in range(5 * times):
            history.more(100)
            with full_disk(service, spare=4096):
                history.refusals(20)
    assert service.process.poll() is None
    history.check(service, tried, "full disk")
    assert history.recorder.counts()["unknown"] == 0


def test_history_of_two_workers_that_are_killed_in_turn_is_linearizable(
    serve: Serve, database: str, tried: Counter[str], times: int
) -> None:
    service = serve("--store", database, "--workers", "2")
    history = History(2)
    with working(history.clients([service])):
        for _ in range(2 * times):
            history.more(150)
            for worker in await_children(service.process.pid, 2):
                os.kill(worker, signal.SIGKILL)
                await_children(service.process.pid, 2, without=worker)
        history.more(150)
    history.check(service, tried, "workers")
    assert history.recorder.counts()["unknown"] > 0


def test_history_over_failovers_is_linearizable(
    serve: Serve, cluster: Cluster, tried: Counter[str], times: int
) -> None:
    """The primary is killed under load, and its synchronous standby takes over, again and again."""
    ports = [cluster.port, free_port()]
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    history = History(3)
    with ExitStack() as opened:
        primary = cluster
        standby = synchronous_standby(primary, ports[1])
        opened.callback(standby.remove)
        services = [serve("--store", f"postgresql://postgres@{hosts}/postgres") for _ in range(2)]
        with working(history.clients(services)):
            for number in range(times):
                if number:
                    standby = synchronous_standby(primary, ports[(number + 1) % 2])
                    opened.callback(standby.remove)
                history.more(300)
                primary.kill()
                # A server never repeats a change whose outcome is unknown.
                history.recorder.settle()
                standby.promote()
                history.recorder.settle()
                history.more(300)
                primary.remove()
                primary = standby
                tried["failovers with a history"] += 1
        history.check(services[0], tried, "failovers")
