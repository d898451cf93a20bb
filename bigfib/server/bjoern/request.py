"""Read and correct the `Request` that bjoern 3.2.2 keeps for each connection.

bjoern's parser (http-parser 1.0) keeps facts about a request that the WSGI environment lacks, or
has in a form that a client can forge. With these facts, five defects are corrected:

* **Upgrade and CONNECT.** After such a request the parser is unusable: it keeps its state for the
  next request, takes the body for a request, and ends in a segmentation fault or in replies to the
  wrong client. The connection is closed after the reply.
* **Chunks.** bjoern drops a body sent in chunks, and takes trailers for headers, even for
  conditions such as ``If-Match``. The environment of such a request gets an
  ``HTTP_TRANSFER_ENCODING``, even if the client has hidden that header, so that the application
  refuses the request before it uses any header.
* **Other transfer codings**, such as ``gzip, chunked``, are unknown to the parser, which takes the
  body for the next request. The connection is closed after the refusal.
* **IPv6 addresses.** bjoern reports 0.0.0.0. The real address is read from the connection.
* **Expect: 100-continue.** bjoern sets a flag, and clears it when it has sent ``100 Continue`` or
  read some of the body. If the reply comes first, bjoern takes it for the ``100 Continue``, reads
  on in a request that has been answered, and ends in a segmentation fault (``ev_io_on_write`` in
  server.c). The flag is cleared before the reply.

The WSGI environment itself shows a sixth:

* **A part of a request.** If requests arrive together (pipelined), bjoern keeps only the last one,
  and may have read only part of it. Then an exception is raised instead of calling the
  application; bjoern replies with a 500 of its own, and closes the connection.

The object ``start_response`` holds the address of the `Request` right after its Python object
header. Before anything is written there, two members are compared with the values they must have.

Reading costs 0.25 us of the 10 to 20 us that a small request takes, because ctypes views are
cached by address.
"""

import ctypes
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

import _bjoern

_logger = logging.getLogger(__name__)

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""

VERSION: Final = (3, 2, 2)
"""The version of bjoern whose memory layout is known."""


class PartOfRequest(Exception):
    """A client has pipelined requests, and sent only a part of the last one."""


class _Request(ctypes.Structure):
    """The `Request` of bjoern 3.2.2 on 64-bit little-endian machines, up to its headers."""

    _fields_ = (
        # bj_parser: http_parser (http_parser.h), then three members of bjoern's own.
        ("type_and_flags", ctypes.c_uint8),
        ("parser_state", ctypes.c_uint8 * 3),
        ("parser_counts", ctypes.c_uint8 * 12),
        ("http_version", ctypes.c_uint16 * 2),
        ("status_code", ctypes.c_uint16),
        ("method", ctypes.c_uint8),
        ("upgrade", ctypes.c_uint8),
        ("itself", ctypes.c_size_t),
        ("header_field", ctypes.c_size_t),
        ("header_state", ctypes.c_int * 2),
        # ev_io
        ("watcher", ctypes.c_uint8 * 40),
        ("watcher_fd", ctypes.c_int),
        ("watcher_events", ctypes.c_int),
        # Request
        ("server_info", ctypes.c_size_t),
        ("client_fd", ctypes.c_int),
        ("client_addr", ctypes.c_size_t),
        ("state", ctypes.c_uint),
        ("status", ctypes.c_size_t),
        ("headers", ctypes.c_size_t),
    )


# The two lowest bits are the type; the flags of http_parser.h follow.
_CHUNKED: Final = 1 << 2
_ONLY_CONNECTION_CLOSE: Final = 1 << 4

# Bits of the state, the lowest first: error_code (2), parse_finished, start_response_called,
# wsgi_call_done, keep_alive, response_length_unknown, chunked_response, expect_continue.
_PARSE_FINISHED: Final = 1 << 2
_START_RESPONSE_CALLED: Final = 1 << 3
_EXPECT_CONTINUE: Final = 1 << 8

# type_and_flags, upgrade, state.
_FACTS: Final = struct.Struct(
    f"=B{_Request.upgrade.offset - 1}xB{_Request.state.offset - _Request.upgrade.offset - 1}xI"
)

