"""Look up the position of a sequence in a shared store."""

from contextlib import closing
from typing import Final

from gmpy2 import mpz

from bigfib.state.postgres import schema, standby
from bigfib.state.postgres.session import (
    Broken,
    CannotConnect,
    Refused,
    Rows,
    Session,
    Statement,
)
from bigfib.state.store import StoreError

PLACE: Final = b"trunc(position), version"
"""The columns that `place` reads."""

FIND: Final = b"SELECT " + PLACE + b" FROM bigfib_sequences WHERE id = $1::bytea"
"""The statement that finds a sequence by its id."""


def find(conninfo: str, sequence_id: bytes) -> int | None:
    """Return the position of the sequence, or None if there is none; change nothing.

    Raises:
        StoreError: No server can be connected to, or the database lacks the tables.
    """
    try:
        with closing(Session(conninfo, only_reads=True)) as session:
            schema.require(session)
            look = standby.confirmed(FIND) if standby.can_confirm(session) else FIND
            return place(session.run(Statement(look, (bytea(sequence_id),)))[0])[0]
    except (CannotConnect, Refused, Broken) as error:
        raise StoreError(str(error)) from error


def bytea(value: bytes) -> bytes:
    """Return the text by which PostgreSQL reads these bytes."""
    return b"\\x" + value.hex().encode()


def numeric(number: int) -> bytes:
    """Return the digits of a number of any length."""
    # Python's `int` refuses to read and write more than 4,300 digits.
    digits: str = mpz(number).digits()
    return digits.encode()


def place(rows: Rows) -> tuple[int | None, int]:
    """Return position and version from the rows of a query; None and 0 if there is no sequence."""
    if not rows or not rows[0][0]:
        return None, 0
    position, version, *_ = rows[0]
    return int(mpz(position.decode())), int(version)
