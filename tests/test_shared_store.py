"""Many servers on one database: the whole program, on a real PostgreSQL that is not spared."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import psycopg
import pytest
from flint import fmpz

from bigfib.sequences import SHARED
from bigfib.state.postgres.session import ANSWER_SECONDS
from tests.postgres import Cluster, free_port
from tests.service import Serve, Service, exchange

# The server of the database does not give up a wait, however busy this machine is.
PATIENT = "options=-c%20lock_timeout%3D20000%20-c%20statement_timeout%3D20000"

LOST = b'{"value":"-3","status":"503"}'
HOT = "f" * 32


def body_at(position: int) -> bytes:
    return b'{"value":"%b","status":"200"}' % str(fmpz.fib_ui(fmpz(position))).encode()


def position(url: str, sequence_id: bytes = b"shared") -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT position FROM bigfib_sequences WHERE id = %s", [sequence_id]
        ).fetchone()
    return int(row[0]) if row else 0


def ask(
    connection: HTTPConnection, path: str, method: str = "GET", cookie: str = ""
) -> tuple[HTTPResponse, bytes]:
    connection.request(method, path, headers={"Cookie": f"bigfib={cookie}"} if cookie else {})
    reply = connection.getresponse()
    return reply, reply.read()


class TestManyServers:
    def test_every_acknowledged_step_counts_once(
        self, serve: Serve, database: str, tried: Counter[str], times: int
    ) -> None:
        """4 servers, 32 clients, one sequence that all step and 1,000 that few do."""
        services = [serve("--store", database, "--per-client") for _ in range(4)]
        cold = [f"{number:032x}" for number in range(1000)]
        net: Counter[str] = Counter()
        hot_values: list[bytes] = []
        hot_positions: list[str] = []
        failures: list[object] = []
        lock = threading.Lock()

        def client(number: int) -> None:
            moves = random.Random(number)
            mine: Counter[str] = Counter()
            values, positions = [], []
            with services[number % 4].connect() as connection:
                for step in range(120 * times):
                    reply, body = ask(connection, "/api0/next", cookie=HOT)
                    values.append(body)
                    assert reply.status == 200, body
                    if step % 10 == 0:
                        reply, body = ask(connection, f"/api1/sequences/{HOT}/next", "POST")
                        assert reply.status == 200, body
                        positions.append(json.loads(body)["position"])
                    one = moves.choice(cold)
                    way = moves.choice(["next", "next", "previous"])
                    reply, body = ask(connection, f"/api0/{way}", cookie=one)
                    if reply.status == 200:
                        mine[one] += 1 if way == "next" else -1
                    elif (reply.status, way) != (409, "previous"):
                        raise AssertionError(body)
            with lock:
                hot_values.extend(values)
                hot_positions.extend(positions)
                net.update(mine)
                net.subtract(dict.fromkeys(mine, 0))

        def caught(number: int) -> None:
            try:
                client(number)
            except (AssertionError, OSError, HTTPException) as failure:
                failures.append(failure)

        clients = [threading.Thread(target=caught, args=[number]) for number in range(32)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
        assert failures == []
        acknowledged = len(hot_values) + len(hot_positions)
        tried["steps of one sequence by 4 servers"] += acknowledged
        assert position(database, bytes.fromhex(HOT)) == acknowledged
        # Only F(1) = F(2) is a term that occurs again.
        assert len(set(hot_values)) >= len(hot_values) - 1
        assert len(set(hot_positions)) == len(hot_positions)
        with psycopg.connect(database) as connection:
            rows = connection.execute("SELECT id, position FROM bigfib_sequences").fetchall()
        found = {one.hex(): int(at) for one, at in rows}
        assert min(found.values()) >= 0
        assert {one: found.get(one, 0) for one in cold} == {one: net[one] for one in cold}
        for service in services:
            assert service.stop(signal.SIGTERM) == 0
            assert "Traceback" not in "".join(service.said)

    def test_what_one_has_deleted_the_other_does_not_show(
        self, serve: Serve, database: str
    ) -> None:
        a, b = (serve("--store", database) for _ in range(2))
        path = a.ask("/api1/sequences", "POST")[0].headers["Location"]
        assert json.loads(b.ask(f"{path}/next?by=7", "POST")[1])["position"] == "7"
        assert json.loads(a.ask(path)[1])["value"] == "13"
        assert a.ask(f"{path}/next", "POST", {"If-Match": '"6"'})[0].status == 412
        assert b.ask(path, "DELETE", {"If-Match": '"7"'})[0].status == 204
        assert a.ask(path)[0].status == 404
        assert a.ask(f"{path}/next", "POST")[0].status == 404

    def test_a_look_where_another_server_led_far_away(
        self, serve: Serve, database: str, path: Path
    ) -> None:
        """The first reply has begun by the time that this is known; the next ones say it."""
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

    def test_any_position_matches_a_star(self, serve: Serve, database: str) -> None:
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

    def test_any_of_a_list_matches_however_it_moves(self, serve: Serve, cluster: Cluster) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        headers = {"If-Match": '"0", W/"7", "6"'}
        for moved_to, status in ((6, 200), (7, 412)):
            reply, body = self.step_while_it_moves(service, cluster, path, headers, moved_to)
            assert reply.status == status, body
            assert json.loads(body)["position"] == "7"

    def test_step_that_if_none_match_excludes_by_the_time_it_is_made_is_not_made(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        headers = {"If-None-Match": '"6"'}
        for moved_to, status in ((6, 412), (7, 200)):
            reply, body = self.step_while_it_moves(service, cluster, path, headers, moved_to)
            assert reply.status == status, body
            assert json.loads(body)["position"] == ("6" if status == 412 else "8")

    def test_a_change_that_says_from_where_asks_the_database_once(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        cluster.sql("ALTER DATABASE postgres SET log_statement = 'all'")
        service = serve("--store", cluster.url())
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        log = cluster.directory / "log"

        def asked() -> list[str]:
            # Of this sequence; they are counted at any moment.
            return re.findall(r"execute bigfib\d+: (\w+) .*WHERE id = \$1", log.read_text())

        put = {"Content-Type": "application/json"}
        for name, method, headers, body, position in (
            (path, "PUT", put, b'{"position":"7"}', 0),
            (f"{path}/next", "POST", {}, None, 7),
            (f"{path}/previous?by=3", "POST", {}, None, 8),
            (path, "DELETE", {}, None, 5),
        ):
            before = len(asked())
            tag = {"If-Match": f'"{position}"'}
            assert service.ask(name, method, {**headers, **tag}, body)[0].status in (200, 204)
            made = "DELETE" if method == "DELETE" else "UPDATE"
            assert asked()[before:] == [made]

    def test_a_step_on_from_where_another_server_led(self, serve: Serve, database: str) -> None:
        a, b = (serve("--store", database) for _ in range(2))
        assert [each.value("next") for each in (a, b, a, b, a, b)] == [1, 1, 2, 3, 5, 8]
        assert a.value("current") == 8
        put = {"Content-Type": "application/json"}
        a.ask("/api1/sequences/shared", "PUT", put, b'{"position":"2000"}')
        assert b.ask("/api0/previous")[1] == body_at(1999)
        a.ask("/api1/sequences/shared", "PUT", put, b'{"position":"0"}')
        # What this server has in memory is far from the start; the sequence is not.
        with pytest.raises(HTTPException):
            b.ask("/api0/previous")
        reply, body = b.ask("/api0/previous")
        assert (reply.status, body) == (409, b'{"value":"-1","status":"409"}')
        assert position(database) == 0


class TestHeldRow:
    """Another session holds the row of a sequence: a stalled commit, a backup, a busy machine."""

    def test_plain_steps_of_two_servers_are_all_answered_while_it_is_held_now_and_then(
        self, serve: Serve, database: str, tried: Counter[str], times: int
    ) -> None:
        services = [serve("--store", database) for _ in range(2)]
        for service in services:
            assert service.ask("/api0/next")[0].status == 200
        answers: Counter[object] = Counter()
        slowest = 0.0
        lock = threading.Lock()
        way = ("/api0/next", "GET"), ("/api1/sequences/shared/next", "POST")

        def step(number: int) -> None:
            nonlocal slowest
            for _ in range(150 * times):
                began = time.monotonic()
                try:
                    with services[number % 2].connect() as connection:
                        answer: object = ask(connection, *way[number // 2 % 2])[0].status
                except (OSError, HTTPException) as failure:
                    answer = type(failure)
                with lock:
                    answers[answer] += 1
                    slowest = max(slowest, time.monotonic() - began)

        clients = [threading.Thread(target=step, args=[number]) for number in range(8)]
        for client in clients:
            client.start()
        with psycopg.connect(database) as other:
            while any(client.is_alive() for client in clients):
                other.execute("SELECT FROM bigfib_sequences WHERE id = 'shared' FOR UPDATE")
                time.sleep(0.4)
                other.commit()
                time.sleep(0.1)
        tried["steps while others held the row"] += answers[200]
        assert [service.stop(signal.SIGTERM) for service in services] == [0, 0]
        assert answers == {200: 1200 * times}, [service.said for service in services]
        assert position(database) == 2 + answers[200]
        assert slowest < 3

    def test_a_stall_within_the_limit_is_answered_and_other_sequences_go_on(
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
        # Two and a half seconds it would be if the whole server waited.
        assert max(steps) < 1.5

    @pytest.mark.parametrize("name", ["/api0/next", "/api1/sequences/shared/next"])
    def test_one_held_for_longer_is_answered_in_time_and_nothing_has_changed(
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
                # Its reply has begun, so it is cut off.
                with pytest.raises(HTTPException):
                    service.ask(name, method)
            assert 2.5 < time.monotonic() - began < 3
        assert position(database) == 1
        assert service.value("next") == 1
        assert "Traceback" not in "".join(service.said)


class TestReplies:
    def test_of_unknown_length_come_in_chunks(self, serve: Serve, database: str) -> None:
        service = serve("--store", database)
        for expected in (1, 1, 2):
            assert service.value("next") == expected
        with socket.create_connection((service.host, service.port), timeout=20) as client:
            client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += client.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert body == b'1\r\n{\r\n1b\r\n"value":"3","status":"200"}\r\n0\r\n\r\n'

    @pytest.mark.parametrize(
        "request_line", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"]
    )
    def test_have_a_length_where_the_end_of_the_connection_would_be_the_end(
        self, serve: Serve, database: str, request_line: bytes
    ) -> None:
        service = serve("--store", database)
        service.value("next")
        for name, value in ((b"next", 1), (b"current", 1), (b"next", 2)):
            received = exchange(service, b"GET /api0/%b %b\r\n" % (name, request_line))
            head, _, body = received.partition(b"\r\n\r\n")
            assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
            assert body == b'{"value":"%d","status":"200"}' % value

    def test_one_transaction_for_all_that_wait(self, serve: Serve, cluster: Cluster) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        assert service.value("next") == 1
        with ExitStack() as opened:
            address = (service.host, service.port)
            clients = [opened.enter_context(socket.create_connection(address)) for _ in range(20)]
            before = transactions(cluster.url())
            with psycopg.connect(cluster.url()) as other:
                # The first batch waits for the row, and all others have sent their request then.
                other.execute("SELECT * FROM bigfib_sequences FOR UPDATE")
                for client in clients:
                    client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: x\r\n\r\n")
                cluster.await_lock()
            bodies = []
            for client in clients:
                received = b""
                while not received.endswith(b"0\r\n\r\n"):
                    piece = client.recv(65536)
                    assert piece, "it was cut off"
                    received += piece
                bodies.append(re.findall(rb"(\d+)\",\"status", received)[0])
        assert sorted(map(int, bodies)) == [int(fmpz.fib_ui(fmpz(n))) for n in range(2, 22)]
        # Ours and that which held the row are two.
        assert transactions(cluster.url()) - before - 2 <= 3
        assert position(cluster.url()) == 21


def transactions(url: str) -> int:
    """Return how many transactions that change something there have been, with this one."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT txid_current()").fetchone()
        assert row
        return int(row[0])


