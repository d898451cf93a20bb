"""The tables of a store in a database."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from bigfib.state.postgres import schema
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import (
    StoreError,
    TablesMissing,
)
from tests.postgres import Cluster
from tests.service import until
from tests.state.postgres.stores import ONE, opened, rows, run


class TestSchema:
    def test_init_again_and_by_ten_at_once_creates_the_tables_once(
        self, shared_cluster: Cluster
    ) -> None:
        shared_cluster.sql("CREATE DATABASE many_makers TEMPLATE template0")
        url = shared_cluster.url("many_makers")
        with pytest.raises(TablesMissing, match=r"no tables of bigfib$"):
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
        assert schema.init(url) == "is there already"
        with opened(url) as store:
            store.create(ONE, 3)
        assert schema.init(url) == "is there already"
        assert {one: at for one, (at, _) in rows(url).items()} == {ONE: 3}, "nothing is made anew"

    def test_tables_that_an_older_or_a_newer_bigfib_needs_are_refused(self, database: str) -> None:
        run(database, "UPDATE bigfib_schema SET version = 3, newest = 3")
        for use in (Postgres, schema.init):
            with pytest.raises(StoreError, match=r"version 3 .* knows version 2"):
                use(database)
        run(database, "UPDATE bigfib_schema SET version = 1, newest = 1")
        with pytest.raises(StoreError, match=r"version 1 .* needs version 2; run `bigfib store"):
            Postgres(database)

    def test_newer_tables_for_this_version_too_are_used_and_keep_the_connection(
        self, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(database) as store:
            run(database, "UPDATE bigfib_schema SET version = 2, newest = 3")
            store.check()
            store.create(ONE, 3)
        with opened(database) as store:
            assert store.find(ONE) == 3
        assert schema.init(database) == "is there already"
        assert caplog.text == ""

    def test_version_1_is_added_to_while_its_servers_step(self, database: str) -> None:
        # The schema of version 1, and a step of its servers.
        run(database, "ALTER TABLE bigfib_schema DROP COLUMN newest")
        run(database, "ALTER TABLE bigfib_sequences DROP COLUMN version")
        run(database, rf"INSERT INTO bigfib_sequences VALUES ('\x{ONE.hex()}', 0, 1)")
        made = threading.Event()
        steps = 0

        def step() -> None:
            nonlocal steps
            with psycopg.connect(database, autocommit=True, prepare_threshold=0) as server:
                while not made.is_set() or steps < 20:
                    row = server.execute(
                        "UPDATE bigfib_sequences SET position = position + 1::numeric, "
                        "day = greatest(day, 5) WHERE id = %s AND position >= 0 "
                        "RETURNING trunc(position)",
                        [ONE],
                    ).fetchone()
                    steps += 1
                    assert row == (steps,)
                assert server.execute("SELECT version FROM bigfib_schema").fetchall() == [(1,)]

        with ThreadPoolExecutor() as pool:
            stepping = pool.submit(step)
            try:
                until(lambda: steps or stepping.done())
                with psycopg.connect(database) as other:
                    # A backup, for example: `init` waits for it, and nobody waits for `init`.
                    other.execute("SELECT FROM bigfib_sequences")
                    making = pool.submit(schema.init, database)
                    before = steps
                    until(lambda: steps > before + 20 or stepping.done())
                assert making.result() == "made from version 1"
            finally:
                made.set()
            stepping.result()
        with opened(database) as store:
            assert store.step(ONE, 1, 0, 10**9) == steps + 1
            assert store.version(ONE) == 2

    def test_position_that_is_none_is_refused_by_the_table(self, database: str) -> None:
        for position in ("-1", "0.5", "'NaN'", "'Infinity'", "'-Infinity'"):
            with pytest.raises(psycopg.errors.CheckViolation):
                run(database, f"INSERT INTO bigfib_sequences VALUES ('x', {position}, 0)")
