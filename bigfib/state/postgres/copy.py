"""Every sequence from a state log to a database, or back: all of them, or none.

Both ends are compared before the copy counts: how many there are, and where each stands. A copy
that does not come to its end leaves the target empty. Servers have to be stopped meanwhile; a log
says so by its lock, a database cannot.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from gmpy2 import mpz

from bigfib.state import files, reader, records
from bigfib.state.log import Log
from bigfib.state.postgres import schema
from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Session, connect, one_line
from bigfib.state.store import StoreError

# Sequences that are fetched at a time.
_FETCHED: Final = 10_000

_DAY_SECONDS: Final = 86_400

# By day, as a log is written; then the day begins anew only now and then.
_ROWS: Final = b"SELECT id, position, day FROM bigfib_sequences ORDER BY day, id"

_Row = tuple[bytes, int, int]
"""Id, position and day of last touch."""


def log_to_database(path: Path, conninfo: str) -> int:
    """Copy every sequence of the log at ``path``, and return how many they are.

    Raises:
        LogError: the log cannot be read, or a process is writing to it.
        StoreError: the database is not empty, or cannot be had.
    """
    with Log(path) as log, _transaction(conninfo) as connection:
        if connection.execute(b"SELECT id FROM bigfib_sequences LIMIT 1").fetchone():
            raise StoreError("the database has sequences already; copy into an empty one")
        with (
            connection.cursor() as cursor,
            cursor.copy(b"COPY bigfib_sequences (id, position, day) FROM STDIN") as copy,
        ):
            for sequence_id, packed in log.latest.items():
                position, day = records.unpack(packed)
                # As text: Python itself, and so psycopg, writes no more than 4,300 digits.
                copy.write_row((sequence_id, mpz(position).digits(), day))
        _require_same(_rows(connection), log.latest)
        return len(log.latest)


def database_to_log(conninfo: str, path: Path) -> int:
    """Copy every sequence of the database into a log at ``path``, and return how many they are.

    Raises:
        LogError: the log has sequences already, or cannot be written.
        StoreError: the database cannot be had.
    """
    with _transaction(conninfo) as connection, Log(path) as target:
        if target.latest:
            raise StoreError(f"state log {path} has sequences already; copy into a new one")
        unfinished = target.path.with_name(target.path.name + ".copy")
        lock = unfinished.with_name(unfinished.name + ".lock")
        unfinished.unlink(missing_ok=True)
        try:
            _write(unfinished, _rows(connection))
            contents = reader.read(unfinished)
            _require_same(_rows(connection), contents.latest)
            unfinished.rename(target.path)
            files.sync_directory(os, target.path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        return len(contents.latest)


def _write(path: Path, rows: Iterator[_Row]) -> None:
    today = 0
    # The log takes the day of each record from its clock.
    with Log(path, clock=lambda: today * _DAY_SECONDS) as log:
        for sequence_id, position, today in rows:  # noqa: B007 - the clock reads it
            log.append(sequence_id, position)


@contextlib.contextmanager
def _transaction(conninfo: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """Give a connection whose transaction sees one state of the database, and commit at the end."""
    try:
        session = Session(conninfo)
        with contextlib.closing(session):
            schema.require(session)
        with connect(conninfo) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            yield connection
    except CannotConnect as error:
        raise StoreError(str(error)) from error
    except (Refused, Broken, psycopg.Error) as error:
        raise StoreError(f"nothing is copied: {one_line(str(error))}") from error


def _rows(connection: "psycopg.Connection[tuple[object, ...]]") -> Iterator[_Row]:
    with connection.cursor("rows") as cursor:
        cursor.itersize = _FETCHED
        for sequence_id, position, day in cursor.execute(_ROWS):
            yield bytes(sequence_id), int(position), day  # type: ignore[call-overload, misc]


def _require_same(rows: Iterator[_Row], latest: dict[bytes, int]) -> None:
    """Return if the rows are the sequences that a log has as its latest.

    Raises:
        StoreError: they are not; with the first that differs, or how many there are.
    """
    count = 0
    for sequence_id, position, day in rows:
        count += 1
        if latest.get(sequence_id) != records.pack(position, day):
            raise StoreError(f"nothing is copied: {sequence_id.hex()} would differ")
    if count != len(latest):
        raise StoreError(f"nothing is copied: {count} sequences instead of {len(latest)}")
