"""Positions in a database that many servers share, by PostgreSQL's protocol.

It keeps the promises of the state log (see `store`); by a transaction where that has a record, and
by the database's own durability where that has a sync. Every change is one statement that names
what it changes and from where, so that no server has to ask first.

When the connection is lost, a thread looks for another one; requests do not wait for it longer than
`PATIENCE`, and are told so. A change under way at that moment is not tried again, for it may have
been made. What is tried again, for a second, is what the server says it has not done because
others were in the way (`serialization_failure`, `deadlock_detected`).
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from bigfib.state import schema
from bigfib.state.session import Broken, CannotConnect, Refused, Rows, Session, Statement
from bigfib.state.store import (
    Commits,
    Elsewhere,
    Missing,
    NoRoom,
    OutcomeUnknown,
    Present,
    Steps,
    StoreError,
    Unavailable,
)

_logger = logging.getLogger(__name__)

PATIENCE: Final = 0.5
"""How long in seconds a request waits for a connection at most, when one has just been lost."""

# Between attempts to connect, in seconds; each time it is doubled.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

# How long in seconds a transaction is tried again that met others, and how long it pauses at most.
_RETRY_SECONDS: Final = 1.0
_RETRY_PAUSE: Final = 0.005

_MET_OTHERS: Final = {"40001", "40P01"}
_DISK_FULL: Final = "53100"

# A million sequences are counted in 0.1 s; that is done for so many new ones at once.
_COUNTED_FOR: Final = 1000
_FULL_SECONDS: Final = 1.0

# Old sequences are looked for so often, in seconds, and deleted so many at a time.
_EXPIRY_SECONDS: Final = 3600.0
_EXPIRED_AT_ONCE: Final = 1000

_DAY_SECONDS: Final = 86_400

_FIND: Final = b"SELECT position FROM bigfib_sequences WHERE id = $1::bytea"
_STEP: Final = (
    b"UPDATE bigfib_sequences SET position = position + $2::numeric, "
    b"day = greatest(day, $5::integer) "
    b"WHERE id = $1::bytea AND position >= $3::numeric AND position <= $4::numeric "
    b"RETURNING position"
)
_PUT: Final = (
    b"UPDATE bigfib_sequences SET position = $2::numeric, day = greatest(day, $3::integer) "
    b"WHERE id = $1::bytea RETURNING position"
)
_PUT_FROM: Final = (
    b"UPDATE bigfib_sequences SET position = $2::numeric, day = greatest(day, $3::integer) "
    b"WHERE id = $1::bytea AND position = $4::numeric RETURNING position"
)
_CREATE: Final = (
    b"INSERT INTO bigfib_sequences (id, position, day) "
    b"VALUES ($1::bytea, $2::numeric, $3::integer) ON CONFLICT (id) DO NOTHING RETURNING position"
)
_DELETE: Final = b"DELETE FROM bigfib_sequences WHERE id = $1::bytea RETURNING position"
_DELETE_FROM: Final = (
    b"DELETE FROM bigfib_sequences WHERE id = $1::bytea AND position = $2::numeric "
    b"RETURNING position"
)
_COUNT: Final = b"SELECT count(*) FROM bigfib_sequences WHERE id <> $1::bytea"
_EXPIRE: Final = (
    b"DELETE FROM bigfib_sequences WHERE day < $1::integer AND id IN (SELECT id "
    b"FROM bigfib_sequences WHERE day < $1::integer AND id <> $2::bytea LIMIT %d) RETURNING id"
) % _EXPIRED_AT_ONCE
# Changes nothing, but can only be done, and committed, where changes can.
_TRY: Final = b"UPDATE bigfib_sequences SET day = day WHERE id = $1::bytea"
_TRY_COMMIT: Final = Statement(b"UPDATE bigfib_schema SET version = version")
_PROMISES: Final = b"""SELECT coalesce(current_setting('fsync', true), ''),
    coalesce(current_setting('synchronous_commit', true), ''),
    coalesce(current_setting('synchronous_standby_names', true), '')"""


class Postgres:
    """The store in a database.

    Attributes:
        host: The server that it is connected to, or last was.
        synchronous_commit: What that says of when a transaction counts as committed.
        end, committed, commits: As `Store` has them. Every change is durable when it is made.
    """

    end: int = 0
    committed: int = 0

    def __init__(
        self,
        conninfo: str,
        *,
        days_kept: int | None = None,
        permanent: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connect to the database.

        Args:
            conninfo: Where it is, as libpq has it: ``postgresql://...``.
            days_kept: Sequences not touched for more days are deleted; None keeps all.
            permanent: The id of a sequence that is always kept.
            clock: Seconds since 1970-01-01 (UTC).

        Raises:
            StoreError: there is no connection to be had, or the database has no such store.
        """
        self._conninfo = conninfo
        self._days_kept = days_kept
        self._permanent = _bytea(permanent)
        self._clock = clock
        self.commits = Commits()
        self._room = 0
        self._full_until = 0.0
        self._session: Session | None = self._connect()
        self.host = self._session.host
        self._trouble = ""
        self._given_up: list[Session] = []
        self._lost_at = 0.0
        self._closed = False
        # Set while the thread has to find a connection; and when it has tried, with or without it.
        self._lost = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known without asking."""
        return self._session is not None and self._session.is_open()

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None; see `Store.find`."""
        return _position(self._run(Statement(_FIND, (_bytea(sequence_id),)), changes=False)[0])

    def step(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> int:
        """Move the sequence by so many terms; see `Store.step`."""
        position = self.step_all([Steps(sequence_id, by, lowest, highest)])[0]
        if position is None:
            raise self._reason(sequence_id)
        self.commits.replies.observe(1)
        return position

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences in one transaction; see `SharedStore.step_all`."""
        day = b"%d" % self._day()
        statements = [
            (number, Statement(_STEP, (_bytea(one), b"%d" % by, b"%d" % low, b"%d" % high, day)))
            for number, (one, by, low, high) in enumerate(steps)
        ]
        # In one order everywhere: two transactions that wait for each other would be a deadlock.
        statements.sort(key=lambda each: each[1].parameters[0])
        statements += [
            (number, Statement(_FIND, (_bytea(one),)))
            for number, one in enumerate(looks, len(steps))
        ]
        answers = self._run(*(statement for _, statement in statements), changes=bool(steps))
        positions: list[int | None] = [None] * len(statements)
        for (number, _), rows in zip(statements, answers, strict=True):
            positions[number] = _position(rows)
        return positions

    def put(self, sequence_id: bytes, position: int, expected: int | None = None) -> None:
        """Put the sequence at ``position``; see `Store.put`."""
        parameters = (_bytea(sequence_id), b"%d" % position, b"%d" % self._day())
        if expected is None:
            statement = Statement(_PUT, parameters)
        else:
            statement = Statement(_PUT_FROM, (*parameters, b"%d" % expected))
        if not self._change(statement):
            raise self._reason(sequence_id)

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence; see `Store.create`."""
        parameters = (_bytea(sequence_id), b"%d" % position, b"%d" % self._day())
        if not self._change(Statement(_CREATE, parameters)):
            raise Present
        self._room -= 1

    def delete(self, sequence_id: bytes, expected: int | None = None) -> None:
        """Delete the sequence; see `Store.delete`."""
        if expected is None:
            statement = Statement(_DELETE, (_bytea(sequence_id),))
        else:
            statement = Statement(_DELETE_FROM, (_bytea(sequence_id), b"%d" % expected))
        if not self._change(statement):
            raise self._reason(sequence_id)
        self._full_until = 0.0

    def holds(self, count: int, besides: bytes) -> bool:
        """Return whether there are ``count`` sequences; see `Store.holds`.

        To count them takes long, so it is done once for a thousand new ones, and, when there is no
        room, once a second. Several servers together may exceed ``count`` by a thousand each.
        """
        if self._room > 0:
            return False
        if time.monotonic() < self._full_until:
            return True
        rows = self._run(Statement(_COUNT, (_bytea(besides),)), changes=False)[0]
        self._room = min(count - int(rows[0][0]), _COUNTED_FOR)
        if self._room <= 0:
            self._full_until = time.monotonic() + _FULL_SECONDS
        return self._room <= 0

    def commit(self, lsn: int) -> None:
        """Return: whatever has an lsn has been committed."""

    def check(self) -> None:
        """Return if the database answers, and has let this server change something.

        Raises:
            Unavailable: it does not.
        """
        self._run(Statement(_FIND, (self._permanent,)), changes=False)

    def close(self) -> None:
        """Let go of the database."""
        self._closed = True
        self._lost.set()
        session, self._session = self._session, None
        for each in (*self._given_up, *([session] if session else [])):
            each.close()

    def _day(self) -> int:
        return int(self._clock()) // _DAY_SECONDS

    def _reason(self, sequence_id: bytes) -> Missing | Elsewhere:
        """Return why a change of the sequence has found nothing to change."""
        position = self.find(sequence_id)
        return Missing() if position is None else Elsewhere(position)

    def _change(self, statement: Statement) -> Rows:
        """Make one change, and return what it has changed."""
        rows = self._run(statement)[0]
        if rows:
            self.commits.replies.observe(1)
        return rows

    def _run(self, *statements: Statement, changes: bool = True) -> list[Rows]:
        """Run a transaction, which makes changes or not.

        Raises:
            Unavailable, NoRoom, OutcomeUnknown: as `Store` has them.
        """
        began = time.perf_counter()
        try:
            answers = _retried(lambda: self._run_once(statements, changes=changes))
        except Refused as refusal:
            raise Unavailable(f"others are in the way: {refusal}") from refusal
        if changes:
            self.commits.seconds.observe(time.perf_counter() - began)
        return answers

    def _run_once(self, statements: Sequence[Statement], *, changes: bool) -> list[Rows]:
        session = self._connected()
        try:
            return session.run(*statements)
        except Refused as refusal:
            if refusal.sqlstate in _MET_OTHERS:
                raise
            if refusal.sqlstate == _DISK_FULL:
                raise NoRoom(f"store at {self.host}: {refusal}") from refusal
            self._lose(session, str(refusal))
            raise Unavailable(str(refusal)) from refusal
        except Broken as broken:
            self._lose(session, str(broken))
            if changes:
                raise OutcomeUnknown(str(broken)) from broken
            raise Unavailable(str(broken)) from broken

    def _connected(self) -> Session:
        session = self._session
        if session:
            if session.is_open():
                return session
            # Nothing was under way, so that the new connection may serve as well.
            self._lose(session, "the server has closed the connection")
        self._tried.wait(max(0.0, self._lost_at + PATIENCE - time.monotonic()))
        session = self._session
        if session is None:
            raise Unavailable(self._trouble)
        return session

    def _lose(self, session: Session, trouble: str) -> None:
        self._trouble = trouble
        _logger.warning("store at %s lost: %s", self.host, trouble)
        self._lost_at = time.monotonic()
        self._session = None
        self._given_up.append(session)
        self._tried.clear()
        self._lost.set()

    def _connect(self) -> Session:
        """Return a connection by which changes can be made.

        Raises:
            StoreError: there is none.
        """
        try:
            session = Session(self._conninfo)
        except CannotConnect as error:
            raise StoreError(str(error)) from error
        try:
            schema.require(session)
            _retried(lambda: session.run(Statement(_TRY, (self._permanent,)), _TRY_COMMIT))
            self.synchronous_commit = _warn_of_less(session)
        except (Refused, Broken) as error:
            session.give_up()
            raise StoreError(str(error)) from error
        except StoreError:
            session.close()
            raise
        return session

    def _keep(self) -> None:
        """Find a new connection whenever one is lost, and forget what is old. Runs as a thread."""
        expiry = 0.0
        while not self._closed:
            if time.monotonic() >= expiry:
                expiry = time.monotonic() + _EXPIRY_SECONDS
                self._expire()
            if self._lost.wait(expiry - time.monotonic()) and not self._closed:
                self._find_connection()

    def _find_connection(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
            while self._given_up:
                self._given_up.pop().give_up()
            try:
                session = self._connect()
            except StoreError as error:
                if str(error) != self._trouble:
                    _logger.warning("no connection to the store: %s", error)
                self._trouble = str(error)
                self._tried.set()
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if self._closed:
                session.close()
                return
            self._lost.clear()
            self.host = session.host
            _logger.warning("connected to the store at %s again", self.host)
            self._session = session
            self._tried.set()
            return

    def _expire(self) -> None:
        """Delete what nobody has touched for too long, by a connection of its own."""
        if self._days_kept is None:
            return
        oldest = b"%d" % (self._day() - self._days_kept)
        with suppress(CannotConnect, Refused, Broken):
            session = Session(self._conninfo)
            try:
                # Not while a connection is to be found: what is left is deleted another time.
                while not self._lost.is_set():
                    if not session.run(Statement(_EXPIRE, (oldest, self._permanent)))[0]:
                        break
            finally:
                session.close()


def _retried(transaction: Callable[[], list[Rows]]) -> list[Rows]:
    """Run a transaction, again as long as it meets others, for a second.

    Raises:
        Refused: it still does, or the reason is another.
    """
    give_up = time.monotonic() + _RETRY_SECONDS
    while True:
        try:
            return transaction()
        except Refused as refusal:
            if refusal.sqlstate not in _MET_OTHERS or time.monotonic() > give_up:
                raise
        time.sleep(random.uniform(0, _RETRY_PAUSE))  # noqa: S311 - to miss each other


def _warn_of_less(session: Session) -> str:
    """Warn if the server promises less of what it has committed than bigfib of what it has told.

    Returns:
        Its ``synchronous_commit``.
    """
    fsync, commit, standbys = (value.decode() for value in session.run(Statement(_PROMISES))[0][0])
    if fsync == "off":
        _logger.warning("store at %s: fsync is off, so power loss takes steps back", session.host)
    if commit == "off":
        _logger.warning(
            "store at %s: synchronous_commit is off, so a crash takes steps back", session.host
        )
    elif standbys and commit in ("local", "remote_write"):
        _logger.warning(
            "store at %s: synchronous_commit is %s, so a failover may take steps back",
            *(session.host, commit),
        )
    return commit


def _bytea(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _position(rows: Rows) -> int | None:
    return int(rows[0][0]) if rows else None
