"""Call a function at the end of every iteration of bjoern's event loop.

In one iteration libev waits for events and has bjoern handle all of them: bjoern reads requests and
calls the application for each. The replies are written in a later iteration, when libev reports
that their connections are writable. So the function is called once for all requests read in an
iteration, and before any of their replies leaves.

libev handles the last event first. So if two requests arrive in one iteration on two connections,
the later one may be answered first.

bjoern has no end-of-iteration hook; libev has: an `ev_prepare` watcher runs before the loop waits.
It needs the address of the loop, which bjoern does not reveal. But a loop is the first thing that
libev allocates memory for, and a program may supply the allocator (`ev_set_allocator`).

bjoern accepts one connection an iteration. The hook makes it accept all waiting ones, so that their
requests are read together: with 64 clients that open a connection for each step, this was measured
as 3.7 times as many steps a second.
"""

import ctypes
import logging
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import _bjoern

_logger = logging.getLogger(__name__)

# A listener that has been shut down always polls as readable, but accepts nothing.
_MOST_ACCEPTED: Final = 64

# From <ev.h>.
_EV_READ: Final = 1
_EV_VERSION_MAJOR: Final = 4

_LOOP: Final = ctypes.c_void_p
_WATCHER: Final = ctypes.c_void_p
_CALLBACK: Final = ctypes.CFUNCTYPE(None, _LOOP, _WATCHER, ctypes.c_int)
_ALLOCATE: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)


class _Prepare(ctypes.Structure):
    """`struct ev_prepare` of libev 4: the members that every watcher has."""

    _fields_ = (
        ("active", ctypes.c_int),
        ("pending", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("callback", _CALLBACK),
    )


class IterationHook:
    """Call a function at the end of every iteration of the next event loop.

    The hook must outlive the loop.
    """

    def __init__(self, listener: socket.socket, at_end: Callable[[], None]) -> None:
        """Prepare the hook; nothing is called before `install`.

        ``at_end`` is called in the thread of the loop that accepts from ``listener``. If it raises
        anything, no reply of the iteration leaves: the process exits with status 1, after a
        traceback unless the exception is a `SystemExit`.
        """
        self._listener = listener.fileno()
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._at_end = at_end
        self._loop = 0
        self._allocate = _ALLOCATE(self._on_allocation)
        self._watcher = _Prepare(callback=_CALLBACK(self._on_end))

    def install(self) -> None:
        """Follow the next loop that bjoern makes.

        With an unknown libev, ``at_end`` is never called. Once it has been called, it is called at
        the end of every iteration.
        """
        # PyDLL does not release the interpreter's lock, which the callbacks would have to retake.
        self._libev: Any = ctypes.PyDLL(_bjoern.__file__)
        self._realloc: Any = ctypes.PyDLL(None).realloc
        self._realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._realloc.restype = ctypes.c_void_p
        try:
            # The symbols are in bjoern itself or in the library that it is linked to.
            version = self._libev.ev_version_major()
            self._libev.ev_backend.argtypes = [_LOOP]
            self._libev.ev_invoke_pending.argtypes = self._libev.ev_pending_count.argtypes = [_LOOP]
            self._libev.ev_prepare_start.argtypes = [_LOOP, ctypes.POINTER(_Prepare)]
            self._libev.ev_unref.argtypes = [_LOOP]
            self._libev.ev_feed_fd_event.argtypes = [_LOOP, ctypes.c_int, ctypes.c_int]
            self._libev.ev_set_allocator.argtypes = [_ALLOCATE]
        except AttributeError:
            version = None
        if version != _EV_VERSION_MAJOR:
            _logger.warning(
                "cannot follow this bjoern's event loop, which is not libev 4's: every reply "
                "waits for a sync of its own; install bjoern-binary 3.2.2"
            )
            return
        self._libev.ev_set_allocator(self._allocate)

    def _on_allocation(self, old: int | None, size: int) -> int | None:
        """Allocate memory for libev; start the watcher once the loop is complete."""
        memory: int | None = self._realloc(old, size)
        if not self._loop:
            self._loop = memory or 0
        elif self._libev.ev_backend(self._loop):
            # The loop is complete: this allocation is for the first watcher of bjoern.
            self._libev.ev_set_allocator(ctypes.cast(self._realloc, _ALLOCATE))
            self._libev.ev_prepare_start(self._loop, self._watcher)
            # The watcher must not keep the loop running when bjoern has stopped.
            self._libev.ev_unref(self._loop)
        return memory

    def _on_end(self, loop: int, _watcher: int, _events: int) -> None:
        """Accept the connections that wait, then call ``at_end``; called by libev."""
        try:
            if self._waiting.poll(0):
                self._accept(loop)
            self._at_end()
        except BaseException as error:
            # ctypes would print the exception, even one of a signal handler, and return: bjoern
            # would then send replies that are not committed.
            try:
                if not isinstance(error, SystemExit):
                    sys.excepthook(type(error), error, error.__traceback__)
            finally:
                os._exit(1)

    def _accept(self, loop: int) -> None:
        """Have bjoern accept the connections that wait."""
        try:
            os.close(os.dup(self._listener))
        except OSError:
            return  # Without a free descriptor none can be accepted; bjoern would spin.
        for _ in range(_MOST_ACCEPTED):
            self._libev.ev_feed_fd_event(loop, self._listener, _EV_READ)
            if not self._libev.ev_pending_count(loop):
                return  # bjoern is stopping and accepts no more.
            self._libev.ev_invoke_pending(loop)
            if not self._waiting.poll(0):
                return
