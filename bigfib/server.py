"""The process that serves: its socket, its signals, its beginning and its end.

bjoern runs the event loop of libev, which takes SIGINT for itself: it then stops accepting, and
returns when the last connection is closed, which an idle keep-alive client puts off for ever; and
no Python code runs on its thread any more to do something about it. Hence:

* SIGTERM is handled in Python, on bjoern's tick ten times a second. It passes a SIGINT on to libev
  and starts a thread that drains the connections.
* SIGINT from outside is blocked, so that libev sees only the one passed on. A thread waits for it
  and turns it into a SIGTERM.
* To drain is to shut the receiving half of every connection. An idle one then reads the end of
  file and is closed; a reply under way goes out first. After a deadline both halves are shut.
* No handler raises an exception: where bjoern calls Python before its loop, that is a crash.
"""

import contextlib
import ctypes
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

import bjoern

import bigfib
from bigfib.api.access_log import logged
from bigfib.api.app import create_app
from bigfib.batches import Batches, NotMade
from bigfib.connections import Watch
from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs, NotAtHand
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences, farthest_within, open_store
from bigfib.settings import Settings
from bigfib.state.log import Log
from bigfib.supervisor import Place, supervise
from bigfib.terms import INLINE_LIMIT

_logger = logging.getLogger(__name__)

_WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

_DRAIN_SECONDS: Final = 5.0
_DRAIN_INTERVAL: Final = 0.05

# The kernel cuts this down to net.core.somaxconn.
_BACKLOG: Final = 4096

# From <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


class CannotServe(Exception):
    """The service cannot start; the message says why and what to do."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the replies under way finish, for 5 seconds at most.

    Raises:
        CannotServe: the address cannot be had, or the shared sequence is beyond computing.
        LogError: the state log cannot be opened, or not be made durable at the end.
        StoreError: the database cannot be had.
    """
    if settings.workers == 1:
        with contextlib.closing(_bind(settings.host, settings.port)) as listener:
            _listen(listener)
            _serve_on(listener, settings)
        return
    if not settings.store:
        raise CannotServe(
            f"{settings.workers} workers need a store that they share, and a state log has one "
            "writer; give them --store postgresql://..., or serve with --workers 1"
        )
    with contextlib.closing(_reserve(settings.host, settings.port)) as reserved:
        place = supervise(settings.workers)
        if place is None:
            return
        host, port = reserved.getsockname()[:2]
        with contextlib.closing(_bind(host, port, shared=True)) as listener:
            _listen(listener)
            _serve_on(listener, settings, place)


def _serve_on(listener: socket.socket, settings: Settings, place: Place | None = None) -> None:
    """Serve on ``listener``; as one of several workers, in its place."""
    if settings.one_cpu:
        # On one CPU for all, workers would gain nothing.
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[place.number % len(cpus) if place else 0]})
    keep_freed_memory()
    descriptors = _allow_all_descriptors()
    sys.excepthook = _say_nothing_of_replies_cut_off
    url = _url(listener)
    # Absolute, for the processes that write there have no directory of ours.
    cache = DigitCache(settings.cache_dir.absolute(), settings.disk_cache_bytes)
    jobs = Jobs(cache, settings.max_term)
    with (
        contextlib.closing(open_store(settings, contact=url)) as store,
        contextlib.closing(jobs),
    ):
        sequences = Sequences(
            store,
            cache_bytes=settings.cache_bytes,
            max_sequences=settings.max_sequences,
            # What is far is computed beside, but steps are made here, in memory.
            farthest=max(
                min(settings.max_term, farthest_within(settings.cache_bytes)), INLINE_LIMIT
            ),
        )
        sequences.pair_at = jobs.pair
        batches = None
        kept = f"state log {settings.file}"
        durability = settings.durability.value
        if not isinstance(store, Log):
            batches = Batches(sequences, store)
            kept = f"store {store.host}"
            durability = f"synchronous_commit {store.synchronous_commit}"
        try:
            position = sequences.position(SHARED)
            # A far term is begun now, so that whoever asks for it first waits for less.
            with contextlib.suppress(NotAtHand):
                jobs.pair(position)
        except IndexTooLarge as error:
            raise CannotServe(f"{kept}: {error}") from error
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: jobs.advance())
        draining = threading.Event()
        app: _WSGI = create_app(
            *(store, sequences, jobs),
            per_client=settings.per_client,
            batches=batches,
            slots=place.slots if place else None,
            draining=draining,
        )
        with (
            _stopping_by_signal(listener, draining),
            contextlib.closing(Watch(listener, descriptors)) as watch,
        ):
            watch.start()
            who = f"bigfib {bigfib.__version__}"
            if place:
                who += f" (worker {place.number + 1} of {settings.workers}, pid {os.getpid()})"
            _logger.info(
                "%s listens on %s; %s at position %d, durability %s",
                *(who, url, kept, position, durability),
            )
            host = listener.getsockname()[0].partition("%")[0]
            if not ipaddress.ip_address(host).is_loopback:
                _logger.warning(
                    "open to the network, without passwords, TLS or limits for each client; "
                    "put a proxy in front, or listen on --host 127.0.0.1"
                )
            if place:
                place.ready()
            bjoern.server_run(
                listener, logged(app) if settings.access_log or settings.debug else app
            )
        _logger.info("stopped")


