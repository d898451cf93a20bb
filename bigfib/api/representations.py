"""How a term becomes bytes on the wire. When those may leave is said in `committing`."""

import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Final

import falcon

from bigfib.api.committing import JOINED_UP_TO, Committer
from bigfib.batches import Waiting
from bigfib.current_terms import Sequence
from bigfib.sequences import format_id

Header = tuple[str, str]

Answer = tuple[str, list[Header], Iterable[bytes]]
"""Status line, headers, body: what WSGI's ``start_response`` and the server are given.

The list must be a new one each time, for bjoern writes into it.
"""

JSON: Final = "application/json"
LINES_OF_JSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain"
OCTETS: Final = "application/octet-stream"

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


def closing(status: str) -> bytes:
    """Return what stands behind the value in a `CommittedReply` with this status line."""
    return b'","status":"%b"}' % status[:3].encode()


_OPENING: Final = b'{"value":"'
MADE: Final = closing("200 OK")
"""What stands behind a term."""


class CommittedReply:
    """The JSON ``{"value":"13","status":"200"}``, which leaves when it is committed."""

    def __init__(self, committer: Committer, date: DateHeader) -> None:
        self._committer = committer
        self._date = date

    def __call__(self, status: str, rest: bytes, lsn: int) -> Answer:
        """Return the answer that shows a value once everything up to ``lsn`` is committed.

        Args:
            status: HTTP's status line.
            rest: The value, ASCII digits, perhaps after a minus sign, and its `closing`. A long
                value is not copied, if it comes with it.
            lsn: The place in the store of what the value gives away.
        """
        headers = self.headers(len(_OPENING) + len(rest))
        # As `Committer.body` has it, in 0.16 us instead of 0.38.
        if len(rest) <= JOINED_UP_TO and self._committer.may_leave(lsn):
            return status, headers, [_OPENING + rest]
        return status, headers, self._committer.body(lsn, _OPENING, rest)

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

    While others hold the sequence locked, the opening leaves a byte at a time: after each, bjoern
    sees to its other connections.

    Raises:
        NotMade: bjoern then closes the connection in the middle of the reply.
    """
    sent = 1
    try:
        yield _OPENING[:sent]
        while not waiting.settles(sent / len(_OPENING)) and sent < len(_OPENING):
            yield _OPENING[sent : sent + 1]
            sent += 1
        digits = waiting.digits()
    finally:
        # The client has gone before anything was made for it.
        waiting.withdraw()
    if len(digits) <= JOINED_UP_TO:
        yield _OPENING[sent:] + digits + MADE
    else:
        yield _OPENING[sent:]
        yield digits
        yield MADE


class CommittedSequence:
    """The document ``{"id","position","digits","value"}``, committed before its reply begins.

    The headers leave with the first piece of the body, and the ``ETag`` is the position.
    """

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def __call__(self, resp: falcon.Response, sequence: Sequence) -> None:
        """Show ``sequence`` in ``resp``, with its position as ``ETag``."""
        self.unchanged(resp, sequence)
        pieces = self._document(sequence)
        self._describe(resp, pieces)
        body = self._committer.body(sequence.lsn, *pieces)
        if isinstance(body, list):
            (resp.data,) = body
        else:
            resp.stream = iter(body)

    def head(self, resp: falcon.Response, sequence: Sequence) -> None:
        """Send in ``resp`` the headers that showing ``sequence`` would have."""
        self.unchanged(resp, sequence)
        self._describe(resp, self._document(sequence))

    def unchanged(self, resp: falcon.Response, sequence: Sequence) -> None:
        """Send in ``resp`` the headers of a `304`, which describe no content.

        With the length of a document that does not follow, Node's ``fetch`` waits for it and opens
        another connection for the next request.
        """
        self._committer.commit()
        resp.etag = str(sequence.pair.position)
        resp.cache_control = ["no-cache"]

    @staticmethod
    def _document(sequence: Sequence) -> list[bytes]:
        """Return the document in pieces, so that a long value is not copied."""
        value = sequence.pair.digits(b'"}')
        opening = b'{"id":"%b",' % format_id(sequence.id).encode()
        facts = b'"position":"%d","digits":"%d","value":"' % (
            sequence.pair.position,
            sequence.pair.digit_count,
        )
        return [opening, facts, value]

    @staticmethod
    def _describe(resp: falcon.Response, pieces: list[bytes]) -> None:
        resp.content_type = JSON
        resp.content_length = sum(map(len, pieces))
