"""Close connections that are idle, do not read, or send more than a request has.

bjoern has no time-outs, holds the body of a request in memory before the application sees it, and
spins when no file descriptor is left. It does not list its connections, but the kernel knows, for
each descriptor, how many bytes were received and how many of those sent were acknowledged
(``TCP_INFO``, see tcp(7) and <linux/tcp.h>; both counts since Linux 4.2). A thread looks at some
descriptors after the other, so that a request pays nothing for it. Three rules:

* **Time.** A client that has acknowledged nothing new for `PATIENCE` seconds, nor begun a request,
  is closed: it is idle, or has not finished its request, or does not read its reply.
* **Descriptors.** When connections have taken half of those that the process may have, the time is
  `SHORT_PATIENCE`.
* **Memory.** A client that has sent more than `MOST_HELD` bytes since the last reply is closed, and
  while all together have sent more than `MOST_HELD_BY_ALL`, so is the one that sent most.

bjoern closes a connection whose end it reads. Of an idle one only the receiving side is shut down:
a request that arrives at that moment is either not read, or answered.
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

PATIENCE: Final = 75.0
"""Seconds; more than the 60 after which proxies commonly close an idle connection themselves."""

SHORT_PATIENCE: Final = 5.0
"""Seconds, when descriptors become scarce."""

MOST_HELD: Final = 4 << 20
"""Bytes of one request: a document has a quarter of that at most, its headers 80 KiB."""

MOST_HELD_BY_ALL: Final = 64 << 20
"""Bytes of all requests that are not answered yet."""

# A turn of so many takes 1 ms, and 10,000 connections are through in 2 s.
_AT_ONCE: Final = 250
_BETWEEN_TURNS: Final = 0.05

# Of a service without connections these are all.
_MARGIN: Final = 32

# <linux/tcp.h>, struct tcp_info: the state comes first, and from 120 on tcpi_bytes_acked and
# tcpi_bytes_received.
_INFO_BYTES: Final = 136
_COUNTS: Final = struct.Struct("=B119xQQ")
_ESTABLISHED: Final = 1
_CLOSE_WAIT: Final = 8

# <asm-generic/socket.h>: a number that no other socket of this machine ever had.
_SO_COOKIE: Final = 57

_RESET: Final = struct.pack("ii", 1, 0)


class _Facts(NamedTuple):
    """What the kernel says of a connection: who it is, and bytes since its beginning."""

    cookie: bytes
    acknowledged: int
    received: int


class _Seen(NamedTuple):
    """A connection as it was when it was last seen.

    Attributes:
        cookie: Who it is.
        acknowledged: Bytes of replies that the client has acknowledged.
        answered: Bytes that had come in when that count last changed.
        held: Bytes that have come in since.
        since: When that count last changed, or the first of those bytes came.
    """

    cookie: bytes
    acknowledged: int
    answered: int
    held: int
    since: float


class Watch:
    """Lets connections go by the rules at the top of this module."""

    def __init__(
        self,
        listener: socket.socket,
        descriptors: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the connections that came in by ``listener``.

        Args:
            listener: It listens on a port of TCP; on anything else nothing is watched.
            descriptors: How many file descriptors the process may have.
            clock: Tells seconds.
        """
        self._port = listener.getsockname()[1:2]
        self._most = descriptors // 2
        self._clock = clock
        self._patience = PATIENCE
        self._seen: dict[int, _Seen] = {}
        self._next = 0
        self._highest = 0
        # Descriptors of our own: there may be no other when a connection is to be let go.
        self._nothing = socket.socket()
        self._duplicate = self._nothing.dup()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Watch from now on, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._nothing.close()
        self._duplicate.close()

    def _run(self) -> None:
        while not self._ended.wait(_BETWEEN_TURNS):
            self.turn()

    def turn(self) -> bool:
        """Look at the next few descriptors; return whether these were the last."""
        # The system gives out the lowest number that is free, so those in use lie close together.
        end = 2 * self._highest + _MARGIN
        until = min(self._next + _AT_ONCE, end)
        now = self._clock()
        for fd in range(self._next, until):
            self._look(fd, now)
        self._next = until
        if until < end:
            return False
        self._next = 0
        self._highest = max(self._seen, default=0)
        self._share_memory()
        self._save_descriptors()
        return True

    def _look(self, fd: int, now: float) -> None:
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
        if seen.held > MOST_HELD:
            self._close(fd, at_once=True)
        elif now - seen.since > self._patience:
            self._close(fd)

    def _facts(self, fd: int, seen: _Seen | None) -> _Facts | None:
        """Return what is known of the connection ``fd``, or None if it is not one of ours."""
        try:
            # The family is not looked at for what is asked here.
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
        except OSError:
            return None
        try:
            facts = _ask(connection)
            # Of a connection that is known we need not ask again whose it is.
            if facts is None or (seen and seen.cookie == facts.cookie):
                return facts
            return facts if connection.getsockname()[1:2] == self._port else None
        except OSError:
            return None
        finally:
            connection.detach()

    def _close(self, fd: int, *, at_once: bool = False) -> None:
        """Shut the connection down, unless it has been closed or used since it was looked at.

        bjoern runs meanwhile: it may close the connection at any moment, and the next one may get
        its number. A duplicate of the descriptor keeps referring to the same connection.

        Args:
            fd: The descriptor.
            at_once: Whether to stop reading what the client sends.
        """
        seen = self._seen[fd]
        try:
            os.dup2(fd, self._duplicate.fileno(), inheritable=False)
        except OSError as error:
            if error.errno == errno.EBADF:
                return
            raise
        try:
            # Before the counts: if these are as they were, it is no reply to a new request.
            unread = any(fcntl.ioctl(self._duplicate, termios.TIOCOUTQ, bytes(4)))
            facts = _ask(self._duplicate)
            if facts != (seen.cookie, seen.acknowledged, seen.answered + seen.held):
                return
            if at_once or unread:
                # A client that is still sending would wait to go on, and the kernel would keep what
                # the client does not read.
                self._duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._duplicate.shutdown(socket.SHUT_RDWR)
            else:
                self._duplicate.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # The client has closed it.
        finally:
            os.dup2(self._nothing.fileno(), self._duplicate.fileno(), inheritable=False)

    def _share_memory(self) -> None:
        excess = sum(seen.held for seen in self._seen.values()) - MOST_HELD_BY_ALL
        if excess <= 0:
            return
        for fd, seen in sorted(self._seen.items(), key=lambda item: -item[1].held):
            self._close(fd, at_once=True)
            excess -= seen.held
            if excess <= 0:
                break

    def _save_descriptors(self) -> None:
        patience = SHORT_PATIENCE if len(self._seen) > self._most else PATIENCE
        if patience < self._patience:
            _logger.warning(
                "%d connections have taken more than half of the descriptors that this process "
                "may have (ulimit -n): those on which nothing moves for %d s are let go",
                *(len(self._seen), patience),
            )
        self._patience = patience


def _ask(connection: socket.socket) -> _Facts | None:
    """Return what the kernel says, or None if there is no connection.

    Raises:
        OSError: it is no socket of TCP.
    """
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _INFO_BYTES:
        return None
    state, acknowledged, received = _COUNTS.unpack(info)
    if state not in (_ESTABLISHED, _CLOSE_WAIT):
        return None
    cookie = connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    return _Facts(cookie, acknowledged, received)
