"""Serve ``/api0``, wire-compatible with the service that bigfib replaces.

``GET current``, ``next`` and ``previous`` answer ``{"value":"13","status":"200"}``, to the byte,
without Falcon; `bigfib.api.front` says why.
"""

import logging
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

from bigfib.api.problems import RETRY_AFTER
from bigfib.api.representations import MADE, Answer, ValueReply, closing
from bigfib.api.step_queue import StepQueue
from bigfib.jobs import TermNotReady
from bigfib.numbers.decimals import StartOfSequence
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences, TooManySequences
from bigfib.state.store import NoRoom, OutcomeUnknown, Unavailable

_logger = logging.getLogger(__name__)

Environ = dict[str, Any]

_OK: Final = "200 OK"
_AT_START: Final = "409 Conflict"
_UNAVAILABLE: Final = "503 Service Unavailable"
_NO_ROOM: Final = "507 Insufficient Storage"

_COOKIE: Final = re.compile(r"(?:^|;)\s*bigfib=([0-9a-f]{32})\s*(?:;|$)", re.ASCII)

# bjoern joins several Cookie lines with nothing between them, so the cookie may stand between the
# value of one and the name of another. This pattern takes up to three times as long.
_JOINED_COOKIE: Final = re.compile(
    r"(?:^|;)\s*(?:[^;=\s]+=[^;]*?)??bigfib=([0-9a-f]{32})\s*(?:;|$|[^;=\s]+=)", re.ASCII
)

# Kept for 400 days, the longest that browsers allow. Not `Secure`: the service speaks plain HTTP,
# on loopback or to a proxy.
_SET_COOKIE: Final = "bigfib={}; Max-Age=34560000; Path=/api0; HttpOnly; SameSite=Lax"


class Stepping:
    """Find the sequence of a request, step it if asked to, and show its term.

    ``routes`` has the functions that answer, by path and method; at the paths in ``changing`` a GET
    makes a change.
    """

    changing: Final = frozenset({"/api0/next", "/api0/previous"})

    def __init__(
        self,
        sequences: Sequences,
        reply: ValueReply,
        per_client: bool,
        queue: StepQueue | None = None,
    ) -> None:
        """Step ``sequences``.

        With ``per_client`` each client has a private sequence, identified by a cookie of 128 random
        bits; otherwise all share one. If servers share the store, the ``queue`` makes many steps in
        one transaction.
        """
        self._sequences = sequences
        self._reply = reply
        self._per_client = per_client
        self.routes: dict[str, dict[str, Callable[[Environ], Answer]]] = {
            "/api0/current": {
                "GET": self._for_client(self._current, 0, queue),
                "HEAD": self._for_client(self._head),
            },
            "/api0/next": {"GET": self._for_client(self._next, 1, queue)},
            "/api0/previous": {"GET": self._for_client(self._previous, -1, queue)},
        }

    def _for_client(
        self, answer: Callable[[bytes], Answer], by: int = 0, queue: StepQueue | None = None
    ) -> Callable[[Environ], Answer]:
        """Return a function that finds the sequence of a request and calls ``answer`` for it.

        If possible, the ``queue`` makes the step ``by`` (1, -1, or 0 for a look) instead.
        """
        if not self._per_client and not queue:
            return lambda _environ: answer(SHARED)

        def find_and_answer(environ: Environ) -> Answer:
            sequence_id, is_new = SHARED, False
            if self._per_client:
                header = environ.get("HTTP_COOKIE", "")
                cookie = _COOKIE.search(header) or _JOINED_COOKIE.search(header)
                is_new = not cookie
                sequence_id = bytes.fromhex(cookie[1]) if cookie else secrets.token_bytes(16)
            if queue and _notices_abort(environ) and queue.takes(sequence_id, by):
                status, headers, body = self._reply.later(queue.add(sequence_id, by))
            else:
                status, headers, body = answer(sequence_id)
            if is_new:
                headers.append(("Set-Cookie", _SET_COOKIE.format(sequence_id.hex())))
            return status, headers, body

        return find_and_answer

    def _current(self, sequence_id: bytes) -> Answer:
        return self._reply(_OK, self._sequences.current(sequence_id).digits(MADE))

    def _head(self, sequence_id: bytes) -> Answer:
        status, headers, _ = self._current(sequence_id)
        return status, headers, []

    def _next(self, sequence_id: bytes) -> Answer:
        try:
            pair = self._sequences.forward(sequence_id)
        except (NoRoom, TooManySequences) as error:
            return self._no_room(error)
        return self._reply(_OK, pair.digits(MADE))

    def _previous(self, sequence_id: bytes) -> Answer:
        try:
            pair = self._sequences.back(sequence_id)
        except StartOfSequence:
            # The refusal shows the position, as a term does, so it waits for the commit, too.
            return self._reply(_AT_START, b"-1" + closing(_AT_START))
        except NoRoom as error:
            return self._no_room(error)
        return self._reply(_OK, pair.digits(MADE))

    def _no_room(self, error: Exception) -> Answer:
        _logger.error("%s; the sequence stays where it is", error)
        return self._reply(_NO_ROOM, b"-2" + closing(_NO_ROOM))

    def unavailable(self, path: str, error: Exception) -> Answer | None:
        """Return the 503 for an error that means that the term or store is not ready, or None."""
        if isinstance(error, (TermNotReady, IndexTooLarge)):
            _logger.warning("%s: %s", path, error)
            # If the term is too large to compute, a later retry would not help.
            retry_after = getattr(error, "retry_after", None)
        elif isinstance(error, (Unavailable, OutcomeUnknown)):
            # The store has logged the reason.
            retry_after = RETRY_AFTER
        else:
            return None
        status, headers, body = self._reply(_UNAVAILABLE, b"-3" + closing(_UNAVAILABLE))
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        return status, headers, body


def _notices_abort(environ: Environ) -> bool:
    """Return whether the client will notice an aborted reply, by its missing last chunk.

    With HTTP/1.0, and with ``Connection: close``, bjoern sends no chunks: the reply ends where the
    connection does.
    """
    connection: str = environ.get("HTTP_CONNECTION", "keep-alive")
    return (environ["SERVER_PROTOCOL"], connection.lower()) == ("HTTP/1.1", "keep-alive")
