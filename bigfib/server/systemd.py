"""Notify systemd or a supervisor, at intervals, that the event loop is alive.

The protocols of sd_notify(3) and sd_watchdog_enabled(3) are environment variables and datagrams;
other supervisors use them, too. Without the variables nothing is sent.
"""

import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Final

_logger = logging.getLogger(__name__)

# bjoern checks for signals at this interval.
_LEAST_WATCHDOG_SECONDS: Final = 0.1


def notify(*assignments: str) -> None:
    """Send the state of the service, such as ``READY=1``, to systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    try:
        # A file name in the message may contain bytes that are not UTF-8.
        message = "\n".join(assignments).encode(errors="backslashreplace")
        _sender().sendto(message, address)
    except OSError as error:
        # Go on serving; systemd acts on the missing notification.
        _logger.warning("cannot notify systemd: %s", error.strerror or error)


@functools.cache
def _sender() -> socket.socket:
    # Kept open: at the next notification, connections may have taken all descriptors.
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # A receiver that does not read must not block the service.
    sender.setblocking(False)
    return sender


def watchdog_seconds() -> float | None:
    """Return the seconds within which systemd expects each notification, at least 0.1, or None."""
    pid, microseconds = (os.environ.get(name, "") for name in ("WATCHDOG_PID", "WATCHDOG_USEC"))
    if pid not in ("", str(os.getpid())) or microseconds in ("", "0"):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal() and len(microseconds) <= 12):
        _logger.warning("WATCHDOG_USEC %.20r is no number of microseconds; ignored", microseconds)
        return None
    return max(int(microseconds) / 1_000_000, _LEAST_WATCHDOG_SECONDS)


@contextlib.contextmanager
def notifying(notify: Callable[[], None], timeout: float | None, *loop: CodeType) -> Iterator[None]:
    """Call ``notify`` now, then four times per ``timeout`` seconds while the loop is alive.

    bjoern has no timers, but checks for signals ten times a second. Python also runs a signal
    handler within a call of the application, and that call may never end. So the loop counts as
    alive if it is between two calls of the application, or in another call than at the last signal.

    ``loop`` is the code of the loop's functions, which run within the ``with`` statement. Without a
    ``timeout``, ``notify`` is called only once.
    """
    last: FrameType | None = None

    def alarm(_signal: int, frame: FrameType | None) -> None:
        nonlocal last
        call = None
        while frame and frame.f_code not in loop:
            call, frame = frame, frame.f_back
        if call is None or call is not last:
            notify()
        last = call

    notify()
    if timeout:
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, timeout / 4, timeout / 4)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
