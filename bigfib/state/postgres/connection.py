"""Keep a connection to the database, and replace it when it is lost.

A thread reconnects; a request waits for it no longer than `RECONNECT_SECONDS`. If a connection is
lost during a change, the change is never retried, because it may have been made. A transaction is
retried if the server refuses it because of other transactions (`serialization_failure`,
`deadlock_detected`, `lock_not_available`): it has then changed nothing.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from bigfib.state.postgres import schema, standby
from bigfib.state.postgres.session import (
    ANSWER_SECONDS,
    QUERY_CANCELED,
    Broken,
    CannotConnect,
    Refused,
    Rows,
    Session,
    Statement,
    each_host,
)
from bigfib.state.store import WAIT_SECONDS, NoRoom, OutcomeUnknown, StoreError, Unavailable

_logger = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 0.5
"""Maximum seconds that a request waits for a new connection after the loss of the last one."""

# Between attempts to connect, in seconds; the pause doubles with each attempt.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

# The longest pause, in seconds, before a refused transaction is retried.
_RETRY_PAUSE: Final = 0.005

# How many seconds one attempt waits for a lock. This is longer than most commits of other servers
# take, but short, because a batch holds other rows locked meanwhile.
_LOCK_SECONDS: Final = 0.05

# Within how many seconds `TRY_CHANGE` must succeed.
_TRY_SECONDS: Final = 0.2

_LOCK_NOT_AVAILABLE: Final = "55P03"
_RETRIED: Final = {"40001", "40P01", _LOCK_NOT_AVAILABLE}
_DISK_FULL: Final = "53100"

TRY_CHANGE: Final = Statement(rb"UPDATE bigfib_sequences SET day = day WHERE id = '\x'::bytea")
"""Changes nothing, because no sequence has this id, but needs a change's permission and locks."""

_DURABILITY: Final = b"""SELECT coalesce(current_setting('fsync', true), ''),
    coalesce(current_setting('synchronous_commit', true), ''),
    coalesce(current_setting('synchronous_standby_names', true), '')"""


