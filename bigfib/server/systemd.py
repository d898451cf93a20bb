"""Notify systemd, and read how often it wants to be notified.

Two small protocols of environment variables and datagrams, which other supervisors speak, too:
sd_notify(3) and sd_watchdog_enabled(3). Without the variables nothing happens.
"""

import functools
import logging
import os
import socket
from typing import Final

_logger = logging.getLogger(__name__)

# The event loop looks for signals as often.
_LEAST_WATCHDOG_SECONDS: Final = 0.1


def notify(*assignments: str) -> None:
    """Tell systemd of the state of the service, such as ``READY=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in the abstract name space
        address = f"\0{address[1:]}"
    try:
        # The name of a file may have bytes that are no text.
        told = "\n".join(assignments).encode(errors="backslashreplace")
        _sender().sendto(told, address)
    except OSError as error:
        # It will find out in its own way.
        _logger.warning("cannot notify systemd: %s", error.strerror or error)


@functools.cache
def _sender() -> socket.socket:
    # Kept open: connections may have taken all descriptors when it is to be told that all is well.
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    # Who does not listen is not waited for.
    sender.setblocking(False)
    return sender


def watchdog_seconds() -> float | None:
    """Return within how many seconds systemd wants to hear of this process, again and again.

    That is at least 0.1; None if it does not want to, or says so in no way that is understood.
    """
    pid, microseconds = (os.environ.get(name, "") for name in ("WATCHDOG_PID", "WATCHDOG_USEC"))
    if pid not in ("", str(os.getpid())) or microseconds in ("", "0"):
        return None
    if not (microseconds.isascii() and microseconds.isdecimal() and len(microseconds) <= 12):
        _logger.warning("WATCHDOG_USEC %.20r is no number of microseconds; ignored", microseconds)
        return None
    return max(int(microseconds) / 1_000_000, _LEAST_WATCHDOG_SECONDS)
