"""What saves the service from bjoern's way with ``Expect: 100-continue``.

A client may ask by that whether it shall send the body. bjoern notes it, and forgets it when it has
sent ``100 Continue`` or seen some of the body. If neither comes first, because there is no body or
the headers belong to a request that was sent without waiting, bjoern takes its own reply for the
``100 Continue``, reads on in a request that has been answered, and ends in a segmentation fault
(bjoern 3.2.2, ``ev_io_on_write`` in server.c). So it is made to forget before it replies.

What it has noted is a bit of its ``Request`` (request.h), of which it hands out no more than a
pointer, behind the head of ``start_response``. The version of bjoern is pinned in pyproject.toml;
if the rest does not look like a Request while the application is called, nothing is done.

The bit is looked at for each request: of those that come at once, the first may have set it. By
cells that are kept that takes 0.2 us, a hundredth of a small request.
"""

import ctypes
from collections.abc import Iterable
from typing import Any, Final

from bigfib.stopping import WSGI


class _Request(ctypes.Structure):
    """The Request of bjoern 3.2.2, of 64 bits, as far as it is read."""

    _fields_ = (
        ("parser", ctypes.c_char * 48),
        ("watcher", ctypes.c_char * 40),
        ("watcher_fd", ctypes.c_int),
        ("watcher_events", ctypes.c_int),
        ("server_info", ctypes.c_size_t),
        ("client_fd", ctypes.c_int),
        ("client_addr", ctypes.c_size_t),
        ("state", ctypes.c_uint),
        ("status", ctypes.c_size_t),
        ("headers", ctypes.c_size_t),
    )


# Bits of the state, the lowest first: error_code (2), parse_finished, start_response_called,
# wsgi_call_done, keep_alive, response_length_unknown, chunked_response, expect_continue.
_PARSE_FINISHED: Final = 1 << 2
_START_RESPONSE_CALLED: Final = 1 << 3
_EXPECT_CONTINUE: Final = 1 << 8

# Objects come to lie in ever more places.
_MOST_KEPT: Final = 1024


class _Cells(dict[int, Any]):
    """What lies at a distance from the beginning of each of many objects, by where these are."""

    def __init__(self, kind: type[ctypes.c_size_t | ctypes.c_uint], offset: int) -> None:
        super().__init__()
        self._kind = kind
        self._offset = offset

    def __missing__(self, address: int) -> Any:
        if len(self) == _MOST_KEPT:
            self.clear()
        cell = self[address] = self._kind.from_address(address + self._offset)
        return cell


def forgetting(app: WSGI) -> WSGI:
    """Return ``app``, to be called by bjoern itself, which forgets before what is expected."""
    pointers = _Cells(ctypes.c_size_t, object.__basicsize__)
    states = _Cells(ctypes.c_uint, _Request.state.offset)

    def forgetting_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = pointers[id(start_response)].value
        if states[request].value & _EXPECT_CONTINUE:
            _forget(_Request.from_address(request))
        return app(environ, start_response)

    return forgetting_app


def _forget(request: _Request) -> None:
    if (
        request.watcher_fd == request.client_fd
        and not request.status
        and not request.headers
        and request.state & (_PARSE_FINISHED | _START_RESPONSE_CALLED) == _PARSE_FINISHED
    ):
        request.state &= ~_EXPECT_CONTINUE
