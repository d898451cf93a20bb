"""Show clients nothing that a failover may undo.

A commit waits for PostgreSQL's synchronous standbys, if there are any, and its changes become
visible when the wait ends. But if an administrator or a restart cancels the wait, the changes
become visible although no standby has them. And an old primary that wakes up after a failover
shows outdated positions. So a transaction that reads also writes a message to the write-ahead log,
which has no effect when it is replayed. Its commit waits for the standbys like that of a change.
They confirm the log in order, so a standby that confirms the message has all that the transaction
has seen. On an old primary this commit waits in vain.

For the same reason bigfib cancels no wait for a standby. If a connection is closed during such a
wait, its server process keeps waiting; `require_answers` keeps such processes from piling up.

Each promotion of a standby begins a new timeline. A primary of an older one lacks what was
committed since. It may still lead again if the program that manages the cluster is wrong about who
leads: seen with Patroni 3.0 without a watchdog, after PostgreSQL alone had hung.

Other databases of PostgreSQL's protocol have no such message, and replicate before they answer.
"""

from typing import Final

from bigfib.state.postgres.session import QUERY_CANCELED, Refused, Session, Statement
from bigfib.state.store import Unavailable

_CONFIRM: Final = (
    b"CASE WHEN current_setting('synchronous_standby_names') <> '' "
    b"THEN pg_logical_emit_message(true, 'bigfib', '') END"
)

_COMMIT: Final = Statement(b"SELECT " + _CONFIRM)

_KNOWS_MESSAGES: Final = Statement(
    b"SELECT proname FROM pg_proc WHERE proname = 'pg_logical_emit_message'"
)

# The server shows this only for processes of the same user. Any commit waits for a moment, so only
# longer waits count.
_WAITS: Final = Statement(
    b"SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
    b"AND clock_timestamp() - state_change > interval '1 second'"
)

# The name of a file of the write-ahead log begins with the timeline, in hexadecimal.
_TIMELINE: Final = Statement(
    b"SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()"
)


def confirmed(find: bytes) -> bytes:
    """Return a query that is answered once the standbys have what it shows.

    Args:
        find: A query of one row, or none.

    Returns:
        A query of one row: the row of ``find``, or NULLs if it has none, and one more column, which
        is NULL if there are no standbys.
    """
    # One statement, so that it is a transaction by itself.
    always = b"FROM (SELECT 1) AS always LEFT JOIN (%b) AS found ON true" % find
    return b"SELECT found.*, " + _CONFIRM + b" " + always


def can_confirm(session: Session) -> bool:
    """Return whether the server supports queries that are `confirmed`."""
    return bool(session.run(_KNOWS_MESSAGES)[0])


def require_answers(session: Session) -> None:
    """Wait until the standbys have answered, if there are any.

    Raises:
        Unavailable: Other commits already wait for them.
        Refused, Broken: As `Session.run`; the latter if they do not answer in time.
    """
    if session.run(_WAITS)[0]:
        raise Unavailable("commits wait for a synchronous standby, which does not answer")
    session.run(_COMMIT)


def timeline(session: Session) -> tuple[bytes, int]:
    """Return the id of the database cluster and its timeline; 0 if the server does not show it.

    Raises:
        Refused, Broken: As `Session.run`; the former only if it took too long.
    """
    try:
        ((cluster, file),) = session.run(_TIMELINE)[0]
    except Refused as refusal:
        if refusal.sqlstate == QUERY_CANCELED:
            raise
        return b"", 0
    return cluster, int(file[:8] or b"0", 16)
