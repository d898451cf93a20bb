"""Positions in a database that many servers share, by PostgreSQL's protocol.

It keeps the promises of the state log (see `store`); by a transaction where that has a record, and
by the database's own durability where that has a sync. Every change is one statement that names
what it changes and from where, so that no server has to ask first.

When the connection is lost, a thread looks for another one; requests do not wait for it longer than
`PATIENCE`, and are told so. A change under way at that moment is not tried again, for it may have
been made. What is tried again, for a second, is what the server says it has not done because
others were in the way (`serialization_failure`, `deadlock_detected`).

Who holds sequences locked keeps nobody from the others. A step waits for `LOCK_SECONDS`; a batch
then goes on without the one that was waited for. That one is refused from then on without waiting,
and once a second, when one of them is asked for, all are looked at in a way that waits for nobody.
The more are locked, the shorter is the wait for one that is not known to be.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Final

from gmpy2 import mpz

from bigfib.state import schema
from bigfib.state.session import (
    ANSWER_SECONDS,
    Broken,
    CannotConnect,
    Refused,
    Rows,
    Session,
    Statement,
)
from bigfib.state.store import (
    Commits,
    Elsewhere,
    Missing,
    NoRoom,
    OutcomeUnknown,
    Present,
    SequenceLocked,
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

LOCK_SECONDS: Final = 0.15
"""How long in seconds a statement waits for others who hold what it is to change, or its table.

