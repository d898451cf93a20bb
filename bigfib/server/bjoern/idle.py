"""Close connections: idle ones while the service runs, all of them when it stops.

bjoern has no time-outs, reads a whole request body into memory before it calls the application, and
spins when no file descriptor is left. It does not list its connections, but for each descriptor the
kernel reports how many bytes were received and how many sent bytes were acknowledged (``TCP_INFO``,
see tcp(7) and <linux/tcp.h>; both counts since Linux 4.2). A thread inspects a few descriptors at a
time, which costs requests nothing. Three rules:

* **Time.** A connection is closed if its client has neither acknowledged anything new nor begun a
  request for `TIMEOUT` seconds: it is idle, or stalls in its request, or does not read its reply.
* **Descriptors.** When connections take more than half of the descriptors that the process may
  have, the time is `SHORT_TIMEOUT`.
* **Memory.** A connection is closed if its client has sent more than `MOST_HELD` bytes since the
  last reply. While these bytes of all clients exceed `MOST_HELD_BY_ALL`, the connection with most
  of them is closed.

When the service stops, a connection is closed once nothing has been received for `SILENT_SECONDS`,
and all are closed after `DRAIN_SECONDS`.

bjoern closes a connection when it reads end-of-file. Of an idle connection only the receiving side
is shut down: a request that arrives at that moment is either not read, or answered.
"""

import errno
import fcntl
import logging
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

_logger = logging.getLogger(__name__)

TIMEOUT: Final = 75.0
"""Seconds; more than the 60 after which proxies commonly close an idle connection themselves."""

SHORT_TIMEOUT: Final = 5.0
"""Timeout in seconds when descriptors become scarce."""

SILENT_SECONDS: Final = 1.0
"""Timeout in seconds when the service stops: a request already sent arrives within it."""

DRAIN_SECONDS: Final = 5.0
"""Seconds that replies under way may take when the service stops."""

MOST_HELD: Final = 4 << 20
"""Maximum bytes of a request: a valid body takes a quarter of that, its headers 80 KiB."""

MOST_HELD_BY_ALL: Final = 64 << 20
"""Maximum bytes of all requests that are not answered yet."""

# To inspect this many descriptors takes 1 ms; 10,000 take 2 s, with the pauses.
_AT_ONCE: Final = 250
_PAUSE: Final = 0.05

# More descriptors than a service without connections uses.
_MARGIN: Final = 32

# <linux/tcp.h>, struct tcp_info: tcpi_state, tcpi_last_data_recv in milliseconds, tcpi_bytes_acked
# and tcpi_bytes_received.
_INFO: Final = struct.Struct("=B51xI64xQQ")
_ESTABLISHED: Final = 1
_CLOSE_WAIT: Final = 8

# <asm-generic/socket.h>: a number that no other socket has had since the machine was started.
_SO_COOKIE: Final = 57

_RESET: Final = struct.pack("ii", 1, 0)


class _Facts(NamedTuple):
    """What the kernel reports about a connection.

    Attributes:
        cookie: Its identity.
        acknowledged: Bytes sent that the client has acknowledged.
        received: Bytes received from the client.
        silent: Seconds since bytes were last received.
    """

    cookie: bytes
    acknowledged: int
    received: int
    silent: float


class _Seen(NamedTuple):
    """A connection as it was at the last look.

    Attributes:
        answered: Bytes that had been received when ``acknowledged`` last changed.
        held: Bytes received since.
        since: When ``acknowledged`` last changed, or the first of the ``held`` bytes was received.
    """

    cookie: bytes
    acknowledged: int
    answered: int
    held: int
    since: float


