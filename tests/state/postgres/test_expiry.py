"""Sequences that nobody touches are deleted from the database."""

import logging
import time

import psycopg
import pytest

from bigfib.sequences import SHARED
from bigfib.state.postgres import expiry
from tests.service import until
from tests.state.postgres.stores import ONE, OTHER, opened, rows, run

TODAY = int(time.time()) // 86_400


def insert(url: str, count: int, day: int) -> None:
    run(
        url,
        "INSERT INTO bigfib_sequences "
        f"SELECT decode(lpad(n::text, 8, '0'), 'hex'), 1, {day} FROM generate_series(1, {count}) n",
    )


class TestExpiry:
    def test_sequences_untouched_for_too_long_are_deleted_in_small_shares(
        self, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        insert(database, 2497, TODAY - 92)
        for one, day in ((SHARED, 92), (ONE, 91), (OTHER, 89)):
            run(
                database,
                rf"INSERT INTO bigfib_sequences VALUES ('\x{one.hex()}', 5, {TODAY - day})",
            )
        monkeypatch.setattr(expiry, "INTERVAL_SECONDS", 0.3)
        monkeypatch.setattr(expiry, "_BATCH", 10)
        with opened(database, days_kept=90) as store:
            assert store.step(ONE, 1, 0, 9) == 6
            assert len(rows(database)) == 2500, "not at the start"
            until(lambda: caplog.text.count("deleted") >= 2)
            monkeypatch.setattr(expiry, "INTERVAL_SECONDS", 60.0)
        assert "deleted 25 of 2500 sequences" in caplog.text
        assert "deleted 24 of 2475 sequences" in caplog.text
        assert rows(database).keys() >= {SHARED, ONE, OTHER}

    def test_last_of_few_old_sequences_is_deleted_though_others_are_locked(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(expiry, "INTERVAL_SECONDS", 0.05)
        insert(database, 3, TODAY - 92)
        with psycopg.connect(database) as other:
            other.execute(
                "SELECT FROM bigfib_sequences WHERE id <> %s FOR UPDATE", [bytes([0, 0, 0, 3])]
            )
            with opened(database, days_kept=90):
                until(lambda: len(rows(database)) == 2)
            assert bytes([0, 0, 0, 3]) not in rows(database)

    def test_change_by_an_earlier_clock_makes_no_sequence_older(self, database: str) -> None:
        run(database, rf"INSERT INTO bigfib_sequences VALUES ('\x{ONE.hex()}', 5, {TODAY + 50})")
        with opened(database) as store:
            store.step(ONE, 1, 0, 9)
            store.put(ONE, 7)
        assert rows(database) == {ONE: (7, TODAY + 50)}
