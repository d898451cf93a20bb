"""Connections to a database that refuses, fails or is lost."""

import logging
import re
import threading
import time
from contextlib import suppress

import psycopg
import pytest

from bigfib.state.postgres import schema
from bigfib.state.postgres.session import ANSWER_SECONDS
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import (
    LOCKED,
    OutcomeUnknown,
    Steps,
    StoreError,
    Unavailable,
)
from tests.postgres import Cluster
from tests.service import until
from tests.state.postgres.stores import ONE, OTHER, opened, rows, run


def require_a_standby_that_is_not_there(cluster: Cluster) -> None:
    """Make commits wait for ever, and wait until they do."""
    cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    def commit() -> None:
        with suppress(psycopg.OperationalError):
            while True:
                cluster.sql("SELECT pg_logical_emit_message(true, 'test', '')")

    committing = threading.Thread(target=commit)
    committing.start()
    until(lambda: cluster.sql(f"SELECT pg_terminate_backend(pid) {waiting}"))
    committing.join()


class TestConnecting:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("postgresql://127.0.0.1:1/x", "refused"),
            ("postgresql://nowhere.invalid/x", "nowhere.invalid"),
            # Without libpq's words, in which there may be a password.
            ("postgresql://[/x", "the connection string is not valid"),
            ("postgresql://h/x?nonsense=1", "libpq does not know: nonsense"),
            ("host=h nonsense = 1 dbname=x", "libpq does not know: nonsense"),
        ],
    )
    def test_connect_without_a_server_or_a_valid_string_is_an_error_of_one_line(
        self, url: str, says: str
    ) -> None:
        with pytest.raises(StoreError, match=says) as error:
            Postgres(url)
        assert "\n" not in str(error.value)

    def test_connect_skips_hosts_that_are_down_or_read_only(
        self, cluster: Cluster, shared_cluster: Cluster, database: str
    ) -> None:
        name = database.rpartition("/")[2]
        cluster.sql(
            f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET default_transaction_read_only=on"
        )
        hosts = f"127.0.0.1:1,127.0.0.1:{cluster.port},127.0.0.1:{shared_cluster.port}"
        with opened(f"postgresql://postgres@{hosts}/{name}") as store:
            store.create(ONE, 7)
            assert store.host == f"127.0.0.1:{shared_cluster.port}"
        assert rows(database)[ONE][0] == 7

    def test_connect_waits_for_no_row_of_the_schema(self, database: str) -> None:
        with psycopg.connect(database) as other:
            other.execute("UPDATE bigfib_schema SET version = version")
            began = time.monotonic()
            with opened(database):
                assert time.monotonic() - began < 2

    def test_connect_to_a_database_that_may_lose_commits_warns(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(cluster.url()) as store:
            assert store.synchronous_commit == "on"
        assert caplog.text == ""
        cluster.sql("ALTER SYSTEM SET synchronous_commit = off")
        cluster.stop()
        cluster.start(fsync="off")
        with opened(cluster.url()):
            pass
        assert "fsync is off, so power loss may undo steps" in caplog.text
        assert "synchronous_commit is off, so a crash may undo steps" in caplog.text


class TestRetries:
    def test_a_serialization_failure_is_tried_again(self, database: str) -> None:
        # Under this isolation, all but one of several simultaneous steps are refused (40001).
        name = database.rpartition("/")[2]
        run(database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        with opened(database) as store:
            store.create(ONE, 0)

        def step() -> None:
            with opened(database) as store:
                for _ in range(100):
                    # On a busy machine the others hold the row for longer than one attempt waits.
                    while store.step_all([Steps(ONE, 1, 0, 10**6)], [OTHER])[0] == LOCKED:
                        pass

        threads = [threading.Thread(target=step) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert rows(database)[ONE][0] == 400

    def test_serialization_failures_without_end_are_given_up_in_time(self, database: str) -> None:
        with opened(database) as store:
            store.create(ONE, 0)
            # A trigger that always conflicts.
            run(
                database,
                """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE EXCEPTION 'always' USING ERRCODE = '40001'; END$$""",
            )
            run(
                database,
                "CREATE TRIGGER t BEFORE UPDATE ON bigfib_sequences "
                "FOR EACH ROW EXECUTE FUNCTION refuse()",
            )
            began = time.monotonic()
            with pytest.raises(Unavailable, match="other transactions conflict"):
                store.step(ONE, 1, 0, 9)
            assert time.monotonic() - began < ANSWER_SECONDS
            assert store.find(ONE) == 0

    def test_step_that_breaks_the_connection_is_not_retried(self, database: str) -> None:
        # The step is made; the step itself ends its connection before the answer.
        with opened(database) as store:
            store.create(ONE, 0)
            run(
                database,
                """CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$""",
            )
            run(
                database,
                "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON bigfib_sequences DEFERRABLE "
                "INITIALLY DEFERRED FOR EACH ROW WHEN (new.position <> old.position) "
                "EXECUTE FUNCTION hang_up()",
            )
            with pytest.raises(OutcomeUnknown):
                store.step(ONE, 1, 0, 9)
            run(database, "DROP TRIGGER t ON bigfib_sequences")
            # The next change finds a new connection, at once.
            before = store.find(ONE)
            assert before in (0, 1)
            assert store.step(ONE, 1, 0, 9) == before + 1

    def test_a_commit_that_the_standby_may_not_have_is_unknown(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            require_a_standby_that_is_not_there(cluster)
            canceller = threading.Thread(target=until, args=[cluster.cancel_waits])
            canceller.start()
            with pytest.raises(OutcomeUnknown, match="synchronous replication"):
                store.step(ONE, 1, 0, 9)
            canceller.join()
        assert cluster.sql("SELECT position FROM bigfib_sequences") == [(1,)], "it is made here"

    def test_any_other_warning_is_logged_once(
        self, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(database) as store:
            store.create(ONE, 0)
            run(
                database,
                """CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE WARNING 'the disk is nearly full'; RETURN NULL; END$$""",
            )
            run(
                database,
                "CREATE TRIGGER t AFTER UPDATE ON bigfib_sequences "
                "FOR EACH ROW EXECUTE FUNCTION warn()",
            )
            assert [store.step(ONE, 1, 0, 9) for _ in range(3)] == [1, 2, 3]
        assert caplog.text.count("the disk is nearly full") == 1


class TestReadiness:
    """`check` finds a fault before a step does."""

    def test_check_of_a_read_only_host_connects_to_another(
        self,
        cluster: Cluster,
        shared_cluster: Cluster,
        database: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        name = database.rpartition("/")[2]
        cluster.sql(f"CREATE DATABASE {name} TEMPLATE template0")
        schema.init(cluster.url(name))
        hosts = f"127.0.0.1:{cluster.port},127.0.0.1:{shared_cluster.port}"
        with opened(f"postgresql://postgres@{hosts}/{name}") as store:
            store.check()
            assert store.host == f"127.0.0.1:{cluster.port}"
            cluster.sql("ALTER SYSTEM SET default_transaction_read_only = on")
            cluster.sql("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 20
            # It notices, and connects to the other host.
            while store.host != f"127.0.0.1:{shared_cluster.port}":
                assert time.monotonic() < deadline
                with suppress(Unavailable):
                    store.check()
            store.check()
        # As the server itself reports it, or as it shows when a change is tried.
        assert re.search("the database is read-only|in a read-only transaction", caplog.text)

    def test_lost_connection_is_replaced_without_a_request(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            assert not store.is_lost()
            cluster.stop()
            with pytest.raises(Unavailable):
                store.check()
            assert store.is_lost()
            cluster.start()
            deadline = time.monotonic() + 20
            # It reconnects even without a request.
            while store.is_lost():
                assert time.monotonic() < deadline

    def test_check_of_another_version_reconnects_until_it_is_ours(self, database: str) -> None:
        with opened(database) as store:
            store.check()
            run(database, "UPDATE bigfib_schema SET version = 3")
            with pytest.raises(Unavailable, match="version 3"):
                store.check()
            assert not store.is_open()
            run(database, "UPDATE bigfib_schema SET version = 1")
            deadline = time.monotonic() + 20
            while not store.is_open():
                assert time.monotonic() < deadline
            store.check()

    @pytest.mark.parametrize("mode", ["SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
    def test_check_of_a_locked_table_fails_and_later_recovers(
        self, database: str, mode: str
    ) -> None:
        with opened(database) as store:
            store.create(ONE, 5)
            with psycopg.connect(database) as other:
                other.execute(f"LOCK bigfib_sequences IN {mode} MODE".encode())
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    store.check()
                assert time.monotonic() - began < ANSWER_SECONDS / 2
            deadline = time.monotonic() + 20
            while not store.is_open():
                assert time.monotonic() < deadline
            store.check()
            assert store.find(ONE) == 5


class TestLoss:
    """The database is lost for a while, or behaves as if it were."""

    def test_idle_connection_closed_by_the_server_is_replaced_for_the_next_step(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            for number in range(1, 4):
                cluster.sql(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'bigfib'"
                )
                assert store.step(ONE, 1, 0, 9) == number
        assert caplog.text.count("connected to the store") == 3

    def test_paused_server_delays_only_the_first_step(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            cluster.pause()
            began = time.monotonic()
            with pytest.raises(OutcomeUnknown):
                store.step(ONE, 1, 0, 9)
            assert ANSWER_SECONDS - 0.1 < time.monotonic() - began < ANSWER_SECONDS + 1
            time_of_all = time.monotonic()
            for _ in range(20):
                with pytest.raises(Unavailable):
                    store.step(ONE, 1, 0, 9)
            assert time.monotonic() - time_of_all < 1
            cluster.resume()
            position = self._found_again(store)
            # The step of unknown outcome was made once or not at all.
            assert position in (0, 1)
            assert store.step(ONE, 1, 0, 9) == position + 1

    def test_step_while_the_table_is_locked_is_refused_and_later_made(
        self, cluster: Cluster
    ) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            with psycopg.connect(cluster.url()) as other:
                # Reading is possible, changing is not.
                other.execute("LOCK bigfib_sequences IN EXCLUSIVE MODE")
                with pytest.raises(Unavailable, match="lock timeout"):
                    store.step(ONE, 1, 0, 9)
                with pytest.raises(Unavailable):
                    store.check()
                assert not store.is_open(), "nobody is kept waiting"
                other.rollback()
            assert self._found_again(store) == 0
            assert store.step(ONE, 1, 0, 9) == 1

    def test_wait_for_a_standby_leaves_one_connection_and_no_change_that_is_seen(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            require_a_standby_that_is_not_there(cluster)
            with pytest.raises(OutcomeUnknown, match="does not answer in time"):
                store.step(ONE, 1, 0, 9)
            until(lambda: "commits wait for a synchronous standby" in caplog.text)
            assert cluster.sql(waits) == [(1,)]
            assert cluster.sql("SELECT position FROM bigfib_sequences") == [(0,)]
            cluster.sql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            # The step is made when the transaction waits for nothing any more.
            assert self._found_again(store) == 1

    @staticmethod
    def _found_again(store: Postgres) -> int | None:
        deadline = time.monotonic() + 10
        while True:
            try:
                return store.find(ONE)
            except Unavailable:
                assert time.monotonic() < deadline
