"""How a term becomes bytes on the wire, and when those bytes may leave.

A reply that shows a position must not leave before that position is committed to the store.
bjoern calls the application on read events, and asks for the second chunk of a body on a later
write event. So such a reply opens with a chunk that says nothing yet, and its next chunk commits
first: the first reply of a batch syncs for all requests read before it, and the others find their
steps committed. Measured beside one ``fdatasync`` a reply, at 64 connections: eight times as many
replies a second.

A store that many servers share is stepped in the same way, by one transaction for all that wait
(see `bigfib.batches`); but where that leads, it alone knows, so that even the length comes after.

This asks for a ``Content-Length`` (a reply cut off before its commit is then no reply) and for
``TCP_NODELAY`` (the second chunk is not held back until the first is acknowledged). A reply without
a body has no second chunk, and commits before it begins.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Final, NoReturn

import falcon

from bigfib.batches import Waiting
from bigfib.sequences import Sequence, format_id
from bigfib.state.log import CommitFailed
from bigfib.state.store import Store

Header = tuple[str, str]

Answer = tuple[str, list[Header], Iterable[bytes]]
"""Status line, headers, body: what WSGI's ``start_response`` and the server are given.

The list must be a new one each time, for bjoern writes into it.
"""

JSON: Final = "application/json"
LINES_OF_JSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain"
OCTETS: Final = "application/octet-stream"

# From here on a copy of the body costs more than a system call for each of its parts.
_JOINED_UP_TO: Final = 1 << 16

_JSON_TYPE: Final = ("Content-Type", JSON)
_NO_STORE: Final = ("Cache-Control", "no-store")


class DateHeader:
    """The ``Date`` of a reply, written anew each second. bjoern sends none by itself.

    Whoever begins a request knows the time, and has it renewed when it is due; this saves a look at
    a clock.

    Attributes:
        header: Its name and value.
        due: When it is to be renewed, by `time.perf_counter`.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.renew(time.perf_counter())

    def renew(self, now: float) -> None:
        """Write it for what is ``now`` by `time.perf_counter`."""
        seconds = self._clock()
        self.header: Header = ("Date", formatdate(int(seconds), usegmt=True))
        self.due = now + 1 - seconds % 1


def end(error: CommitFailed) -> NoReturn:
    """End the process, whose log cannot be made durable any more.

    Raises:
        SystemExit: bjoern ends the process on this exception, with the message on stderr and
            status 1. Nothing less will do: none of the replies that wait for the log may be
            finished.
    """
    raise SystemExit(f"bigfib: {error}") from error


def commit(store: Store, lsn: int) -> None:
    """Commit everything up to ``lsn``, or end the process.

    Raises:
        SystemExit: as `end`.
    """
    try:
        store.commit(lsn)
    except CommitFailed as error:
        end(error)


def after_commit(store: Store, lsn: int, opening: bytes, *rest: bytes) -> Iterator[bytes]:
    """Yield ``opening``, and what follows it once everything up to ``lsn`` is committed."""
    yield opening
    # Most find their step committed by the first of their batch, and save the call.
    if lsn > store.committed:
        commit(store, lsn)
    yield from rest


def closing(status: str) -> bytes:
    """Return what stands behind the value in a `CommittedReply` with this status line."""
    return b'","status":"%b"}' % status[:3].encode()


_OPENING: Final = b'{"value":"'
MADE: Final = closing("200 OK")
"""What stands behind a term."""


class CommittedReply:
    """The JSON ``{"value":"13","status":"200"}``, held back until the store has committed."""

    def __init__(self, store: Store, date: DateHeader) -> None:
        self._store = store
        self._date = date

    def __call__(self, status: str, rest: bytes, lsn: int) -> Answer:
        """Return the answer that shows a value once everything up to ``lsn`` is committed.

        Args:
            status: HTTP's status line.
            rest: The value, ASCII digits, perhaps after a minus sign, and its `closing`. A long
                value is not copied, if it comes with it.
            lsn: The place in the store of what the value gives away.
        """
        body: Iterable[bytes]
        if lsn > self._store.committed:
            body = after_commit(self._store, lsn, _OPENING, rest)
        elif len(rest) <= _JOINED_UP_TO:
            body = [_OPENING + rest]
        else:
            body = (_OPENING, rest)
        return status, self.headers(len(_OPENING) + len(rest)), body

    def headers(self, length: int) -> list[Header]:
        """Return the headers of an answer whose body has ``length`` bytes."""
        return [_JSON_TYPE, ("Content-Length", str(length)), _NO_STORE, self._date.header]

    def later(self, waiting: Waiting) -> Answer:
        """Return the answer that shows the term behind a step of a batch.

        Its length is not known before the step is made, so bjoern sends it in chunks. To be given
        only to a client that can tell by these whether it is whole: HTTP/1.1, kept alive.
        """
        return "200 OK", [_JSON_TYPE, _NO_STORE, self._date.header], _after_batch(waiting)


def _after_batch(waiting: Waiting) -> Iterator[bytes]:
    """Yield the reply's opening, and the rest once the batch is made.

    Raises:
        NotMade: bjoern then closes the connection in the middle of the reply.
    """
    try:
        yield _OPENING
        digits = waiting.digits()
    finally:
        # The client has gone before anything was made for it.
        waiting.withdraw()
    if len(digits) <= _JOINED_UP_TO:
        yield digits + MADE
    else:
        yield digits
        yield MADE


class CommittedSequence:
    """The document ``{"id","position","digits","value"}``, held back until it is committed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __call__(self, resp: falcon.Response, sequence: Sequence) -> None:
        """Show ``sequence`` in ``resp``, with its position as ``ETag``.

        The headers leave before the commit, as the length of the body does. Both are good for
        nothing without the body: that position is compared with the one in the store before
        anything is done on its account.
        """
        opening, *rest = self._document(sequence)
        self._describe(resp, sequence, len(opening) + sum(map(len, rest)))
        if sequence.lsn > self._store.committed:
            resp.stream = after_commit(self._store, sequence.lsn, opening, *rest)
        elif len(rest) == 1:
            resp.data = opening + rest[0]
        else:
            resp.stream = iter((opening, *rest))

    def head(self, resp: falcon.Response, sequence: Sequence) -> None:
        """Say in ``resp`` what showing ``sequence`` would say, but for the document itself."""
        commit(self._store, sequence.lsn)
        self._describe(resp, sequence, sum(map(len, self._document(sequence))))

    @staticmethod
    def _document(sequence: Sequence) -> list[bytes]:
        """Return the document in pieces, the first of which says nothing yet."""
        value = sequence.pair.digits(b'"}')
        opening = b'{"id":"%b",' % format_id(sequence.id).encode()
        facts = b'"position":"%d","digits":"%d","value":"' % (
            sequence.pair.position,
            sequence.pair.digit_count,
        )
        if len(value) <= _JOINED_UP_TO:
            return [opening, facts + value]
        return [opening, facts, value]

    @staticmethod
    def _describe(resp: falcon.Response, sequence: Sequence, length: int) -> None:
        resp.content_type = JSON
        resp.content_length = length
        resp.etag = str(sequence.pair.position)
        resp.cache_control = ["no-cache"]
