"""Servers whose database refuses them, is lost, or comes back."""

import json
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from bigfib.state.postgres.session import ANSWER_SECONDS
from tests.postgres import Cluster
from tests.service import Serve
from tests.shared_store.asking import LOST, PATIENT, body_at, position, run


class Trouble:
    """A trouble of a database, as user ``app`` meets it, and how it ends."""

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
            cluster.sql("UPDATE bigfib_schema SET version = 3, newest = 3")
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
            cluster.sql("UPDATE bigfib_schema SET version = 1, newest = 3")
        elif self._held:
            self._held.close()


WORDS = {
    "stopped": "Connection refused",
    "paused": "does not answer in time",
    "out of connections": "too many connections",
    "read-only": "read-only",
    "wrong password": "password authentication failed",
    "wrong schema version": "version 3 of bigfib's tables",
    "table locked": "lock timeout",
}


class TestTrouble:
    @pytest.fixture
    def url(self, cluster: Cluster) -> str:
        """The store for a user who needs a password."""
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
    def test_trouble_is_reported_in_time_and_service_recovers(
        self, serve: Serve, cluster: Cluster, url: str, what: str
    ) -> None:
        service = serve("--store", url)
        assert [service.value("next") for _ in range(3)] == [1, 1, 2]
        trouble = Trouble(cluster)
        trouble.cause(what)
        if what in ("read-only", "wrong schema version"):
            # The readiness check, if it comes first, notices it before a step does.
            while service.ask("/readyz")[0].status == 200:
                pass
        began = time.monotonic()
        reply, body = service.ask("/api1/sequences/shared/next?by=2", "POST")
        assert time.monotonic() - began < ANSWER_SECONDS + 1
        assert reply.status == 503
        unknown = b"unknown whether" in body
        assert unknown == (what == "paused"), body
        assert b"If-Match" in body if unknown else b"nothing has changed" in body
        # From now on no client has to wait.
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

    def test_idle_connection_is_kept_alive_within_20_seconds(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        service = serve("--store", cluster.url())
        service.value("next")
        # The kernel's timer of the connection: 2 is keepalive, with the time when it is due.
        to = f"0100007F:{cluster.port:04X}"
        lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        timers = {fields[5] for fields in lines if (fields[2], fields[3]) == (to, "01")}
        (timer,) = timers
        kind, due = (int(part, 16) for part in timer.split(":"))
        assert kind == 2
        assert due / os.sysconf("SC_CLK_TCK") <= 20

    def test_creation_whose_connection_breaks_says_that_the_outcome_is_unknown(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database)
        with psycopg.connect(database) as connection:
            # The sequence is created, and the connection ends before the answer.
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

    def test_reply_that_has_begun_when_the_database_dies_is_cut_off(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        service = serve("--store", f"{cluster.url()}?{PATIENT}")
        assert service.value("next") == 1
        with (
            closing(psycopg.connect(cluster.url())) as other,
            socket.create_connection((service.host, service.port), timeout=20) as client,
        ):
            other.execute("SELECT * FROM bigfib_sequences FOR UPDATE")
            client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
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

    @pytest.mark.parametrize(
        ("what", "says"),
        [
            ("wrong password", "password authentication failed"),
            ("wrong schema version", "version 3 of bigfib's tables"),
            ("stopped", "Connection refused"),
        ],
    )
    def test_trouble_at_start_is_an_error_of_one_line(
        self, cluster: Cluster, url: str, what: str, says: str
    ) -> None:
        Trouble(cluster).cause(what)
        done = run("serve", "-p", "0", "--store", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr
