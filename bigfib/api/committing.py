"""When replies may leave: not before what they show is committed to the store.

bjoern writes replies in a later turn of its event loop than that in which it has read the requests.
At the end of each turn (see `bigfib.server.bjoern.loop`) one commit serves all replies of that
turn, and they leave whole. Measured beside one ``fdatasync`` a reply, at 64 connections: ten times
as many replies a second.

Where the ends of turns are not told, a reply opens with a chunk that says nothing yet, and its next
chunk commits first. bjoern asks for that when it has written the first, so the first reply of a
batch syncs for all requests read before it, and the others find their steps committed: 0.7 times as
many replies as by turns, for each is written in two parts. It takes a ``Content-Length`` (a reply
cut off before its commit is then no reply) and ``TCP_NODELAY`` (the second chunk is not held back
until the first is acknowledged). A reply without a body commits before it begins, and so does one
whose headers show a position: they leave with the first chunk.

A store that many servers share is stepped in the second way, by one transaction for all that wait
(see `bigfib.batches`); but where that leads, it alone knows, so that even the length comes after.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn

from bigfib.state.errors import CommitFailed
from bigfib.state.store import Store

_logger = logging.getLogger(__name__)

# Beyond, a copy of the body costs more than a system call for each of its parts.
JOINED_UP_TO: Final = 1 << 16
"""Bytes of a body that are sent in one piece, if they are all there."""


def end(error: CommitFailed) -> NoReturn:
    """End the process, whose log cannot be made durable any more, and say so.

    Raises:
        SystemExit: bjoern ends the process on this exception, with its status, 1. Nothing less
            will do: none of the replies that wait for the log may be finished.
    """
    _logger.critical("%s", error)
    raise SystemExit(1) from error


class Committer:
    """Commits what replies show, before they leave.

    Attributes:
        by_turns: Whether `end_turn` is called before any reply of the turn leaves.
        afterwards: What is to be called once, when the replies of this turn may leave. It raises
            nothing, for that would end the process.
    """

    def __init__(self, store: Store) -> None:
        """Commit to ``store``."""
        self._store = store
        self.by_turns = False
        self.afterwards: list[Callable[[], None]] = []

    def end_turn(self) -> None:
        """Commit what the replies of this turn show.

        Raises:
            SystemExit: as `end`.
        """
        # Who has called this once will do so at the end of every turn.
        self.by_turns = True
        if self._store.end > self._store.committed:
            self._commit(self._store.end)
        for call in self.afterwards:
            call()
        self.afterwards.clear()

    def commit(self) -> None:
        """See to it that all is committed before a reply begins.

        Raises:
            SystemExit: as `end`.
        """
        if not self.by_turns:
            self._commit(self._store.end)

    def may_leave(self, lsn: int) -> bool:
        """Return whether what gives away everything up to ``lsn`` need not see to its commit."""
        return self.by_turns or lsn <= self._store.committed

    def body(self, lsn: int, opening: bytes, *rest: bytes) -> Iterable[bytes]:
        """Return a body that leaves, but for its ``opening``, when everything is committed.

        Args:
            lsn: Up to where: what the rest gives away.
            opening: The beginning.
            rest: More pieces.

        Returns:
            The pieces; those of a short one, if it need not see to that itself, joined in a list.
        """
        is_short = sum(map(len, rest)) <= JOINED_UP_TO
        if not self.by_turns and lsn > self._store.committed:
            return self._after_commit(lsn, opening, (b"".join(rest),) if is_short else rest)
        if is_short:
            return [b"".join((opening, *rest))]
        return (opening, *rest)

    def _after_commit(self, lsn: int, opening: bytes, rest: tuple[bytes, ...]) -> Iterator[bytes]:
        yield opening
        # Most find their step committed by the first of their batch, and save the call.
        if lsn > self._store.committed:
            self._commit(lsn)
        yield from rest

    def _commit(self, lsn: int) -> None:
        try:
            self._store.commit(lsn)
        except CommitFailed as error:
            end(error)
