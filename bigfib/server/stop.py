"""Stop the service on SIGTERM or SIGINT, with every reply that is under way.

bjoern runs libev's event loop, which takes SIGINT for itself: it then stops accepting, and returns
when the last connection is closed, which an idle keep-alive client puts off for ever; and no Python
code runs in its thread any more. Hence:

* SIGTERM is handled in Python, on bjoern's tick ten times a second. The handler passes a SIGINT on
  to libev and has the connections drained (see `bigfib.server.bjoern.idle`).
* SIGINT from outside is blocked, so that libev gets only the one passed on. A thread waits for it
  and turns it into a SIGTERM, unless this process was started to ignore it.
* Clients that connected before the signal are served, though bjoern may not have accepted them
  yet: the stop begins when no connection waits any more, or after the tenth look.
* Every reply then has ``Connection: close``.
* No handler raises an exception: where bjoern calls Python before its loop, that is a crash.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

from bigfib.server import systemd
from bigfib.server.bjoern.idle import ConnectionWatch
from bigfib.server.bjoern.request import WSGI

_logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.05
_MOST_LOOKS: Final = 10


class Stop:
    """Stop the event loop on SIGTERM or SIGINT.

    Attributes:
        draining: Set when the stop has begun.
    """

    def __init__(self, listener: socket.socket, watch: ConnectionWatch, *, inherited: bool) -> None:
        """Prepare to stop.

        Args:
            listener: The listening socket.
            watch: The watch over its connections, which drains them.
            inherited: Whether another process has the listener, too, and goes on listening.
        """
        self.draining = threading.Event()
        self._listener = listener
        self._watch = watch
        self._inherited = inherited
        self._taken_by_python = self._begins = False
        self._looks = 0
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)

    @contextlib.contextmanager
    def by_signal(self) -> Iterator[None]:
        """Let the signals stop the loop that runs within."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        # A shell without job control has a command in the background ignore SIGINT.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._begin)
        if not ignored:
            threading.Thread(target=self._turn_interrupt_into_termination, daemon=True).start()
        try:
            yield
        finally:
            # Python restores the default of handled signals when it exits; another would kill.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def announced_by(self, app: WSGI) -> WSGI:
        """Return ``app`` with ``Connection: close`` in every reply once the stop has begun.

        bjoern itself announces that it keeps the connection; of the two, `close` counts (RFC 9112,
        section 9.3).
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
            threading.Timer(_LOOK_SECONDS, self._terminate).start()

    def _has_begun(self) -> bool:
        """Begin to stop, unless it is too early; return whether the stop has begun."""
        if self._looks < _MOST_LOOKS and self._waiting.poll(0):
            self._looks += 1
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
        if not self._inherited:
            # New clients are refused at once, instead of being left to wait.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RD)
        self._watch.drain()
        return True

    def _interrupt(self, _signal: int, _frame: object) -> None:
        # Called by `_begin` before libev has taken the signal over, and by bjoern on its return.
        self._taken_by_python = True

    def _turn_interrupt_into_termination(self) -> None:
        signal.sigwait({signal.SIGINT})
        self._terminate()

    def _terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
