"""Run transactions on one connection of PostgreSQL's protocol, each within a deadline.

The statements of a transaction are sent together, in a pipeline. There are two kinds of failure:
`Refused` means that nothing has changed, `Broken` that the outcome is unknown.

The deadline is enforced here. A paused server keeps its connections open, and its kernel
acknowledges what is sent, so no timeout of the kernel or of the server would end the wait.

A pooler such as PgBouncer may run each transaction of a session on another connection. Then no
state may outlive a transaction: statements are not prepared, and each transaction repeats the
settings that are otherwise made once for a session.
"""

import logging
import os
import re
import select
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo
from psycopg.errors import Diagnostic
from psycopg.pq.abc import PGresult

_logger = logging.getLogger(__name__)

STATEMENT_SECONDS: Final = 2.5
"""Seconds after which the server cancels a statement. This is a little before `ANSWER_SECONDS`, so
that a slow statement is known to have changed nothing."""

ANSWER_SECONDS: Final = 2.8
"""Seconds after which a connection without all answers is closed: a request may take 3 s."""

# Settings of libpq, unless the connection string or the environment has others: try the next host
# if one does not answer, accept no standby, notice a lost network within 25 seconds. The keepalives
# also prevent a firewall from dropping an idle connection.
_DEFAULTS: Final = {
    "connect_timeout": ("PGCONNECT_TIMEOUT", "2"),
    "target_session_attrs": ("PGTARGETSESSIONATTRS", "read-write"),
    "application_name": ("PGAPPNAME", "bigfib"),
    "tcp_user_timeout": ("", "5000"),
    "keepalives_idle": ("", "20"),
    "keepalives_interval": ("", "5"),
    "keepalives_count": ("", "1"),
}

# A standby may lack changes that clients have already seen.
_DEFAULTS_OF_READERS: Final = {"target_session_attrs": ("PGTARGETSESSIONATTRS", "primary")}

_COMPLETION_UNKNOWN: Final = "40003"

QUERY_CANCELED: Final = "57014"
"""The server's code for a statement that took too long, for whatever reason."""

# This function of PostgreSQL warns that the wait for a standby was cancelled: the commit is then on
# this server, and perhaps on no other. The text of the warning depends on the server's language.
_WAIT_FOR_STANDBY: Final = "SyncRepWaitForLSN"


class CannotConnect(Exception):
    """No server can be connected to; the message says why."""


class Refused(Exception):
    """The server has refused the transaction; nothing has changed.

    Attributes:
        sqlstate: The server's code for the reason.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Broken(Exception):
    """The connection is lost, or does not answer; the outcome of the transaction is unknown."""


class Statement(NamedTuple):
    """A statement and its parameters.

    Attributes:
        sql: The text, with ``$1`` for the first parameter. A session without a pooler prepares it
            once.
        parameters: The values of the parameters, as text.
    """

    sql: bytes
    parameters: Sequence[bytes] = ()


Rows = list[tuple[bytes, ...]]

_BEGIN: Final = Statement(b"BEGIN")
_COMMIT: Final = Statement(b"COMMIT")
_ROLLBACK: Final = Statement(b"ROLLBACK")
_ONLY_READ: Final = Statement(b"SET LOCAL transaction_read_only = on")
_PROCESS: Final = Statement(b"SELECT pg_backend_pid()")


def connect(
    conninfo: str, *, autocommit: bool = False, only_reads: bool = False
) -> psycopg.Connection[Any]:
    """Connect to the first suitable server that ``conninfo`` names.

    Args:
        conninfo: A connection string of libpq.
        autocommit: Whether each statement is a transaction of its own.
        only_reads: Whether a server that accepts no changes is suitable, too.

    Raises:
        CannotConnect: There is none, or ``conninfo`` is not valid.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        raise CannotConnect(_what_is_wrong(conninfo)) from None
    try:
        defaults = _DEFAULTS | (_DEFAULTS_OF_READERS if only_reads else {})
        more = {
            name: value
            for name, (variable, value) in defaults.items()
            if name not in given and variable not in os.environ
        }
        return psycopg.connect(make_conninfo(conninfo, **more), autocommit=autocommit)
    except psycopg.Error as error:
        raise CannotConnect(one_line(str(error))) from error


