"""Open the listening socket, or inherit one from systemd."""

import contextlib
import ipaddress
import os
import socket
from typing import Final

from bigfib.server import CannotServe

# The kernel cuts this down to net.core.somaxconn.
_BACKLOG: Final = 4096

# The first descriptor that sd_listen_fds(3) hands over.
_FIRST_INHERITED: Final = 3


def inherit() -> socket.socket | None:
    """Return the listening socket that systemd or another program handed over, or None.

    That program keeps it open, too, so that clients wait during a restart and are not refused.

    Raises:
        CannotServe: There are several sockets, or the socket is not TCP, or does not listen.
    """
    # Child processes must not inherit the variables.
    pid, count, _ = (
        os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise CannotServe(f"{count} sockets are handed over; leave one ListenStream= in the unit")
    try:
        os.set_inheritable(_FIRST_INHERITED, False)
        listener = socket.socket(fileno=_FIRST_INHERITED)
    except OSError as error:
        raise CannotServe(
            f"file descriptor 3 is handed over, but is no socket: {error.strerror}"
        ) from error
    if (
        listener.family not in (socket.AF_INET, socket.AF_INET6)
        or listener.type != socket.SOCK_STREAM
    ):
        listener.close()
        raise CannotServe("the socket handed over is not TCP; give an address and a port")
    # Listening on a socket without an address would open a random port on all interfaces.
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise CannotServe("the socket handed over does not listen; leave Accept=no in the unit")
    _configure(listener)
    return listener


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket bound to the address, which does not listen yet.

    Port 0 takes any free one. If the port is ``shared``, other processes bind it, too, and the
    kernel spreads connections over them.

    Raises:
        CannotServe: The address is unknown or taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            *(host, port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, ValueError):  # ValueError: the text cannot be a name at all
        raise CannotServe(
            f"{host!r:.60} is neither an address nor a known name; choose another with --host"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _configure(listener)
        if family == socket.AF_INET6:
            # `::` means all addresses, including IPv4.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that reserves a port for workers to share, and accepts no connections."""
    with contextlib.closing(bind(host, port)) as alone:
        # With sharing, this would succeed although another service shares the port already.
        listen(alone)
        port = alone.getsockname()[1]
    return bind(host, port, shared=True)


def listen(listener: socket.socket) -> None:
    """Let clients connect; raise `CannotServe` if another process listens there."""
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def url(listener: socket.socket) -> str:
    """Return the address of the service."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can connect."""
    host = listener.getsockname()[0].partition("%")[0]
    return ipaddress.ip_address(host).is_loopback


def _configure(listener: socket.socket) -> None:
    # Accepted sockets inherit TCP_NODELAY. Without it each chunk of digits waits until the client
    # has acknowledged the previous one.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # bjoern calls `accept` once for each event; it must not block if the client has already gone.
    listener.setblocking(False)


def _cannot_listen(host: str, port: int, error: OSError) -> CannotServe:
    return CannotServe(
        f"cannot listen on {host} port {port}: {error.strerror}; "
        "choose another with --host or --port"
    )
