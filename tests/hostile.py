"""Bytes that hostile clients send, and valid requests that bjoern does not answer as it should.

Each is listed with what bigfib does, and what it does behind a proxy. The first table is the one of
``docs/hostile-requests.md``, the second that of ``bigfib/server/bjoern/README.md``; both are held
against them.
"""

import contextlib
import re
import socket
from typing import Final, NamedTuple

from tests.api.sequences import tagged
from tests.service import Service, reset

Address = tuple[str, int]

_READ_AT_ONCE: Final = 100_000

_HOST: Final = b"Host: localhost\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_NEXT: Final = b"GET /api0/next HTTP/1.1\r\n"
_STEP: Final = _NEXT + _HOST + _CLOSE + b"\r\n"
_BODY: Final = b'{"position":"7"}'
_PUT: Final = (
    b"PUT /api1/sequences/shared HTTP/1.1\r\nContent-Type: application/json\r\n" + _HOST + _CLOSE
)
_UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: "


class Case(NamedTuple):
    """Bytes that are sent to a service whose shared sequence is at 0.

    Attributes:
        name: What they are.
        sent: The bytes.
        bigfib: What bigfib does: the status of each reply, and where the sequence then stands if
            that is not 0.
        proxy: What is done by nginx, as ``deploy/nginx.conf`` has it, with bigfib behind it.
        kept: Whether the connection is kept open after the reply.
    """

    name: str
    sent: bytes
    bigfib: str
    proxy: str
    kept: bool = False


def _next(*fields: bytes) -> bytes:
    return _NEXT + _HOST + _CLOSE + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _put(*fields: bytes, body: bytes = _BODY) -> bytes:
    return _PUT + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def _get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + _HOST + _CLOSE + b"\r\n"