def _what_is_wrong(conninfo: str) -> str:
    # The message of libpq quotes the string, with the password.
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in re.findall(r"[?&\s]([a-z_]+)\s*=", f" {conninfo}"):
        if name not in known:
            return f"the connection string has a parameter that libpq does not know: {name}"
    return (
        "the connection string is not valid; write postgresql://USER@HOST/DATABASE, and "
        "percent-encode everything but letters and digits in a name or password"
    )


def each_host(conninfo: str) -> list[str]:
    """Return a connection string for each address of each host that ``conninfo`` names.

    Raises:
        CannotConnect: No host has an address, or ``conninfo`` is not valid.
    """
    try:
        attempts = conninfo_attempts(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError:
        raise CannotConnect(_what_is_wrong(conninfo)) from None
    except psycopg.Error as error:
        raise CannotConnect(one_line(str(error))) from error
    return [make_conninfo("", **attempt) for attempt in attempts]


def one_line(message: str) -> str:
    """Return a message, which may have several lines, as one line."""
    return " ".join(message.split())


class Session:
    """A connection, used by one thread at a time."""

    def __init__(
        self, conninfo: str, *, only_reads: bool = False, lock_seconds: float | None = None
    ) -> None:
        """Connect to the first suitable server that ``conninfo`` names.

        Args:
            conninfo: A connection string of libpq.
            only_reads: Whether the server must refuse changes, even those made by mistake.
            lock_seconds: How long a statement waits for a lock, unless ``conninfo`` sets it.

        Raises:
            CannotConnect: There is none, or ``conninfo`` is not valid.
        """
        self._connection = connect(conninfo, autocommit=True, only_reads=only_reads)
        self._pgconn = self._connection.pgconn
        self._readable = select.poll()
        self._readable.register(self._pgconn.socket, select.POLLIN)
        self._prepared: dict[bytes, bytes] = {}
        self._unknown = ""
        self._warned: set[tuple[str | None, str | None]] = set()
        self._connection.add_notice_handler(self._notice)
        self._pgconn.enter_pipeline_mode()
        # What each transaction begins with.
        self._before = [_ONLY_READ] if only_reads else []
        self._is_pooled = True
        limits = [("statement_timeout", STATEMENT_SECONDS), ("lock_timeout", lock_seconds)]
        statements = [
            b"%b = %d" % (name.encode(), seconds * 1000)
            for name, seconds in limits
            if seconds is not None and name not in conninfo
        ]
        try:
            self._is_pooled = int(self._first_answer()) != self._pgconn.backend_pid
            if self._is_pooled:
                self._before += [Statement(b"SET LOCAL " + one) for one in statements]
            else:
                self.run(*(Statement(b"SET " + one) for one in statements))
        except (Refused, Broken) as error:
            self.close()
            raise CannotConnect(str(error)) from error

    def _first_answer(self) -> bytes:
        """Return the id of the server's process, which differs from that of a pooler."""
        try:
            return self.run(_PROCESS)[0][0][0]
        except Broken as broken:
            raise Broken(
                f"{self.host} takes connections, but does not answer: it hangs, or it is a pooler "
                f"without a connection left for this one ({broken})"
            ) from broken

    @property
    def host(self) -> str:
        """Host and port of the server."""
        return f"{self._connection.info.host}:{self._connection.info.port}"

    def is_open(self) -> bool:
        """Return whether the connection is open, as far as is known without sending anything."""
        try:
            # A server sends the reason before it closes, so read until nothing is left.
            while self._readable.poll(0):
                self._pgconn.consume_input()
        except psycopg.Error:
            return False
        return True

    def run(self, *statements: Statement, seconds: float = ANSWER_SECONDS) -> list[Rows]:
        """Run the statements in one transaction and return the rows of each.

        Args:
            statements: The statements of the transaction.
            seconds: The deadline for all answers.

        Raises:
            Refused: The server has refused a statement or the commit.
            Broken: No answer came in time, or the commit may not be on the standby.
        """
        self._unknown = ""
        deadline = time.monotonic() + seconds
        try:
            if not self._is_pooled:
                self._prepare({statement.sql for statement in statements}, deadline)
            # One statement is a transaction by itself. PostgreSQL makes one of a pipeline, too, but
            # other databases commit each of its statements: hence BEGIN and COMMIT.
            before = (_BEGIN, *self._before) if self._before or len(statements) != 1 else ()
            after = (_COMMIT,) if before else ()
            results = self._exchange((*before, *statements, *after), deadline)
            # Statements after a refused one are skipped, with another status.
            at = next((at for at, one in enumerate(results) if one.status == _FATAL_ERROR), None)
            if at is None:
                if self._unknown:
                    raise Broken(self._unknown)
                return [
                    _rows(result) for result in results[len(before) : len(results) - len(after)]
                ]
            if self._pgconn.transaction_status != pq.TransactionStatus.IDLE:
                self._exchange([_ROLLBACK], deadline)
        except psycopg.Error as error:
            raise Broken(one_line(str(error))) from error
        refusal = results[at]
        sqlstate = (refusal.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = one_line(refusal.get_error_message())
        severity = refusal.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
        if severity != b"ERROR" or sqlstate == _COMPLETION_UNKNOWN:
            raise Broken(message)
        raise Refused(sqlstate, message)

    def close(self) -> None:
        """Close the connection, and cancel nothing; see `bigfib.state.postgres.standby`."""
        self._connection.close()

    def _prepare(self, sqls: Iterable[bytes], deadline: float) -> None:
        new = [sql for sql in sqls if sql not in self._prepared]
        for sql in new:
            name = self._prepared[sql] = b"bigfib%d" % len(self._prepared)
            self._pgconn.send_prepare(name, sql)
        if new:
            for result in self._answers(len(new), deadline):
                if result.status != pq.ExecStatus.COMMAND_OK:
                    for sql in new:
                        del self._prepared[sql]
                    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
                    raise Refused(sqlstate.decode(), one_line(result.get_error_message()))

    def _exchange(self, statements: Sequence[Statement], deadline: float) -> list[PGresult]:
        for sql, parameters in statements:
            name = self._prepared.get(sql)
            if name is None:
                self._pgconn.send_query_params(sql, parameters)
            else:
                self._pgconn.send_query_prepared(name, parameters)
        return self._answers(len(statements), deadline)

    def _answers(self, count: int, deadline: float) -> list[PGresult]:
        """Send what is queued, and return the results of ``count`` statements."""
        pgconn = self._pgconn
        pgconn.pipeline_sync()
        while pgconn.flush():
            self._wait(select.POLLIN | select.POLLOUT, deadline)
            pgconn.consume_input()
        results: list[PGresult] = []
        ended = 0
        while True:
            while pgconn.is_busy():
                self._wait(select.POLLIN, deadline)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                # None ends the results of each statement.
                ended += 1
                if ended > count or pgconn.status != pq.ConnStatus.OK:
                    raise Broken("the server has closed the connection")
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)

    def _wait(self, events: int, deadline: float) -> None:
        poll = self._readable
        if events != select.POLLIN:
            poll = select.poll()
            poll.register(self._pgconn.socket, events)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise Broken("the server does not answer in time")

    def _notice(self, diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized != "WARNING":
            return
        message = one_line(diagnostic.message_primary or "the server warns")
        if diagnostic.source_function == _WAIT_FOR_STANDBY:
            self._unknown = message
            return
        # Any other warning, such as a trigger's, is logged once for the operator.
        kind = (diagnostic.sqlstate, diagnostic.source_function)
        if kind not in self._warned:
            self._warned.add(kind)
            _logger.warning("store at %s warns: %s", self.host, message)


_FATAL_ERROR: Final = pq.ExecStatus.FATAL_ERROR


def _rows(result: PGresult) -> Rows:
    columns = range(result.nfields)
    return [
        tuple(result.get_value(row, column) or b"" for column in columns)
        for row in range(result.ntuples)
    ]