Other servers hold a sequence for the time of a commit, which is some milliseconds. While some are
known to be locked, it is this divided among them and the next, but not less than 0.005 s: whoever
holds thousands does not stop this server for each of them.
"""

_SHORTEST_LOCK_SECONDS: Final = 0.005

# So long in seconds a batch is tried without one sequence after the other that turns out locked.
_SORTING_SECONDS: Final = 0.5

# How often at most, in seconds, the sequences known as locked are tried, and how many at a time.
_TRIED_AGAIN_SECONDS: Final = 1.0
_TRIED_AT_ONCE: Final = 500
_LOCKED_KEPT: Final = 100_000

_MET_OTHERS: Final = {"40001", "40P01"}
_DISK_FULL: Final = "53100"
_LOCK_NOT_AVAILABLE: Final = "55P03"
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
        # Locked by others when last tried, in the order of that; and what was then seen of each.
        self._locked: dict[bytes, Rows | None] = {}
        self._try_again_at = 0.0
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
            and sequence_id not in self._locked
            and self._session.is_open()
        )

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None; see `Store.find`."""
        return _position(self._look(Statement(_FIND, (_bytea(sequence_id),))))

    def step(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> int:
        """Move the sequence by so many terms; see `Store.step`."""
        steps = Steps(sequence_id, by, lowest, highest)
        position = _position(self._change(sequence_id, self._step(steps)))
        if position is None:
            raise self._reason(sequence_id)
        return position

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences in one transaction; see `SharedStore.step_all`."""
        number_of_steps = len(steps)
        # In one order everywhere: two transactions that wait for each other would be a deadlock.
        left = [
            (number, self._step(each))
            for number, each in sorted(enumerate(steps), key=lambda pair: pair[1].sequence_id)
            if each.sequence_id not in self._locked
        ]
        left += [
            (number, Statement(_FIND, (_bytea(one),)))
            for number, one in enumerate(looks, number_of_steps)
        ]
        positions: list[int | None] = [None] * (number_of_steps + len(looks))
        give_up = time.monotonic() + _SORTING_SECONDS
        while left:
            try:
                answers = self._run(*(statement for _, statement in left), changes=bool(steps))
            except Refused as refusal:
                at = refusal.index
                if at is None or left[at][0] >= number_of_steps or time.monotonic() > give_up:
                    raise Unavailable(str(refusal)) from refusal
                self._note_locked(steps[left.pop(at)[0]].sequence_id)
                continue
            for (number, _), rows in zip(left, answers, strict=True):
                positions[number] = _position(rows)
            break
        return positions

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
            raise Present
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
        version, read_only, _ = self._look_all(schema.READ_VERSION, _READ_ONLY, find)
        trouble = schema.mismatch(schema.version(version))
        if not trouble and read_only[0][0] == b"on":
            trouble = "the database is read-only"
        if trouble:
            if self._session:
                self._lose(self._session, trouble)
            raise Unavailable(trouble)
        # Who has the whole table locked lets others read.
        self._look(_TRY)

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

    def _reason(self, sequence_id: bytes) -> Missing | Elsewhere:
        """Return why a change of the sequence has found nothing to change."""
        position = self.find(sequence_id)
        return Missing() if position is None else Elsewhere(position)

    def _look(self, statement: Statement) -> Rows:
        return self._look_all(statement)[0]

    def _look_all(self, *statements: Statement) -> list[Rows]:
        try:
            return self._run(*statements, changes=False)
        except Refused as refusal:
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
        if sequence_id in self._locked:
            if time.monotonic() >= self._try_again_at:
                self._try_locked()
            if sequence_id in self._locked:
                raise SequenceLocked
        self._changing = True
        try:
            rows = self._run(statement)[0]
            if rows and sequence_id != self._permanent:
                self._created += more
        except Refused as refusal:
            self._note_locked(sequence_id)
            raise SequenceLocked from refusal
        finally:
            self._changing = False
        if rows:
            self.commits.replies.observe(1)
        return rows

    def _note_locked(self, sequence_id: bytes) -> None:
        # Whoever knows its id may step it, so that is not told.
        _logger.warning("store at %s: others hold a sequence locked", self.host)
        if not self._locked:
            self._try_again_at = time.monotonic() + _TRIED_AGAIN_SECONDS
        self._locked[sequence_id] = None
        if len(self._locked) > _LOCKED_KEPT:
            del self._locked[next(iter(self._locked))]

    def _try_locked(self) -> None:
        """Find out which of the sequences known as locked no longer are.

        Raises:
            Unavailable: the database cannot be asked.
        """
        self._try_again_at = time.monotonic() + _TRIED_AGAIN_SECONDS
        tried = list(islice(self._locked, _TRIED_AT_ONCE))
        answers = self._look_all(
            *(Statement(sql, (_bytea(one),)) for one in tried for sql in (_FIND, _TRY_LOCK))
        )
        for one, found, free in zip(tried, answers[::2], answers[1::2], strict=True):
            before = self._locked.pop(one)
            # One that is no more is not locked; nor is one that has moved, for who steps it often
            # holds it at most moments.
            if found and not free and before in (None, found):
                self._locked[one] = found

    def _run(self, *statements: Statement, changes: bool = True) -> list[Rows]:
        """Run a transaction, which makes changes or not.

        Raises:
            Refused: what one of the statements is to change is locked, though the table is open
                to changes; nothing has changed.
            Unavailable, NoRoom, OutcomeUnknown: as `Store` has them.
        """
        began = time.perf_counter()
        try:
            answers = _retried(lambda: self._run_once(statements, changes=changes))
        except Refused as refusal:
            if refusal.sqlstate == _LOCK_NOT_AVAILABLE:
                raise
            raise Unavailable(f"others are in the way: {refusal}") from refusal
        if changes:
            self.commits.seconds.observe(time.perf_counter() - began)
        return answers

    def _run_once(self, statements: Sequence[Statement], *, changes: bool) -> list[Rows]:
        session = self._connected()
        try:
            if "lock_timeout" not in self._conninfo:
                session.set_lock_timeout(
                    max(LOCK_SECONDS / (1 + len(self._locked)), _SHORTEST_LOCK_SECONDS)
                )
            return session.run(*statements)
        except Refused as refusal:
            if refusal.sqlstate in _MET_OTHERS:
                raise
            if refusal.sqlstate == _DISK_FULL:
                raise NoRoom(f"store at {self.host}: {refusal}") from refusal
            if (
                refusal.sqlstate in (_LOCK_NOT_AVAILABLE, _QUERY_CANCELED)
                and _TRY not in statements
                and _takes_changes(session)
            ):
                if refusal.sqlstate == _LOCK_NOT_AVAILABLE:
                    raise
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
                session.set_lock_timeout(LOCK_SECONDS)
            schema.require(session)
            _retried(lambda: session.run(_TRY, _TRY_COMMIT))
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
        session.run(_TRY)
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


def _text(number: int) -> bytes:
    # Python itself writes, and reads, no number of more than 4,300 digits.
    digits: str = mpz(number).digits()
    return digits.encode()


def _position(rows: Rows) -> int | None:
    return int(mpz(rows[0][0].decode())) if rows else None
