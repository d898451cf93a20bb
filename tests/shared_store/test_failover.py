"""A primary is lost, and its standby takes over."""

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from http.client import HTTPException

from tests.postgres import Cluster, free_port, synchronous_standby
from tests.service import Serve, Service
from tests.shared_store.asking import ask, position


class TestFailover:
    def test_failovers_under_load_lose_no_acknowledged_step(
        self, serve: Serve, cluster: Cluster, tried: Counter[str], times: int
    ) -> None:
        """The primary is killed under load and its standby takes over, again and again."""
        ports = [cluster.port, free_port()]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        services: list[Service] = []
        acknowledged: list[bytes] = []
        sent = 0
        with ExitStack() as opened:
            primary = cluster
            for number in range(2 if times == 1 else 20):
                standby = synchronous_standby(primary, ports[(number + 1) % 2])
                opened.callback(standby.remove)
                if not services:
                    url = f"postgresql://postgres@{hosts}/postgres"
                    services = [serve("--store", url) for _ in range(2)]
                clients = [Client(services[number % 2]) for number in range(4)]
                for client in clients:
                    client.start()
                for client in clients:
                    assert client.enough.wait(20)
                primary.kill()
                standby.promote()
                promoted = time.monotonic()
                for client in clients:
                    assert client.await_step_after(promoted) < 5
                for client in clients:
                    client.stopping = True
                for client in clients:
                    client.join()
                    acknowledged += client.acknowledged
                    sent += client.sent
                tried["failovers under load"] += 1
                assert len(acknowledged) <= position(standby.url()) <= sent
                primary.remove()
                primary = standby
            # No step was acknowledged twice: only F(1) and F(2) have the same value.
            assert len(acknowledged) > 1000
            assert len(set(acknowledged)) >= len(acknowledged) - 1
            for service in services:
                assert service.stop(signal.SIGTERM) == 0
                assert "Traceback" not in "".join(service.said)


class Client(threading.Thread):
    """A client that steps forward, and repeats the request if there is no clear answer."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self._stepped = threading.Condition()
        self._moments = [0.0]
        self.sent = 0
        self.acknowledged: list[bytes] = []
        self.enough = threading.Event()
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            try:
                with self._service.connect() as connection:
                    while not self.stopping:
                        self.sent += 1
                        reply, body = ask(connection, "/api0/next")
                        if reply.status == 200:
                            self._note(body)
            except (OSError, HTTPException):
                pass

    def _note(self, body: bytes) -> None:
        with self._stepped:
            self.acknowledged.append(body)
            self._moments.append(time.monotonic())
            self._stepped.notify()
        if len(self.acknowledged) >= 200:
            self.enough.set()

    def await_step_after(self, moment: float) -> float:
        """Return how long after that moment a step was first acknowledged."""
        with self._stepped:
            assert self._stepped.wait_for(lambda: self._moments[-1] > moment, 20)
            return next(one for one in self._moments if one > moment) - moment
