"""Delete the sequences that nobody has touched for too long.

A wrong clock, or a restored old backup, makes all sequences look old. So the clock is that of the
database, nothing is deleted in the first hour, and only a small share in each later hour. This
leaves an operator time to notice the messages, and to stop it.
"""

import logging
import threading
from contextlib import closing
from typing import Final

from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Session, Statement

_logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 3600.0
"""Seconds before sequences are first deleted, and between two deletions."""

SHARE: Final = 100
"""A deletion removes at most one in this many sequences, but may always remove one."""

TODAY: Final = b"((now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date)"
"""The day, counted from 1970-01-01 (UTC), by the clock of the database."""

# The most rows of one transaction, which holds them locked until its end.
_BATCH: Final = 1000

_COUNT: Final = Statement(b"SELECT count(*) FROM bigfib_sequences")

_EXPIRE: Final = (
    b"DELETE FROM bigfib_sequences WHERE day < " + TODAY + b" - $1::integer "
    b"AND id IN (SELECT id FROM bigfib_sequences "
    b"WHERE day < " + TODAY + b" - $1::integer AND id <> $2::bytea "
    b"LIMIT $3::integer FOR UPDATE SKIP LOCKED) RETURNING id"
)


class Expiry(threading.Thread):
    """A thread that deletes old sequences every hour, by a connection of its own."""

    def __init__(self, conninfo: str, days_kept: int, permanent: bytes) -> None:
        r"""Prepare the thread.

        Args:
            conninfo: A connection string of libpq.
            days_kept: Sequences not touched for more days are deleted.
            permanent: The id of a sequence that is always kept, as text: ``\x...``.
        """
        super().__init__(daemon=True)
        self._conninfo = conninfo
        self._days_kept = days_kept
        self._permanent = permanent
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the thread end after the current batch."""
        self._stopped.set()

    def run(self) -> None:
        """Delete a share every hour; if that fails, log it and try again in an hour."""
        while not self._stopped.wait(INTERVAL_SECONDS):
            try:
                self._delete_share()
            except (CannotConnect, Refused, Broken) as error:
                _logger.warning("cannot delete old sequences from the store: %s", error)

    def _delete_share(self) -> None:
        with closing(Session(self._conninfo)) as session:
            count = int(session.run(_COUNT)[0][0][0])
            most, deleted = max(1, count // SHARE), 0
            while deleted < most and not self._stopped.is_set():
                batch = b"%d" % min(_BATCH, most - deleted)
                parameters = (b"%d" % self._days_kept, self._permanent, batch)
                rows = session.run(Statement(_EXPIRE, parameters))[0]
                deleted += len(rows)
                if not rows:
                    break
            if deleted:
                _logger.info(
                    "store at %s: deleted %d of %d sequences, not touched for more than %d days",
                    *(session.host, deleted, count, self._days_kept),
                )
