"""The requests of the campaign, and how they are split or abandoned."""

import random
from enum import Enum
from typing import Final, NamedTuple

from tests.hostile import CASES

START: Final = 1000
"""The position of a sequence at the beginning."""

# As long as an id.
OWN: Final = b"O" * 32
VICTIM: Final = b"V" * 32


class Request(NamedTuple):
    """A valid request.

    Attributes:
        name: What it is.
        sent: Its bytes; in place of ids it has `OWN`, the connection's sequence, and
            `VICTIM`, one made for this request.
        status: The status of its reply.
        moves: How far it moves the sequence.
        internal: Whether nginx keeps it to itself.
    """

    name: str
    sent: bytes
    status: int = 200
    moves: int = 0
    internal: bool = False


def encoded(
    line: bytes, *fields: bytes, body: bytes | None = None, version: bytes = b"1.1"
) -> bytes:
    lines = [line + b" HTTP/" + version, b"Host: localhost", *fields]
    if body is not None:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


SEQUENCE: Final = b"/api1/sequences/" + OWN
_VICTIMS: Final = b"/api1/sequences/" + VICTIM
STEP: Final = Request("step", encoded(b"POST " + SEQUENCE + b"/next"), moves=1)

VALID: Final = [
    STEP,
    Request("current", encoded(b"GET /api0/current")),
    Request("HEAD of current", encoded(b"HEAD /api0/current")),
    Request("next of the shared sequence", encoded(b"GET /api0/next")),
    Request("percent-encoded path", encoded(b"GET /api0/%63urrent")),
    Request("step by 3", encoded(b"POST " + SEQUENCE + b"/next?by=3"), moves=3),
    Request("step back", encoded(b"POST " + SEQUENCE + b"/previous"), moves=-1),
    Request("step with an empty body", encoded(b"POST " + SEQUENCE + b"/next", body=b""), moves=1),
    Request("step from anywhere", encoded(b"POST " + SEQUENCE + b"/next", b"If-Match: *"), moves=1),
    Request("409", encoded(b"POST " + SEQUENCE + b"/previous?by=900000"), 409),
    Request("412", encoded(b"POST " + SEQUENCE + b"/next", b'If-Match: "0"'), 412),
    Request("sequence", encoded(b"GET " + SEQUENCE)),
    Request("HEAD of a sequence", encoded(b"HEAD " + SEQUENCE)),
    Request("304", encoded(b"GET " + SEQUENCE, b"If-None-Match: *"), 304),
    Request("201", encoded(b"POST /api1/sequences"), 201),
    Request("204", encoded(b"DELETE " + _VICTIMS), 204),
    Request("put", encoded(b"PUT " + _VICTIMS, body=b'{"position":"1000"}')),
    Request(
        "put that expects",
        encoded(b"PUT " + _VICTIMS, b"Expect: 100-continue", body=b'{"position":"12"}'),
    ),
    Request("malformed document", encoded(b"PUT " + SEQUENCE, body=b'{"position":'), 400),
    Request("wrong document", encoded(b"PUT " + SEQUENCE, body=b'{"position":"-1"}'), 422),
    Request("404", encoded(b"GET /nowhere"), 404),
    Request("405", encoded(b"PATCH " + SEQUENCE), 405),
    Request("406", encoded(b"GET /api1/terms/7", b"Accept: image/png"), 406),
    Request("term", encoded(b"GET /api1/terms/97")),
    Request("term as text", encoded(b"GET /api1/terms/97", b"Accept: text/plain")),
    Request("term in base 16", encoded(b"GET /api1/terms/97?base=16")),
    Request("part of a term", encoded(b"GET /api1/terms/97", b"Range: bytes=2-5"), 206),
    Request("304 of a term", encoded(b"GET /api1/terms/97", b"If-None-Match: *"), 304),
    Request("HEAD of a term", encoded(b"HEAD /api1/terms/999999")),
    Request("residue", encoded(b"GET /api1/terms/1000000000000?modulo=1000000007")),
    Request("summary", encoded(b"GET /api1/terms/-1000000000000/summary?digits=3")),
    Request("rows", encoded(b"GET /api1/terms?from=98&count=3")),
    Request(
        "rows as NDJSON",
        encoded(b"GET /api1/terms?from=98&count=3", b"Accept: application/x-ndjson"),
    ),
    Request("page", encoded(b"GET /")),
    Request("interface", encoded(b"GET /openapi.json")),
    Request("alive", encoded(b"GET /livez"), internal=True),
    Request("ready", encoded(b"GET /readyz?verbose"), internal=True),
    Request("metrics", encoded(b"GET /metrics"), internal=True),
    Request("stats", encoded(b"GET /test/stats"), internal=True),
    Request(
        "HTTP/1.0 kept alive",
        encoded(b"GET /api0/current", b"Connection: keep-alive", version=b"1.0"),
    ),
]

_SHARED: Final = b"/api1/sequences/shared"
_DOCUMENT: Final = b'{"position":"7"}'
_H2C: Final = (b"Connection: Upgrade", b"Upgrade: h2c")
_REQUEST: Final = encoded(b"GET /api0/next")
_LONG: Final = b"X: " + b"x" * 70_000

