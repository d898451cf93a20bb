"""Many servers step the same sequences."""

import json
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.postgres import Cluster
from tests.service import Serve, Service
from tests.shared_store.asking import PATIENT, ask, body_at, position

HOT = "f" * 32
COLD = [f"{number:032x}" for number in range(1000)]


class Stepped(NamedTuple):
    """The replies to a client.

    Attributes:
        values: The bodies of steps of the hot sequence by ``/api0``.
        positions: The positions of the hot sequence in replies of ``/api1``.
        net: For each cold sequence, its steps forward less its steps back.
    """

    values: list[bytes]
    positions: list[str]
    net: Counter[str]


def step_hot_and_cold(service: Service, number: int, steps: int) -> Stepped:
    """Step the one sequence that all clients step, and some that few clients step."""
    moves = random.Random(number)
    stepped = Stepped([], [], Counter())
    with service.connect() as connection:
        for step in range(steps):
            reply, body = ask(connection, "/api0/next", cookie=HOT)
            assert reply.status == 200, body
            stepped.values.append(body)
            if step % 10 == 0:
                reply, body = ask(connection, f"/api1/sequences/{HOT}/next", "POST")
                assert reply.status == 200, body
                stepped.positions.append(json.loads(body)["position"])
            one = moves.choice(COLD)
            way = moves.choice(["next", "next", "previous"])
            reply, body = ask(connection, f"/api0/{way}", cookie=one)
            if reply.status == 200:
                stepped.net[one] += 1 if way == "next" else -1
            else:
                assert (reply.status, way) == (409, "previous"), body
    return stepped


