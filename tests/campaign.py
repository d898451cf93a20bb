"""Drive a service by many hostile, split and abandoned requests, and check every reply.

bjoern keeps state of its own for each connection, and memory that a bug may hand to another one.
Such a bug shows when many connections are opened, misused and left at the same time, and only if
each reply is checked to belong to its request. Therefore each connection steps a sequence of its
own, whose id and position stand in every reply to a step.

Three kinds of trials are made at once, `CONCURRENT` of them at a time:

* `Split`: a request of `tests.hostile` or a valid one, whole or in two pieces, the second one sent
  when the service has read the first. A step follows on the same connection.
* `Leave`: a request whose client is gone within it, before, within or after the reply, by FIN, by
  RST, or by closing with an earlier reply unread; or that sends no more and reads on.
* Bystanders step, and fetch terms whose digits are known, for as long as the others last.

AddressSanitizer reports a bug where it is made. It needs a bjoern built from its own source
distribution (Debian: ``libev-dev`` and ``gcc``), without its assertions, as wheels have it::

    CFLAGS="-fsanitize=address -g -fno-omit-frame-pointer -DNDEBUG" LDFLAGS=-fsanitize=address \
      .venv/bin/python -m pip install --no-deps --no-binary :all: --target build/asan bjoern==3.2.2
    BIGFIB_TEST_ASAN=build/asan make test ARGS='-n 0 tests/test_campaign.py'

By the variable only the service runs with that bjoern. The first report, on its standard error,
ends it with status 99, which fails the campaign and is shown.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from enum import Enum
from functools import cache
from hashlib import sha256
from typing import Final, NamedTuple

from flint import fmpz

from tests.hostile import CASES

Address = tuple[str, int]

CONCURRENT: Final = 48
"""Trials at a time; what one frees, the others are given."""

_BYSTANDERS: Final = 4
_PATIENCE: Final = 20.0

# Of what nothing comes back in that time, nothing will; replies to valid requests have `_PATIENCE`.
_SILENCE: Final = 0.25

_RESET: Final = struct.pack("ii", 1, 0)
_ID: Final = re.compile(rb'"id":"([0-9a-f]{32})"|/api1/sequences/([0-9a-f]{32})')
_START: Final = 1000

# What never changes while the service runs.
_FIXED: Final = re.compile(rb"GET /(api1/terms|openapi.json| |nowhere)")

# As long as an id.
_OWN: Final = b"O" * 32
_VICTIM: Final = b"V" * 32


class Request(NamedTuple):
    """A valid request.

    Attributes:
        name: What it is.
        sent: Its bytes; in place of ids it has `_OWN`, the connection's sequence, and
            `_VICTIM`, one made for this request.
        status: The status of its reply.
        moves: How far it moves the sequence.
        internal: Whether nginx keeps it to itself.
    """

    name: str
    sent: bytes
    status: int = 200
    moves: int = 0
    internal: bool = False


def _request(
    line: bytes, *fields: bytes, body: bytes | None = None, version: bytes = b"1.1"
) -> bytes:
    lines = [line + b" HTTP/" + version, b"Host: x", *fields]
    if body is not None:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


_SEQUENCE: Final = b"/api1/sequences/" + _OWN
_VICTIMS: Final = b"/api1/sequences/" + _VICTIM
STEP: Final = Request("step", _request(b"POST " + _SEQUENCE + b"/next"), moves=1)

VALID: Final = [
    STEP,
    Request("current", _request(b"GET /api0/current")),
    Request("HEAD of current", _request(b"HEAD /api0/current")),
    Request("next of the shared sequence", _request(b"GET /api0/next")),
    Request("percent-encoded path", _request(b"GET /api0/%63urrent")),
    Request("step by 3", _request(b"POST " + _SEQUENCE + b"/next?by=3"), moves=3),
    Request("step back", _request(b"POST " + _SEQUENCE + b"/previous"), moves=-1),
    Request(
        "step with an empty body", _request(b"POST " + _SEQUENCE + b"/next", body=b""), moves=1
    ),
    Request(
        "step from anywhere", _request(b"POST " + _SEQUENCE + b"/next", b"If-Match: *"), moves=1
    ),
    Request("409", _request(b"POST " + _SEQUENCE + b"/previous?by=900000"), 409),
    Request("412", _request(b"POST " + _SEQUENCE + b"/next", b'If-Match: "0"'), 412),
    Request("sequence", _request(b"GET " + _SEQUENCE)),
    Request("HEAD of a sequence", _request(b"HEAD " + _SEQUENCE)),
    Request("304", _request(b"GET " + _SEQUENCE, b"If-None-Match: *"), 304),
    Request("201", _request(b"POST /api1/sequences"), 201),
    Request("204", _request(b"DELETE " + _VICTIMS), 204),
    Request("put", _request(b"PUT " + _VICTIMS, body=b'{"position":"1000"}')),
    Request(
        "put that expects",
        _request(b"PUT " + _VICTIMS, b"Expect: 100-continue", body=b'{"position":"12"}'),
    ),
    Request("malformed document", _request(b"PUT " + _SEQUENCE, body=b'{"position":'), 400),
    Request("wrong document", _request(b"PUT " + _SEQUENCE, body=b'{"position":"-1"}'), 422),
    Request("404", _request(b"GET /nowhere"), 404),
    Request("405", _request(b"PATCH " + _SEQUENCE), 405),
    Request("406", _request(b"GET /api1/terms/7", b"Accept: image/png"), 406),
    Request("term", _request(b"GET /api1/terms/97")),
    Request("term as text", _request(b"GET /api1/terms/97", b"Accept: text/plain")),
    Request("term in base 16", _request(b"GET /api1/terms/97?base=16")),
    Request("part of a term", _request(b"GET /api1/terms/97", b"Range: bytes=2-5"), 206),
    Request("304 of a term", _request(b"GET /api1/terms/97", b"If-None-Match: *"), 304),
    Request("HEAD of a term", _request(b"HEAD /api1/terms/999999")),
    Request("residue", _request(b"GET /api1/terms/1000000000000?modulo=1000000007")),
    Request("summary", _request(b"GET /api1/terms/-1000000000000/summary?digits=3")),
    Request("rows", _request(b"GET /api1/terms?from=98&count=3")),
    Request(
        "rows as NDJSON",
        _request(b"GET /api1/terms?from=98&count=3", b"Accept: application/x-ndjson"),
    ),
    Request("page", _request(b"GET /")),
    Request("interface", _request(b"GET /openapi.json")),
    Request("alive", _request(b"GET /livez"), internal=True),
    Request("ready", _request(b"GET /readyz?verbose"), internal=True),
    Request("metrics", _request(b"GET /metrics"), internal=True),
    Request("stats", _request(b"GET /test/stats"), internal=True),
    Request(
        "HTTP/1.0 kept alive",
        _request(b"GET /api0/current", b"Connection: keep-alive", version=b"1.0"),
    ),
]

_SHARED: Final = b"/api1/sequences/shared"
_DOCUMENT: Final = b'{"position":"7"}'
_H2C: Final = (b"Connection: Upgrade", b"Upgrade: h2c")
_REQUEST: Final = _request(b"GET /api0/next")
_LONG: Final = b"X: " + b"x" * 70_000

HOSTILE: Final = [
    *((case.name, case.sent) for case in CASES),
    ("Upgrade and a body", _request(b"PUT " + _SHARED, *_H2C, body=_DOCUMENT)),
    ("Upgrade and more than bjoern reads at once", _request(b"GET /api0/next", _LONG, *_H2C)),
    ("Upgrade and a request at once", _request(b"GET /api0/next", *_H2C) + _REQUEST),
    ("Upgrade in the name of another header", _request(b"GET /api0/next", b"Foo", *_H2C)),
    ("Upgrade and `Expect`", _request(b"PUT " + _SHARED, b"Expect: 100-continue", *_H2C)),
    ("CONNECT and a body", _request(b"CONNECT x:80", body=_DOCUMENT)),
    ("CONNECT and a request at once", _request(b"CONNECT x:80") + _REQUEST),
    (
        "Upgrade in a trailer",
        _request(b"PUT " + _SHARED, b"Transfer-Encoding: chunked")
        + b"1\r\nx\r\n0\r\n"
        + b"\r\n".join(_H2C)
        + b"\r\n\r\n",
    ),
    ("`Expect` twice", _request(b"GET /api0/next", *[b"Expect: 100-continue"] * 2)),
    ("`Expect` and a request at once", _request(b"GET /api0/next", b"Expect: 100-continue") * 2),
    ("ten requests at once", _REQUEST * 10),
    ("zeros", bytes(300)),
]
"""What hostile clients send: docs/hostile-requests.md, and what has ended the service before."""

LARGE: Final = 6_000_000
"""The index of a large term, which has to be in the digit cache."""

_LARGE_TERM: Final = b"GET /api1/terms/%d" % LARGE

ABANDONED: Final = [
    STEP,
    *(request for request in VALID if request.name in ("409", "412", "304", "204", "page")),
    Request("HEAD of a large term", _request(b"HEAD /api1/terms/%d" % LARGE)),
    Request("pieces", _request(b"GET /api1/terms/1000000", b"Accept: text/plain")),
    Request("pieces as JSON", _request(b"GET /api1/terms/1000000")),
    Request("octets", _request(b"GET /api1/terms/1000000", b"Accept: application/octet-stream")),
    Request("many rows", _request(b"GET /api1/terms?from=100000&count=40")),
    Request("large term as text", _request(_LARGE_TERM, b"Accept: text/plain")),
    Request("large term as JSON", _request(_LARGE_TERM, b"Accept: application/json")),
    Request(
        "part of a large term",
        _request(_LARGE_TERM, b"Accept: text/plain", b"Range: bytes=1000-400000"),
        206,
    ),
]
"""Requests with every kind of reply: bytes, pieces, rows, files, and those without a body."""


class When(Enum):
    """At what moment a client is gone."""

    HALFWAY = "within its request"
    BEFORE = "before the reply"
    WITHIN = "within the reply"
    AFTER = "after the reply"


class How(Enum):
    """By what a client is gone."""

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
    """A request whose client goes."""

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
        # Of the very long ones, the middle is all alike.
        ends = [*range(1, min(len(data), 400)), *range(max(len(data) - 400, 400), len(data))]
        most = len(ends) if each is None else each
        if len(data) > 1 << 20:
            most = min(most, 4)
        chosen = randomness.sample(ends, min(most, len(ends)))
        found += [Split(name, data, at, request) for at in (len(data), *chosen)]
    return found


def leaves() -> list[Leave]:
    """Return all ways in which a client can go."""
    return [
        Leave(request, when, how)
        for request in ABANDONED
        for when in When
        for how in How
        if how in (How.FIN, How.RST) or when is When.BEFORE
    ]


class Reply(NamedTuple):
    """A reply that came whole."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def kept(self) -> bool:
        """Whether another request may follow."""
        return self.headers.get(b"connection") != b"close"


