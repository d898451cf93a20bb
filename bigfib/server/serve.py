"""Serve: open the store, build the application, run it on bjoern, drain it on a signal."""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple

import bjoern

import bigfib
from bigfib.api.access_log import logged
from bigfib.api.app import create_app
from bigfib.api.hosts import Hosts
from bigfib.api.step_queue import NotMade
from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs, TermNotReady
from bigfib.numbers import kernel
from bigfib.numbers.decimals import farthest_within
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import SHARED, Sequences
from bigfib.server import CannotServe, listener, systemd
from bigfib.server.bjoern.idle import ConnectionWatch
from bigfib.server.bjoern.loop import IterationHook
from bigfib.server.bjoern.request import WSGI, PartOfRequest, guarded, with_client_address
from bigfib.server.stop import Stop
from bigfib.server.supervisor import Seat, Supervisor
from bigfib.settings import Settings
from bigfib.stores import Opened, open_store
from bigfib.terms import INLINE_LIMIT

_logger = logging.getLogger(__name__)

_READY: Final = ("READY=1", "WATCHDOG=1")

# From <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish the replies under way, for 5 seconds at most.

    Raises:
        CannotServe: The address cannot be used, or the shared sequence is too large to compute.
        LogError: The state log cannot be opened.
        CommitFailed: The last changes cannot be made durable.
        StoreError: The database cannot be used.
    """
    timeout = systemd.watchdog_seconds()
    inherited = listener.inherit()
    if settings.workers == 1:
        with contextlib.closing(
            inherited or listener.bind(settings.host, settings.port)
        ) as listening:
            listener.listen(listening)
            _Server(settings, listening, timeout, inherited=bool(inherited)).serve()
        return
    if not settings.store:
        raise CannotServe(
            f"{settings.workers} workers need a store that they share, and a state log has one "
            "writer; give them --store postgresql://..., or serve with --workers 1"
        )
    with contextlib.closing(
        inherited or listener.reserve(settings.host, settings.port)
    ) as reserved:
        seat = Supervisor(settings.workers, timeout).run()
        if seat is None:
            return
        host, port = reserved.getsockname()[:2]
        # All workers accept from an inherited socket; one that is free gets the connection.
        with contextlib.closing(inherited or listener.bind(host, port, shared=True)) as listening:
            listener.listen(listening)
            _Server(settings, listening, timeout, seat, inherited=bool(inherited)).serve()


class _Opened(NamedTuple):
    """The open store and computations; ``position`` is that of the shared sequence."""

    store: Opened
    sequences: Sequences
    jobs: Jobs
    position: int


@dataclass
class _Server:
    """Run the service in this process.

    Attributes:
        timeout: Within how many seconds systemd or the supervisor expects each report, if at all.
        seat: What the supervisor gave this worker, if there are several workers.
        inherited: Whether another program handed the socket over; the socket then listens on after
            this process ends.
    """

    settings: Settings
    listening: socket.socket
    timeout: float | None
    seat: Seat | None = None
    inherited: bool = False

    def serve(self) -> None:
        """Serve until a signal, in four phases: open, build, run, drain."""
        descriptors = self._prepare_process()
        with self._open() as opened:
            watch = ConnectionWatch(self.listening, descriptors)
            stop = Stop(self.listening, watch, inherited=self.inherited)
            app = self._build(opened, stop)
            # After a signal, connections are closed once their replies are sent.
            with contextlib.closing(watch), stop.by_signal():
                watch.start()
                self._announce(opened)
                self._run(app)
            _logger.info("stopped")

    def _prepare_process(self) -> int:
        """Set up the process; return how many descriptors it may have."""
        if self.settings.one_cpu:
            # Spread workers over the CPUs: several workers on one CPU would gain nothing.
            cpus = sorted(os.sched_getaffinity(0))
            number = self.seat.number if self.seat else 0
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})
        keep_freed_memory()
        sys.excepthook = _show_uncaught
        # Before any thread starts: the kernel would deliver SIGINT to one that does not block it,
        # and so to libev instead of `Stop`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return _allow_all_descriptors()

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Opened]:
        """Open the store and the computations, and close them at the end; raise as `serve`."""
        settings = self.settings
        # Absolute, because the processes that write there have another working directory.
        cache = DigitCache(settings.cache_dir.absolute(), settings.disk_cache_bytes)
        jobs = Jobs(cache, settings.max_term)
        store = open_store(settings, owner_url=listener.url(self.listening))
        with contextlib.closing(store.store), contextlib.closing(jobs):
            sequences = Sequences(
                store.store,
                cache_bytes=settings.cache_bytes,
                max_sequences=settings.max_sequences,
                # Child processes compute larger terms, but this process steps from them, in memory.
                farthest=max(
                    min(settings.max_term, farthest_within(settings.cache_bytes)), INLINE_LIMIT
                ),
                pair_at=jobs.pair,
            )
            try:
                position = sequences.position(SHARED)
                # Start computing a large term now, so that the first client waits less.
                with contextlib.suppress(TermNotReady):
                    jobs.pair(position)
            except IndexTooLarge as error:
                raise CannotServe(f"{store.name}: {error}") from error
            signal.signal(signal.SIGCHLD, lambda _signal, _frame: jobs.advance())
            yield _Opened(store, sequences, jobs, position)

    def _build(self, opened: _Opened, stop: Stop) -> WSGI:
        """Return the application for bjoern, and install the hook that commits its changes."""
        settings = self.settings
        app = create_app(
            *(opened.store.store, opened.sequences, opened.jobs),
            per_client=settings.per_client,
            worker_memory=self.seat.memory if self.seat else None,
            draining=stop.draining,
            hosts=self._hosts(),
            cors_origin=settings.cors_origin,
        )
        # An attribute, because the hook must outlive the loop.
        self._hook = IterationHook(self.listening, app.committer.end_iteration)
        # Requests of a loop iteration share a commit: the log is written and synced once for all.
        if not settings.store:
            self._hook.install()
        if settings.access_log or settings.debug:
            return guarded(with_client_address(logged(app, app.committer)))
        return guarded(app)

    def _hosts(self) -> Hosts:
        """Return the names by which the service may be addressed."""
        names = self.settings.allowed_host
        if names or listener.is_loopback(self.listening):
            return Hosts(f"{names},{self.settings.host}")
        return Hosts()  # Other machines may know the service by any name.

    def _announce(self, opened: _Opened) -> None:
        """Log where the service listens, and what it serves."""
        store, url = opened.store, listener.url(self.listening)
        name = f"bigfib {bigfib.__version__}"
        if self.seat:
            worker = f"worker {self.seat.number + 1} of {self.settings.workers}"
            name += f" ({worker}, pid {os.getpid()})"
        _logger.info(
            "%s listens on %s; %s at position %d, durability %s, kernel: %s",
            *(name, url, store.name, opened.position, store.durability, kernel.description()),
        )
        if not listener.is_loopback(self.listening):
            _logger.warning(
                "open to the network, without passwords, TLS or limits for each client; "
                "put a proxy in front, or listen on --host 127.0.0.1"
            )
        systemd.notify(f"STATUS={url}; {store.name}")

    def _run(self, app: WSGI) -> None:
        """Run bjoern until it is stopped, and report that its loop is alive."""
        notify = self.seat.notify if self.seat else partial(systemd.notify, *_READY)
        with systemd.notifying(notify, self.timeout, bjoern.server_run.__code__):
            bjoern.server_run(self.listening, app)


def _show_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Show an uncaught exception, unless it was raised to make bjoern close a connection."""
    if kind is PartOfRequest:
        _logger.warning("a client pipelined requests, the last one incomplete; none had an effect")
    elif kind is not NotMade:
        sys.__excepthook__(kind, error, traceback)


def keep_freed_memory() -> None:
    """Let malloc keep the memory of large numbers for the next ones, 64 MB at most.

    By default malloc returns a freed number of more than 128 KB to the system, which clears the
    pages again for the next one: measured at 209 thousand digits, a step then takes 2.7 times
    as long.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _allow_all_descriptors() -> int:
    """Raise the limit of descriptors (bjoern spins without a free one), and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
