"""Old sequences, and a server whose clock is wrong."""

from collections.abc import Callable

import psycopg
import pytest

from tests.service import Serve


@pytest.mark.parametrize("days", [91, -91])
def test_server_whose_clock_is_wrong_deletes_no_sequence_and_notes_the_day_of_the_database(
    serve: Serve, database: str, wrong_clock: Callable[[int], list[str]], days: int
) -> None:
    today = "(now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO bigfib_sequences SELECT decode(to_hex(n), 'hex'), 1, {today} "
            "FROM generate_series(16, 99) AS n".encode()
        )
        service = serve("--store", database, before=wrong_clock(days))
        for _ in range(5):
            assert service.ask("/api1/sequences", "POST")[0].status == 201
        rows = connection.execute(
            f"SELECT count(*), max(abs(day - ({today}))) FROM bigfib_sequences".encode()
        ).fetchall()
    # At midnight the day may have changed meanwhile.
    assert rows in ([(89, 0)], [(89, 1)])
