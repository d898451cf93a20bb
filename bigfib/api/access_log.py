"""Log a line for every request, if ``--access-log`` asks for it.

A line has the Common Log Format, the milliseconds that the request took, and the ids by which it is
traced: ``X-Request-Id``, generated here if the client sends none, and ``traceparent``. It has no
query, and only the beginning of a sequence's id: a client that knows an id can step the sequence.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

from bigfib.api.commit import Committer
from bigfib.api.representations import Body
from bigfib.api.tracing import REQUEST_ID, draw_missing, ids

_logger = logging.getLogger("bigfib.access")

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

# An id, even a mistyped one. A long index is shortened, too.
_LONG: Final = re.compile(r"([0-9a-fA-F]{6})[0-9a-fA-F]{10,}")

_LONGEST_PATH: Final = 200


def logged(app: WSGI, committer: Committer) -> WSGI:
    """Return ``app`` with a line in the log for every reply, once ``committer`` lets it leave."""

    def logged_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began, status, sent = time.perf_counter(), "", 0
        draw_missing(environ)

        def start(status_line: str, headers: list[tuple[str, str]]) -> Any:
            nonlocal status
            status = status_line[:3]
            return start_response(status_line, headers)

        def count(piece: bytes) -> bytes:
            # Counted as sent: bjoern reports only that it wants the next piece.
            nonlocal sent
            sent += len(piece)
            return piece

        def log() -> None:
            _log(environ, int(status), sent, time.perf_counter() - began)

        body = app(environ, start)
        if not isinstance(body, list):
            return Body(body, log, count)
        sent = sum(map(len, body))
        committer.when_replies_leave(log)
        return body

    return logged_app


def _log(environ: dict[str, Any], status: int, sent: int, seconds: float) -> None:
    members = {
        "client": environ["REMOTE_ADDR"],
        "method": environ["REQUEST_METHOD"],
        "path": shown(environ.get("PATH_INFO", "")),
        "protocol": environ["SERVER_PROTOCOL"],
        "status": status,
        "bytes": sent,
        "milliseconds": round(seconds * 1000, 3),
        "request_id": environ[REQUEST_ID],
        "traceparent": ids(environ).get("traceparent", "-"),
    }
    now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    _logger.info(
        f'%(client)s - - [{now}] "%(method)s %(path)s %(protocol)s" %(status)d %(bytes)d '
        "%(milliseconds).3f %(request_id)s %(traceparent)s",
        members,
        extra={"members": members},
    )


def shown(path: str) -> str:
    """Return a path without whole ids, of bounded length, and without control characters."""
    short = _LONG.sub(r"\1...", path)[:_LONGEST_PATH]
    return quote(short, safe="/:@!$&'()*+,;=-._~", encoding="latin-1", errors="replace")
