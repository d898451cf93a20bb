"""A store in a database: batches, positions and counts."""

import threading
import time

import psycopg
import pytest

from bigfib.sequences import SHARED
from bigfib.state.postgres import store as postgres_store
from bigfib.state.store import (
    Place,
    PositionMismatch,
    Steps,
)
from tests.postgres import Cluster
from tests.state.postgres.stores import ONE, OTHER, opened, rows, run


class TestBatches:
    def test_batch_makes_what_may_be_made_and_nothing_else(self, database: str) -> None:
        with opened(database) as store:
            store.create(ONE, 10)
            store.create(OTHER, 20)
            steps = [Steps(OTHER, 3, 0, 99), Steps(ONE, -2, 2, 99), Steps(b"none", 1, 0, 99)]
            assert store.step_all(steps, [OTHER, b"none"]) == [23, 8, None, 23, None]
            # Changes that are not allowed are not made; the others are.
            assert store.step_all([Steps(ONE, -9, 9, 99), Steps(OTHER, 1, 0, 99)]) == [None, 24]
            assert (store.find(ONE), store.find(OTHER)) == (8, 24)

    def test_batches_in_opposite_order_do_not_deadlock(self, database: str) -> None:
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


class TestPositions:
    def test_position_of_ten_thousand_digits_is_stepped_exactly(self, database: str) -> None:
        far = 10**10_000
        with opened(database) as store:
            store.create(ONE, far)
            assert store.step(ONE, 1, 0, far) == far + 1
            with pytest.raises(PositionMismatch) as mismatch:
                store.put(ONE, 0, Place(far))
            assert mismatch.value.position == far + 1
            store.put(ONE, far * 7, Place(far + 1))
            assert store.step_all([Steps(ONE, -1, far, far * 7)], [ONE]) == [far * 7 - 1] * 2

    def test_position_with_a_fraction_of_zero_counts_as_whole(self, database: str) -> None:
        with opened(database) as store:
            run(database, rf"INSERT INTO bigfib_sequences VALUES ('\x{ONE.hex()}', 5.00, 0)")
            assert store.find(ONE) == 5
            assert store.step(ONE, 1, 5, 5) == 6
            store.put(ONE, 7, Place(6))
            assert store.step_all([Steps(ONE, 1, 0, 9)], [ONE]) == [8, 8]


class TestCounting:
    def test_count_includes_sequences_created_by_other_servers(
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

    def test_count_by_the_only_connection_includes_existing_sequences(
        self, cluster: Cluster
    ) -> None:
        with opened(cluster.url()) as store:
            store.create(ONE, 1)
        cluster.sql(
            "CREATE ROLE one LOGIN CONNECTION LIMIT 1",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO one",
        )
        with opened(cluster.url(user="one")) as store:
            assert (store.holds(1), store.holds(2)) == (True, False)
            store.create(OTHER, 1)
            assert store.holds(2)

    def test_holds_when_counting_takes_too_long_keeps_the_last_count(
        self,
        cluster: Cluster,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        cluster.sql(
            "ALTER TABLE bigfib_sequences ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY fast ON bigfib_sequences USING (true)",
            "CREATE ROLE one LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO one",
        )
        monkeypatch.setattr(postgres_store, "COUNT_SECONDS", 0.0)
        with opened(cluster.url(user="one")) as store:
            assert not store.holds(1)
            store.create(ONE, 1)
            # From here on, counting another connection's sequence takes longer than a count may.
            cluster.sql(
                f"INSERT INTO bigfib_sequences VALUES ('\\x{OTHER.hex()}', 1, 1)",
                "DROP POLICY fast ON bigfib_sequences",
                "CREATE POLICY slow ON bigfib_sequences USING "
                f"(id <> '\\x{OTHER.hex()}' OR pg_sleep(2) IS NOT NULL)",
            )
            until = time.monotonic() + 20
            while "cannot count the sequences" not in caplog.text:
                began = time.monotonic()
                assert not store.holds(2)
                assert began < until
            assert time.monotonic() - began < 1
            # The count is not retried at once.
            began = time.monotonic()
            assert (store.holds(1), store.holds(2)) == (True, False)
            assert time.monotonic() - began < 0.1
            assert store.find(ONE) == 1
            assert not store.is_lost()

    def test_holds_while_the_table_is_locked_uses_the_last_count(self, database: str) -> None:
        with opened(database) as store:
            assert not store.holds(1)
            store.create(ONE, 1)
            with psycopg.connect(database) as other:
                other.execute("LOCK bigfib_sequences IN ACCESS EXCLUSIVE MODE")
                assert (store.holds(1), store.holds(2)) == (True, False)


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


def test_version_grows_with_each_change_though_the_position_returns(database: str) -> None:
    with opened(database) as store, opened(database) as another:
        assert store.version(ONE) == 0
        store.create(ONE, 5)
        first = store.version(ONE)
        assert [(store.step(ONE, by, 0, 9), store.version(ONE)) for by in (1, -1)] == [
            (6, first + 1),
            (5, first + 2),
        ]
        store.put(ONE, 5, Place(5))
        assert store.version(ONE) == first + 3
        with pytest.raises(PositionMismatch):
            store.put(ONE, 5, Place(6))
        assert another.step_all([Steps(ONE, 2, 0, 9)]) == [7]
        found = [another.version(one) for one in (ONE, OTHER, ONE)]
        assert found == [first + 4, 0, first + 4]
        assert store.version(ONE) == first + 3, "at the position last returned here"
        assert (store.find(ONE), store.version(ONE)) == (7, first + 4)
        store.delete(ONE)
        assert store.version(ONE) == 0