def _say_nothing_of_replies_cut_off(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show an exception that nobody has caught, unless it is meant for bjoern."""
    if kind is not NotMade:
        sys.__excepthook__(kind, error, traceback)


def _reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps the port for those who share it, and takes no connections."""
    with contextlib.closing(_bind(host, port)) as alone:
        # Nobody else has it; those who share it would not find out.
        _listen(alone)
        port = alone.getsockname()[1]
    return _bind(host, port, shared=True)


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            *(host, port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise CannotServe(
            f"{host!r:.60} is neither an address nor a known name; choose another with --host"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            # The kernel deals connections out to all sockets that listen there.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it. Without it the digits wait for the client to acknowledge
        # the chunk before them.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            # `::` means all addresses, of both kinds.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # bjoern accepts once an event; a client gone by then must not stall it.
        listener.setblocking(False)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _listen(listener: socket.socket) -> None:
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> CannotServe:
    return CannotServe(
        f"cannot listen on {host} port {port}: {error.strerror}; "
        "choose another with --host or --port"
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _stopping_by_signal(listener: socket.socket, draining: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the loop run within, as told at the top of this module.

    Then ``draining`` is set: what is still answered can tell of it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    passed_on = ended = False
    taken_by_python = False

    def drain() -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        # Where connections have taken all descriptors, looking for them asks for more.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        while not ended:
            late = time.monotonic() > deadline
            # Again and again, for those that bjoern accepts until it hears of the signal.
            with contextlib.suppress(OSError):
                _shut_connections(listener, socket.SHUT_RDWR if late else socket.SHUT_RD)
            time.sleep(_DRAIN_INTERVAL)

    def stop(_signal: int, _frame: object) -> None:
        nonlocal passed_on, taken_by_python
        if passed_on:
            return
        taken_by_python = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)
        # At once: libev will restore the default action, by which a second SIGINT would kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if taken_by_python:
            threading.Timer(_DRAIN_INTERVAL, terminate).start()
        else:
            passed_on = True
            draining.set()
            _logger.info("stopping")
            threading.Thread(target=drain, daemon=True).start()

    def interrupt(_signal: int, _frame: object) -> None:
        # From `stop`, before libev has taken the signal over; and from bjoern, when it returns.
        nonlocal taken_by_python
        taken_by_python = True

    def turn_interrupt_into_termination() -> None:
        signal.sigwait({signal.SIGINT})
        terminate()

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=turn_interrupt_into_termination, daemon=True).start()
    try:
        yield
    finally:
        ended = True
        # Python's end restores the default of signals that have a handler; one more would kill.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _shut_connections(listener: socket.socket, how: int) -> None:
    """Shut down every connection that came in by ``listener``; bjoern does not tell them."""
    for connection in _connections(listener.getsockname()[1]):
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.shutdown(how)


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
            if connection.getsockname()[1:2] == (port,):
                yield connection
            else:
                connection.close()


def keep_freed_memory() -> None:
    """Let malloc keep the memory of large numbers for the next ones.

    By default it returns a freed number of more than 128 KB to the system, which clears it anew,
    page by page, for the next: measured at 209 thousand digits, a step then takes 2.7 times as
    long. Kept are at most 64 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc has it, musl does not
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _allow_all_descriptors() -> int:
    """Allow as many connections as the system lets us: out of descriptors, bjoern spins.

    A few are left for the end, which has to find the connections. Returns how many there may be.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = max(hard - 16, hard // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