class Gone(Exception):
    """The connection is closed, and no reply to this request has begun."""


class Broken(Exception):
    """What came is no reply, or ends within one."""


class Client:
    """A connection and what has come by it."""

    def __init__(self, address: Address, receive_buffer: int | None = None) -> None:
        self._address = address
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        await self._loop.sock_connect(self._socket, self._address)

    async def send(self, data: bytes) -> None:
        """Send the bytes, as far as the other side wants them."""
        with contextlib.suppress(ConnectionError):
            await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Return what comes next, nothing at the end."""
        try:
            return await self._loop.sock_recv(self._socket, 1 << 18)
        except ConnectionError:
            return b""

    async def arrival(self) -> None:
        """Wait until something has come, without reading it."""
        arrived: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, arrived.cancel)
        try:
            await asyncio.wait({arrived}, timeout=_PATIENCE)
        finally:
            self._loop.remove_reader(self._socket)

    async def reply(self, method: bytes = b"GET", timeout: float = _PATIENCE) -> Reply:
        """Return the next reply.

        Raises:
            Gone: there is none.
            Broken: it is none, or not whole.
            asyncio.TimeoutError: none has begun by then.
        """
        if not self._buffer:
            self._buffer += await asyncio.wait_for(self.receive(), timeout)
        return await asyncio.wait_for(self._reply(method), _PATIENCE)

    async def _reply(self, method: bytes) -> Reply:
        while True:
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                await self._more()
            head = bytes(self._buffer[:end]).split(b"\r\n")
            first = re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*", head[0])
            if not first:
                raise Broken(bytes(self._buffer[:200]))
            del self._buffer[: end + 4]
            if first[1] != b"100":
                break
        status = int(first[1])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head[1:])
        }
        if method == b"HEAD" or status in (204, 304):
            return Reply(status, headers, b"")
        if headers.get(b"transfer-encoding") == b"chunked":
            return Reply(status, headers, await self._chunks())
        if b"content-length" in headers:
            return Reply(status, headers, await self._take(int(headers[b"content-length"])))
        with contextlib.suppress(Gone, Broken):
            while True:
                await self._more()
        return Reply(status, headers, bytes(self._buffer))

    async def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                await self._more()
            length = int(bytes(self._buffer[:end]), 16)
            del self._buffer[: end + 2]
            piece = await self._take(length + 2)
            if piece[-2:] != b"\r\n":
                raise Broken(piece[-20:])
            if not length:
                return b"".join(pieces)
            pieces.append(piece[:-2])

    async def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            await self._more()
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    async def _more(self) -> None:
        piece = await self.receive()
        if not piece:
            raise Broken(bytes(self._buffer[:200])) if self._buffer else Gone
        self._buffer += piece

    def shut(self) -> None:
        """Send no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection; what has not been read resets it, too."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()


