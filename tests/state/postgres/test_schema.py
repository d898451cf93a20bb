"""The tables of a store in a database."""

import threading

import psycopg
import pytest

from bigfib.state.postgres import schema
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import (
    StoreError,
    TablesMissing,
)
from tests.postgres import Cluster
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

    def test_position_that_is_none_is_refused_by_the_table(self, database: str) -> None:
        for position in ("-1", "0.5", "'NaN'", "'Infinity'", "'-Infinity'"):
            with pytest.raises(psycopg.errors.CheckViolation):
                run(database, f"INSERT INTO bigfib_sequences VALUES ('x', {position}, 0)")
