"""Log a line for every request, if ``--access-log`` asks for it.

A line has the Common Log Format and the milliseconds that the request took. It has no query and
only the beginning of an id, because a client that knows the id of a sequence can step it.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

from bigfib.api.commit import Committer
from bigfib.api.representations import Body

_logger = logging.getLogger("bigfib.access")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# An id, even a mistyped one. A long index is shortened, too.
_LONG: Final = re.compile(r"([0-9a-fA-F]{6})[0-9a-fA-F]{10,}")

_LONGEST_PATH: Final = 200


def logged(app: Application, committer: Committer) -> Application:
    """Return ``app`` with a line in the log for every reply, once ``committer`` lets it leave."""

    def logged_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = _Request(environ)

        def start(status: str, headers: list[tuple[str, str]]) -> Any:
            request.status = status[:3]
            return start_response(status, headers)

        body = app(environ, start)
        if isinstance(body, list | tuple):
            request.sent = sum(map(len, body))
            if committer.by_iterations:
                committer.on_commit.append(request.log)
            else:
                request.log()
            return body
        return Body(body, request.log, request.count)

    return logged_app


class _Request:
    """Collect the facts that the line of a request shows."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._began = time.perf_counter()
        self._environ = environ
        self.status = ""
        self.sent = 0

    def count(self, piece: bytes) -> bytes:
        """Count a piece as sent; bjoern does not report more than that it wants the next one."""
        self.sent += len(piece)
        return piece

    def log(self) -> None:
        milliseconds = round((time.perf_counter() - self._began) * 1000, 3)
        environ = self._environ
        members = {
            "client": environ["REMOTE_ADDR"],
            "method": environ["REQUEST_METHOD"],
            "path": shown(environ.get("PATH_INFO", "")),
            "protocol": environ["SERVER_PROTOCOL"],
            "status": int(self.status),
            "bytes": self.sent,
            "milliseconds": milliseconds,
        }
        now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        _logger.info(
            '%s - - [%s] "%s %s %s" %d %d %.3f',
            *(members["client"], now, members["method"], members["path"], members["protocol"]),
            *(members["status"], members["bytes"], milliseconds),
            extra={"members": members},
        )


def shown(path: str) -> str:
    """Return a path without whole ids, of bounded length, and without control characters."""
    short = _LONG.sub(r"\1...", path)[:_LONGEST_PATH]
    return quote(short, safe="/:@!$&'()*+,;=-._~", encoding="latin-1", errors="replace")
