"""Positions in a database that many servers share, by PostgreSQL's protocol.

It keeps the promises of the state log (see `store`); by a transaction where that has a record, and
by the database's own durability where that has a sync. Every change is one statement that names
what it changes and from where, so that no server has to ask first.

When the connection is lost, a thread looks for another one; requests do not wait for it longer than
`PATIENCE`, and are told so. A change under way at that moment is not tried again, for it may have
been made. What is tried again, for `WAIT_SECONDS`, is what the server says it has not done because
others were in the way (`serialization_failure`, `deadlock_detected`, `lock_not_available`).

A locked row must not delay other sequences more than it has to. A batch steps the sequences that
are free and reports the others as `LOCKED`, so that its caller decides how long to try again. A
single change blocks the thread until the row is free. If a row stays locked for all of that time,
the next changes wait for locked rows only as long as one attempt takes, for `_IN_VAIN_FACTOR` times
the time lost: rows that stay locked take a sixth of this server's time at most.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Final

from gmpy2 import mpz

from bigfib.state.postgres import schema
from bigfib.state.postgres.session import (
    ANSWER_SECONDS,
    Broken,
    CannotConnect,
    Refused,
    Rows,
    Session,
    Statement,
)
from bigfib.state.store import (
    LOCKED,
    WAIT_SECONDS,
    Commits,
    NoRoom,
    OutcomeUnknown,
    PositionMismatch,
    SequenceExists,
    SequenceLocked,
    SequenceNotFound,
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

# How long at most in seconds a transaction pauses that met others, before it is tried again.
_RETRY_PAUSE: Final = 0.005

# How long in seconds one attempt waits for a lock. Longer than most commits of other servers take,
# and short, because a batch holds other rows locked meanwhile.
_LOCK_SECONDS: Final = 0.05

# How long in seconds `check` waits for a table that others have locked.
_CHECK_SECONDS: Final = 0.5

# How long in seconds the table of sequences has, to show that changes can be made to it.
_TRY_SECONDS: Final = 0.2

# For so many times as long as a wait for a locked row was in vain, others are kept short.
_IN_VAIN_FACTOR: Final = 5

_LOCK_NOT_AVAILABLE: Final = "55P03"
_OTHERS_IN_THE_WAY: Final = {"40001", "40P01", _LOCK_NOT_AVAILABLE}
_DISK_FULL: Final = "53100"
# It has taken longer than a statement may; nobody knows why.
_QUERY_CANCELED: Final = "57014"

COUNT_SECONDS: Final = 5.0
"""While sequences are created, all are counted so often, in seconds. A million take 0.1 s."""

_COUNT_PATIENCE: Final = 60

# So many times at most, if sequences are created meanwhile.
_COUNTED_AGAIN: Final = 3

# Old sequences are looked for so often, in seconds, and deleted so many at a time.
_EXPIRY_SECONDS: Final = 3600.0
_EXPIRED_AT_ONCE: Final = 1000

_DAY_SECONDS: Final = 86_400

_FIND: Final = b"SELECT trunc(position) FROM bigfib_sequences WHERE id = $1::bytea"
# Finds nothing where it would have to wait. It locks as an update does that changes no key.
_TRY_LOCK: Final = (
    b"SELECT id FROM bigfib_sequences WHERE id = $1::bytea FOR NO KEY UPDATE SKIP LOCKED"
)
_STEP: Final = (
    b"UPDATE bigfib_sequences SET position = position + $2::numeric, "
    b"day = greatest(day, $5::integer) "
    b"WHERE id = $1::bytea AND position >= $3::numeric AND position <= $4::numeric "
    b"RETURNING trunc(position)"
)
_PUT: Final = (
    b"UPDATE bigfib_sequences SET position = $2::numeric, day = greatest(day, $3::integer) "
    b"WHERE id = $1::bytea RETURNING trunc(position)"
)
_PUT_FROM: Final = (
    b"UPDATE bigfib_sequences SET position = $2::numeric, day = greatest(day, $3::integer) "
    b"WHERE id = $1::bytea AND position = $4::numeric RETURNING trunc(position)"
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
# Changes nothing, for there is none of this id, but can only be done where changes can.
_TRY: Final = Statement(rb"UPDATE bigfib_sequences SET day = day WHERE id = '\x'::bytea")
# So is this, and it needs a commit that others are waited for if that is the rule.
_TRY_COMMIT: Final = Statement(b"UPDATE bigfib_schema SET version = version")
_READ_ONLY: Final = Statement(b"SELECT current_setting('transaction_read_only')")
_PROMISES: Final = b"""SELECT coalesce(current_setting('fsync', true), ''),
    coalesce(current_setting('synchronous_commit', true), ''),
    coalesce(current_setting('synchronous_standby_names', true), '')"""


class Postgres:
    """The store in a database.

    Attributes:
        host: The server that it is connected to, or last was.
        synchronous_commit: What that says of when a transaction counts as committed.
        counted: How many sequences there were when they were last counted, without the permanent
            one; None before that.
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
        self._permanent = permanent
        self._clock = clock
        self.commits = Commits()
        self.counted: int | None = None
        # How many this server has created, less those deleted; and how many of them are counted.
        self._created = 0
        self._created_counted = 0
        # Whether a change is under way, of which it is unknown whether a count has seen it.
        self._changing = False
        self._count_trouble = ""
        self._begun = threading.Event()
        # When changes may wait for locked rows again, by `time.monotonic`; and the sequences that
        # were locked for too long before.
        self._waits_from = 0.0
        self._waited_for: set[bytes] = set()
        self._session: Session | None = self._connect()
        self.host = self._session.host
        # If that takes too long here, the thread does it, which has more time.
        try:
            self._count_by(self._session)
        except Refused:
            self._begun.set()
        except Broken:
            self._begun.set()
            self._session.give_up()
            self._session = self._connect()
        self._trouble = ""
        self._given_up: list[Session] = []
        self._lost_at = 0.0
        self._closed = threading.Event()
        # Set while the thread has to find a connection; and when it has tried, with or without it.
        self._lost = threading.Event()
        self._tried = threading.Event()
        for work in (self._keep, self._tend):
            threading.Thread(target=work, daemon=True).start()

    def may_step(self, sequence_id: bytes) -> bool:
        """Return whether the sequence can be stepped; see `SharedStore.may_step`."""
        return (
            self._session is not None
            and sequence_id not in self._waited_for
            and self._session.is_open()
        )

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None; see `Store.find`."""
        return _position(self._look_all(Statement(_FIND, (_bytea(sequence_id),)))[0])

    def step(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> int:
        """Move the sequence by so many terms; see `Store.step`."""
        steps = Steps(sequence_id, by, lowest, highest)
        position = _position(self._change(sequence_id, self._step(steps)))
        if position is None:
            raise self._reason(sequence_id)
        return position

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences in one transaction; see `SharedStore.step_all`."""
        # In one order everywhere: two transactions that wait for each other would be a deadlock.
        left = {
            number: self._step(each)
            for number, each in sorted(enumerate(steps), key=lambda pair: pair[1].sequence_id)
        }
        for number, one in enumerate(looks, len(steps)):
            left[number] = Statement(_FIND, (_bytea(one),))
        positions: list[int | None] = [LOCKED] * len(left)

        def make() -> None:
            answers = self._run(*left.values(), changes=bool(steps), wait=0)
            for number, rows in zip(left, answers, strict=True):
                positions[number] = _position(rows)

        try:
            make()
        except Refused:
            # Refused again: the whole table is locked, or another row since a moment.
            with suppress(Refused):
                for number in self._locked(steps):
                    del left[number]
                if left:
                    make()
        return positions

    def give_up_locked(self, sequence_id: bytes) -> None:
        """Note a wait that was in vain; see `SharedStore.give_up_locked`."""
        self._waits_from = time.monotonic() + _IN_VAIN_FACTOR * WAIT_SECONDS
        self._waited_for.add(sequence_id)
        if self._require_table():
            # Whoever knows its id may step it, so that is not told.
            _logger.warning("store at %s: others hold a sequence locked", self.host)

    def _require_table(self) -> bool:
        """Return whether the table takes changes; look for another connection if it does not."""
        session = self._session
        if session and not _takes_changes(session):
            self._lose(session, "others hold the table of sequences locked: lock timeout")
        return self._session is not None

    def put(self, sequence_id: bytes, position: int, expected: int | None = None) -> None:
        """Put the sequence at ``position``; see `Store.put`."""
        parameters = (_bytea(sequence_id), _text(position), self._day())
        if expected is None:
            statement = Statement(_PUT, parameters)
        else:
            statement = Statement(_PUT_FROM, (*parameters, _text(expected)))
        if not self._change(sequence_id, statement):
            raise self._reason(sequence_id)

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence; see `Store.create`."""
        parameters = (_bytea(sequence_id), _text(position), self._day())
        if not self._change(sequence_id, Statement(_CREATE, parameters), more=1):
            raise SequenceExists
        self._begun.set()

    def delete(self, sequence_id: bytes, expected: int | None = None) -> None:
        """Delete the sequence; see `Store.delete`."""
        if expected is None:
            statement = Statement(_DELETE, (_bytea(sequence_id),))
        else:
            statement = Statement(_DELETE_FROM, (_bytea(sequence_id), _text(expected)))
        if not self._change(sequence_id, statement, more=-1):
            raise self._reason(sequence_id)

    def holds(self, count: int) -> bool:
        """Return whether there are ``count`` sequences; see `Store.holds`.

        To count them takes long, so a thread does it every few seconds, as long as new ones are
        wanted. What other servers have created since then is not known here.
        """
        self._begun.set()
        return (self.counted or 0) + self._created - self._created_counted >= count

    def commit(self, lsn: int) -> None:
        """Return: whatever has an lsn has been committed."""

    def is_lost(self) -> bool:
        """Return whether a connection is being looked for; see `Store.is_lost`."""
        return self._session is None

    def check(self) -> None:
        """Return if the database answers, and can take changes; this makes none.

        Raises:
            Unavailable: it does not; another connection is then looked for.
        """
        find = Statement(_FIND, (_bytea(self._permanent),))
        version, read_only, _ = self._look_all(
            *(schema.READ_VERSION, _READ_ONLY, find), wait=_CHECK_SECONDS
        )
        trouble = schema.mismatch(schema.version(version))
        if not trouble and read_only[0][0] == b"on":
            trouble = "the database is read-only"
        if trouble:
            if self._session:
                self._lose(self._session, trouble)
            raise Unavailable(trouble)
        # Who has the whole table locked lets others read.
        self._look_all(_TRY, wait=_CHECK_SECONDS)

    def close(self) -> None:
        """Let go of the database."""
        self._closed.set()
        self._lost.set()
        self._begun.set()
        session, self._session = self._session, None
        for each in (*self._given_up, *([session] if session else [])):
            each.close()

    def _day(self) -> bytes:
        return b"%d" % (int(self._clock()) // _DAY_SECONDS)

    def _step(self, steps: Steps) -> Statement:
        one, *numbers = steps
        return Statement(_STEP, (_bytea(one), *map(_text, numbers), self._day()))

    def _reason(self, sequence_id: bytes) -> SequenceNotFound | PositionMismatch:
        """Return why a change of the sequence has found nothing to change."""
        position = self.find(sequence_id)
        return SequenceNotFound() if position is None else PositionMismatch(position)

    def _locked(self, steps: Sequence[Steps]) -> list[int]:
        """Return which of the steps are of a sequence that others hold locked, by their place.

        Raises:
            Refused: the whole table is locked.
        """
        answers = self._run(
            *(
                Statement(sql, (_bytea(each.sequence_id),))
                for each in steps
                for sql in (_FIND, _TRY_LOCK)
            ),
            changes=False,
            wait=0,
        )
        return [
            number
            for number, (found, free) in enumerate(zip(answers[::2], answers[1::2], strict=True))
            if found and not free
        ]

    def _look_all(self, *statements: Statement, wait: float = WAIT_SECONDS) -> list[Rows]:
        try:
            return self._run(*statements, changes=False, wait=wait)
        except Refused as refusal:
            # Reading waits for no row, so the whole table is locked.
            self._require_table()
            raise Unavailable(str(refusal)) from refusal

    def _change(self, sequence_id: bytes, statement: Statement, more: int = 0) -> Rows:
        """Run a statement that changes the sequence, if it does.

        Args:
            sequence_id: Which sequence.
            statement: Changes it, and answers with a row if it has.
            more: How many more sequences there are then.

        Raises:
            SequenceLocked, Unavailable, NoRoom, OutcomeUnknown: as `Store` has them.
        """
        may_wait = time.monotonic() >= self._waits_from
        if may_wait:
            self._waited_for.clear()
        self._changing = True
        try:
            rows = self._run(statement, wait=WAIT_SECONDS if may_wait else 0)[0]
            if rows and sequence_id != self._permanent:
                self._created += more
        except Refused as refusal:
            if may_wait:
                self.give_up_locked(sequence_id)
            self._waited_for.add(sequence_id)
            if self._session is None:
                raise Unavailable(str(refusal)) from refusal
            raise SequenceLocked from refusal
        finally:
            self._changing = False
        self._waited_for.discard(sequence_id)
        if rows:
            self.commits.replies.observe(1)
        return rows

    def _run(
        self, *statements: Statement, changes: bool = True, wait: float = WAIT_SECONDS
    ) -> list[Rows]:
        """Run a transaction, again as long as others are in the way.

        Args:
            statements: What is to be done.
            changes: Whether that may change something.
            wait: For so many seconds it is tried again while others hold a lock.

        Raises:
            Refused: others hold a lock, and nothing has changed.
            Unavailable, NoRoom, OutcomeUnknown: as `Store` has them.
        """
        began = time.monotonic()
        try:
            answers = _retried(
                lambda seconds: self._run_once(statements, changes=changes, seconds=seconds), wait
            )
        except Refused as refusal:
            if refusal.sqlstate == _LOCK_NOT_AVAILABLE:
                raise
            raise Unavailable(f"others are in the way: {refusal}") from refusal
        if changes:
            self.commits.seconds.observe(time.monotonic() - began)
        return answers

    def _run_once(
        self, statements: Sequence[Statement], *, changes: bool, seconds: float
    ) -> list[Rows]:
        session = self._connected()
        try:
            return session.run(*statements, seconds=seconds)
        except Refused as refusal:
            if refusal.sqlstate in _OTHERS_IN_THE_WAY:
                raise
            if refusal.sqlstate == _DISK_FULL:
                raise NoRoom(f"store at {self.host}: {refusal}") from refusal
            if refusal.sqlstate == _QUERY_CANCELED and _takes_changes(session):
                trouble = f"it took too long, and nothing has changed: {refusal}"
                raise Unavailable(trouble) from refusal
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
            if "lock_timeout" not in self._conninfo:
                session.run(Statement(b"SET lock_timeout = %d" % (_LOCK_SECONDS * 1000)))
            schema.require(session)
            _retried(lambda seconds: session.run(_TRY, _TRY_COMMIT, seconds=seconds))
            self.synchronous_commit = _warn_of_less(session)
        except (Refused, Broken) as error:
            session.give_up()
            raise StoreError(str(error)) from error
        except StoreError:
            session.close()
            raise
        return session

    def _keep(self) -> None:
        """Find a new connection whenever one is lost. Runs as a thread."""
        while not self._closed.is_set():
            self._lost.wait()
            self._find_connection()

    def _find_connection(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed.is_set():
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
            if self._closed.is_set():
                session.close()
                return
            self._lost.clear()
            self.host = session.host
            _logger.warning("connected to the store at %s again", self.host)
            self._session = session
            self._tried.set()
            return

    def _tend(self) -> None:
        """Count the sequences, and forget those that are old. Runs as a thread."""
        expiry = 0.0
        while not self._closed.is_set():
            if time.monotonic() >= expiry:
                expiry = time.monotonic() + _EXPIRY_SECONDS
                self._expire()
            if self._begun.wait(expiry - time.monotonic()):
                self._begun.clear()
                self._count()
                self._closed.wait(COUNT_SECONDS)

    def _count(self) -> None:
        """Count the sequences, by a connection of its own."""
        trouble = ""
        try:
            with closing(Session(self._conninfo)) as session:
                session.run(Statement(b"SET statement_timeout = %d" % (_COUNT_PATIENCE * 1000)))
                self._count_by(session, seconds=_COUNT_PATIENCE + 1)
        except (CannotConnect, Refused, Broken) as error:
            trouble = str(error)
        if trouble and not self._count_trouble:
            _logger.warning(
                "store: sequences cannot be counted, so others may exceed --max-sequences: %s",
                trouble,
            )
        self._count_trouble = trouble

    def _count_by(self, session: Session, seconds: float = ANSWER_SECONDS) -> None:
        count = Statement(_COUNT, (_bytea(self._permanent),))
        for _ in range(_COUNTED_AGAIN):
            created, changing = self._created, self._changing
            counted = int(session.run(count, seconds=seconds)[0][0][0])
            if not (changing or self._changing) and self._created == created:
                break
        # If it has to be, those created meanwhile count twice until the next time.
        self.counted, self._created_counted = counted, created

    def _expire(self) -> None:
        """Delete what nobody has touched for too long, by a connection of its own."""
        if self._days_kept is None:
            return
        oldest = b"%d" % (int(self._day()) - self._days_kept)
        expire = Statement(_EXPIRE, (oldest, _bytea(self._permanent)))
        with (
            suppress(CannotConnect, Refused, Broken),
            closing(Session(self._conninfo)) as session,
        ):
            while session.run(expire)[0] and not self._closed.is_set():
                pass


def _takes_changes(session: Session) -> bool:
    """Return whether the table of sequences can be changed, as far as no single one is locked."""
    try:
        session.run(_TRY, seconds=_TRY_SECONDS)
    except (Refused, Broken):
        return False
    return True


def find(conninfo: str, sequence_id: bytes) -> int | None:
    """Return where the sequence is, or None if there is none, by reading only.

    Raises:
        StoreError: there is no connection to be had, or the database has no such store.
    """
    try:
        with closing(Session(conninfo, only_reads=True)) as session:
            schema.require(session)
            return _position(session.run(Statement(_FIND, (_bytea(sequence_id),)))[0])
    except (CannotConnect, Refused, Broken) as error:
        raise StoreError(str(error)) from error


def _retried(transaction: Callable[[float], list[Rows]], wait: float = WAIT_SECONDS) -> list[Rows]:
    """Run a transaction, again as long as others are in the way.

    Args:
        transaction: Runs it; given the seconds within which it has to be answered.
        wait: For so many seconds it is tried again while others hold a lock.

    Raises:
        Refused: others still are in the way, or the reason is another.
    """
    began = time.monotonic()
    waited = 0.0
    while True:
        try:
            return transaction(ANSWER_SECONDS - waited)
        except Refused as refusal:
            waited = time.monotonic() - began
            limit = wait if refusal.sqlstate == _LOCK_NOT_AVAILABLE else WAIT_SECONDS
            if refusal.sqlstate not in _OTHERS_IN_THE_WAY or waited >= limit:
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


def _text(number: int) -> bytes:
    # Python itself writes, and reads, no number of more than 4,300 digits.
    digits: str = mpz(number).digits()
    return digits.encode()


def _position(rows: Rows) -> int | None:
    return int(mpz(rows[0][0].decode())) if rows else None