HOSTILE: Final = [
    *((case.name, case.sent) for case in CASES),
    ("Upgrade and a body", encoded(b"PUT " + _SHARED, *_H2C, body=_DOCUMENT)),
    ("Upgrade and more than bjoern reads at once", encoded(b"GET /api0/next", _LONG, *_H2C)),
    ("Upgrade and a request at once", encoded(b"GET /api0/next", *_H2C) + _REQUEST),
    ("Upgrade in the name of another header", encoded(b"GET /api0/next", b"Foo", *_H2C)),
    ("Upgrade and `Expect`", encoded(b"PUT " + _SHARED, b"Expect: 100-continue", *_H2C)),
    ("CONNECT and a body", encoded(b"CONNECT x:80", body=_DOCUMENT)),
    ("CONNECT and a request at once", encoded(b"CONNECT x:80") + _REQUEST),
    (
        "Upgrade in a trailer",
        encoded(b"PUT " + _SHARED, b"Transfer-Encoding: chunked")
        + b"1\r\nx\r\n0\r\n"
        + b"\r\n".join(_H2C)
        + b"\r\n\r\n",
    ),
    ("`Expect` twice", encoded(b"GET /api0/next", *[b"Expect: 100-continue"] * 2)),
    ("`Expect` and a request at once", encoded(b"GET /api0/next", b"Expect: 100-continue") * 2),
    ("ten requests at once", _REQUEST * 10),
    ("zeros", bytes(300)),
]
"""What hostile clients send: docs/hostile-requests.md, and bytes that once crashed the service."""

LARGE: Final = 6_000_000
"""The index of a large term, which must be in the digit cache."""

_LARGE_TERM: Final = b"GET /api1/terms/%d" % LARGE

ABANDONED: Final = [
    STEP,
    *(request for request in VALID if request.name in ("409", "412", "304", "204", "page")),
    Request("HEAD of a large term", encoded(b"HEAD /api1/terms/%d" % LARGE)),
    Request("pieces", encoded(b"GET /api1/terms/1000000", b"Accept: text/plain")),
    Request("pieces as JSON", encoded(b"GET /api1/terms/1000000")),
    Request("octets", encoded(b"GET /api1/terms/1000000", b"Accept: application/octet-stream")),
    Request("many rows", encoded(b"GET /api1/terms?from=100000&count=40")),
    Request("large term as text", encoded(_LARGE_TERM, b"Accept: text/plain")),
    Request("large term as JSON", encoded(_LARGE_TERM, b"Accept: application/json")),
    Request(
        "part of a large term",
        encoded(_LARGE_TERM, b"Accept: text/plain", b"Range: bytes=1000-400000"),
        206,
    ),
]
"""Requests with every kind of reply: bytes, pieces, rows, files, and without a body."""


class When(Enum):
    """The moment at which a client leaves."""

    HALFWAY = "within its request"
    BEFORE = "before the reply"
    WITHIN = "within the reply"
    AFTER = "after the reply"


class How(Enum):
    """The way in which a client leaves."""

    FIN = "FIN"
    RST = "RST"
    UNREAD = "an earlier reply unread"
    HALF = "FIN, reading on"


class Split(NamedTuple):
    """A request sent in two pieces, or whole if the first one is all of it.

    Attributes:
        name: What it is.
        sent: Its bytes.
        at: Where the second piece begins.
        request: What is sent, if it is valid.
    """

    name: str
    sent: bytes
    at: int
    request: Request | None = None


class Leave(NamedTuple):
    """A request whose client leaves."""

    request: Request
    when: When
    how: How


Trial = Split | Leave


def splits(each: int | None, randomness: random.Random) -> list[Split]:
    """Return all requests, whole and in two pieces: at ``each`` places, or at every byte."""
    sent: list[tuple[str, bytes, Request | None]]
    sent = [(name, data, None) for name, data in HOSTILE]
    sent += [(request.name, request.sent, request) for request in VALID]
    found = []
    for name, data, request in sent:
        # The middle of very long requests is uniform.
        ends = [*range(1, min(len(data), 400)), *range(max(len(data) - 400, 400), len(data))]
        most = len(ends) if each is None else each
        if len(data) > 1 << 20:
            most = min(most, 4)
        chosen = randomness.sample(ends, min(most, len(ends)))
        found += [Split(name, data, at, request) for at in (len(data), *chosen)]
    return found


def leaves() -> list[Leave]:
    """Return all ways in which a client can leave."""
    return [
        Leave(request, when, how)
        for request in ABANDONED
        for when in When
        for how in How
        if how in (How.FIN, How.RST) or when is When.BEFORE
    ]


def refused_in_pieces(sent: bytes, at: int) -> int | None:
    """Return the status by which bjoern refuses a valid request that is split there, if it does.

    See the table in ``bigfib/server/bjoern/README.md``.
    """
    start = sent.index(b" ") + 1
    end = min(place for mark in (b" ", b"?") if (place := sent.find(mark, start)) > 0)
    if at == end or (start < at < end and b"%" in sent[max(at - 2, start) : at]):
        return 400
    value = sent.find(b"100-continue")
    return 417 if value < at < value + len(b"100-continue") and value > 0 else None
