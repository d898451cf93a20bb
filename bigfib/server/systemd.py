"""Notify systemd, and read how often it wants to be notified.

sd_notify(3) and sd_watchdog_enabled(3) are two protocols of environment variables and datagrams,
which other supervisors use, too. Without the variables nothing is sent.
"""

import functools
import logging
import os
import socket
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
        # A file name in it may have bytes that are not UTF-8.
        message = "\n".join(assignments).encode(errors="backslashreplace")
        _sender().sendto(message, address)
    except OSError as error:
        # The service runs on; systemd acts on the missing notification.
        _logger.warning("cannot notify systemd: %s", error.strerror or error)


@functools.cache
def _sender() -> socket.socket:
    # Kept open: at the next notification, connections may have taken all descriptors.
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # A receiver that does not read must not block the service.
    sender.setblocking(False)
    return sender


def watchdog_seconds() -> float | None:
    """Return within how many seconds systemd expects each notification, at least 0.1.

    None if it expects none, or its variable is not a number.
    """
    pid, microseconds = (os.environ.get(name, "") for name in ("WATCHDOG_PID", "WATCHDOG_USEC"))
    if pid not in ("", str(os.getpid())) or microseconds in ("", "0"):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal() and len(microseconds) <= 12):
        _logger.warning("WATCHDOG_USEC %.20r is no number of microseconds; ignored", microseconds)
        return None
    return max(int(microseconds) / 1_000_000, _LEAST_WATCHDOG_SECONDS)