class Trouble:
    """Something that happens to a database, and how it ends; as user ``app`` meets it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._held: psycopg.Connection[tuple[object, ...]] | None = None

    def _reconnect(self) -> None:
        self.cluster.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'"
        )

    def cause(self, what: str) -> None:
        cluster = self.cluster
        if what == "stopped":
            cluster.stop()
        elif what == "paused":
            cluster.pause()
        elif what == "out of connections":
            cluster.sql("ALTER ROLE app CONNECTION LIMIT 0")
            self._reconnect()
        elif what == "read-only":
            cluster.sql("ALTER SYSTEM SET default_transaction_read_only = on")
            cluster.sql("SELECT pg_reload_conf()")
        elif what == "wrong password":
            cluster.sql("ALTER ROLE app PASSWORD 'another'")
            self._reconnect()
        elif what == "wrong schema version":
            cluster.sql("UPDATE bigfib_schema SET version = 2")
            self._reconnect()
        elif what == "table locked":
            self._held = psycopg.connect(cluster.url())
            self._held.execute("LOCK bigfib_sequences IN ACCESS EXCLUSIVE MODE")

    def mend(self, what: str) -> None:
        cluster = self.cluster
        if what == "stopped":
            cluster.start()
        elif what == "paused":
            cluster.resume()
        elif what == "out of connections":
            cluster.sql("ALTER ROLE app CONNECTION LIMIT -1")
        elif what == "read-only":
            cluster.sql("ALTER SYSTEM RESET default_transaction_read_only")
            cluster.sql("SELECT pg_reload_conf()")
        elif what == "wrong password":
            cluster.sql("ALTER ROLE app PASSWORD 'secret'")
        elif what == "wrong schema version":
            cluster.sql("UPDATE bigfib_schema SET version = 1")
        elif self._held:
            self._held.close()


WORDS = {
    "stopped": "Connection refused",
    "paused": "does not answer in time",
    "out of connections": "too many connections",
    "read-only": "read-only",
    "wrong password": "password authentication failed",
    "wrong schema version": "version 2 of bigfib's tables",
    "table locked": "lock timeout",
}


class TestTrouble:
    @pytest.fixture
    def url(self, cluster: Cluster) -> str:
        """The store for a user who has to give a password."""
        cluster.sql(
            "CREATE ROLE app LOGIN PASSWORD 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON bigfib_sequences TO app",
            "GRANT SELECT, UPDATE ON bigfib_schema TO app",
        )
        access = cluster.data / "pg_hba.conf"
        access.write_text(f"host all app 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        cluster.sql("SELECT pg_reload_conf()")
        return cluster.url().replace("postgres@", "app:secret@")

    @pytest.mark.parametrize("what", WORDS)
    def test_is_told_and_mends_itself(
        self, serve: Serve, cluster: Cluster, url: str, what: str
    ) -> None:
        service = serve("--store", url)
        assert [service.value("next") for _ in range(3)] == [1, 1, 2]
        trouble = Trouble(cluster)
        trouble.cause(what)
        if what in ("read-only", "wrong schema version"):
            # Who asks first whether it is ready finds out, before a step does.
            while service.ask("/readyz")[0].status == 200:
                pass
        began = time.monotonic()
        reply, body = service.ask("/api1/sequences/shared/next?by=2", "POST")
        assert time.monotonic() - began < ANSWER_SECONDS + 1
        assert reply.status == 503
        unknown = b"unknown whether" in body
        assert unknown == (what == "paused"), body
        assert b"If-Match" in body if unknown else b"nothing has changed" in body
        # From now on nobody is kept waiting.
        for path, status in (("/livez", 200), ("/readyz", 503), ("/api1/sequences/shared", 503)):
            began = time.monotonic()
            reply, body = service.ask(path)
            assert time.monotonic() - began < 1
            assert reply.status == status, body
            if status == 503:
                assert reply.headers["Retry-After"] == "1"
                assert reply.headers["Content-Type"] == "application/problem+json"
        for name in ("next", "previous", "current"):
            reply, body = service.ask(f"/api0/{name}")
            assert (reply.status, body) == (503, LOST)
            assert reply.headers["Retry-After"] == "1"
        assert service.ask("/api1/sequences", "POST")[0].status == 503
        assert service.ask("/api1/terms/100")[0].status == 200
        trouble.mend(what)
        began = time.monotonic()
        while service.ask("/readyz")[0].status != 200:
            assert time.monotonic() - began < 5
        stands = position(cluster.url())
        assert stands in ((3, 5) if unknown else (3,))
        assert service.ask("/api0/next")[1] == body_at(stands + 1)
        assert service.stop(signal.SIGTERM) == 0
        said = "".join(service.said)
        assert WORDS[what] in said
        assert "secret" not in said
        assert "Traceback" not in said

    def test_whether_a_sequence_is_created_is_unknown(self, serve: Serve, database: str) -> None:
        service = serve("--store", database)
        with psycopg.connect(database) as connection:
            # It is created, and the connection ended before that is told.
            connection.execute(
                b"""CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$"""
            )
            connection.execute(
                b"CREATE CONSTRAINT TRIGGER t AFTER INSERT ON bigfib_sequences DEFERRABLE "
                b"INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang_up()"
            )
        path = f"/api1/sequences/{'a' * 32}"
        for asked in (("/api1/sequences", "POST"), (path, "PUT", {"If-None-Match": "*"})):
            reply, body = service.ask(*asked)
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            detail = json.loads(body)["detail"]
            assert "Send this again" in detail
            assert "expires" in detail
            assert json.loads(body)["type"] == "urn:bigfib:problem:unknown-outcome"
            assert "If-Match" not in detail, "which a creation has not"

    def test_a_reply_that_has_begun_is_cut_off(self, serve: Serve, cluster: Cluster) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        assert service.value("next") == 1
        with (
            closing(psycopg.connect(cluster.url())) as other,
            socket.create_connection((service.host, service.port), timeout=20) as client,
        ):
            other.execute("SELECT * FROM bigfib_sequences FOR UPDATE")
            client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: x\r\n\r\n")
            received = client.recv(65536)
            assert received.startswith(b"HTTP/1.1 200")
            cluster.kill()
            while piece := client.recv(65536):
                received += piece
        assert received.endswith(b"\r\n\r\n1\r\n{\r\n"), "no digits, and no end of chunks"
        cluster.start()
        while service.ask("/readyz")[0].status != 200:
            pass
        assert service.value("next") == 1
        assert service.stop(signal.SIGTERM) == 0
        said = "".join(service.said)
        assert "1 replies are aborted" in said
        assert "Traceback" not in said

    def test_one_sequence_locked(self, serve: Serve, database: str) -> None:
        """Each request for it is answered in time, and all others are served meanwhile."""
        service = serve("--store", database, "--per-client")
        locked, free = "a" * 32, "b" * 32
        with service.connect() as connection:
            for _ in range(2):
                for one in (locked, free):
                    assert ask(connection, "/api0/next", cookie=one)[0].status == 200
        stop = threading.Event()
        steps: list[bytes] = []
        slowest = 0.0

        def step_the_others() -> None:
            nonlocal slowest
            with service.connect() as connection:
                while not stop.is_set():
                    began = time.monotonic()
                    reply, body = ask(connection, "/api0/next", cookie=free)
                    assert reply.status == 200, body
                    slowest = max(slowest, time.monotonic() - began)
                    steps.append(body)

        with psycopg.connect(database) as other:
            other.execute(
                "SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [bytes.fromhex(locked)]
            )
            stepping = threading.Thread(target=step_the_others)
            stepping.start()
            for _ in range(4):
                began = time.monotonic()
                # Its reply has begun, so it is cut off.
                with pytest.raises(HTTPException), service.connect() as connection:
                    ask(connection, "/api0/next", cookie=locked)
                assert 2.5 < time.monotonic() - began < 3
                with service.connect() as connection:
                    assert ask(connection, "/api0/current", cookie=locked)[1] == body_at(2)
                reply, body = service.ask(f"/api1/sequences/{locked}/next", "POST")
                assert reply.status == 503
                assert reply.headers["Retry-After"] == "1"
                detail = json.loads(body)["detail"]
                assert "locked" in detail
                assert "Nothing has changed" in detail
                assert service.ask("/readyz")[0].status == 200
            other.rollback()
        until = time.monotonic() + 10
        while service.ask(f"/api1/sequences/{locked}/next", "POST")[0].status != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        stop.set()
        stepping.join()
        assert position(database, bytes.fromhex(locked)) == 3
        assert position(database, bytes.fromhex(free)) == 2 + len(steps)
        # Two seconds it would be if the connection were lost each time.
        assert slowest < 1.5
        assert service.stop(signal.SIGTERM) == 0
        said = "".join(service.said)
        assert "lost" not in said
        assert "Traceback" not in said

    @pytest.mark.parametrize(
        ("what", "says"),
        [
            ("wrong password", "password authentication failed"),
            ("wrong schema version", "version 2 of bigfib's tables"),
            ("stopped", "Connection refused"),
        ],
    )
    def test_at_the_start_it_is_one_line(
        self, cluster: Cluster, url: str, what: str, says: str
    ) -> None:
        Trouble(cluster).cause(what)
        done = run("serve", "-p", "0", "--store", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr


class TestEncrypted:
    def test_to_a_server_that_is_known(
        self, serve: Serve, cluster: Cluster, tmp_path: Path, require: Callable[[str], str]
    ) -> None:
        require("openssl")
        cluster.sql(
            "CREATE ROLE app LOGIN PASSWORD 'secret'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON bigfib_sequences TO app",
            "GRANT SELECT, UPDATE ON bigfib_schema TO app",
        )
        authority = cluster.offer_tls("app")
        passfile = tmp_path / "pgpass"
        passfile.write_text("localhost:*:*:app:secret\n")
        passfile.chmod(0o600)
        server = f"postgresql://app@localhost:{cluster.port}/postgres?passfile={passfile}"
        verified = f"{server}&sslmode=verify-full&sslrootcert="
        service = serve("--store", f"{verified}{authority}")
        assert [service.value("next") for _ in range(3)] == [1, 1, 2]
        assert cluster.sql(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE usename = 'app'"
        ) == [(True,)]
        assert run("current", "--store", f"{verified}{authority}").stdout == "2\n"
        # One that another authority vouches for, and one that has another name.
        wrong = tmp_path / "wrong.pem"
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=b")
        files = ("-keyout", tmp_path / "key", "-out", wrong)
        subprocess.run(["openssl", *new, *files], check=True, capture_output=True)
        elsewhere = verified.replace("@localhost", "@127.0.0.1")
        for command, url, says in (
            (("serve", "-p", "0"), f"{verified}{wrong}", "certificate verify failed"),
            (("current",), f"{verified}{wrong}", "certificate verify failed"),
            (("next",), f"{elsewhere}{authority}", "does not match host name"),
            (("next",), f"{server}&sslmode=disable", "no encryption"),
            (("store", "init"), f"{verified}/nowhere.pem", "/nowhere.pem"),
        ):
            done = run(*command, "--store", url)
            assert (done.returncode, done.stdout) == (1, "")
            assert says in done.stderr
            assert done.stderr.count("\n") == 1
            assert "secret" not in done.stderr


class TestFailover:
    def test_no_acknowledged_step_is_lost(
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
            # No step was acknowledged twice: only F(1) = F(2) is a term that occurs again.
            assert len(acknowledged) > 1000
            assert len(set(acknowledged)) >= len(acknowledged) - 1
            for service in services:
                assert service.stop(signal.SIGTERM) == 0
                assert "Traceback" not in "".join(service.said)


def synchronous_standby(primary: Cluster, port: int) -> Cluster:
    """Return a running standby that has all that the primary says is committed."""
    standby = primary.standby(port)
    # Promoted, it waits for none.
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("synchronous_standby_names = ''\n")
    standby.start()
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    while primary.sql("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
        pass
    return standby


class Client(threading.Thread):
    """Steps forward all the time, and asks again when there is no answer, or none that says so."""

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


class TestWorkers:
    def test_share_the_port_and_stop_together(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "3")
        pids = await_children(service.process.pid, 3)
        before = {pid: sockets(pid) for pid in pids}
        with ExitStack() as opened:
            connections = [opened.enter_context(service.connect()) for _ in range(60)]
            for connection in connections:
                assert ask(connection, "/api0/next")[0].status == 200
            # The kernel deals them out; that one of three gets none of 60 happens once in 10^10.
            assert all(sockets(pid) > baseline for pid, baseline in before.items())
        assert position(database) == 60
        assert service.stop(signal.SIGTERM) == 0
        assert not any(alive(pid) for pid in pids)

    def test_each_has_a_cpu_of_its_own_and_says_which_it_is(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database, "--workers", "3", "--one-cpu")
        allowed = sorted(os.sched_getaffinity(0))
        pids: dict[int, int] = {}

        def note(line: str) -> None:
            assert line, "it has ended"
            place = re.search(r"\(worker (\d) of 3, pid (\d+)\) listens on", line)
            if place:
                pids[int(place[1])] = int(place[2])

        note(service.said[-1])
        assert service.process.stderr is not None
        while len(pids) < 3:
            note(service.process.stderr.readline())
        assert set(pids.values()) == children(service.process.pid)
        # Who is started in the place of another takes its CPU.
        os.kill(pids.pop(2), signal.SIGKILL)
        while 2 not in pids:
            note(service.process.stderr.readline())
        for number, pid in pids.items():
            assert os.sched_getaffinity(pid) == {allowed[(number - 1) % len(allowed)]}
        assert service.stop(signal.SIGTERM) == 0

    def test_one_that_is_killed_is_started_again(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "2")
        pids = await_children(service.process.pid, 2)
        killed = min(pids)
        os.kill(killed, signal.SIGKILL)
        now = await_children(service.process.pid, 2, without=killed)
        assert len(now - pids) == 1
        for _ in range(20):
            service.ask("/api0/next")
        assert position(database) == 20
        assert service.stop(signal.SIGINT) == 0
        assert f"worker {killed} has ended (status -9)" in "".join(service.said)
        assert not any(alive(pid) for pid in now)

    def test_none_outlives_the_supervisor(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "2")
        pids = await_children(service.process.pid, 2)
        service.process.kill()
        until = time.monotonic() + 5
        try:
            while any(alive(pid) for pid in pids):
                assert time.monotonic() < until
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def test_what_keeps_them_from_serving_is_one_line(self, path: Path) -> None:
        done = run("serve", "-p", "0", "--workers", "2", "--store", "postgresql://127.0.0.1:1/x")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "Connection refused" in done.stderr
        done = run("serve", "-p", "0", "--workers", "2", "-f", str(path))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "--store postgresql://" in done.stderr
        assert not path.exists()

    def test_the_port_is_theirs_alone(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "2")
        done = run("serve", "-p", str(service.port), "--workers", "2", "--store", database)
        assert done.returncode == 1
        assert "Address already in use" in done.stderr


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def await_children(pid: int, count: int, without: int = 0) -> set[int]:
    until = time.monotonic() + 20
    while len(found := children(pid) - {without}) < count:
        assert time.monotonic() < until
    return found


def sockets(pid: int) -> int:
    """Return how many sockets the process has open."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(link.readlink()).startswith("socket:")
    return count


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bigfib", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=30,
        check=False,
    )


