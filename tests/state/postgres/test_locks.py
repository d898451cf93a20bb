"""Sequences that another connection to the database holds locked."""

import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from bigfib.state.postgres.store import Postgres
from bigfib.state.store import (
    LOCKED,
    WAIT_SECONDS,
    SequenceLocked,
    SequenceNotFound,
    Steps,
    Unavailable,
)
from tests.state.postgres.stores import ONE, OTHER, held_for, opened, run


class TestLockedSequence:
    """Another connection holds a sequence locked in a transaction that does not end."""

    def test_step_of_a_locked_sequence_is_refused_and_others_are_made(self, database: str) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            store.create(OTHER, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            changes: list[Callable[[], object]] = [
                lambda: store.step(ONE, 1, 0, 9),
                lambda: store.put(ONE, 7),
                lambda: store.delete(ONE),
            ]
            for number, change in enumerate(changes):
                with pytest.raises(SequenceLocked, match="nothing has changed"):
                    change()
                assert store.find(ONE) == 5
                assert store.step(OTHER, 1, 0, 9) == 6 + number
            assert store.is_open()
            store.check()
            other.rollback()
            assert store.step(ONE, 1, 0, 9) == 6

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

    def test_batches_hardly_wait_for_locked_sequences(
        self, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        locked = [bytes([number]) * 16 for number in range(3)]
        with opened(database) as store, psycopg.connect(database) as other:
            for one in (*locked, OTHER):
                store.create(one, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [OTHER])
            # All free sequences are stepped, and the locked ones hardly delay them.
            steps = [Steps(one, 1, 0, 999) for one in (*locked, OTHER)]
            began = time.monotonic()
            for number in range(50):
                assert store.step_all(steps) == [LOCKED, LOCKED, LOCKED, 6 + number]
            assert time.monotonic() - began < 10
            other.rollback()
            assert store.step_all(steps) == [6, 6, 6, 56]
        assert "lost" not in caplog.text

    def test_batch_with_200_locked_sequences_takes_less_than_a_second(self, database: str) -> None:
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

    def test_released_sequence_is_stepped_at_once_though_another_stays_locked(
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

    def test_sequence_that_others_step_all_the_time_is_not_locked(self, database: str) -> None:
        # Others hold it at most moments, but each of them briefly.
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

    def test_locked_sequence_that_is_then_deleted_is_missing(self, database: str) -> None:
        with opened(database) as store, psycopg.connect(database) as other:
            store.create(ONE, 5)
            other.execute("DELETE FROM bigfib_sequences WHERE id = %s", [ONE])
            with pytest.raises(SequenceLocked):
                store.step(ONE, 1, 0, 9)
            other.commit()
            with pytest.raises(SequenceNotFound):
                self._stepped_at_last(store)

    def test_after_a_wait_in_vain_changes_wait_no_longer_than_has_passed_since(
        self, database: str
    ) -> None:
        many = [b"%016d" % number for number in range(50)]
        with opened(database) as store, psycopg.connect(database) as other:
            for one in (*many, OTHER):
                store.create(one, 5)
            other.execute("SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [OTHER])
            began = time.monotonic()
            for one in many:
                with pytest.raises(SequenceLocked):
                    store.step(one, 1, 0, 9)
            # If each were waited for as long as the first, it would take more than two minutes.
            assert time.monotonic() - began < 15
            other.rollback()
            assert [store.step(one, 1, 0, 9) for one in many] == [6] * 50

    def test_a_row_that_was_waited_for_in_vain_is_waited_for_again(self, database: str) -> None:
        with opened(database) as store, held_for(database, ONE, 3.5) as hold:
            store.create(ONE, 5)
            hold()
            with pytest.raises(SequenceLocked):
                store.step(ONE, 1, 0, 9)
            time.sleep(0.6)
            assert store.step(ONE, 1, 0, 9) == 6

    def test_slow_step_is_not_reported_as_locked(self, database: str) -> None:
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
            assert store.is_open()
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
