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
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences, TooManySequences
from bigfib.state.store import NoRoom, OutcomeUnknown, Unavailable

_logger = logging.getLogger(__name__)

Environ = dict[str, Any]

_UNAVAILABLE: Final = "503 Service Unavailable"

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
        self._reply = reply
        self._per_client = per_client
        current = self._answer("/api0/current", sequences.current)
        forward = self._answer("/api0/next", sequences.forward)
        back = self._answer("/api0/previous", sequences.back)
        self.routes: dict[str, dict[str, Callable[[Environ], Answer]]] = {
            "/api0/current": {
                "GET": self._for_client(current, 0, queue),
                "HEAD": self._for_client(lambda sequence_id: (*current(sequence_id)[:2], [])),
            },
            "/api0/next": {"GET": self._for_client(forward, 1, queue)},
            "/api0/previous": {"GET": self._for_client(back, -1, queue)},
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
            # A 503 shows no sequence that the client would want to keep.
            if is_new and status != _UNAVAILABLE:
                headers.append(("Set-Cookie", _SET_COOKIE.format(sequence_id.hex())))
            return status, headers, body

        return find_and_answer

    def _answer(self, path: str, take: Callable[[bytes], DecimalPair]) -> Callable[[bytes], Answer]:
        """Return a function that answers with the term that ``take`` returns, or why there is none.

        The answer waits for the commit even at the start, because -1 shows the position, too.
        """

        def answer(sequence_id: bytes) -> Answer:
            try:
                return self._reply.now("200 OK", take(sequence_id).digits(MADE))
            except StartOfSequence:
                return self._refuse("409 Conflict", b"-1")
            except (NoRoom, TooManySequences) as error:
                _logger.error(  # noqa: TRY400 - the traceback says nothing more
                    "%s; the sequence stays where it is", error
                )
                return self._refuse("507 Insufficient Storage", b"-2")
            except (TermNotReady, IndexTooLarge) as error:
                _logger.warning("%s: %s", path, error)
                # If the term is too large to compute, a later retry would not help.
                return self._refuse(_UNAVAILABLE, b"-3", getattr(error, "retry_after", None))
            except (Unavailable, OutcomeUnknown):
                # The store has logged the reason.
                return self._refuse(_UNAVAILABLE, b"-3", RETRY_AFTER)

        return answer

    def _refuse(self, status: str, value: bytes, retry_after: int | None = None) -> Answer:
        answer = self._reply.now(status, value + closing(status))
        if retry_after is not None:
            answer[1].append(("Retry-After", str(retry_after)))
        return answer


def _notices_abort(environ: Environ) -> bool:
    """Return whether the client will notice an aborted reply, by its missing last chunk.

    With HTTP/1.0, and with ``Connection: close``, bjoern sends no chunks: the reply ends where the
    connection does.
    """
    connection: str = environ.get("HTTP_CONNECTION", "keep-alive")
    return (environ["SERVER_PROTOCOL"], connection.lower()) == ("HTTP/1.1", "keep-alive")
