"""Keep positions in a database that many servers share, by PostgreSQL's protocol.

The store keeps the promises of the state log (see `bigfib.state.store`): a transaction takes the
place of a record, the durability of the database that of a sync. Every change is one statement that
names what it changes and from where, so no server has to ask first.

A locked row must not delay other sequences more than necessary. A batch steps the sequences that
are free and reports the others as `LOCKED`; its caller decides how long to retry. A single change
blocks the thread until the row is free, for `WAIT_SECONDS` at most. After a wait in vain, the next
change waits at most as long as has passed since: requests in the queue have waited already.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from bigfib.state.postgres import schema, standby
from bigfib.state.postgres.connection import TRY_CHANGE, Connection
from bigfib.state.postgres.expiry import TODAY, Expiry
from bigfib.state.postgres.lookup import FIND, PLACE, bytea, numeric, place
from bigfib.state.postgres.session import (
    Refused,
    Rows,
    Statement,
)
from bigfib.state.store import (
    LOCKED,
    WAIT_SECONDS,
    OnCommit,
    Place,
    PositionMismatch,
    SequenceExists,
    SequenceLocked,
    SequenceNotFound,
    SharedStore,
    Steps,
    Unavailable,
    first_version,
    ignore_commit,
)

_logger = logging.getLogger(__name__)

# How long in seconds `check` waits for a table that others hold locked.
_CHECK_SECONDS: Final = 0.5

COUNT_SECONDS: Final = 5.0
"""Minimum seconds between two counts of all sequences; a creation needs the count."""

# Counting a million sequences takes 0.1 s. The limit leaves a creation enough of its 3 s.
_COUNT_LIMIT_SECONDS: Final = 0.5

# Counting blocks this server, so the next count is due only after this many times its duration.
_COUNT_REST_FACTOR: Final = 50

# Returns no row if it would have to wait. The lock is that of an update that changes no key.
_TRY_LOCK: Final = (
    b"SELECT id FROM bigfib_sequences WHERE id = $1::bytea FOR NO KEY UPDATE SKIP LOCKED"
)
_FROM: Final = b" AND position = $%d::numeric"
_OF_VERSION: Final = b" AND version = $%d::bigint"
_RETURNING: Final = b" RETURNING " + PLACE
_STEP: Final = (
    b"UPDATE bigfib_sequences SET position = position + $2::numeric, version = version + 1, "
    b"day = greatest(day, " + TODAY + b") "
    b"WHERE id = $1::bytea AND position >= $3::numeric AND position <= $4::numeric"
)
_STEP_ANY: Final = _STEP + _RETURNING
_PUT: Final = (
    b"UPDATE bigfib_sequences SET position = $2::numeric, version = version + 1, "
    b"day = greatest(day, " + TODAY + b") WHERE id = $1::bytea"
)
_CREATE: Final = (
    b"INSERT INTO bigfib_sequences (id, position, version, day) "
    b"VALUES ($1::bytea, $2::numeric, $3::bigint, " + TODAY + b") "
    b"ON CONFLICT (id) DO NOTHING RETURNING " + PLACE
)
_DELETE: Final = b"DELETE FROM bigfib_sequences WHERE id = $1::bytea"
_LIMIT_COUNT: Final = Statement(b"SET LOCAL statement_timeout = %d" % (_COUNT_LIMIT_SECONDS * 1000))
_COUNT: Final = b"SELECT count(*) FROM bigfib_sequences WHERE id <> $1::bytea"
_READ_ONLY: Final = Statement(b"SELECT current_setting('transaction_read_only')")


class Postgres:
    """The store in a database.

    Attributes:
        on_commit, shared: As in `Store`. Every change is durable when it is made.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        days_kept: int | None = None,
        permanent: bytes = b"",
    ) -> None:
        """Connect to the database.

        Args:
            conninfo: A connection string of libpq, such as ``postgresql://...``.
            days_kept: Sequences not touched for more days are deleted; None keeps all.
            permanent: The id of a sequence that is always kept.

        Raises:
            StoreError: No server can be connected to, or the database lacks the tables.
        """
        self._permanent = permanent
        self.on_commit: OnCommit = ignore_commit
        self.shared: SharedStore | None = self
        # The sequence that the last answer was about, and its version.
        self._place = b"", 0
        # The last count without the permanent one, and what this server has created since, less
        # what it has deleted.
        self._count = 0
        self._count_due = 0.0
        # When a wait for a locked row last was in vain, by `time.monotonic`.
        self._gave_up_at = -math.inf
        self._connection = Connection(conninfo)
        self._find = standby.confirmed(FIND) if self._connection.can_confirm else FIND
        self._expiry: Expiry | None = None
        if days_kept is not None:
            self._expiry = Expiry(conninfo, days_kept, bytea(permanent))
            self._expiry.start()

    @property
    def host(self) -> str:
        """The server that the store is connected to, or last was."""
        return self._connection.host

    @property
    def synchronous_commit(self) -> str:
        """The server's setting: when a transaction counts as committed."""
        return self._connection.synchronous_commit

    @property
    def has_standby(self) -> bool:
        """Whether commits waited for a synchronous standby when this was last checked."""
        return self._connection.has_standby

    def is_open(self) -> bool:
        """Return whether there is a connection; see `SharedStore.is_open`."""
        return self._connection.is_open()

    def log_facts(self) -> None:
        """Return None: there is no log; see `Store.log_facts`."""

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None; see `Store.find`."""
        return self._found(sequence_id, self._read(self._look(sequence_id))[0])

    def version(self, sequence_id: bytes) -> int:
        """Return the version of the sequence, 0 if there is none; see `Store.version`."""
        if self._place[0] != sequence_id:
            self.find(sequence_id)
        return self._place[1]

    def step(
        self, sequence_id: bytes, by: int, lowest: int, highest: int, version: int | None = None
    ) -> int:
        """Move the sequence by ``by`` positions; see `Store.step`."""
        statement = self._step(Steps(sequence_id, by, lowest, highest))
        if version is not None:
            statement = _only_from(_STEP, statement.parameters, version=version)
        position = self._at(sequence_id, self._change(sequence_id, statement))
        if position is None:
            raise self._reason(sequence_id)
        return position

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences in one transaction; see `SharedStore.step_all`."""
        # Every server locks rows in the order of their ids: different orders could deadlock.
        left = {
            number: self._step(each)
            for number, each in sorted(enumerate(steps), key=lambda pair: pair[1].sequence_id)
        }
        for number, one in enumerate(looks, len(steps)):
            left[number] = self._look(one)
        positions: list[int | None] = [LOCKED] * len(left)

        def make() -> None:
            answers = self._run(*left.values(), changes=bool(steps), wait=0)
            for number, rows in zip(left, answers, strict=True):
                if number < len(steps):
                    positions[number] = self._at(steps[number].sequence_id, rows)
                else:
                    positions[number] = self._found(looks[number - len(steps)], rows)

        try:
            make()
        except Refused:
            # A second refusal means that the whole table is locked, or one more row by now.
            with suppress(Refused):
                for number in self._locked(steps):
                    del left[number]
                if left:
                    make()
        return positions

    def give_up_locked(self) -> None:
        """Note a wait in vain, and reconnect if the whole table is locked."""
        self._gave_up_at = time.monotonic()
        if self._connection.require_table():
            # Do not log the id: knowing it is all that it takes to step the sequence.
            _logger.warning("store at %s: others hold a sequence locked", self.host)

    def put(self, sequence_id: bytes, position: int, expected: Place | None = None) -> None:
        """Put the sequence at ``position``; see `Store.put`."""
        parameters = (bytea(sequence_id), numeric(position))
        statement = _only_from(_PUT, parameters, *(expected or ()))
        if self._at(sequence_id, self._change(sequence_id, statement)) is None:
            raise self._reason(sequence_id)

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence; see `Store.create`."""
        version = 1 if sequence_id == self._permanent else first_version()
        parameters = (bytea(sequence_id), numeric(position), numeric(version))
        rows = self._change(sequence_id, Statement(_CREATE, parameters), more=1)
        if self._at(sequence_id, rows) is None:
            # Do not report this before the standbys have the sequence.
            self.find(sequence_id)
            raise SequenceExists

    def delete(self, sequence_id: bytes, expected: Place | None = None) -> None:
        """Delete the sequence; see `Store.delete`."""
        statement = _only_from(_DELETE, (bytea(sequence_id),), *(expected or ()))
        if not self._change(sequence_id, statement, more=-1):
            raise self._reason(sequence_id)
        self._at(sequence_id, [])

    def holds(self, count: int) -> bool:
        """Return whether there are ``count`` sequences; see `Store.holds`.

        Other servers' sequences are as of the last count, which is renewed here when it is too old.
        """
        if time.monotonic() >= self._count_due:
            self._renew_count()
        return self._count >= count

    def commit(self) -> None:
        """Do nothing: every change is committed when it is made."""

    def tend(self, now: float) -> None:
        """Do nothing: nothing is ever due."""

    def is_lost(self) -> bool:
        """Return whether there is no connection; see `Store.is_lost`."""
        return self._connection.is_lost()

    def check(self) -> None:
        """Check that the database answers and takes changes; change nothing.

        Raises:
            Unavailable: It does not; the store then reconnects.
        """
        version, read_only, found = self._read(
            *(schema.READ_VERSION, _READ_ONLY, self._look(self._permanent)), wait=_CHECK_SECONDS
        )
        self._found(self._permanent, found)
        trouble = schema.mismatch(schema.versions(version))
        if not trouble and read_only[0][0] == b"on":
            trouble = "the database is read-only"
        if trouble:
            self._connection.lose(trouble)
            raise Unavailable(trouble)
        # A lock of the whole table may allow reading.
        self._read(TRY_CHANGE, wait=_CHECK_SECONDS)

    def close(self) -> None:
        """Close the connection, and stop deleting old sequences."""
        if self._expiry:
            self._expiry.stop()
        self._connection.close()

    def _step(self, steps: Steps) -> Statement:
        one, *numbers = steps
        return Statement(_STEP_ANY, (bytea(one), *map(numeric, numbers)))

    def _look(self, sequence_id: bytes) -> Statement:
        return Statement(self._find, (bytea(sequence_id),))

    def _at(self, sequence_id: bytes, rows: Rows) -> int | None:
        """Return the position in an answer about the sequence, or None; note its version."""
        position, version = place(rows)
        self._place = sequence_id, version
        return position

    def _found(self, sequence_id: bytes, rows: Rows) -> int | None:
        """Return the position in the answer to `_look`, or None; note what it says of standbys."""
        if self._connection.can_confirm:
            self._connection.has_standby = rows[0][2] != b""
        return self._at(sequence_id, rows)

    def _reason(self, sequence_id: bytes) -> SequenceNotFound | PositionMismatch:
        """Return why a change of the sequence has found nothing to change."""
        position = self.find(sequence_id)
        return SequenceNotFound() if position is None else PositionMismatch(position)

    def _locked(self, steps: Sequence[Steps]) -> list[int]:
        """Return the indices of the steps whose sequences others hold locked.

        Raises:
            Refused: The whole table is locked.
        """
        answers = self._run(
            *(
                Statement(sql, (bytea(each.sequence_id),))
                for each in steps
                for sql in (FIND, _TRY_LOCK)
            ),
            changes=False,
            wait=0,
        )
        return [
            number
            for number, (found, free) in enumerate(zip(answers[::2], answers[1::2], strict=True))
            if found and not free
        ]

    def _read(self, *statements: Statement, wait: float = WAIT_SECONDS) -> list[Rows]:
        try:
            return self._run(*statements, changes=False, wait=wait)
        except Refused as refusal:
            # Reading waits for no row, so the whole table is locked.
            self._connection.require_table()
            raise Unavailable(str(refusal)) from refusal

    def _change(self, sequence_id: bytes, statement: Statement, more: int = 0) -> Rows:
        """Run a statement that changes the sequence.

        Args:
            sequence_id: Which sequence.
            statement: Returns a row if it has changed the sequence.
            more: How many more sequences there are then.

        Raises:
            SequenceLocked, Unavailable, NoRoom, OutcomeUnknown: As methods of `Store`.
        """
        try:
            waited_ago = time.monotonic() - self._gave_up_at
            rows = self._run(statement, wait=min(WAIT_SECONDS, waited_ago))[0]
        except Refused as refusal:
            self.give_up_locked()
            if self._connection.is_lost():
                raise Unavailable(str(refusal)) from refusal
            raise SequenceLocked from refusal
        if rows:
            self.on_commit(None, 1)
            if sequence_id != self._permanent:
                self._count += more
        return rows

    def _run(
        self, *statements: Statement, changes: bool = True, wait: float = WAIT_SECONDS
    ) -> list[Rows]:
        """Run a transaction, and observe how long it took if it may change something.

        Arguments and errors as `Connection.run`.
        """
        began = time.monotonic()
        answers = self._connection.run(*statements, changes=changes, wait=wait)
        if changes:
            self.on_commit(time.monotonic() - began, 0)
        return answers

    def _renew_count(self) -> None:
        """Count the sequences; keep the last count if that takes too long."""
        began = time.monotonic()
        count = Statement(_COUNT, (bytea(self._permanent),))
        try:
            _, rows = self._run(_LIMIT_COUNT, count, changes=False, wait=0)
            self._count = int(rows[0][0])
        except (Refused, Unavailable) as error:
            _logger.warning("store at %s: cannot count the sequences: %s", self.host, error)
        now = time.monotonic()
        self._count_due = now + max(COUNT_SECONDS, _COUNT_REST_FACTOR * (now - began))


def _only_from(
    sql: bytes,
    parameters: Sequence[bytes],
    position: int | None = None,
    version: int | None = None,
) -> Statement:
    """Return the statement that makes a change at this position and version only."""
    for condition, value in ((_FROM, position), (_OF_VERSION, version)):
        if value is not None:
            parameters = (*parameters, numeric(value))
            sql += condition % len(parameters)
    return Statement(sql + _RETURNING, parameters)