class Connection:
    """A connection to a database with bigfib's tables, used by one thread at a time.

    Attributes:
        host: The server that it is connected to, or last was.
        synchronous_commit: The server's setting: when a transaction counts as committed.
        can_confirm: As returned by `standby.can_confirm`.
        has_standby: Whether commits waited for a standby when this was last checked.
    """

    def __init__(self, conninfo: str) -> None:
        """Connect to the database.

        Args:
            conninfo: A connection string of libpq, such as ``postgresql://...``.

        Raises:
            StoreError: No server can be connected to, or the database lacks the tables.
        """
        self._conninfo = conninfo
        # The newest timeline of each database cluster that this has been connected to.
        self._timelines: dict[bytes, int] = {}
        self._session: Session | None = self._connect()
        self.host = self._session.host
        self._trouble = ""
        self._lost_at = 0.0
        self._closed = False
        # Set while there is no connection; set after the first attempt to get another one.
        self._lost = threading.Event()
        self._tried = threading.Event()
        threading.Thread(target=self._replace_lost, daemon=True).start()

    def is_lost(self) -> bool:
        """Return whether there is no connection."""
        return self._session is None

    def is_open(self) -> bool:
        """Return whether there is a connection, and the server has not closed it."""
        return self._session is not None and self._session.is_open()

    def run(
        self, *statements: Statement, changes: bool = True, wait: float = WAIT_SECONDS
    ) -> list[Rows]:
        """Run a transaction, and retry it while others conflict with it.

        Args:
            statements: The statements of the transaction.
            changes: Whether they may change something.
            wait: How many seconds to retry while another transaction holds a lock.

        Raises:
            Refused: Another transaction holds a lock, and nothing has changed.
            Unavailable, NoRoom, OutcomeUnknown: As methods of `Store`.
        """
        try:
            return _retry(
                lambda seconds: self._run_once(statements, changes=changes, seconds=seconds), wait
            )
        except Refused as refusal:
            if refusal.sqlstate == _LOCK_NOT_AVAILABLE:
                raise
            raise Unavailable(f"other transactions conflict with this one: {refusal}") from refusal

    def require_table(self) -> bool:
        """Return whether the table of sequences takes changes; if not, reconnect."""
        session = self._session
        if session and not _takes_changes(session):
            self._lose(session, "others hold the table of sequences locked: lock timeout")
        return self._session is not None

    def lose(self, trouble: str) -> None:
        """Close the connection and reconnect; ``trouble`` says why."""
        if self._session:
            self._lose(self._session, trouble)

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._lost.set()
        session, self._session = self._session, None
        if session:
            session.close()

    def _run_once(
        self, statements: Sequence[Statement], *, changes: bool, seconds: float
    ) -> list[Rows]:
        session = self._connected()
        try:
            return session.run(*statements, seconds=seconds)
        except Refused as refusal:
            if refusal.sqlstate in _RETRIED:
                raise
            if refusal.sqlstate == _DISK_FULL:
                raise NoRoom(f"store at {self.host}: {refusal}") from refusal
            if refusal.sqlstate == QUERY_CANCELED and _takes_changes(session):
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
            # Nothing has been sent, so the transaction may use the new connection.
            self._lose(session, "the server has closed the connection")
        self._tried.wait(max(0.0, self._lost_at + RECONNECT_SECONDS - time.monotonic()))
        session = self._session
        if session is None:
            raise Unavailable(self._trouble)
        return session

    def _lose(self, session: Session, trouble: str) -> None:
        self._trouble = trouble
        _logger.warning("store at %s lost: %s", self.host, trouble)
        self._lost_at = time.monotonic()
        self._session = None
        session.close()
        self._tried.clear()
        self._lost.set()

    def _connect(self) -> Session:
        """Return a session that can make changes, on the first host that accepts them.

        Raises:
            StoreError: There is none.
        """
        try:
            hosts = each_host(self._conninfo)
        except CannotConnect as error:
            raise StoreError(str(error)) from error
        troubles = []
        for host in hosts:
            try:
                return self._connect_to(host)
            except (CannotConnect, Refused, Broken, Unavailable) as error:
                troubles.append(str(error))
        raise StoreError("; ".join(troubles))

    def _connect_to(self, host: str) -> Session:
        with ExitStack() as failed:
            session = Session(host, lock_seconds=_LOCK_SECONDS)
            failed.callback(session.close)
            schema.require(session)
            _retry(lambda seconds: session.run(TRY_CHANGE, seconds=seconds))
            self.can_confirm = standby.can_confirm(session)
            if self.can_confirm:
                standby.require_answers(session)
                self._require_newest_timeline(session)
            self.synchronous_commit, self.has_standby = _warn_of_weak_durability(session)
            failed.pop_all()
        return session

    def _require_newest_timeline(self, session: Session) -> None:
        cluster, timeline = standby.timeline(session)
        newest = self._timelines.get(cluster, 0)
        if timeline < newest:
            raise Unavailable(
                f"{session.host} is on timeline {timeline}, but this process has used timeline "
                f"{newest}: it may lack acknowledged steps; find the server that has them, or "
                "restart bigfib to go on without them"
            )
        self._timelines[cluster] = timeline

    def _replace_lost(self) -> None:
        """Reconnect whenever the connection is lost. Runs in a thread."""
        while not self._closed:
            self._lost.wait()
            self._find_connection()

    def _find_connection(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
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


def _takes_changes(session: Session) -> bool:
    """Return whether the table takes changes; locks of single rows do not matter."""
    try:
        session.run(TRY_CHANGE, seconds=_TRY_SECONDS)
    except (Refused, Broken):
        return False
    return True


def _retry(transaction: Callable[[float], list[Rows]], wait: float = WAIT_SECONDS) -> list[Rows]:
    """Run a transaction, and retry it while others conflict with it.

    Args:
        transaction: Runs the transaction within the number of seconds passed to it.
        wait: How many seconds to retry while another transaction holds a lock.

    Raises:
        Refused: The conflict has lasted too long, or there is another reason.
    """
    began = time.monotonic()
    waited = 0.0
    while True:
        try:
            return transaction(ANSWER_SECONDS - waited)
        except Refused as refusal:
            waited = time.monotonic() - began
            limit = wait if refusal.sqlstate == _LOCK_NOT_AVAILABLE else WAIT_SECONDS
            if refusal.sqlstate not in _RETRIED or waited >= limit:
                raise
        time.sleep(random.uniform(0, _RETRY_PAUSE))  # noqa: S311 - so that the two miss each other


def _warn_of_weak_durability(session: Session) -> tuple[str, bool]:
    """Warn if the server may lose committed transactions.

    Return its ``synchronous_commit``, and whether commits wait for a standby.
    """
    fsync, commit, standbys = (
        value.decode() for value in session.run(Statement(_DURABILITY))[0][0]
    )
    if fsync == "off":
        _logger.warning("store at %s: fsync is off, so power loss may undo steps", session.host)
    if commit == "off":
        _logger.warning(
            "store at %s: synchronous_commit is off, so a crash may undo steps", session.host
        )
    elif standbys and commit in ("local", "remote_write"):
        _logger.warning(
            "store at %s: synchronous_commit is %s, so a failover may undo steps",
            *(session.host, commit),
        )
    return commit, bool(standbys) and commit not in ("off", "local")
