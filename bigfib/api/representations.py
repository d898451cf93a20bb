"""Make the parts of replies: bodies, common headers, tags, and the answers of ``/api0``."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from typing import Any, Final

import falcon
from gmpy2 import mpz

from bigfib.api.commit import Committer
from bigfib.api.step_queue import WaitingStep
from bigfib.api.tracing import REQUEST_ID, TRACEPARENT, ids
from bigfib.state.store import Place

Header = tuple[str, str]

Answer = tuple[str, list[Header], Iterable[bytes]]
"""Status line, headers and body, as WSGI has them.

The list of headers must be a new one each time: `front` and bjoern write into it. If the body is a
list, `Front` counts the request when the reply may leave, or else when the server has taken the
last piece.
"""

JSON: Final = "application/json"
LINES_OF_JSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain"
OCTETS: Final = "application/octet-stream"

JOINED_UP_TO: Final = 1 << 16
"""Bytes up to which copying a body costs less than a system call for each of its pieces."""

_JSON_TYPE: Final = ("Content-Type", JSON)
_NO_STORE: Final = ("Cache-Control", "no-store")
_FOR_EVER: Final = (("Cache-Control", "public, max-age=31536000, immutable"), ("Vary", "Accept"))


class Body:
    """The pieces of a reply, and a function to call when the server is done with them."""

    __slots__ = ("_on_close", "_on_piece", "_pieces")

    def __init__(
        self,
        pieces: Iterable[bytes],
        on_close: Callable[[], object],
        on_piece: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Send ``pieces``, each as ``on_piece`` returns it; a generator is closed at the end.

        ``on_close`` is called once, whether all pieces were sent or the client has gone.
        """
        self._pieces = pieces
        self._on_close = on_close
        self._on_piece = on_piece

    def __iter__(self) -> Iterator[bytes]:
        return map(self._on_piece, self._pieces) if self._on_piece else iter(self._pieces)

    def close(self) -> None:
        """Close the body; called by the server (PEP 3333)."""
        close = getattr(self._pieces, "close", None)
        if close:
            close()
        self._on_close()


class CommonHeaders:
    """Give the headers of every reply: ``Date``, which bjoern does not send, and the request's ids.

    The date is renewed each second by the first request after it.
    """

    def __init__(
        self, is_draining: Callable[[], bool], clock: Callable[[], float] = time.time
    ) -> None:
        """Add ``Connection: close`` while ``is_draining`` returns True."""
        self._is_draining = is_draining
        self._clock = clock
        self._due = 0.0

    def of(self, environ: dict[str, Any], now: float) -> list[Header]:
        """Return the headers of a reply, not to be changed; ``now`` is by `time.perf_counter`."""
        if now >= self._due or self._is_draining():
            self._renew(now)
        if REQUEST_ID in environ or TRACEPARENT in environ:
            return [*self._headers, *ids(environ).items()]
        return self._headers

    def _renew(self, now: float) -> None:
        seconds = self._clock()
        self._headers = [("Date", formatdate(int(seconds), usegmt=True))]
        if self._is_draining():
            # bjoern adds `Connection: Keep-Alive` all the same; of the two, `close` counts (RFC
            # 9112, 9.3).
            self._headers.append(("Connection", "close"))
        self._due = now + 1 - seconds % 1


def closing(status: str) -> bytes:
    """Return the bytes after the value in a `ValueReply` with this status line."""
    return b'","status":"%b"}' % status[:3].encode()


_OPENING: Final = b'{"value":"'
MADE: Final = closing("200 OK")
"""The bytes after a term."""


class ValueReply:
    """Answer with the JSON ``{"value":"13","status":"200"}``, to the byte."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def now(self, status: str, rest: bytes) -> Answer:
        """Return the answer that shows a value, after the changes so far are committed.

        ``rest`` is the value in ASCII digits, perhaps after a minus sign, and its `closing`: given
        together, so that a long value need not be copied.
        """
        self._committer.commit()
        length = len(_OPENING) + len(rest)
        headers = [_JSON_TYPE, ("Content-Length", str(length)), _NO_STORE]
        if len(rest) <= JOINED_UP_TO:
            return status, headers, [_OPENING + rest]
        return status, headers, (_OPENING, rest)

    def later(self, waiting: WaitingStep) -> Answer:
        """Return the answer that shows the term after a step that waits for its transaction.

        Its length is not known before the step is made, so bjoern sends it in chunks. Only a client
        that detects a missing last chunk may get it: one that uses HTTP/1.1 and keep-alive.
        """
        return "200 OK", [_JSON_TYPE, _NO_STORE], _after_step(waiting)


def _after_step(waiting: WaitingStep) -> Iterator[bytes]:
    """Yield the opening of the reply, and the rest once the step is made.

    While others hold the sequence locked, the opening is sent a byte at a time: after each, bjoern
    serves its other connections. On `NotMade` bjoern closes the connection in the middle of the
    reply.
    """
    sent = 1
    try:
        yield _OPENING[:sent]
        while not waiting.try_until(sent / len(_OPENING)) and sent < len(_OPENING):
            yield _OPENING[sent : sent + 1]
            sent += 1
        digits = waiting.digits()
    finally:
        # If the client has gone before the transaction, its step is not made.
        waiting.withdraw()
    if len(digits) <= JOINED_UP_TO:
        yield _OPENING[sent:] + digits + MADE
    else:
        yield _OPENING[sent:]
        yield digits
        yield MADE


def tag(position: int, version: int | None) -> str:
    """Return the tag of a sequence: its position, and its version if the store keeps versions."""
    digits: str = mpz(position).digits()
    return digits if version is None else f"{digits}-{version}"


def tags(place: Place) -> tuple[str, str]:
    """Return the tag of a sequence at this place, and that of the position alone."""
    return tag(*place), tag(place.position, None)


def content_tag(content: bytes) -> str:
    """Return the tag of a body that follows from its bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def keep_for_ever(resp: falcon.Response) -> None:
    """Let any cache keep the reply for ever: a term never changes."""
    resp.set_headers(_FOR_EVER)