_CHUNKS: Final = b"10\r\n" + _BODY + b"\r\n0\r\n\r\n"
_TLS_HELLO: Final = bytes.fromhex("1603010200010001fc0303") + bytes(200)
_PRIOR_HTTP_2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CASES: Final = [
    Case(
        "three requests at once",
        _NEXT + _HOST + b"\r\n" + _NEXT + _HOST + b"\r\n" + _STEP,
        "200, at 1",
        "200 200 200, at 3",
    ),
    Case(
        "a request and the beginning of another at once",
        _NEXT + _HOST + b"\r\n" + _NEXT[:10],
        "500",
        "200, at 1",
    ),
    Case("a header of 64 KiB", _next(b"X: " + b"x" * 65536), "200, at 1", "400"),
    Case("a header of 10 MB", _next(b"X: " + b"x" * 10_000_000), "400 or none", "400 or none"),
    Case("2,000 headers", _next(*(b"X%d: y" % i for i in range(2000))), "200, at 1", "400"),
    Case(
        "20,000 headers",
        _next(*(b"X%d: y" % i for i in range(20_000))),
        "400 or none",
        "400 or none",
    ),
    Case("a path of 70 KB", _get(b"/" + b"a" * 70_000), "404", "414"),
    Case("a body in chunks", _put(b"Transfer-Encoding: chunked", body=_CHUNKS), "411", "200, at 7"),
    Case(
        "an unknown transfer coding",
        _put(b"Transfer-Encoding: xchunked", body=_CHUNKS),
        "400",
        "501",
    ),
    Case(
        "a request within the body, by `Content-Length` and chunks",
        _PUT.replace(_CLOSE, b"")
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + _STEP,
        "200, at 1",
        "400",
    ),
    Case(
        "the same, by chunks and `Content-Length`",
        _PUT.replace(_CLOSE, b"")
        + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
        + _STEP,
        "200, at 1",
        "400",
    ),
    Case(
        "two lengths",
        _put(b"Content-Length: 16", b"Content-Length: 17", body=_BODY + b" "),
        "400",
        "400",
    ),
    Case("the same length twice", _put(b"Content-Length: 16", b"Content-Length: 16"), "400", "400"),
    Case("a length of -1", _put(b"Content-Length: -1"), "400", "400"),
    Case("a length of +16", _put(b"Content-Length: +16"), "400", "400"),
    Case("a length of 2^64 + 16", _put(b"Content-Length: 18446744073709551632"), "413", "400"),
    Case("a body longer than its length", _put(b"Content-Length: 10"), "400", "400"),
    Case("two hosts", _next(b"Host: y"), "421", "400"),
    Case("no host", _NEXT + _CLOSE + b"\r\n", "200, at 1", "400"),
    Case(
        "`If-Match` twice, one of them right",
        b"POST /api1/sequences/shared/next HTTP/1.1\r\n"
        + _HOST
        + _CLOSE
        + b'If-Match: "0"\r\nIf-Match: "1"\r\n\r\n',
        "412",
        "400",
    ),
    Case(
        '`If-Match: "99"` as a trailer',
        b"POST /api1/sequences/shared/next HTTP/1.1\r\n"
        + _HOST
        + _CLOSE
        + b'Transfer-Encoding: chunked\r\n\r\n0\r\nIf-Match: "99"\r\n\r\n',
        "411",
        "200, at 1",
    ),
    Case(
        '`If-Match: "99"` after a line without a colon',
        b"POST /api1/sequences/shared/next HTTP/1.1\r\n"
        + _HOST
        + _CLOSE
        + b'Foo\r\nIf-Match: "99"\r\n\r\n',
        "200, at 1",
        "412",
    ),
    Case(
        "a header with an underscore, as `Content_Length`",
        _put(b"Content_Length: 3", b"Content-Length: 16"),
        "200, at 7",
        "200, at 7",
    ),
    Case("NUL in a header", _next(b"X: a\0b"), "200, at 1", "400"),
    Case("NUL in the path", _get(b"/api0/next\0"), "400", "400"),
    Case("`%00` in the path", _get(b"/api0/next%00"), "404", "400"),
    Case("bytes that are not ASCII in the path", _get(b"/\xff\xfe"), "400", "400"),
    Case("`%ff` in the path", _get(b"/%ff"), "404", "404"),
    Case("`%zz` in the path", _get(b"/%zz"), "400", "400"),
    Case("`/api0%2fnext`", _get(b"/api0%2fnext"), "200, at 1", "200, at 1"),
    Case("`/x/../api0/next`", _get(b"/x/../api0/next"), "404", "404"),
    Case("`/liv%65z`, which nginx keeps to itself", _get(b"/liv%65z"), "200", "404"),
    Case("`//livez`", _get(b"//livez"), "200", "404"),
    Case("lines that end in LF", _STEP.replace(b"\r\n", b"\n"), "200, at 1", "200, at 1"),
    Case("lines that end in CR", _STEP.replace(b"\r\n", b"\r"), "400", "400"),
    Case("CR in a header", _next(b"X: a\rY: b"), "400", "400"),
    Case("a header on two lines", _next(b"X: a\r\n b"), "200, at 1", "400"),
    Case("a space before the colon", _next(b"X : a"), "200, at 1", "400"),
    Case(
        "`GET http://elsewhere/api0/next`",
        _get(b"http://elsewhere/api0/next"),
        "200, at 1",
        "200, at 1",
    ),
    Case("`CONNECT x:80`", b"CONNECT x:80 HTTP/1.1\r\n" + _HOST + _CLOSE + b"\r\n", "405", "400"),
    Case("`OPTIONS *`", b"OPTIONS * HTTP/1.1\r\n" + _HOST + _CLOSE + b"\r\n", "404", "400"),
    Case("`TRACE`", b"TRACE /api0/next HTTP/1.1\r\n" + _HOST + _CLOSE + b"\r\n", "405", "405"),
    Case("a method that HTTP does not know", b"STEAL" + _STEP[3:], "400", "400"),
    Case(
        "`Upgrade: websocket`",
        _NEXT + _HOST + _UPGRADE + b"websocket\r\n\r\n",
        "200, at 1",
        "200, at 1",
        kept=True,
    ),
    Case(
        "`Upgrade: h2c`",
        _NEXT + _HOST + _UPGRADE + b"h2c\r\n\r\n",
        "200, at 1",
        "200, at 1",
        kept=True,
    ),
    Case("HTTP/0.9", b"GET /api0/next\r\n\r\n", "200, at 1", "the body alone, at 1"),
    Case("HTTP/9.9", _STEP.replace(b"1.1", b"9.9"), "200, at 1", "505"),
    Case("HTTP/2", _PRIOR_HTTP_2, "400", "400"),
    Case("TLS", _TLS_HELLO, "400", "400"),
    Case(
        "`Expect: 100-continue`",
        _put(b"Expect: 100-continue", b"Content-Length: 16"),
        "200, at 7",
        "100 200, at 7",
    ),
    Case("`Expect: tea`", _put(b"Expect: tea", b"Content-Length: 16"), "417", "200, at 7"),
]


class Refused(NamedTuple):
    """A valid request that bjoern does not answer as it should, which cannot be mended outside it.

    Attributes:
        name: What it is.
        sent: Its bytes, in as many pieces as the service reads.
        client: Who sends it.
        cause: Why bjoern does that.
        bigfib: The statuses of the replies, where the shared sequence then stands if that is not
            0, and whether the connection is kept.
        proxy: The same behind nginx and behind haproxy.
    """

    name: str
    sent: tuple[bytes, ...]
    client: str
    cause: str
    bigfib: str
    proxy: str


def _put_kept(*fields: bytes) -> bytes:
    return _put(*fields, b"Content-Length: 16", body=b"").replace(_CLOSE, b"")


_H2C: Final = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
)
_LONG_PATHS: Final = "any, where a TCP segment or a write ends there; a path may have 10,000 digits"

