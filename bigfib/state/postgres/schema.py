"""Create the tables of a store in a database, and check their version.

The SQL is what PostgreSQL, CockroachDB, YugabyteDB and Citus have in common. A position is
``numeric``, so that it has no ceiling; an id is the same bytes as in a state log.
"""

from typing import Final

from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Rows, Session, Statement
from bigfib.state.store import StoreError, TablesMissing

VERSION: Final = 1
"""The version of the schema that this bigfib reads and writes."""

_STATEMENTS: Final = (
    b"CREATE TABLE IF NOT EXISTS bigfib_schema (version integer PRIMARY KEY)",
    b"CREATE TABLE IF NOT EXISTS bigfib_sequences ("
    b"id bytea PRIMARY KEY, position numeric NOT NULL, day integer NOT NULL, "
    # The last condition refuses infinity and NaN, which not every database knows by name.
    b"CHECK (position >= 0 AND position = trunc(position) AND position - position = 0))",
    # To find the sequences that expire.
    b"CREATE INDEX IF NOT EXISTS bigfib_sequences_day ON bigfib_sequences (day)",
    # The last statement: where there is a version, everything is.
    b"INSERT INTO bigfib_schema (version) VALUES (%d) ON CONFLICT DO NOTHING" % VERSION,
)

READ_VERSION: Final = Statement(b"SELECT version FROM bigfib_schema")
"""Its rows are for `version`."""

# Another process creates the tables at the same moment: unique_violation, duplicate_table and
# duplicate_object; from CockroachDB, serialization_failure.
_RETRIED: Final = {"23505", "42P07", "42710", "40001"}
_ATTEMPTS: Final = 10

_NO_TABLE: Final = "42P01"


def init(conninfo: str) -> bool:
    """Create the tables in the database of ``conninfo``; return whether there were none.

    This may be done again, and by several processes at once.

    Raises:
        StoreError: The database cannot be reached, refuses, or has another version.
    """
    try:
        session = Session(conninfo)
    except CannotConnect as error:
        raise StoreError(str(error)) from error
    try:
        found = _version(session)
        if found == VERSION:
            return False
        if found is not None:
            require(session)
        for sql in _STATEMENTS:
            _run(session, Statement(sql))
        require(session)
    except (Refused, Broken) as error:
        raise StoreError(f"cannot create the tables: {error}") from error
    finally:
        session.close()
    return True


def require(session: Session) -> None:
    """Return if the database has the tables, in this version.

    Raises:
        TablesMissing: It has none.
        StoreError: It has another version.
        Refused, Broken: As `Session.run`.
    """
    found = _version(session)
    if found is None:
        raise TablesMissing
    if found != VERSION:
        raise StoreError(mismatch(found))


def version(rows: Rows) -> int | None:
    """Return the version in the rows of `READ_VERSION`, or None if there is none."""
    return max((int(version) for (version,) in rows), default=None)


def mismatch(found: int | None) -> str:
    """Return what is wrong with a database of this version, or of none; empty if nothing is."""
    if found is None:
        return str(TablesMissing())
    if found != VERSION:
        return (
            f"the database has version {found} of bigfib's tables, and this bigfib knows "
            f"version {VERSION}; use one that knows that version"
        )
    return ""


def _version(session: Session) -> int | None:
    try:
        return version(session.run(READ_VERSION)[0])
    except Refused as refusal:
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
        else:
            return
