"""How the service ends: by a signal, with every reply that is under way.

bjoern runs the event loop of libev, which takes SIGINT for itself: it then stops accepting, and
returns when the last connection is closed, which an idle keep-alive client puts off for ever; and
no Python code runs on its thread any more to do something about it. Hence:

* SIGTERM is handled in Python, on bjoern's tick ten times a second. It passes a SIGINT on to libev
  and starts a thread that drains the connections.
* SIGINT from outside is blocked, so that libev sees only the one passed on. A thread waits for it
  and turns it into a SIGTERM.
* Who has connected before the signal is a client, though bjoern may not have accepted it yet: the
  end begins when nobody waits for that any more, or after the tenth look.
* To drain is to tell clients with each reply to close, and to shut the receiving half of every
  connection on which nothing has come for a while. It then reads the end of file and is closed; a
  reply under way goes out first. After a deadline both halves are shut.
* A request may be on its way to a connection that is being closed, and its client would not know
  what became of it. Hence the while: only who was silent for so long, and speaks at just that
  moment, can meet that; nothing that was read stays without its reply.
* No handler raises an exception: where bjoern calls Python before its loop, that is a crash.
"""

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from bigfib.server import systemd
from bigfib.server.bjoern.request import WSGI

_logger = logging.getLogger(__name__)

_DRAIN_SECONDS: Final = 5.0
_DRAIN_INTERVAL: Final = 0.05
_SILENT_SECONDS: Final = 1.0
_MOST_WAITS: Final = 10

# Where struct tcp_info of <linux/tcp.h> has the milliseconds since data last came.
_LAST_DATA_RECEIVED: Final = struct.Struct("@52xI")


class Stop:
    """The end of the loop by SIGTERM or SIGINT, as told above.

    Attributes:
        draining: Set when it has begun.
    """

    def __init__(self, listener: socket.socket, *, inherited: bool) -> None:
        self.draining = threading.Event()
        self._listener = listener
        self._inherited = inherited
        self._ended = self._taken_by_python = self._begins = False
        self._waits = 0
        self._to_be_accepted = select.poll()
        self._to_be_accepted.register(listener, select.POLLIN)

    @contextlib.contextmanager
    def by_signal(self) -> Iterator[None]:
        """Let the signals end the loop run within."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._begin)
        threading.Thread(target=self._turn_interrupt_into_termination, daemon=True).start()
        try:
            yield
        finally:
            self._ended = True
            # Python's end restores the default of signals that have a handler; one more would kill.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def told_by(self, app: WSGI) -> WSGI:
        """Return ``app`` with a word in every reply, once the end has begun, that it is the last.

        Its client then knows that the next request needs another connection. bjoern itself says
        that it keeps the connection; where both is said, `close` counts (RFC 9112, section 9.3).
        """
        is_draining = self.draining.is_set

        def last_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if not is_draining():
                return app(environ, start_response)

            def last_start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
                return start_response(status, [("Connection", "close"), *headers], *error)

            return app(environ, last_start)

        return last_app

    def _begin(self, _signal: int, _frame: object) -> None:
        if self.draining.is_set() or self._begins:
            return
        self._begins = True
        begun = self._has_begun()
        # Before the next signal can come.
        self._begins = False
        if not begun:
            threading.Timer(_DRAIN_INTERVAL, self._terminate).start()

    def _has_begun(self) -> bool:
        """Begin the end, unless it is too early; return whether it has begun."""
        if self._waits < _MOST_WAITS and self._to_be_accepted.poll(0):
            self._waits += 1
            return False
        self._taken_by_python = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)
        # At once: libev will restore the default action, by which a second SIGINT would kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if self._taken_by_python:
            return False
        self.draining.set()
        systemd.notify("STOPPING=1")
        _logger.info("stopping")
        threading.Thread(target=self._drain, daemon=True).start()
        return True

    def _interrupt(self, _signal: int, _frame: object) -> None:
        # From `_begin`, before libev has taken the signal over; and from bjoern, when it returns.
        self._taken_by_python = True

    def _turn_interrupt_into_termination(self) -> None:
        signal.sigwait({signal.SIGINT})
        self._terminate()

    def _terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        # Where connections have taken all descriptors, looking for them asks for more.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if not self._inherited:
            # Who comes now is refused at once, instead of being left to wait.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RD)
        while not self._ended:
            # Again and again, for those that bjoern accepts until it hears of the signal.
            with contextlib.suppress(OSError):
                self._shut_connections(late=time.monotonic() > deadline)
            time.sleep(_DRAIN_INTERVAL)

    def _shut_connections(self, *, late: bool) -> None:
        """Shut down the connections that came in by the listener; bjoern does not tell them."""
        for connection in _connections(self._listener.getsockname()[1]):
            with contextlib.closing(connection), contextlib.suppress(OSError):
                if late:
                    connection.shutdown(socket.SHUT_RDWR)
                elif _silent_seconds(connection) >= _SILENT_SECONDS:
                    connection.shutdown(socket.SHUT_RD)


def _silent_seconds(connection: socket.socket) -> float:
    """Return how long nothing has come from the other end."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
    (milliseconds,) = _LAST_DATA_RECEIVED.unpack(info)
    return float(milliseconds / 1000)


def _connections(port: int) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are what is wanted
        with contextlib.suppress(OSError):
            # A duplicate: should bjoern close the connection meanwhile, its number may be given
            # to another file, but the duplicate stays what it is.
            duplicate = os.dup(int(name))
            try:
                connection = socket.socket(fileno=duplicate)
            except OSError:
                os.close(duplicate)
                continue
            # A listener is left alone: to shut one ends its listening, everywhere.
            listens = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if connection.getsockname()[1:2] == (port,) and not listens:
                yield connection
            else:
                connection.close()
