"""Sequences that nobody touches are deleted from the database."""

import time

from bigfib.sequences import SHARED
from tests.state.postgres.stores import DAY, ONE, OTHER, opened, rows


class TestExpiry:
    def test_sequences_untouched_for_too_long_are_deleted(self, database: str) -> None:
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

    def test_clock_set_back_makes_no_sequence_older(self, database: str) -> None:
        with opened(database, now=500 * DAY) as store:
            store.create(ONE, 0)
        with opened(database, now=400 * DAY) as store:
            store.step(ONE, 1, 0, 9)
            store.put(ONE, 7)
        assert rows(database) == {ONE: (7, 500)}