class TestManyServers:
    def test_steps_of_four_servers_that_are_acknowledged_count_once(
        self, serve: Serve, database: str, tried: Counter[str], times: int
    ) -> None:
        services = [serve("--store", database, "--per-client") for _ in range(4)]
        with ThreadPoolExecutor(32) as pool:
            stepped = list(
                pool.map(
                    lambda number: step_hot_and_cold(services[number % 4], number, 120 * times),
                    range(32),
                )
            )
        values = [value for each in stepped for value in each.values]
        positions = [position for each in stepped for position in each.positions]
        acknowledged = len(values) + len(positions)
        tried["steps of one sequence by 4 servers"] += acknowledged
        assert position(database, bytes.fromhex(HOT)) == acknowledged
        # Only the value of F(1) = F(2) occurs twice.
        assert len(set(values)) >= len(values) - 1
        assert len(set(positions)) == len(positions)
        with psycopg.connect(database) as connection:
            rows = connection.execute("SELECT id, position FROM bigfib_sequences").fetchall()
        found = {one.hex(): int(at) for one, at in rows}
        assert min(found.values()) >= 0
        net = {one: sum(each.net[one] for each in stepped) for one in COLD}
        assert {one: found.get(one, 0) for one in COLD} == net
        for service in services:
            assert service.stop(signal.SIGTERM) == 0
            assert "Traceback" not in "".join(service.said)

    def test_sequence_that_one_server_deletes_is_missing_at_the_other(
        self, serve: Serve, database: str
    ) -> None:
        a, b = (serve("--store", database) for _ in range(2))
        path = a.ask("/api1/sequences", "POST")[0].headers["Location"]
        assert json.loads(b.ask(f"{path}/next?by=7", "POST")[1])["position"] == "7"
        assert json.loads(a.ask(path)[1])["value"] == "13"
        assert a.ask(f"{path}/next", "POST", {"If-Match": '"6"'})[0].status == 412
        assert b.ask(path, "DELETE", {"If-Match": '"7"'})[0].status == 204
        # It still has the terms.
        assert a.ask(f"{path}/next", "POST")[0].status == 404
        assert a.ask(path)[0].status == 404

    def test_look_after_another_server_moved_far_away_is_503_until_the_term_is_ready(
        self, serve: Serve, database: str, path: Path
    ) -> None:
        """The first reply has already begun when this is known; later ones are 503."""
        a, b = (
            serve("--store", database, "--cache-dir", str(path.with_name(name))) for name in "ab"
        )
        assert b.value("next") == 1
        put = {"Content-Type": "application/json"}
        far = b'{"position":"20000000"}'
        while a.ask("/api1/sequences/shared", "PUT", put, far)[0].status != 200:
            time.sleep(0.05)
        with pytest.raises(HTTPException):
            b.ask("/api0/current")
        reply, body = b.ask("/api0/current")
        assert (reply.status, body) == (503, b'{"value":"-3","status":"503"}')
        assert int(reply.headers["Retry-After"]) >= 1

    def test_steps_of_two_servers_with_if_match_star_are_all_made(
        self, serve: Serve, database: str
    ) -> None:
        services = [serve("--store", database) for _ in range(2)]
        path = services[0].ask("/api1/sequences", "POST")[0].headers["Location"]
        found: Counter[int] = Counter()

        def step(number: int) -> None:
            for _ in range(40):
                any_ = {"If-Match": "*"}
                reply, _ = services[number % 2].ask(f"{path}/next", "POST", any_)
                found[reply.status] += 1

        threads = [threading.Thread(target=step, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {200: 160}
        nowhere = path[:-4] + "0000"
        assert services[0].ask(f"{nowhere}/next", "POST", {"If-Match": "*"})[0].status == 404

    @staticmethod
    def step_while_it_moves(
        service: Service, cluster: Cluster, path: str, headers: dict[str, str], moved_to: int
    ) -> tuple[HTTPResponse, bytes]:
        """Step a sequence from 0, while another session moves it; return reply and body."""
        answers = []

        def step() -> None:
            answers.append(service.ask(f"{path}/next", "POST", headers))

        cluster.sql("UPDATE bigfib_sequences SET position = 0")
        with psycopg.connect(cluster.url()) as other:
            other.execute("UPDATE bigfib_sequences SET position = %s", [moved_to])
            stepping = threading.Thread(target=step)
            stepping.start()
            cluster.await_lock()
        stepping.join()
        return answers.pop()

    @pytest.mark.parametrize(
        ("headers", "moves"),
        [
            ({"If-Match": '"0", W/"7", "6"'}, [(6, 200, "7"), (7, 412, "7")]),
            ({"If-None-Match": '"6"'}, [(6, 412, "6"), (7, 200, "8")]),
        ],
        ids=["If-Match", "If-None-Match"],
    )
    def test_condition_of_a_step_is_compared_with_the_position_when_the_step_is_made(
        self,
        serve: Serve,
        cluster: Cluster,
        headers: dict[str, str],
        moves: list[tuple[int, int, str]],
    ) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        for moved_to, status, at in moves:
            reply, body = self.step_while_it_moves(service, cluster, path, headers, moved_to)
            assert reply.status == status, body
            assert json.loads(body)["position"] == at

    def test_change_that_names_its_position_is_one_statement(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        cluster.sql("ALTER DATABASE postgres SET log_statement = 'all'")
        service = serve("--store", cluster.url())
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        log = cluster.directory / "log"

        def asked() -> list[str]:
            # Only statements about this sequence; the service may count all of them at any time.
            return re.findall(r"execute bigfib\d+: (\w+) .*WHERE id = \$1", log.read_text())

        put = {"Content-Type": "application/json"}
        for name, method, headers, body, at in (
            (path, "PUT", put, b'{"position":"7"}', 0),
            (f"{path}/next", "POST", {}, None, 7),
            (f"{path}/previous?by=3", "POST", {}, None, 8),
            (path, "DELETE", {}, None, 5),
        ):
            before = len(asked())
            tag = {"If-Match": f'"{at}"'}
            assert service.ask(name, method, {**headers, **tag}, body)[0].status in (200, 204)
            made = "DELETE" if method == "DELETE" else "UPDATE"
            assert asked()[before:] == [made]

    def test_step_after_another_server_moved_the_sequence_goes_on_from_there(
        self, serve: Serve, database: str
    ) -> None:
        a, b = (serve("--store", database) for _ in range(2))
        assert [each.value("next") for each in (a, b, a, b, a, b)] == [1, 1, 2, 3, 5, 8]
        assert a.value("current") == 8
        put = {"Content-Type": "application/json"}
        a.ask("/api1/sequences/shared", "PUT", put, b'{"position":"2000"}')
        assert b.ask("/api0/previous")[1] == body_at(1999)
        a.ask("/api1/sequences/shared", "PUT", put, b'{"position":"0"}')
        # The term in this server's memory is far from the start, but the sequence is at the start.
        with pytest.raises(HTTPException):
            b.ask("/api0/previous")
        reply, body = b.ask("/api0/previous")
        assert (reply.status, body) == (409, b'{"value":"-1","status":"409"}')
        assert position(database) == 0
