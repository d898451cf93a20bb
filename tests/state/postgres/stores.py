"""Stores, rows and locks for the tests of a store in a database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg

from bigfib.sequences import SHARED
from bigfib.state.postgres.store import Postgres

ONE, OTHER = bytes(16), bytes(range(16))


@contextmanager
def opened(url: str, days_kept: int | None = None) -> Iterator[Postgres]:
    with closing(Postgres(url, days_kept=days_kept, permanent=SHARED)) as store:
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
    """Return a function that makes another connection lock the sequence for some seconds."""
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
