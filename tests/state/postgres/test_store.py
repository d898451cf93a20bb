"""A store in a database: what it asks of the database, and what it says when that is not had."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psycopg
import pytest

from bigfib.sequences import SHARED
from bigfib.state.postgres import schema
from bigfib.state.postgres import store as postgres_store
from bigfib.state.postgres.session import ANSWER_SECONDS
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import (
    LOCKED,
    WAIT_SECONDS,
    OutcomeUnknown,
    PositionMismatch,
    SequenceLocked,
    SequenceNotFound,
    Steps,
    StoreError,
    Unavailable,
)
from tests.postgres import Cluster

ONE, OTHER = bytes(16), bytes(range(16))
DAY = 86_400


@contextmanager
def opened(url: str, days_kept: int | None = None, now: float = 0) -> Iterator[Postgres]:
    with closing(
        Postgres(url, days_kept=days_kept, permanent=SHARED, clock=lambda: now or time.time())
    ) as store:
        yield store


def rows(url: str) -> dict[bytes, tuple[int, int]]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id, position, day FROM bigfib_sequences").fetchall()
    return {one: (int(position), day) for one, position, day in found}


def run(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@contextmanager
def held_for(url: str, sequence_id: bytes, seconds: float) -> Iterator[Callable[[], None]]:
    """Give what has another connection hold the sequence for so long, from its return on."""
    with psycopg.connect(url) as connection:
        threads: list[threading.Timer] = []

        def hold() -> None:
            connection.execute(
                "SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [sequence_id]
            )
            threads.append(threading.Timer(seconds, connection.rollback))
            threads[-1].start()

        yield hold
        for thread in threads:
            thread.join()


class TestSchema:
    def test_made_twice_and_by_ten_at_once(self, shared_cluster: Cluster) -> None:
        shared_cluster.sql("CREATE DATABASE many_makers TEMPLATE template0")
        url = shared_cluster.url("many_makers")
        with pytest.raises(StoreError, match="bigfib store init"):
            Postgres(url)
        failures = []
        start = threading.Barrier(10)

        def make() -> None:
            start.wait()
            try:
                schema.init(url)
            except StoreError as error:
                failures.append(error)

        makers = [threading.Thread(target=make) for _ in range(10)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
        assert failures == []
        assert schema.init(url) is False
        with opened(url) as store:
            store.create(ONE, 3)
        assert schema.init(url) is False
        assert {one: at for one, (at, _) in rows(url).items()} == {ONE: 3}, "nothing is made anew"

    def test_another_version_is_refused(self, database: str) -> None:
        run(database, "UPDATE bigfib_schema SET version = 2")
        for use in (Postgres, schema.init):
            with pytest.raises(StoreError, match=r"version 2 .* knows version 1"):
                use(database)

    def test_what_is_no_position_is_not_taken(self, database: str) -> None:
        for position in ("-1", "0.5", "'NaN'", "'Infinity'", "'-Infinity'"):
            with pytest.raises(psycopg.errors.CheckViolation):
                run(database, f"INSERT INTO bigfib_sequences VALUES ('x', {position}, 0)")


class TestConnecting:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("postgresql://127.0.0.1:1/x", "refused"),
            ("postgresql://nowhere.invalid/x", "nowhere.invalid"),
            # Without libpq's words, in which there may be a password.
            ("postgresql://[/x", "the connection string is not valid"),
            ("postgresql://h/x?nonsense=1", "the connection string is not valid"),
        ],
    )
    def test_to_what_is_none(self, url: str, says: str) -> None:
        with pytest.raises(StoreError, match=says) as error:
            Postgres(url)
        assert "\n" not in str(error.value)

    def test_past_a_host_that_is_down_and_one_that_is_read_only(
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

    def test_a_database_that_promises_less(
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
        assert "fsync is off, so power loss takes steps back" in caplog.text
        assert "synchronous_commit is off, so a crash takes steps back" in caplog.text


class TestBatches:
    def test_many_in_one_transaction(self, database: str) -> None:
        with opened(database) as store:
            store.create(ONE, 10)
            store.create(OTHER, 20)
            steps = [Steps(OTHER, 3, 0, 99), Steps(ONE, -2, 2, 99), Steps(b"none", 1, 0, 99)]
            assert store.step_all(steps, [OTHER, b"none"]) == [23, 8, None, 23, None]
            # What may not be made is not; the rest is.
            assert store.step_all([Steps(ONE, -9, 9, 99), Steps(OTHER, 1, 0, 99)]) == [None, 24]
            assert (store.find(ONE), store.find(OTHER)) == (8, 24)

    def test_two_that_step_the_same_in_opposite_order(self, database: str) -> None:
        # Each would hold what the other waits for, until the database ends one, after a second.
        ids = [bytes([number]) * 16 for number in range(20)]
        with opened(database) as store:
            for one in ids:
                store.create(one, 0)
        slowest = 0.0

        def step(order: list[bytes]) -> None:
            nonlocal slowest
            with opened(database) as store:
                for _ in range(50):
                    began = time.monotonic()
                    store.step_all([Steps(one, 1, 0, 10**6) for one in order])
                    slowest = max(slowest, time.monotonic() - began)

        threads = [threading.Thread(target=step, args=[order]) for order in (ids, ids[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {at for at, _ in rows(database).values()} == {100}
        assert slowest < 0.9


class TestRetries:
    def test_a_serialization_failure_is_tried_again(self, database: str) -> None:
        # Under this isolation all but one of those who step at once are refused (40001).
        name = database.rpartition("/")[2]
        run(database, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        with opened(database) as store:
            store.create(ONE, 0)

        def step() -> None:
            with opened(database) as store:
                for _ in range(100):
                    store.step_all([Steps(ONE, 1, 0, 10**6)], [OTHER])

        threads = [threading.Thread(target=step) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert rows(database)[ONE][0] == 400

    def test_but_not_for_ever(self, database: str) -> None:
        with opened(database) as store:
            store.create(ONE, 0)
            # A trigger that always is in the way.
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
            with pytest.raises(Unavailable, match="others are in the way"):
                store.step(ONE, 1, 0, 9)
            assert time.monotonic() - began < ANSWER_SECONDS
            assert store.find(ONE) == 0

    def test_a_connection_broken_by_a_step_is_no_reason_for_another(self, database: str) -> None:
        # The step is made, and its connection ended before it is told: by the step itself.
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
            # The next finds a fresh connection, at once.
            before = store.find(ONE)
            assert before in (0, 1)
            assert store.step(ONE, 1, 0, 9) == before + 1

    def test_a_commit_that_the_standby_may_not_have_is_unknown(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            # One that is not there; somebody then ends the wait for it.
            cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            cluster.sql("SELECT pg_reload_conf()")
            cancelled: list[object] = []

            def cancel() -> None:
                until = time.monotonic() + 20
                while not cancelled:
                    assert time.monotonic() < until
                    cancelled.extend(
                        cluster.sql(
                            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                            "WHERE wait_event = 'SyncRep'"
                        )
                    )

            canceller = threading.Thread(target=cancel)
            canceller.start()
            with pytest.raises(OutcomeUnknown, match="synchronous replication"):
                store.step(ONE, 1, 0, 9)
            canceller.join()
        assert cluster.sql("SELECT position FROM bigfib_sequences") == [(1,)], "it is made here"

    def test_any_other_warning_is_only_told(
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


class TestLockedSequence:
    """Somebody holds one sequence in a transaction that does not end."""

    def test_a_step_of_it_is_refused_and_others_are_not(self, database: str) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            store.create(OTHER, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            for _ in range(3):
                with pytest.raises(SequenceLocked, match="nothing has changed"):
                    store.step(ONE, 1, 0, 9)
                assert store.find(ONE) == 5
                assert store.step(OTHER, 1, 0, 9)
            with pytest.raises(SequenceLocked):
                store.put(ONE, 7)
            with pytest.raises(SequenceLocked):
                store.delete(ONE)
            assert (store.may_step(ONE), store.may_step(OTHER)) == (False, True)
            store.check()
            other.rollback()
            assert store.step(ONE, 1, 0, 9) == 6
            assert store.may_step(ONE)

    @pytest.mark.parametrize("held", [0.4, 2.3])
    def test_a_change_waits_for_a_row_that_is_held_for_a_while(
        self, database: str, held: float
    ) -> None:
        with opened(database) as store, held_for(database, ONE, held) as hold:
            store.create(ONE, 5)
            hold()
            assert store.step(ONE, 1, 0, 9) == 6
            hold()
            store.put(ONE, 7)
            assert store.find(ONE) == 7

    def test_a_change_of_a_row_that_stays_locked_is_refused_within_the_limit(
        self, database: str
    ) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            began = time.monotonic()
            with pytest.raises(SequenceLocked):
                store.step(ONE, 1, 0, 9)
            assert WAIT_SECONDS <= time.monotonic() - began < 3
            other.rollback()
            assert store.find(ONE) == 5

    def test_nobody_waits_for_it_again_and_again(
        self, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        locked = [bytes([number]) * 16 for number in range(3)]
        with opened(database) as store, psycopg.connect(database) as other:
            for one in (*locked, OTHER):
                store.create(one, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [OTHER])
            # All that are free are stepped, and each time the others are hardly waited for.
            steps = [Steps(one, 1, 0, 999) for one in (*locked, OTHER)]
            began = time.monotonic()
            for number in range(50):
                assert store.step_all(steps) == [LOCKED, LOCKED, LOCKED, 6 + number]
            assert time.monotonic() - began < 10
            other.rollback()
            assert store.step_all(steps) == [6, 6, 6, 56]
        assert "lost" not in caplog.text

    def test_any_number_of_them_is_sorted_out_at_once(self, database: str) -> None:
        many = [b"%016d" % number for number in range(200)]
        with opened(database) as store, psycopg.connect(database) as other:
            for one in (*many, OTHER):
                store.create(one, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [OTHER])
            steps = [Steps(one, 1, 0, 99) for one in (*many, b"none", OTHER)]
            began = time.monotonic()
            assert store.step_all(steps, [ONE]) == [LOCKED] * 200 + [None, 6, None]
            assert time.monotonic() - began < 1

    def test_a_batch_reports_everything_locked_while_the_table_is(self, database: str) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            other.execute("LOCK bigfib_sequences IN ACCESS EXCLUSIVE MODE")
            assert store.step_all([Steps(ONE, 1, 0, 99)], [OTHER]) == [LOCKED, LOCKED]
            other.rollback()
            assert store.step_all([Steps(ONE, 1, 0, 99)], [OTHER]) == [6, None]

    def test_one_that_is_let_go_is_stepped_at_once_though_another_stays_locked(
        self, database: str
    ) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            store.create(OTHER, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            with psycopg.connect(database) as briefly:
                briefly.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [OTHER])
                for one in (ONE, OTHER):
                    with pytest.raises(SequenceLocked):
                        store.step(one, 1, 0, 9)
            assert store.step(OTHER, 1, 0, 9) == 6

    def test_one_that_others_step_all_the_time_is_not_locked(self, database: str) -> None:
        # They hold it at most moments, but none of them for long.
        stepping = threading.Event()
        stepping.set()

        def step() -> None:
            with psycopg.connect(database) as other:
                while stepping.is_set():
                    other.execute("UPDATE bigfib_sequences SET position = position + 1")
                    time.sleep(0.02)
                    other.commit()

        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            with pytest.raises(SequenceLocked):
                store.step(ONE, 1, 0, 9)
            stepper = threading.Thread(target=step)
            stepper.start()
            other.rollback()
            try:
                assert self._stepped_at_last(store) > 5
            finally:
                stepping.clear()
                stepper.join()

    def test_one_that_is_no_more_is_missing(self, database: str) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            other.execute("DELETE FROM bigfib_sequences WHERE id = %s", [ONE])
            with pytest.raises(SequenceLocked):
                store.step(ONE, 1, 0, 9)
            other.commit()
            with pytest.raises(SequenceNotFound):
                self._stepped_at_last(store)

    def test_a_wait_in_vain_makes_the_next_ones_short(self, database: str) -> None:
        many = [b"%016d" % number for number in range(50)]
        with opened(database) as store, psycopg.connect(database) as other:
            for one in (*many, OTHER):
                store.create(one, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [OTHER])
            began = time.monotonic()
            for one in many:
                with pytest.raises(SequenceLocked):
                    store.step(one, 1, 0, 9)
            # Were each waited for as long as the first, it would take more than two minutes.
            assert time.monotonic() - began < 15
            other.rollback()
            assert [self._stepped_at_last(store, one) for one in many] == [6] * 50

    def test_what_is_slow_is_not_locked(self, database: str) -> None:
        with opened(database) as store:
            store.create(ONE, 5)
            run(
                database,
                """CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_sleep(2.7); RETURN new; END$$""",
            )
            run(
                database,
                "CREATE TRIGGER t BEFORE UPDATE ON bigfib_sequences "
                "FOR EACH ROW EXECUTE FUNCTION sleep()",
            )
            with pytest.raises(Unavailable, match="too long") as error:
                store.step(ONE, 1, 0, 9)
            assert not isinstance(error.value, SequenceLocked)
            with pytest.raises(Unavailable, match="too long"):
                store.step_all([Steps(ONE, 1, 0, 9)])
            assert store.may_step(ONE)
            run(database, "DROP TRIGGER t ON bigfib_sequences")
            assert store.find(ONE) == 5, "nothing has changed"
            assert store.step(ONE, 1, 0, 9) == 6

    @pytest.mark.parametrize("moment", ["BEFORE UPDATE", "AFTER UPDATE"])
    def test_a_batch_is_not_cut_off_for_being_slow(self, database: str, moment: str) -> None:
        when = "CONSTRAINT TRIGGER t" if moment.startswith("AFTER") else "TRIGGER t"
        deferred = "DEFERRABLE INITIALLY DEFERRED" if moment.startswith("AFTER") else ""
        with opened(database) as store:
            store.create(ONE, 5)
            run(
                database,
                """CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM pg_sleep(2.3); RETURN new; END$$""",
            )
            run(
                database,
                f"CREATE {when} {moment} ON bigfib_sequences {deferred} "
                "FOR EACH ROW EXECUTE FUNCTION sleep()",
            )
            assert store.step_all([Steps(ONE, 1, 0, 9)]) == [6]

    @staticmethod
    def _stepped_at_last(store: Postgres, one: bytes = ONE) -> int:
        until = time.monotonic() + 10
        while True:
            try:
                return store.step(one, 1, 0, 10**6)
            except SequenceLocked:
                assert time.monotonic() < until


class TestPositions:
    def test_of_ten_thousand_digits(self, database: str) -> None:
        far = 10**10_000
        with opened(database) as store:
            store.create(ONE, far)
            assert store.step(ONE, 1, 0, far) == far + 1
            with pytest.raises(PositionMismatch) as mismatch:
                store.put(ONE, 0, far)
            assert mismatch.value.position == far + 1
            store.put(ONE, far * 7, far + 1)
            assert store.step_all([Steps(ONE, -1, far, far * 7)], [ONE]) == [far * 7 - 1] * 2

    def test_written_with_a_fraction_of_zero(self, database: str) -> None:
        with opened(database) as store:
            run(database, rf"INSERT INTO bigfib_sequences VALUES ('\x{ONE.hex()}', 5.00, 0)")
            assert store.find(ONE) == 5
            assert store.step(ONE, 1, 5, 5) == 6
            store.put(ONE, 7, 6)
            assert store.step_all([Steps(ONE, 1, 0, 9)], [ONE]) == [8, 8]


class TestReadiness:
    """`check` finds out before a step does."""

    def test_read_only_finds_another_host(
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
            until = time.monotonic() + 20
            # It finds out, and the other host.
            while store.host != f"127.0.0.1:{shared_cluster.port}":
                assert time.monotonic() < until
                with suppress(Unavailable):
                    store.check()
            store.check()
        # As it says of itself, or as it says when a change is tried.
        assert re.search("the database is read-only|in a read-only transaction", caplog.text)

    def test_what_is_known_of_a_loss(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            assert not store.is_lost()
            cluster.stop()
            with pytest.raises(Unavailable):
                store.check()
            assert store.is_lost()
            cluster.start()
            until = time.monotonic() + 20
            # It is found again though nobody asks for it.
            while store.is_lost():
                assert time.monotonic() < until

    def test_another_version(self, database: str) -> None:
        with opened(database) as store:
            store.check()
            run(database, "UPDATE bigfib_schema SET version = 2")
            with pytest.raises(Unavailable, match="version 2"):
                store.check()
            assert not store.may_step(ONE)
            run(database, "UPDATE bigfib_schema SET version = 1")
            until = time.monotonic() + 20
            while not store.may_step(ONE):
                assert time.monotonic() < until
            store.check()

    @pytest.mark.parametrize("mode", ["SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
    def test_a_locked_table(self, database: str, mode: str) -> None:
        with opened(database) as store:
            store.create(ONE, 5)
            with psycopg.connect(database) as other:
                other.execute(f"LOCK bigfib_sequences IN {mode} MODE".encode())
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    store.check()
                assert time.monotonic() - began < ANSWER_SECONDS / 2
            until = time.monotonic() + 20
            while not store.may_step(ONE):
                assert time.monotonic() < until
            store.check()
            assert store.find(ONE) == 5


class TestCounting:
    def test_what_others_have_created_is_noticed(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_store, "COUNT_SECONDS", 0.05)
        with opened(database) as store, opened(database) as another:
            until = time.monotonic() + 20
            another.create(SHARED, 1)
            another.create(ONE, 1)
            another.create(OTHER, 1)
            assert not store.holds(3)
            while not store.holds(2):
                assert time.monotonic() < until
            another.delete(ONE)
            while store.holds(2):
                assert time.monotonic() < until
            assert store.holds(1)

    def test_what_is_there_at_the_start_counts_from_the_first_request_on(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 1)
        # There is no second connection, by which the others are counted.
        cluster.sql(
            "CREATE ROLE one LOGIN CONNECTION LIMIT 1",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO one",
        )
        with opened(cluster.url(user="one")) as store:
            assert (store.holds(1), store.holds(2)) == (True, False)
            store.create(OTHER, 1)
            assert store.holds(2)
            until = time.monotonic() + 20
            while "cannot be counted" not in caplog.text:
                assert time.monotonic() < until
        assert "too many connections for role" in caplog.text

    def test_what_is_created_while_it_is_counted(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 1)
        # To see this one takes a while.
        cluster.sql(
            "ALTER TABLE bigfib_sequences ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY p ON bigfib_sequences USING "
            f"(id <> '\\x{ONE.hex()}' OR pg_sleep(0.7) IS NOT NULL)",
            "CREATE ROLE one LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO one",
        )
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bigfib'"
        counts = f"{sessions} AND state = 'active' AND query LIKE 'SELECT count%'"
        until = time.monotonic() + 20
        with opened(cluster.url(user="one")) as store:
            assert store.holds(1)
            while cluster.sql(counts) == [(0,)]:
                assert time.monotonic() < until
            store.create(OTHER, 1)
            assert cluster.sql(counts) == [(1,)]
            while cluster.sql(sessions) != [(1,)]:
                assert time.monotonic() < until
            assert (store.holds(2), store.holds(3)) == (True, False)

    def test_nobody_waits_for_it(self, database: str) -> None:
        with opened(database) as store:
            assert store.counted == 0
            store.create(ONE, 1)
            with psycopg.connect(database) as other:
                other.execute("LOCK bigfib_sequences IN ACCESS EXCLUSIVE MODE")
                assert (store.holds(1), store.holds(2)) == (True, False)


class TestExpiry:
    def test_what_nobody_touches_is_deleted(self, database: str) -> None:
        today = 20_000
        with opened(database, now=(today - 91) * DAY) as store:
            store.create(SHARED, 1)
            for number in range(2500):
                store.create(b"old%d" % number, 5)
            store.create(ONE, 5)
        with opened(database, now=(today - 90) * DAY) as store:
            store.create(OTHER, 5)
            assert store.step(ONE, 1, 0, 9) == 6
        with opened(database, days_kept=90, now=today * DAY):
            until = time.monotonic() + 20
            while len(rows(database)) > 3:
                assert time.monotonic() < until
        assert rows(database) == {
            SHARED: (1, today - 91),
            ONE: (6, today - 90),
            OTHER: (5, today - 90),
        }

    def test_a_clock_set_back_makes_nothing_older(self, database: str) -> None:
        with opened(database, now=500 * DAY) as store:
            store.create(ONE, 0)
        with opened(database, now=400 * DAY) as store:
            store.step(ONE, 1, 0, 9)
            store.put(ONE, 7)
        assert rows(database) == {ONE: (7, 500)}


class TestLoss:
    """What happens to the database, and what is said of it, in time."""

    def test_an_idle_connection_that_was_closed_costs_nothing(
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

    def test_a_paused_server_is_waited_for_once(self, cluster: Cluster) -> None:
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
            # The step that nobody knew of was made once or not at all.
            assert position in (0, 1)
            assert store.step(ONE, 1, 0, 9) == position + 1

    def test_a_locked_table(self, cluster: Cluster) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            with psycopg.connect(cluster.url()) as other:
                # Reading is possible, changing is not.
                other.execute("LOCK bigfib_sequences IN EXCLUSIVE MODE")
                with pytest.raises(Unavailable, match="lock timeout"):
                    store.step(ONE, 1, 0, 9)
                with pytest.raises(Unavailable):
                    store.check()
                assert not store.may_step(ONE), "nobody is kept waiting"
                other.rollback()
            assert self._found_again(store) == 0
            assert store.step(ONE, 1, 0, 9) == 1

    def test_waiting_for_a_standby_does_not_use_up_connections(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 0)
            cluster.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            cluster.sql("SELECT pg_reload_conf()")
            with pytest.raises(OutcomeUnknown):
                store.step(ONE, 1, 0, 9)
            until = time.monotonic() + 20
            # Every attempt to connect tries a commit, which waits for the missing standby.
            attempts = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bigfib'"
            seen: set[object] = set()
            while len(seen) < 3:
                assert time.monotonic() < until
                seen |= {
                    pid
                    for (pid,) in cluster.sql(
                        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    )
                }
            ((left,),) = cluster.sql(attempts)
            assert isinstance(left, int)
            assert left <= 2
            cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
            cluster.sql("SELECT pg_reload_conf()")
            assert self._found_again(store) == 1
        assert "does not answer in time" in caplog.text

    @staticmethod
    def _found_again(store: Postgres) -> int | None:
        until = time.monotonic() + 10
        while True:
            try:
                return store.find(ONE)
            except Unavailable:
                assert time.monotonic() < until


def test_no_sequence_is_stepped_by_two_at_once_from_the_same_position(database: str) -> None:
    with opened(database) as store:
        store.create(ONE, 5)
    made, refused_at = [], []
    start = threading.Barrier(8)

    def step() -> None:
        with opened(database) as store:
            start.wait()
            try:
                made.append(store.step(ONE, 1, 5, 5))
            except PositionMismatch as mismatch:
                refused_at.append(mismatch.position)

    threads = [threading.Thread(target=step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [6]
    assert refused_at == [6] * 7
