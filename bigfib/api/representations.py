"""How a term becomes bytes on the wire, and when those bytes may leave.

A reply that shows a position must not leave before that position is committed to the state log.
bjoern calls the application on read events, and asks for the second chunk of a body on a later
write event. So such a reply opens with a chunk that says nothing yet, and its next chunk commits
first: the first reply of a batch syncs for all requests read before it, and the others find their
steps committed. Measured beside one ``fdatasync`` a reply, at 64 connections: eight times as many
replies a second.

This asks for a ``Content-Length`` (a reply cut off before its commit is then no reply) and for
``TCP_NODELAY`` (the second chunk is not held back until the first is acknowledged).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Final

from bigfib.state.log import CommitFailed, Log

Header = tuple[str, str]

Answer = tuple[str, list[Header], Iterable[bytes]]
"""Status line, headers, body: what WSGI's ``start_response`` and the server are given.

The list must be a new one each time, for bjoern writes into it.
"""

# From here on a copy of the body costs more than a system call for each of its parts.
_JOINED_UP_TO: Final = 1 << 16

_JSON: Final = ("Content-Type", "application/json")
_NO_STORE: Final = ("Cache-Control", "no-store")


class DateHeader:
    """The ``Date`` of a reply, written anew each second. bjoern sends none by itself."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._header = ("Date", "")

    def __call__(self) -> Header:
        """Return name and value of the header for now."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._header = ("Date", formatdate(second, usegmt=True))
        return self._header


class CommittedReply:
    """The JSON ``{"value":"13","status":"200"}``, held back until the log has been committed."""

    def __init__(self, log: Log, date: DateHeader) -> None:
        self._log = log
        self._date = date

    def __call__(self, status: str, value: bytes, lsn: int) -> Answer:
        """Return the answer that shows ``value`` once everything up to ``lsn`` is committed.

        Args:
            status: HTTP's status line; its number is shown in the body too.
            value: ASCII digits, perhaps after a minus sign.
            lsn: The place in the log of what ``value`` gives away.
        """
        closing = b'","status":"%b"}' % status[:3].encode()
        length = 10 + len(value) + len(closing)
        body: Iterable[bytes]
        if lsn > self._log.committed:
            body = self._after_commit(lsn, value, closing)
        elif length > _JOINED_UP_TO:
            body = (b'{"value":"', value, closing)
        else:
            body = [b'{"value":"' + value + closing]
        return status, self.headers(length), body

    def headers(self, length: int) -> list[Header]:
        """Return the headers of an answer whose body has ``length`` bytes."""
        return [_JSON, ("Content-Length", str(length)), _NO_STORE, self._date()]

    def _after_commit(self, lsn: int, value: bytes, closing: bytes) -> Iterator[bytes]:
        yield b'{"value":"'
        try:
            self._log.commit(lsn)
        except CommitFailed as error:
            # bjoern ends the process on this exception, with the message on stderr and status 1.
            # Nothing less will do: none of the waiting replies may be finished.
            raise SystemExit(f"bigfib: {error}") from error
        if len(value) > _JOINED_UP_TO:
            yield value
            yield closing
        else:
            yield value + closing
