"""Create the tables of a store in a database, change them, and check their version.

The SQL is what PostgreSQL, CockroachDB, YugabyteDB and Citus have in common. A position is
``numeric``, so that it has no ceiling; an id is the same bytes as in a state log.

A new version of the schema only adds to the tables, so that servers of the version before it keep
working. Column ``newest`` is the version that the tables have. Column ``version`` is the oldest
one whose servers still work: it is raised when a later bigfib removes what older servers need,
after all of these have been stopped.

Version 2 counts the changes of each sequence; servers of version 1 do not increase that count.
"""

import time
from typing import Final, NamedTuple

from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Rows, Session, Statement
from bigfib.state.store import StoreError, TablesMissing

VERSION: Final = 2
"""The version of the schema that this bigfib reads and writes."""

_STATEMENTS: Final = (
    b"CREATE TABLE IF NOT EXISTS bigfib_schema (version integer PRIMARY KEY)",
    b"CREATE TABLE IF NOT EXISTS bigfib_sequences ("
    b"id bytea PRIMARY KEY, position numeric NOT NULL, day integer NOT NULL, "
    # The last condition refuses infinity and NaN; not every database can name these.
    b"CHECK (position >= 0 AND position = trunc(position) AND position - position = 0))",
    # To find the sequences that expire.
    b"CREATE INDEX IF NOT EXISTS bigfib_sequences_day ON bigfib_sequences (day)",
    b"INSERT INTO bigfib_schema (version) VALUES (1) ON CONFLICT DO NOTHING",
    b"ALTER TABLE bigfib_sequences ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1",
    # This statement is the last: once `newest` is there, everything is.
    b"ALTER TABLE bigfib_schema ADD COLUMN IF NOT EXISTS newest integer NOT NULL DEFAULT %d"
    % VERSION,
)

READ_VERSION: Final = Statement(b"SELECT version, newest FROM bigfib_schema")
"""Its rows are for `versions`."""

# If another process creates the tables at the same moment: unique_violation, duplicate_table,
# duplicate_column and duplicate_object; from CockroachDB, serialization_failure. If a transaction
# uses a table that is to be changed: lock_not_available.
_RETRIED: Final = {"23505", "42P07", "42701", "42710", "40001", "55P03"}
_ATTEMPTS: Final = 20

# Other transactions queue behind a change that waits for a table, so it must not wait long.
_LOCK_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.2

_NO_TABLE: Final = "42P01"
_NO_COLUMN: Final = "42703"


class Versions(NamedTuple):
    """The oldest and the newest version of servers that a database is prepared for."""

    oldest: int
    newest: int


def init(conninfo: str) -> str:
    """Create the tables in the database of ``conninfo``, or upgrade them; return what was done.

    This may be repeated, run by several processes at once, and run while servers use the tables.

    Raises:
        StoreError: The database cannot be reached, refuses, or has another version.
    """
    try:
        session = Session(conninfo, lock_seconds=_LOCK_SECONDS)
    except CannotConnect as error:
        raise StoreError(str(error)) from error
    try:
        found = _versions(session)
        if found and found.newest >= VERSION:
            require(session)
            return "is there already"
        for sql in _STATEMENTS:
            _run(session, Statement(sql))
        require(session)
    except (Refused, Broken) as error:
        raise StoreError(f"cannot create the tables: {error}") from error
    finally:
        session.close()
    return f"made from version {found.newest}" if found else "made"


def require(session: Session) -> None:
    """Check that the database has the tables, in a version that this bigfib can use.

    Raises:
        TablesMissing: It has none.
        StoreError: They are for other versions.
        Refused, Broken: As `Session.run`.
    """
    found = _versions(session)
    if found is None:
        raise TablesMissing
    if trouble := mismatch(found):
        raise StoreError(trouble)


def versions(rows: Rows) -> Versions | None:
    """Return the versions in the rows of `READ_VERSION`, or None if there are none."""
    return (
        Versions(*(max(map(int, column)) for column in zip(*rows, strict=True))) if rows else None
    )


def mismatch(found: Versions | None) -> str:
    """Return why this bigfib cannot use tables of these versions; empty if it can."""
    if found is None:
        return str(TablesMissing())
    if found.newest < VERSION:
        return (
            f"the database has version {found.newest} of bigfib's tables, and this bigfib needs "
            f"version {VERSION}; run `bigfib store init`, servers may go on meanwhile"
        )
    if found.oldest > VERSION:
        return (
            f"the database has version {found.oldest} of bigfib's tables, and this bigfib knows "
            f"version {VERSION}; use one that knows that version"
        )
    return ""


def _versions(session: Session) -> Versions | None:
    try:
        return versions(session.run(READ_VERSION)[0])
    except Refused as refusal:
        if refusal.sqlstate == _NO_COLUMN:
            return Versions(1, 1)
        if refusal.sqlstate == _NO_TABLE:
            return None
        raise


def _run(session: Session, statement: Statement) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            session.run(statement)
        except Refused as refusal:
            if refusal.sqlstate not in _RETRIED or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
