"""What systemd hands to a service, and what it wants to hear from it.

Three small protocols of environment variables and datagrams, which other supervisors speak, too:
sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3). Without the variables nothing happens.
"""

import functools
import logging
import os
import socket
from typing import Final

_logger = logging.getLogger(__name__)

_FIRST_DESCRIPTOR: Final = 3

# The event loop looks for signals as often.
_LEAST_WATCHDOG_SECONDS: Final = 0.1


class Unfit(Exception):
    """What was handed over is not what the service can take; the message says what to change."""


def inherited_listener() -> socket.socket | None:
    """Return the listening socket that was opened before this process, or None if none was.

    The opener has it, too. So connections that come while this process ends and the next one starts
    are refused by nobody: they wait.

    Raises:
        Unfit: there are several, or it is not one of TCP, or does not listen.
    """
    # Not for processes that are started from here.
    pid, count, _ = (
        os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise Unfit(f"there are {count} sockets handed over; leave one ListenStream= in the unit")
    try:
        os.set_inheritable(_FIRST_DESCRIPTOR, False)
        listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    except OSError as error:
        raise Unfit(f"file descriptor 3 is handed over, but no socket: {error.strerror}") from error
    if (
        listener.family not in (socket.AF_INET, socket.AF_INET6)
        or listener.type != socket.SOCK_STREAM
    ):
        listener.close()
        raise Unfit("the socket handed over is not one of TCP; give an address and a port")
    # Were it told to listen here, one without an address would, at any port of all of them.
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise Unfit("the socket handed over does not listen; leave Accept=no in the unit")
    return listener


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
