"""Delete the sequences that nobody has touched for too long."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from bigfib.state.postgres.session import Broken, CannotConnect, Refused, Session, Statement

_INTERVAL_SECONDS: Final = 3600.0

# So many at a time, because a transaction holds the rows that it deletes locked.
_BATCH: Final = 1000

_EXPIRE: Final = (
    b"DELETE FROM bigfib_sequences WHERE day < $1::integer AND id IN (SELECT id "
    b"FROM bigfib_sequences WHERE day < $1::integer AND id <> $2::bytea LIMIT %d) RETURNING id"
) % _BATCH


class Expiry(threading.Thread):
    """A thread that deletes old sequences every hour, by a connection of its own."""

    def __init__(self, conninfo: str, oldest_day: Callable[[], int], permanent: bytes) -> None:
        r"""Prepare the thread.

        Args:
            conninfo: Where the database is.
            oldest_day: Returns the first day, counted from 1970, whose sequences are kept.
            permanent: The id of a sequence that is always kept, as text: ``\x...``.
        """
        super().__init__(daemon=True)
        self._conninfo = conninfo
        self._oldest_day = oldest_day
        self._permanent = permanent
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the thread end, after the batch that it is deleting."""
        self._stopped.set()

    def run(self) -> None:
        """Delete now and every hour. What fails is left for the next time."""
        while not self._stopped.is_set():
            expire = Statement(_EXPIRE, (b"%d" % self._oldest_day(), self._permanent))
            with (
                suppress(CannotConnect, Refused, Broken),
                closing(Session(self._conninfo)) as session,
            ):
                while session.run(expire)[0] and not self._stopped.is_set():
                    pass
            self._stopped.wait(_INTERVAL_SECONDS)
