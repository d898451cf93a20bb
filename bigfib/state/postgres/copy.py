"""Copy every sequence from a state log to a database, or back: all of them, or none.

Before the copy is committed, source and target are compared: the number of sequences, and the
position, version and day of each. A copy that fails leaves the target empty. No server may run
meanwhile: the lock of a log ensures that, but a database has no such lock.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from gmpy2 import mpz

from bigfib.state import files, floor, reader
from bigfib.state.log import Log
from bigfib.state.packed import unpack
from bigfib.state.postgres import schema
from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Session, connect, one_line
from bigfib.state.store import StoreError

# How many sequences are fetched at a time.
_FETCHED: Final = 10_000

# How many changes are made between two commits of the log.
_WAITING: Final = 1000

_DAY_SECONDS: Final = 86_400

# By day, as in a log, so that the day seldom changes between records.
_ROWS: Final = b"SELECT id, position, version, day FROM bigfib_sequences ORDER BY day, id"

_Row = tuple[bytes, int, int, int]
"""Id, position, version and day of last touch."""


def log_to_database(path: Path, conninfo: str) -> int:
    """Copy every sequence of the log at ``path``, and return their number.

    Raises:
        LogError: The log cannot be read, or a process is writing to it.
        StoreError: The database is not empty, or cannot be reached.
    """
    with Log(path) as log, _transaction(conninfo) as connection:
        if connection.execute(b"SELECT id FROM bigfib_sequences LIMIT 1").fetchone():
            raise StoreError("the database has sequences already; copy into an empty one")
        with (
            connection.cursor() as cursor,
            cursor.copy(b"COPY bigfib_sequences (id, position, version, day) FROM STDIN") as copy,
        ):
            for sequence_id, packed in log.latest.items():
                position, version, day = unpack(packed)
                # As text, because Python itself, and so psycopg, writes at most 4,300 digits.
                copy.write_row((sequence_id, mpz(position).digits(), version, day))
        _require_same(_rows(connection), log.latest)
        return len(log.latest)


def database_to_log(conninfo: str, path: Path) -> int:
    """Copy every sequence of the database into a log at ``path``, and return their number.

    Raises:
        LogError, CommitFailed: The log cannot be written.
        StoreError: The log has sequences already, or the database cannot be reached.
    """
    with _transaction(conninfo) as connection, Log(path) as target:
        if target.latest:
            raise StoreError(f"state log {path} has sequences already; copy into a new one")
        unfinished = target.path.with_name(target.path.name + ".copy")
        lock = unfinished.with_name(unfinished.name + ".lock")
        for leftover in (unfinished, floor.path_of(unfinished)):
            leftover.unlink(missing_ok=True)
        try:
            _write(unfinished, _rows(connection))
            contents = reader.read(unfinished)
            _require_same(_rows(connection), contents.latest)
            unfinished.rename(target.path)
            files.sync_directory(os, target.path.parent)
        finally:
            for leftover in (unfinished, lock, floor.path_of(unfinished)):
                leftover.unlink(missing_ok=True)
        return len(contents.latest)


def _write(path: Path, rows: Iterator[_Row]) -> None:
    today = 0
    # The log takes the day of each record from its clock.
    with Log(path, clock=lambda: today * _DAY_SECONDS) as log:
        for number, (sequence_id, position, version, today) in enumerate(rows):  # noqa: B007
            log.note(sequence_id, position, version)
            if number % _WAITING == 0:
                log.commit()


@contextlib.contextmanager
def _transaction(conninfo: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    """Open a transaction that sees one snapshot of the database, and commit it at the end."""
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
        for sequence_id, position, version, day in cursor.execute(_ROWS):
            yield bytes(sequence_id), int(position), version, day  # type: ignore[call-overload, misc]


def _require_same(rows: Iterator[_Row], latest: dict[bytes, int]) -> None:
    """Compare the rows of a database with the live records of a log.

    Raises:
        StoreError: They differ; with the first sequence that does, or the numbers of sequences.
    """
    count = 0
    for sequence_id, *row in rows:
        count += 1
        if sequence_id not in latest or unpack(latest[sequence_id]) != tuple(row):
            raise StoreError(f"nothing is copied: {sequence_id.hex()} would differ")
    if count != len(latest):
        raise StoreError(f"nothing is copied: {count} sequences instead of {len(latest)}")
