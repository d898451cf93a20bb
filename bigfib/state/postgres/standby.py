"""Show nothing that a failover may take back.

A commit waits for PostgreSQL's synchronous standbys, where there are any, and nobody sees its
changes until the wait ends. But the wait may be cut short, by an administrator or a restart, and
then the changes are seen, though no standby has them. An old primary that wakes up after a failover
shows what was true before. So a transaction that reads writes a message to the write-ahead log,
which nothing applies: its commit waits for the standbys like that of a change, and they confirm
messages in the order of the log, hence everything that the transaction has seen. An old primary
waits in vain.

For the same reason no wait for a standby is cancelled here. A connection that is given up leaves
one behind, on a server that already has others; `require_answers` keeps them from adding up.

Other databases of PostgreSQL's protocol have no such message, and replicate before they answer.
"""

from typing import Final

from bigfib.state.postgres.session import Session, Statement
from bigfib.state.store import Unavailable

_CONFIRM: Final = (
    b"CASE WHEN current_setting('synchronous_standby_names') <> '' "
    b"THEN pg_logical_emit_message(true, 'bigfib', '') END"
)

_COMMIT: Final = Statement(b"SELECT " + _CONFIRM)

_KNOWS_MESSAGES: Final = Statement(
    b"SELECT proname FROM pg_proc WHERE proname = 'pg_logical_emit_message'"
)

# Of this user: of others the server shows nothing. Any commit waits for a moment.
_WAITS: Final = Statement(
    b"SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
    b"AND clock_timestamp() - state_change > interval '1 second'"
)


def confirmed(find: bytes) -> bytes:
    """Return a query that is answered when the standbys have what it shows.

    Args:
        find: A query of one row, or none.

    Returns:
        A query of one row: that of ``find``, NULLs where there is none, and one column more, which
        is NULL where there are no standbys.
    """
    # One statement, so that it is a transaction by itself.
    always = b"FROM (SELECT 1) AS always LEFT JOIN (%b) AS found ON true" % find
    return b"SELECT found.*, " + _CONFIRM + b" " + always


def can_confirm(session: Session) -> bool:
    """Return whether the server runs queries that are `confirmed`."""
    return bool(session.run(_KNOWS_MESSAGES)[0])


def require_answers(session: Session) -> None:
    """Return when the standbys have answered, or at once where there are none.

    Raises:
        Unavailable: Commits wait for them already.
        Refused, Broken: As `Session.run`; the latter if they do not answer in time.
    """
    if session.run(_WAITS)[0]:
        raise Unavailable("commits wait for a synchronous standby, which does not answer")
    session.run(_COMMIT)
