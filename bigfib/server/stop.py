"""Stop the service on SIGTERM or SIGINT, after the replies under way.

bjoern runs libev's event loop and has it handle SIGINT: the loop then stops accepting, and returns
when the last connection is closed. An idle keep-alive client would delay that for ever, and Python
code no longer runs in the thread of the loop. Hence:

* SIGTERM is handled in Python, which bjoern lets run ten times a second. The handler raises a
  SIGINT for libev, and starts to drain the connections (see `bigfib.server.bjoern.idle`).
* SIGINT from outside is blocked, so that libev sees only the one that the handler raises. A thread
  waits for SIGINT and sends a SIGTERM instead, unless the process was started with SIGINT ignored.
* Clients that connected before the signal are served, even if bjoern has not accepted them yet: the
  stop begins when no connection is waiting, or after ten attempts.
* Every reply from then on has ``Connection: close`` (see `bigfib.api.front`).
* No handler raises an exception: bjoern crashes if one does before the loop runs.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Final

from bigfib.server import systemd
from bigfib.server.bjoern.idle import ConnectionWatch

_logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 0.05
_MOST_ATTEMPTS: Final = 10


class Stop:
    """Stop the event loop on SIGTERM or SIGINT; ``draining`` is set when the stop has begun."""

    def __init__(self, listener: socket.socket, watch: ConnectionWatch, *, inherited: bool) -> None:
        """Prepare to stop ``listener``, unless it is ``inherited``, and the connections."""
        self.draining = threading.Event()
        self._listener = listener
        self._watch = watch
        self._inherited = inherited
        self._taken_by_python = self._is_trying = False
        self._attempts = 0
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)

    @contextlib.contextmanager
    def by_signal(self) -> Iterator[None]:
        """Let signals stop the loop that runs in this context; SIGINT is blocked already."""
        # A shell without job control starts commands in the background with SIGINT ignored.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if not ignored:
            threading.Thread(target=self._turn_interrupt_into_termination, daemon=True).start()
        try:
            yield
        finally:
            # Python restores the default action at exit: a second SIGTERM would then kill.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _on_sigterm(self, _signal: int, _frame: object) -> None:
        if self.draining.is_set() or self._is_trying:
            return
        self._is_trying = True
        stopping = self._try_to_stop()
        # Reset before the timer can send the next signal.
        self._is_trying = False
        if not stopping:
            threading.Timer(_RETRY_SECONDS, self._terminate).start()

    def _try_to_stop(self) -> bool:
        """Stop the loop, unless clients are waiting; return whether the stop has begun."""
        if self._attempts < _MOST_ATTEMPTS and self._waiting.poll(0):
            self._attempts += 1
            return False
        self._taken_by_python = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)
        # At once, because libev restores the default action: a second SIGINT would kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if self._taken_by_python:
            return False
        self.draining.set()
        systemd.notify("STOPPING=1")
        _logger.info("stopping")
        if not self._inherited:
            # Refuse new clients at once, instead of letting them wait.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RD)
        self._watch.drain()
        return True

    def _on_sigint(self, _signal: int, _frame: object) -> None:
        # Runs if `_on_sigterm` raises SIGINT before libev handles it, and when bjoern returns.
        self._taken_by_python = True

    def _turn_interrupt_into_termination(self) -> None:
        signal.sigwait({signal.SIGINT})
        self._terminate()

    def _terminate(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