class Own:
    """A sequence that one connection at a time steps.

    Attributes:
        id: Its id.
        position: Where the last reply has it.
        doubtful: Steps that may have been made since the beginning although nobody was answered.
    """

    def __init__(self, identity: bytes) -> None:
        self.id = identity
        self.position = _START
        self.doubtful = 0

    def took(self, position: int, moves: int) -> bool:
        """Return whether a reply may show this position after such a move, and note it."""
        unanswered = position - self.position - moves
        self.position = position
        self.doubtful -= unanswered
        return unanswered >= 0 and self.doubtful >= 0


class Campaign:
    """Trials against a service, by itself or through a proxy.

    Attributes:
        failures: What was wrong, in words; empty if nothing was.
        tried: How many trials of which kind have been made.
    """

    def __init__(self, address: Address, *, direct: bool, nginx: bool = False) -> None:
        self.failures: list[str] = []
        self.tried: Counter[str] = Counter()
        self._address = address
        self._direct = direct
        self._nginx = nginx
        self._passing: asyncio.Task[None] | None = None
        self._known: dict[str, bytes] = {}

    def run(self, trials: list[Trial], randomness: random.Random) -> None:
        """Make all trials, while bystanders look on."""
        asyncio.run(self._run(trials, randomness))

    async def _run(self, trials: list[Trial], randomness: random.Random) -> None:
        todo = randomness.sample(trials, len(trials))
        self._ended = False
        bystanders = [asyncio.create_task(self._stand_by()) for _ in range(_BYSTANDERS)]
        workers = [
            asyncio.create_task(self._work(todo, random.Random(randomness.random())))
            for _ in range(CONCURRENT)
        ]
        try:
            await asyncio.gather(*workers)
        except (OSError, Gone, Broken, asyncio.TimeoutError) as error:
            self._fail("the service is gone, or answers no more", repr(error))
        finally:
            self._ended = True
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            ends = await asyncio.gather(*bystanders, return_exceptions=True)
        for end in ends:
            if end:
                self._fail("bystander", repr(end))

    async def _work(self, todo: list[Trial], randomness: random.Random) -> None:
        own = await self._create()
        while todo and len(self.failures) < 10:
            trial = todo.pop()
            try:
                if isinstance(trial, Split):
                    await self._split(trial, own, randomness)
                else:
                    await self._leave(trial, own, randomness)
            except (Gone, Broken, asyncio.TimeoutError) as error:
                # Where the sequence stands is unknown from now on.
                self._fail(f"{trial!r:.400}", f"no reply: {error!r}")
                return
        # Steps nobody was answered must show now.
        async with self._client() as client:
            await client.send(_of(own, _request(b"GET " + _SEQUENCE)))
            self._took(own, await client.reply(), 0, "at the end")

    # --- What the trials have in common --------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _client(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        client = Client(self._address, receive_buffer)
        try:
            await client.open()
            yield client
        finally:
            client.close()

    async def _create(self) -> Own:
        async with self._client() as client:
            await client.send(_request(b"POST /api1/sequences"))
            reply = await client.reply()
            own = Own(_ids(reply)[0])
            document = b'{"position":"%d"}' % _START
            await client.send(_of(own, _request(b"PUT " + _SEQUENCE, body=document)))
            self._took(own, await client.reply(), 0, "at the beginning")
        return own

    async def _bytes(self, sent: bytes, own: Own) -> bytes:
        if _VICTIM in sent:
            victim = await self._create()
            sent = sent.replace(_VICTIM, victim.id)
        return _of(own, sent)

    async def _read(self) -> None:
        """Return when the service has read all that was sent before this call.

        It reads connections in the order in which something came by them, and a new one last.
        """
        if self._passing is None or self._passing.done():
            self._passing = asyncio.create_task(self._pass())
            await asyncio.shield(self._passing)
            return
        # That one may have been sent before.
        passing = self._passing
        await asyncio.shield(passing)
        await self._read()

    async def _pass(self) -> None:
        async with self._client() as client:
            await client.send(_request(b"GET /livez"))
            await client.reply()

    def _fail(self, what: str, detail: object) -> None:
        self.failures.append(f"{what}: {detail}")

    def _took(self, own: Own, reply: Reply, moves: int, what: str) -> None:
        """Check that this reply shows our own sequence, moved so far."""
        found = re.match(
            rb'\{"id":"(\w+)","position":"(\d+)","digits":"\d+","value":"(\d+)"\}', reply.body
        )
        if reply.status != 200 or not found or found[1] != own.id:
            self._fail(what, f"{reply} in reply to a step of {own.id!r}")
            return
        position = int(found[2])
        if int(found[3]) != int(fmpz.fib_ui(fmpz(position))):
            self._fail(what, f"wrong digits: {reply}")
        before = own.position, own.doubtful
        if not own.took(position, moves):
            self._fail(what, f"at {position}, moved by {moves} from {before}: {reply}")

    # --- Requests in pieces ----------------------------------------------------------------------

    async def _split(self, trial: Split, own: Own, randomness: random.Random) -> None:
        if trial.request and trial.request.internal and self._nginx:
            return
        what = f"{trial.name!r} in two pieces at {trial.at} of {len(trial.sent)}"
        sent = await self._bytes(trial.sent, own)
        async with self._client() as client:
            # bjoern's parser is new, or has parsed before.
            if randomness.random() < 0.5:
                await self._step(client, own, what)
            await client.send(sent[: trial.at])
            if sent[trial.at :]:
                await self._read()
                await client.send(sent[trial.at :])
            if trial.request is None:
                await self._survive(client, own, what)
            elif self._direct and (refusal := refused_in_pieces(sent, trial.at)):
                if (reply := await client.reply()).status != refusal:
                    self._fail(what, f"{reply} instead of {refusal}")
            elif (await self._check(trial.request, sent, client, own, what)).kept:
                await self._step(client, own, what)
        self.tried["campaign: requests whole and in pieces"] += 1

    async def _step(self, client: Client, own: Own, what: str) -> None:
        await client.send(_of(own, STEP.sent))
        self._took(own, await client.reply(), 1, f"step with {what}")

    async def _check(
        self, request: Request, sent: bytes, client: Client, own: Own, what: str
    ) -> Reply:
        """Return the reply to a valid request, once it is found to be its own."""
        reply = await client.reply(sent[: sent.index(b" ")])
        if reply.status != request.status:
            self._fail(what, f"{reply} instead of {request.status}")
        elif request.moves:
            self._took(own, reply, request.moves, what)
        elif reply.status != 201:
            self._others(reply, sent, what)
        if _FIXED.match(sent) and self._known.setdefault(request.name, reply.body) != reply.body:
            self._fail(what, f"{reply} instead of {self._known[request.name]!r:.400}")
        return reply

    async def _survive(self, client: Client, own: Own, what: str) -> None:
        """Accept any reply to hostile bytes but one that belongs to somebody else."""
        position = own.position
        with contextlib.suppress(Gone, Broken, asyncio.TimeoutError):
            self._others(await client.reply(timeout=_SILENCE), own.id, what)
        await client.send(_of(own, STEP.sent))
        if self._direct:
            await self._read()
        try:
            while own.position == position:
                reply = await client.reply(timeout=_SILENCE)
                if own.id in reply.body and reply.status == 200:
                    self._took(own, reply, 1, f"step after {what}")
                else:
                    self._others(reply, own.id, what)
        except (Gone, Broken):
            pass
        except asyncio.TimeoutError:
            # The service has read it, and not taken it for a request; a proxy may still have it.
            own.doubtful += not self._direct

    def _others(self, reply: Reply, ours: bytes, what: str) -> None:
        """Check that the reply names no sequence but those in these bytes."""
        if others := [one for one in _ids(reply) if one not in ours]:
            self._fail(what, f"got the reply of {others}: {reply}")

    # --- Clients that go -------------------------------------------------------------------------

    async def _leave(self, trial: Leave, own: Own, randomness: random.Random) -> None:
        sent = await self._bytes(trial.request.sent, own)
        what = f"{trial.request.name!r}, gone {trial.when.value} by {trial.how.value}"
        async with self._client(receive_buffer=randomness.choice([None, 4096])) as client:
            if trial.how is How.UNREAD:
                await client.send(_request(b"GET /api1/terms/7"))
                await client.arrival()
            elif randomness.random() < 0.5:
                await self._step(client, own, what)
            if trial.when is When.HALFWAY:
                await client.send(sent[: randomness.randrange(1, len(sent))])
            else:
                await client.send(sent)
            if trial.when is When.AFTER:
                await self._check(trial.request, sent, client, own, what)
            else:
                if trial.how is How.HALF:
                    client.shut()
                    if self._direct:
                        await self._check(trial.request, sent, client, own, what)
                        return
                own.doubtful += trial.request.moves * (trial.when is not When.HALFWAY)
                if trial.when is When.WITHIN:
                    await client.arrival()
                    if randomness.random() < 0.5:
                        await client.receive()
                elif randomness.random() < 0.5:
                    await self._read()
            client.close(reset=trial.how is How.RST)
        self.tried["campaign: clients gone"] += 1

    # --- Bystanders ------------------------------------------------------------------------------

    async def _stand_by(self) -> None:
        own = await self._create()
        fetched = [
            (b"/api1/terms/300000", 300_000),
            (b"/api1/terms/%d" % LARGE, LARGE),
            (b"/api1/terms/97", 97),
        ]
        digests = {n: _digest(n) for _, n in fetched}
        while not self._ended:
            async with self._client() as client:
                for _ in range(5):
                    await self._step(client, own, "bystander")
                for path, n in fetched:
                    await client.send(_request(b"GET " + path, b"Accept: text/plain"))
                    reply = await client.reply()
                    if reply.status != 200 or sha256(reply.body).digest() != digests[n]:
                        self._fail(
                            "bystander",
                            f"wrong digits of F({n}): {reply.status} {reply.body[:200]!r}",
                        )
                        return
            self.tried["campaign: replies to bystanders"] += 8
            await asyncio.sleep(0.01)


@cache
def _digest(n: int) -> bytes:
    return sha256(str(fmpz.fib_ui(fmpz(n))).encode()).digest()


def _of(own: Own, sent: bytes) -> bytes:
    return sent.replace(_OWN, own.id)


def _ids(reply: Reply) -> list[bytes]:
    place = reply.headers.get(b"location", b"")
    return [first or second for first, second in _ID.findall(place + reply.body[:4096])]


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
