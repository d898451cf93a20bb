"""A line for every request, where that is asked for; without it nothing of this is in the way.

The line is that of the Common Log Format, and the milliseconds that the request has taken. It has
no query, and of an id no more than its beginning: whoever reads the log is not to be able to step
the sequences of others.
"""

import ctypes
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import quote

from bigfib.api.committing import Committer
from bigfib.expectations import _Request as BjoernRequest
from bigfib.stderr import ACCESS

_logger = logging.getLogger(ACCESS)

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

# Also one that was mistyped, and so is an index of as many digits.
_LONG: Final = re.compile(r"([0-9a-fA-F]{6})[0-9a-fA-F]{10,}")

_LONGEST_PATH: Final = 200


def logged(app: Application, committer: Committer) -> Application:
    """Return ``app`` with a line in the log for every reply, when it is out of its hands.

    Args:
        app: The application.
        committer: What commits what its replies show.
    """

    def logged_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = _Request(environ, client(environ, start_response))

        def start(status: str, headers: list[tuple[str, str]]) -> Any:
            request.status = status[:3]
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            request.length = int(lengths[0]) if lengths else 0
            return start_response(status, headers)

        body = app(environ, start)
        if isinstance(body, list | tuple):
            request.sent = sum(map(len, body))
            if committer.by_turns:
                committer.afterwards.append(request.log)
            else:
                request.log()
            return body
        if type(body) is environ.get("wsgi.file_wrapper"):
            # The kernel sends it, if bjoern is given nothing else.
            request.sent = request.length
            request.log()
            return body
        return _LoggedBody(body, request)

    return logged_app


class _Request:
    """What is said of a request."""

    def __init__(self, environ: dict[str, Any], client: str) -> None:
        self._began = time.perf_counter()
        self._environ = environ
        self._client = client
        self.status = ""
        self.length = 0
        self.sent = 0

    def log(self) -> None:
        milliseconds = round((time.perf_counter() - self._began) * 1000, 3)
        environ = self._environ
        members = {
            "client": self._client,
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


def client(environ: dict[str, Any], start_response: Any) -> str:
    """Return the address of the client, or ``-`` if the connection no longer has it.

    It is asked of the socket: bjoern takes every address for one of IPv4, and has 0.0.0.0 for all
    of IPv6. Of a client that has reset its connection, bjoern's is all there is.
    """
    fd = client_fd(start_response)
    if fd is not None:
        try:
            connection = socket.socket(fileno=fd)
            try:
                host: str = connection.getpeername()[0]
            finally:
                connection.detach()
        except OSError:
            pass
        else:
            # A socket that takes both kinds has those of IPv4 as ::ffff:192.0.2.1.
            return host.removeprefix("::ffff:") if "." in host else host
    # It is missing from what is no whole request.
    remote: str = environ.get("REMOTE_ADDR", "-")
    return "-" if remote == "0.0.0.0" else remote  # noqa: S104


def client_fd(start_response: Any) -> int | None:
    """Return the descriptor of the connection that bjoern's ``start_response`` answers on.

    It is in bjoern's ``Request``, to which a pointer stands behind the head of that object; see
    `bigfib.expectations`. Of any other ``start_response`` there is none.
    """
    kind = type(start_response)
    if kind.__name__ != "start_response" or (
        kind.__basicsize__ != object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    ):
        return None
    pointer = ctypes.c_size_t.from_address(id(start_response) + object.__basicsize__)
    request = BjoernRequest.from_address(pointer.value)
    return int(request.client_fd) if request.client_fd == request.watcher_fd else None


def shown(path: str) -> str:
    """Return the path of a request as it may be written to a log."""
    short = _LONG.sub(r"\1...", path)[:_LONGEST_PATH]
    return quote(short, safe="/:@!$&'()*+,;=-._~", encoding="latin-1", errors="replace")


class _LoggedBody:
    """The pieces of a reply, which is logged when the server wants no more of them."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body = body
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._body:
            # Before it has been sent, but all that is known of that is that the next is wanted.
            self._request.sent += len(piece)
            yield piece

    def close(self) -> None:
        """Be told by the server that it wants no more."""
        close: Any = getattr(self._body, "close", None)
        if close:
            close()
        self._request.log()
