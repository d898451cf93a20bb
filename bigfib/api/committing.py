"""Let no reply leave before the changes that it shows are committed to the store.

bjoern writes replies in a later iteration of its event loop than the one in which it has read the
requests. At the end of each iteration (see `bigfib.server.bjoern.loop`) one commit serves all
replies of that iteration, and they leave whole: with 64 connections, ten times as many replies a
second as with one ``fdatasync`` for each reply.

Where iterations cannot be followed, a reply begins with a piece that shows nothing yet, and commits
when bjoern asks for the next piece. So the first reply of a batch syncs for all requests read
before it, and the others find their changes committed. This reaches 0.7 of the replies a second,
for each is written in two parts. It needs a ``Content-Length``, which shows the client that a reply
cut off before its commit is none, and ``TCP_NODELAY``, without which the second piece waits until
the client has acknowledged the first. A reply without a body, and one whose headers show a
position, commits before it begins, because its headers leave with the first piece.

A store shared by many servers is stepped in the second way, in one transaction for all steps that
wait (see `bigfib.batches`). Only the store knows the resulting position, so that not even the
length of the reply is known before.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn

from bigfib.state.errors import CommitFailed
from bigfib.state.store import Store

_logger = logging.getLogger(__name__)

# Copying a longer body costs more than a system call for each of its pieces.
JOINED_UP_TO: Final = 1 << 16
"""Bytes up to which the pieces of a body are joined."""


def stop_process(error: CommitFailed) -> NoReturn:
    """Log the error and end the process: its log cannot be made durable any more.

    Raises:
        SystemExit: On this exception bjoern ends the process with its status, 1. The process must
            end, because none of the replies that wait for the log may be finished.
    """
    _logger.critical("%s", error)
    raise SystemExit(1) from error


class Committer:
    """Commit changes before the replies that show them leave.

    Attributes:
        by_iterations: Whether `end_iteration` is called before replies of a loop iteration leave.
        on_commit: Called once after the next commit, when the replies of this iteration may leave.
            They must not raise: that would end the process.
    """

    def __init__(self, store: Store) -> None:
        """Commit to ``store``."""
        self._store = store
        self.by_iterations = False
        self.on_commit: list[Callable[[], None]] = []

    def end_iteration(self) -> None:
        """Commit the changes that the replies of this loop iteration show.

        Raises:
            SystemExit: as `stop_process`.
        """
        # The first call shows that iterations are followed.
        self.by_iterations = True
        if self._store.end > self._store.committed:
            self._commit(self._store.end)
        for call in self.on_commit:
            call()
        self.on_commit.clear()

    def commit(self) -> None:
        """Commit all changes before a reply begins, unless `end_iteration` will do so.

        Raises:
            SystemExit: as `stop_process`.
        """
        if not self.by_iterations:
            self._commit(self._store.end)

    def may_leave(self, lsn: int) -> bool:
        """Return whether a reply that shows changes up to ``lsn`` may be handed over at once."""
        return self.by_iterations or lsn <= self._store.committed

    def body(self, lsn: int, opening: bytes, *rest: bytes) -> Iterable[bytes]:
        """Return a body whose pieces after the ``opening`` leave once their changes are committed.

        Args:
            lsn: The last change that the rest shows.
            opening: The first piece, which shows none.
            rest: More pieces.

        Returns:
            The pieces; a list with one piece if the body is short and `may_leave`.
        """
        is_short = sum(map(len, rest)) <= JOINED_UP_TO
        if not self.by_iterations and lsn > self._store.committed:
            return self._after_commit(lsn, opening, (b"".join(rest),) if is_short else rest)
        if is_short:
            return [b"".join((opening, *rest))]
        return (opening, *rest)

    def _after_commit(self, lsn: int, opening: bytes, rest: tuple[bytes, ...]) -> Iterator[bytes]:
        yield opening
        # Most find their change committed by the first reply of the batch, and save the call.
        if lsn > self._store.committed:
            self._commit(lsn)
        yield from rest

    def _commit(self, lsn: int) -> None:
        try:
            self._store.commit(lsn)
        except CommitFailed as error:
            stop_process(error)