REFUSED: Final = [
    Refused(
        "the first line, split behind the path",
        (b"GET /api0/next", b" HTTP/1.1\r\n" + _HOST + b"\r\n"),
        _LONG_PATHS,
        "the parser reports an empty rest of the path, an error to `on_path`",
        "400, closed",
        "200, at 1, kept",
    ),
    Refused(
        "the path, split within `%6e`",
        (b"GET /api0/%6", b"eext HTTP/1.1\r\n" + _HOST + b"\r\n"),
        _LONG_PATHS,
        "`unquote_url_inplace` is given each piece by itself",
        "400, closed",
        "200, at 1, kept",
    ),
    Refused(
        "`Expect: 100-Continue`",
        (_put_kept(b"Expect: 100-Continue"), _BODY),
        "Java's `HttpClient` with `expectContinue(true)`",
        "`on_header_value` compares by `strncmp`",
        "417, closed",
        "100 200, at 7, kept",
    ),
    Refused(
        "`Expect: 100-continue`, split within the value",
        (
            _put_kept(b"Expect: 100-continue").partition(b"continue")[0],
            b"continue" + _put_kept(b"Expect: 100-continue").partition(b"continue")[2],
            _BODY,
        ),
        "any that expects, where a TCP segment ends there",
        "`on_header_value` compares each piece by itself",
        "100 417, closed",
        "100 200, at 7, kept",
    ),
    Refused(
        "`Connection: close, TE`",
        (_next(b"TE: deflate").replace(b"close", b"close, TE"),),
        "by RFC 9110, 10.1.4 any that sends `TE`",
        "the parser knows `close` as the only value of the header",
        "200, at 1, kept",
        "200, at 1, closed",
    ),
    Refused(
        "`Connection: TE, close`",
        (_next(b"TE: deflate").replace(b"close", b"TE, close"),),
        "Perl's `LWP::UserAgent`",
        "the same",
        "200, at 1, kept",
        "200, at 1, closed",
    ),
    Refused(
        "a body behind `Upgrade: h2c`",
        (_put_kept(*_H2C) + _BODY,),
        "Java's `HttpClient` as it is by default, `curl --http2`",
        "the parser stops after the headers, and bjoern takes what follows for an error",
        "400, closed",
        "200, at 7, kept",
    ),
]


def outcome(service: Service, address: Address, case: Case) -> str:
    """Send the bytes to ``address``, and return the result as a cell of the table."""
    reset(service)
    received = b""
    with socket.create_connection(address, timeout=20) as client:
        try:
            client.sendall(case.sent)
            while not (case.kept and received.endswith(b"}")):
                piece = client.recv(65536)
                if not piece:
                    break
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # The service has refused it before reading all of it.
    said = " ".join(status.decode() for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received))
    if not said:
        said = "the body alone" if received else "none"
    if said in ("400", "none") and len(case.sent) > _READ_AT_ONCE:
        # It was closed with unread bytes, so that the reply may get lost.
        said = "400 or none"
    reply, _ = service.ask("/api1/sequences/shared")
    position = tagged(reply)
    return said if position == 0 else f"{said}, at {position}"


def answer(service: Service, address: Address, case: Refused) -> str:
    """Send each piece when those before have been read; return the result as a table cell."""
    reset(service)
    received = b""
    with socket.create_connection(address, timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in case.sent:
            # If it has been refused, the rest may not be accepted.
            with contextlib.suppress(OSError):
                client.sendall(piece)
            # A connection that is opened later is read later, and so are bytes that arrive later.
            for _ in range(2):
                service.ask("/livez")
        kept = False
        with contextlib.suppress(ConnectionResetError):
            while not received.endswith(b"}"):
                if not (more := client.recv(65536)):
                    break
                received += more
            else:
                client.sendall(b"GET /api0/current HTTP/1.1\r\n" + _HOST + b"\r\n")
                kept = client.recv(65536) != b""
    said = " ".join(status.decode() for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received))
    reply, _ = service.ask("/api1/sequences/shared")
    position = tagged(reply)
    at = "" if position == 0 else f", at {position}"
    return f"{said}{at}, {'kept' if kept else 'closed'}"


def refused_table() -> str:
    """Return the table of ``bigfib/server/bjoern/README.md``."""
    lines = [
        "| valid request | sent by | why bjoern does that | bigfib | nginx, haproxy before it |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {case.name} | {case.client} | {case.cause} | {case.bigfib} | {case.proxy} |"
        for case in REFUSED
    ]
    return "\n".join(lines)


def table() -> str:
    """Return the table of docs/hostile-requests.md."""
    lines = ["| sent | bigfib | nginx before it |", "|---|---|---|"]
    lines += [f"| {case.name} | {case.bigfib} | {case.proxy} |" for case in CASES]
    return "\n".join(lines)
