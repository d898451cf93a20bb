"""Servers use their database through PgBouncer."""

import signal
from concurrent.futures import ThreadPoolExecutor

from tests.postgres import Cluster, pgbouncer
from tests.service import Serve, Service
from tests.shared_store.asking import ask, position, run


def step_100_times(service: Service) -> None:
    with service.connect() as connection:
        for number in range(100):
            if number % 3:
                reply, body = ask(connection, "/api0/next")
            else:
                reply, body = ask(connection, "/api1/sequences/shared/next", "POST")
            assert reply.status == 200, body


def test_steps_through_few_connections_in_transaction_mode_count_once(
    serve: Serve, shared_cluster: Cluster, database: str
) -> None:
    with pgbouncer(shared_cluster, database, "transaction", connections=2) as url:
        assert run("store", "init", "--store", url).stdout == "version 2: is there already\n"
        services = [serve("--store", url, "--workers", "2") for _ in range(2)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(step_100_times, services * 4))
        assert position(database) == 800
        # Its read-only setting must not stay in a connection that others use, too.
        assert run("current", "--store", url).returncode == 0
        step_100_times(services[0])
        for service in services:
            assert service.stop(signal.SIGTERM) == 0
            said = "".join(service.said)
            assert "Traceback" not in said
            assert "lost" not in said


def test_session_mode_without_a_connection_left_is_an_error_that_says_so(
    serve: Serve, shared_cluster: Cluster, database: str
) -> None:
    with pgbouncer(shared_cluster, database, "session", connections=1) as url:
        service = serve("--store", url)
        step_100_times(service)
        done = run("next", "--store", url)
        assert (done.returncode, done.stdout) == (1, "")
        assert "a pooler without a connection left" in done.stderr
        assert done.stderr.count("\n") == 1
        assert service.stop(signal.SIGTERM) == 0
        # The service has released the only connection.
        assert run("next", "--store", url).returncode == 0