class TestCommandLine:
    def test_init_then_step(self, cluster: Cluster) -> None:
        cluster.sql("DROP TABLE bigfib_schema, bigfib_sequences")
        url = cluster.url()
        done = run("next", "--store", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert "make them with `bigfib store init`" in done.stderr
        assert run("store", "init", "--store", url).stdout == "version 1: made\n"
        assert run("store", "init", BIGFIB_STORE=url).stdout == "version 1: is there already\n"
        for arguments, shown in (
            (("next",), "1"),
            (("next", "--by", "9"), "55"),
            (("previous",), "34"),
            (("current",), "34"),
            (("seek", "100"), "354224848179261915075"),
            (("current",), "354224848179261915075"),
        ):
            done = run(*arguments, BIGFIB_STORE=url)
            assert (done.stdout, done.stderr) == (f"{shown}\n", ""), done
        assert position(url) == 100

    def test_current_only_reads(self, cluster: Cluster) -> None:
        """For one who may do nothing else, where nothing else can be done."""
        cluster.sql(
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON bigfib_sequences, bigfib_schema TO reader",
            rf"INSERT INTO bigfib_sequences VALUES ('\x{SHARED.hex()}', 10, 1)",
            # Old enough to be forgotten.
            r"INSERT INTO bigfib_sequences VALUES ('\x01', 10, 1)",
        )
        before = transactions(cluster.url())
        done = run("current", "--store", cluster.url(user="reader"))
        assert (done.stdout, done.stderr) == ("55\n", "")
        assert run("current", "--store", cluster.url()).stdout == "55\n"
        assert transactions(cluster.url()) == before + 1, "this one"
        cluster.sql("ALTER SYSTEM SET default_transaction_read_only = on")
        cluster.sql("SELECT pg_reload_conf()")
        assert run("current", "--store", cluster.url()).stdout == "55\n"
        done = run("current", "--store", cluster.url("none"))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert 'database "none" does not exist' in done.stderr

    def test_without_the_driver(self, tmp_path: Path) -> None:
        # What Python finds in its place cannot be imported.
        (tmp_path / "psycopg.py").write_text("raise ImportError('none here')\n")
        for command in (("serve", "-p", "0"), ("current",), ("next",), ("store", "init")):
            done = run(*command, "--store", "postgresql://h/x", PYTHONPATH=str(tmp_path))
            assert done.returncode == 1
            assert done.stderr == (
                "bigfib: a store in a database needs psycopg: pip install 'bigfib[postgres]' "
                "(none here)\n"
            )
        done = run("next", "-f", str(tmp_path / "log"), PYTHONPATH=str(tmp_path))
        assert done.stdout == "1\n", "a state log needs none"

    def test_init_without_a_database(self, path: Path) -> None:
        for arguments in ((), ("--store", str(path))):
            done = run("store", "init", *arguments)
            assert done.returncode == 1
            assert "name a database with --store" in done.stderr
