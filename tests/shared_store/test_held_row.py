"""Servers while another session holds the row of a sequence locked."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psycopg
import pytest

from tests.service import Serve, Service, until
from tests.shared_store.asking import ask, body_at, position

BUSY_CORE = "while True: pass"
BUSY_DISK = """
import os
with open("busy", "wb") as file:
    while True:
        file.seek(0)
        file.write(bytes(16 << 20))
        os.fsync(file.fileno())
"""


class TestHeldRow:
    """Another session holds the row of a sequence: a stalled commit, a backup, a busy machine."""

    def test_steps_of_two_servers_while_the_row_is_held_now_and_then_are_all_answered(
        self, serve: Serve, database: str, tried: Counter[str], times: int
    ) -> None:
        services = [serve("--store", database) for _ in range(2)]
        steps = 480 * times
        assert step_while_it_is_held(services, database, steps, free_seconds=0.1) < 3
        tried["steps while others held the row"] += steps

    @pytest.mark.usefixtures("torture")
    def test_steps_of_two_servers_on_a_busy_machine_whose_row_is_held_are_all_answered(
        self, serve: Serve, database: str, tried: Counter[str], tmp_path: Path
    ) -> None:
        services = [serve("--store", database) for _ in range(2)]
        with ExitStack() as busy:
            for script in (BUSY_CORE, BUSY_CORE, BUSY_DISK):
                process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
                busy.callback(process.wait)
                busy.callback(process.kill)
            # No time limit: the machine keeps the clients waiting, too.
            step_while_it_is_held(services, database, steps=20_000, free_seconds=2)
        tried["steps on a busy machine while others held the row"] += 20_000

    def test_row_held_for_less_than_the_limit_delays_no_other_sequence(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database, "--per-client")
        held, free = "a" * 32, "b" * 32
        bodies: list[bytes] = []
        steps: list[float] = []
        with ExitStack() as opened:
            *clients, another = (opened.enter_context(service.connect()) for _ in range(11))
            for client in clients:
                assert ask(client, "/api0/next", cookie=held)[0].status == 200
            assert ask(another, "/api0/next", cookie=free)[0].status == 200

            def step(client: HTTPConnection) -> None:
                bodies.append(ask(client, "/api0/next", cookie=held)[1])

            threads = [threading.Thread(target=step, args=[client]) for client in clients]
            with psycopg.connect(database) as other:
                other.execute(
                    "SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [bytes.fromhex(held)]
                )
                release = time.monotonic() + 2.5
                for thread in threads:
                    thread.start()
                while (began := time.monotonic()) < release - 1.2:
                    reply, body = ask(another, "/api0/next", cookie=free)
                    assert (reply.status, body) == (200, body_at(2 + len(steps)))
                    steps.append(time.monotonic() - began)
                time.sleep(max(0, release - time.monotonic()))
            for thread in threads:
                thread.join()
        assert sorted(bodies) == sorted(map(body_at, range(11, 21)))
        assert len(steps) >= 1
        # It would take two and a half seconds if the whole server waited.
        assert max(steps) < 1.5

    @pytest.mark.parametrize("name", ["/api0/next", "/api1/sequences/shared/next"])
    def test_row_held_for_longer_than_the_limit_is_503_in_time_and_unchanged(
        self, serve: Serve, database: str, name: str
    ) -> None:
        service = serve("--store", database)
        method = "POST" if "api1" in name else "GET"
        assert service.value("next") == 1
        with psycopg.connect(database) as other:
            other.execute("SELECT FROM bigfib_sequences WHERE id = 'shared' FOR UPDATE")
            began = time.monotonic()
            if method == "POST":
                reply, body = service.ask(name, method)
                assert reply.status == 503
                assert "Nothing has changed" in json.loads(body)["detail"]
            else:
                # The reply has begun, so it is cut off.
                with pytest.raises(HTTPException):
                    service.ask(name, method)
            assert 2.5 < time.monotonic() - began < 3
        assert position(database) == 1
        assert service.value("next") == 1
        assert "Traceback" not in "".join(service.said)

    def test_row_that_stays_held_is_503_in_time_and_other_sequences_are_served(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database, "--per-client")
        locked, free = "a" * 32, "b" * 32
        with service.connect() as connection:
            for _ in range(2):
                for one in (locked, free):
                    assert ask(connection, "/api0/next", cookie=one)[0].status == 200
        with psycopg.connect(database) as other, stepping(service, free) as took:
            other.execute(
                "SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [bytes.fromhex(locked)]
            )
            for _ in range(2):
                self.require_answers_in_time(service, locked)
            other.rollback()
        until(lambda: service.ask(f"/api1/sequences/{locked}/next", "POST")[0].status == 200)
        assert position(database, bytes.fromhex(locked)) == 3
        assert position(database, bytes.fromhex(free)) == 2 + len(took)
        # It would take two seconds if the connection were lost each time.
        assert max(took) < 1.5
        assert service.stop(signal.SIGTERM) == 0
        said = "".join(service.said)
        assert "lost" not in said
        assert "Traceback" not in said

    @staticmethod
    def require_answers_in_time(service: Service, locked: str) -> None:
        """Step and show a sequence, at position 2, whose row is held."""
        began = time.monotonic()
        # The reply has begun, so it is cut off.
        with pytest.raises(HTTPException), service.connect() as connection:
            ask(connection, "/api0/next", cookie=locked)
        assert 2.5 < time.monotonic() - began < 3
        with service.connect() as connection:
            assert ask(connection, "/api0/current", cookie=locked)[1] == body_at(2)
        reply, body = service.ask(f"/api1/sequences/{locked}/next", "POST")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        detail = json.loads(body)["detail"]
        assert "locked" in detail
        assert "Nothing has changed" in detail
        assert service.ask("/readyz")[0].status == 200


def step_while_it_is_held(
    services: list[Service], database: str, steps: int, free_seconds: float
) -> float:
    """Step the shared sequence, whose row is held for 0.4 s now and then; all must be answered.

    Eight clients connect for each step, half of them to each API. Return the longest wait.
    """
    for service in services:
        assert service.ask("/api0/next")[0].status == 200
    way = ("/api0/next", "GET"), ("/api1/sequences/shared/next", "POST")

    def step(number: int) -> float:
        began = time.monotonic()
        with services[number % 2].connect() as connection:
            reply, body = ask(connection, *way[number // 2 % 2])
        assert reply.status == 200, body
        return time.monotonic() - began

    with ThreadPoolExecutor(8) as pool, psycopg.connect(database) as other:
        stepped = [pool.submit(step, number) for number in range(steps)]
        while not all(each.done() for each in stepped):
            other.execute("SELECT FROM bigfib_sequences WHERE id = 'shared' FOR UPDATE")
            time.sleep(0.4)
            other.commit()
            time.sleep(free_seconds)
    slowest = max(each.result() for each in stepped)
    assert position(database) == len(services) + steps
    assert [service.stop(signal.SIGTERM) for service in services] == [0, 0]
    return slowest


@contextmanager
def stepping(service: Service, one: str) -> Iterator[list[float]]:
    """Step a sequence repeatedly meanwhile; yield the seconds that each step took."""
    took: list[float] = []
    stop = threading.Event()

    def step() -> None:
        with service.connect() as connection:
            while not stop.is_set():
                began = time.monotonic()
                reply, body = ask(connection, "/api0/next", cookie=one)
                assert reply.status == 200, body
                took.append(time.monotonic() - began)

    with ThreadPoolExecutor() as pool:
        stepped = pool.submit(step)
        try:
            yield took
        finally:
            stop.set()
        stepped.result()