# bjoern keeps allocating objects at new addresses.
_MOST_VIEWS: Final = 1024


class _Views(dict[int, Any]):
    """Cache ctypes views of the memory ``offset`` bytes after an address, by that address."""

    def __init__(self, kind: Any, offset: int = 0) -> None:
        super().__init__()
        self._kind = kind
        self._offset = offset

    def __missing__(self, address: int) -> Any:
        if len(self) == _MOST_VIEWS:
            self.clear()
        view = self[address] = self._kind.from_address(address + self._offset)
        return view


def unknown_layout() -> str | None:
    """Return why bjoern's memory cannot be read here, or None if it can."""
    version = getattr(_bjoern, "version", None)
    if version != VERSION:
        return f"bjoern is {version}, not {VERSION}"
    if sys.implementation.name != "cpython":
        return f"Python is {sys.implementation.name}, not cpython"
    if ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return "the machine is not a 64-bit little-endian one"
    return None


def guarded(app: WSGI) -> WSGI:
    """Wrap ``app`` for bjoern, to correct the defects above.

    If bjoern's memory layout is unknown, log a warning and refuse only parts of requests.
    """
    reason = unknown_layout()
    if reason:
        _logger.warning(
            "%s: crashes on `Upgrade` and `Expect: 100-continue` are not prevented; install "
            "bjoern-binary 3.2.2, or put a proxy in front that passes neither on",
            reason,
        )
        return _called_with_whole_requests(app)
    pointers = _Views(ctypes.c_size_t, object.__basicsize__)
    heads = _Views(ctypes.c_char * _FACTS.size)
    facts = _FACTS.unpack_from

    def guarded_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        address = pointers[id(start_response)].value
        flags, upgrade, state = facts(heads[address])
        if (
            flags & _CHUNKED
            or upgrade
            or state & _EXPECT_CONTINUE
            or "HTTP_TRANSFER_ENCODING" in environ
        ):
            _correct(address, environ)
        # bjoern adds this when it has read the whole request. The check costs 0.02 us. It comes
        # after the correction, because bjoern sends a reply for the exception, too.
        if "wsgi.errors" not in environ:
            raise PartOfRequest
        return app(environ, start_response)

    return guarded_app


def _called_with_whole_requests(app: WSGI) -> WSGI:
    def guarded_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "wsgi.errors" not in environ:
            raise PartOfRequest
        return app(environ, start_response)

    return guarded_app


def with_client_address(app: WSGI) -> WSGI:
    """Wrap ``app`` to set ``REMOTE_ADDR`` to the client's address; apply `guarded` to the result.

    bjoern reads every address as IPv4, and gives 0.0.0.0 for IPv6. The socket has the real address,
    unless the client has reset the connection: ``REMOTE_ADDR`` is then ``-``.
    """
    if unknown_layout():
        return app

    def app_with_address(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        pointer = ctypes.c_size_t.from_address(id(start_response) + object.__basicsize__)
        connection = socket.socket(fileno=_Request.from_address(pointer.value).client_fd)
        try:
            host: str = connection.getpeername()[0]
            # A socket for both families has an IPv4 address as ::ffff:192.0.2.1.
            environ["REMOTE_ADDR"] = host.removeprefix("::ffff:") if "." in host else host
        except OSError:
            if environ.get("REMOTE_ADDR") == "0.0.0.0":  # noqa: S104 - compared, not bound
                environ["REMOTE_ADDR"] = "-"
        finally:
            connection.detach()
        return app(environ, start_response)

    return app_with_address


def _correct(address: int, environ: dict[str, Any]) -> None:
    request = _Request.from_address(address)
    if request.itself != address or request.watcher_fd != request.client_fd:
        return  # This is not a `Request`.
    chunked = request.type_and_flags & _CHUNKED
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    if request.upgrade or (not chunked and "HTTP_TRANSFER_ENCODING" in environ):
        # The parser's flags decide whether bjoern keeps the connection.
        request.type_and_flags = _ONLY_CONNECTION_CLOSE
    answering = request.state & (_PARSE_FINISHED | _START_RESPONSE_CALLED) == _PARSE_FINISHED
    if answering and not request.status and not request.headers:
        request.state &= ~_EXPECT_CONTINUE