class ConnectionWatch:
    """Close connections by the rules at the top of this module."""

    def __init__(
        self,
        listener: socket.socket,
        descriptors: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the connections accepted from a TCP listener, and no others.

        ``descriptors`` is how many file descriptors the process may have.
        """
        self._port = listener.getsockname()[1:2]
        self._most = descriptors // 2
        self._clock = clock
        self._timeout = TIMEOUT
        self._deadline: float | None = None
        self._seen: dict[int, _Seen] = {}
        self._next = 0
        self._highest = 0
        # A reserved descriptor: there may be no free one when a connection must be closed.
        self._nothing = socket.socket()
        self._duplicate = self._nothing.dup()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Watch from now on, in a thread."""
        self._thread.start()

    def drain(self) -> None:
        """Start to close all connections, because the service is stopping."""
        self._deadline = self._clock() + DRAIN_SECONDS

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._nothing.close()
        self._duplicate.close()

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE):
            # While draining, do not pause: bjoern accepts connections until it notices the stop.
            while not self.look() and self._deadline is not None:
                pass

    def look(self) -> bool:
        """Look at the next few descriptors; return whether these were the last."""
        # The kernel assigns the lowest free number, so those in use are close together.
        end = 2 * self._highest + _MARGIN
        until = min(self._next + _AT_ONCE, end)
        now = self._clock()
        for fd in range(self._next, until):
            self._look_at(fd, now)
        self._next = until
        if until < end:
            return False
        self._next = 0
        self._highest = max(self._seen, default=0)
        self._close_largest()
        self._adapt_timeout()
        return True

    def _look_at(self, fd: int, now: float) -> None:
        seen = self._seen.get(fd)
        facts = self._facts(fd, seen)
        if facts is None:
            self._seen.pop(fd, None)
            return
        if seen is None or seen[:2] != facts[:2]:
            answered = facts.received if facts.acknowledged else 0
            seen = _Seen(*facts[:2], answered, facts.received - answered, now)
        else:
            held = facts.received - seen.answered
            since = now if held and not seen.held else seen.since
            seen = seen._replace(held=held, since=since)
        self._seen[fd] = seen
        if self._deadline is not None:
            if now > self._deadline:
                self._close(fd, seen, at_once=True)
            elif facts.silent >= SILENT_SECONDS:
                self._close(fd, seen)
        elif seen.held > MOST_HELD:
            self._close(fd, seen, at_once=True)
        elif now - seen.since > self._timeout:
            # If the client does not read, bjoern waits to write and does not read end-of-file.
            self._close(fd, seen, at_once=_is_unread(fd))

    def _facts(self, fd: int, seen: _Seen | None) -> _Facts | None:
        """Return the facts about the connection ``fd``, or None if it is another socket."""
        try:
            # The address family does not matter for these options.
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
        except OSError:
            return None
        try:
            facts = _ask(connection)
            # Of a connection seen before, the port has been checked.
            if facts is None or (seen and seen.cookie == facts.cookie):
                return facts
            return facts if connection.getsockname()[1:2] == self._port else None
        except OSError:
            return None
        finally:
            connection.detach()

    def _close(self, fd: int, seen: _Seen, *, at_once: bool = False) -> None:
        """Shut down receiving; with ``at_once`` both directions, unless bytes have moved since.

        bjoern may close the connection at any moment, and its descriptor may then belong to the
        next one. A duplicate keeps referring to the same connection.
        """
        try:
            os.dup2(fd, self._duplicate.fileno(), inheritable=False)
        except OSError as error:
            if error.errno == errno.EBADF:
                return
            raise
        try:
            facts = _ask(self._duplicate)
            if facts is None or facts.cookie != seen.cookie:
                return
            if not at_once:
                self._duplicate.shutdown(socket.SHUT_RD)
            elif facts[1:3] == (seen.acknowledged, seen.answered + seen.held):
                if self._deadline is None:
                    # Reset the connection. Otherwise a client that is still sending would wait, and
                    # the kernel would keep bytes that the client does not read.
                    self._duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The client has closed it.
        finally:
            os.dup2(self._nothing.fileno(), self._duplicate.fileno(), inheritable=False)

    def _close_largest(self) -> None:
        excess = sum(seen.held for seen in self._seen.values()) - MOST_HELD_BY_ALL
        if excess <= 0:
            return
        for fd, seen in sorted(self._seen.items(), key=lambda item: -item[1].held):
            self._close(fd, seen, at_once=True)
            excess -= seen.held
            if excess <= 0:
                break

    def _adapt_timeout(self) -> None:
        timeout = SHORT_TIMEOUT if len(self._seen) > self._most else TIMEOUT
        if timeout < self._timeout:
            _logger.warning(
                "%d connections take more than half of the descriptors that this process may have "
                "(ulimit -n): those that are idle for %d s are closed",
                *(len(self._seen), timeout),
            )
        self._timeout = timeout


def _ask(connection: socket.socket) -> _Facts | None:
    """Return the facts, or None if the socket is not connected; may raise `OSError`."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    if len(info) < _INFO.size:
        return None
    state, silent, acknowledged, received = _INFO.unpack(info)
    if state not in (_ESTABLISHED, _CLOSE_WAIT):
        return None
    cookie = connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    return _Facts(cookie, acknowledged, received, silent / 1000)


def _is_unread(fd: int) -> bool:
    """Return whether bytes sent by ``fd`` are not acknowledged yet."""
    try:
        return any(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return False  # It has been closed.
