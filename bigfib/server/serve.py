"""The process that serves: its socket, its beginning, and what runs within."""

import contextlib
import ctypes
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from types import TracebackType
from typing import Final

import bjoern

import bigfib
from bigfib.api.access_log import logged
from bigfib.api.app import PartOfRequest, create_app
from bigfib.batches import Batches, NotMade
from bigfib.current_terms import farthest_within
from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs, NotAtHand
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences, open_store
from bigfib.server import systemd, watchdog
from bigfib.server.bjoern.idle import ConnectionWatch
from bigfib.server.bjoern.loop import IterationHook
from bigfib.server.bjoern.request import guarded, with_client_address
from bigfib.server.stop import Stop
from bigfib.server.supervisor import Place, supervise
from bigfib.settings import Settings
from bigfib.state.log import Durability, Log
from bigfib.terms import INLINE_LIMIT

_logger = logging.getLogger(__name__)

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
    patience = systemd.watchdog_seconds()
    inherited = _inherited()
    if settings.workers == 1:
        with contextlib.closing(inherited or _bind(settings.host, settings.port)) as listener:
            _listen(listener)
            _serve_on(listener, settings, patience, inherited=bool(inherited))
        return
    if not settings.store:
        raise CannotServe(
            f"{settings.workers} workers need a store that they share, and a state log has one "
            "writer; give them --store postgresql://..., or serve with --workers 1"
        )
    with contextlib.closing(inherited or _reserve(settings.host, settings.port)) as reserved:
        place = supervise(settings.workers, patience)
        if place is None:
            return
        host, port = reserved.getsockname()[:2]
        # One that was handed over is everybody's: whoever is free accepts.
        with contextlib.closing(inherited or _bind(host, port, shared=True)) as listener:
            _listen(listener)
            _serve_on(listener, settings, patience, place, inherited=bool(inherited))


def _tell_systemd() -> None:
    systemd.notify("READY=1", "WATCHDOG=1")


def _inherited() -> socket.socket | None:
    try:
        listener = systemd.inherited_listener()
    except systemd.Unfit as error:
        raise CannotServe(str(error)) from error
    if listener:
        _prepare(listener)
    return listener


def _serve_on(
    listener: socket.socket,
    settings: Settings,
    patience: float | None,
    place: Place | None = None,
    *,
    inherited: bool,
) -> None:
    """Serve on ``listener``.

    Args:
        listener: A listening socket.
        settings: The settings.
        patience: Within how many seconds somebody wants to hear that requests are answered.
        place: That of this worker, if it is one of several.
        inherited: Whether others have the listener too, and it goes on listening at the end.
    """
    if settings.one_cpu:
        # On one CPU for all, workers would gain nothing.
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[place.number % len(cpus) if place else 0]})
    keep_freed_memory()
    descriptors = _allow_all_descriptors()
    sys.excepthook = _show_uncaught
    url = _url(listener)
    # Absolute, for the processes that write there have no directory of ours.
    cache = DigitCache(settings.cache_dir.absolute(), settings.disk_cache_bytes)
    jobs = Jobs(cache, settings.max_term)
    with (
        contextlib.closing(open_store(settings, owner_url=url)) as store,
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
        watch = ConnectionWatch(listener, descriptors)
        stop = Stop(listener, watch, inherited=inherited)
        app = create_app(
            *(store, sequences, jobs),
            per_client=settings.per_client,
            batches=batches,
            slots=place.slots if place else None,
            draining=stop.draining,
        )
        hook = IterationHook(listener, app.committer.end_turn)
        if isinstance(store, Log) and settings.durability is Durability.FSYNC:
            hook.install()
        served = stop.announced_by(app)
        if settings.access_log or settings.debug:
            served = with_client_address(logged(served, app.committer))
        with contextlib.closing(watch), stop.by_signal():
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
            systemd.notify(f"STATUS={url}; {kept}")
            tell = place.tell if place else _tell_systemd
            with watchdog.telling(tell, patience, bjoern.server_run.__code__):
                bjoern.server_run(listener, guarded(served))
        _logger.info("stopped")


def _show_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show an exception that nobody has caught, unless it is meant for bjoern."""
    if kind is PartOfRequest:
        _logger.warning("a client sent requests at once, the last of them in part; none was made")
    elif kind is not NotMade:
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
    except (socket.gaierror, ValueError):  # of what cannot be a name, too
        raise CannotServe(
            f"{host!r:.60} is neither an address nor a known name; choose another with --host"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            # The kernel deals connections out to all sockets that listen there.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _prepare(listener)
        if family == socket.AF_INET6:
            # `::` means all addresses, of both kinds.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _prepare(listener: socket.socket) -> None:
    # Accepted sockets inherit it. Without it the digits wait for the client to acknowledge the
    # chunk before them.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # bjoern accepts once an event; a client gone by then must not stall it.
    listener.setblocking(False)


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
    """Allow as many descriptors as the system does (bjoern spins without one); return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
