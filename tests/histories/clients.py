"""Clients that record their requests, the replies, and the times of both."""

import json
import math
import re
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import NamedTuple

from flint import fmpz

from tests.histories.history import NEVER, Operation, Recorder, Reply
from tests.histories.model import Kind, Request, Status

SHARED = "shared"

_STATUSES = {
    **dict.fromkeys((200, 201, 204, 304), Status.DONE),
    404: Status.ABSENT,
    409: Status.START,
    412: Status.MISMATCH,
}


class Gone(Exception):
    """There is no reply, or none that tells whether the request was done."""


class Address(NamedTuple):
    host: str
    port: int


class Client:
    """One client with a connection of its own, and one request at a time.

    Attributes:
        retry_after: How many seconds the last reply wants it to wait.
    """

    def __init__(self, number: int, address: Address, recorder: Recorder) -> None:
        self._number = number
        self._recorder = recorder
        self._connection = HTTPConnection(address.host, address.port, timeout=20)
        self._seen: dict[str, str] = {}
        self.retry_after = 0

    def close(self) -> None:
        self._connection.close()

    # --- /api0, where a reply shows a term -------------------------------------------------------

    def current(self) -> Reply | None:
        return self._ask(SHARED, Request(Kind.READ), "GET", "/api0/current", _stepping)

    def next(self) -> Reply | None:
        return self._ask(SHARED, Request(Kind.STEP, 1), "GET", "/api0/next", _stepping)

    def previous(self) -> Reply | None:
        return self._ask(SHARED, Request(Kind.STEP, -1), "GET", "/api0/previous", _stepping)

    # --- /api1, where a reply shows a position ---------------------------------------------------

    def create(self) -> str | None:
        """Create a sequence and return its id, or None if that was refused."""
        connection = self._connected()
        invoked = self._recorder.now()
        # If its reply is lost, the id remains unknown.
        reply, body = self._exchange(connection, "POST", "/api1/sequences")
        if reply.status != 201:
            self._recorder.refused()
            return None
        sequence: str = json.loads(body)["id"]
        self._note(sequence, Request(Kind.CREATE), _by_position(reply, body), invoked)
        return sequence

    def read(self, sequence: str) -> Reply | None:
        """Ask where it is, unless it is where this client saw it last (304)."""
        headers = {"If-None-Match": self._seen.get(sequence, '"none"')}
        path = f"/api1/sequences/{sequence}"
        return self._ask(sequence, Request(Kind.READ), "GET", path, _by_position, headers)

    def step(self, sequence: str, by: int = 1, *expected: int | None) -> Reply | None:
        """Step; ``expected`` is the position, and perhaps the version, of which it may be done."""
        way = "next" if by > 0 else "previous"
        path = f"/api1/sequences/{sequence}/{way}?by={abs(by)}"
        request = Request(Kind.STEP, by, *expected)
        return self._ask(sequence, request, "POST", path, _by_position)

    def put(self, sequence: str, position: int, *expected: int | None) -> Reply | None:
        request = Request(Kind.PUT, position, *expected)
        path = f"/api1/sequences/{sequence}"
        body = b'{"position":"%d"}' % position
        headers = {"Content-Type": "application/json"}
        return self._ask(sequence, request, "PUT", path, _by_position, headers, body)

    def delete(self, sequence: str, *expected: int | None) -> Reply | None:
        request = Request(Kind.DELETE, 0, *expected)
        return self._ask(sequence, request, "DELETE", f"/api1/sequences/{sequence}", _by_position)

    # ---------------------------------------------------------------------------------------------

    def _connected(self) -> HTTPConnection:
        """Return the connection; without one, nothing can have been sent."""
        if self._connection.sock is None:
            try:
                self._connection.connect()
            except OSError as error:
                raise Gone from error
        return self._connection

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request, and return reply and body, or raise `Gone`."""
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            received = reply.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise Gone from error
        self.retry_after = int(reply.headers.get("Retry-After", 0))
        if reply.status == 503 and not _is_refusal(reply, received):
            raise Gone
        return reply, received

    def _ask(
        self,
        sequence: str,
        request: Request,
        method: str,
        path: str,
        shown: Callable[[HTTPResponse, bytes], Reply],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply | None:
        """Send a request, record its outcome, and return the reply, or None if it was refused."""
        headers = headers or {}
        if request.expected is not None:
            version = "" if request.version is None else f"-{request.version}"
            headers = {**headers, "If-Match": f'"{request.expected}{version}"'}
        connection = self._connected()
        invoked = self._recorder.now()
        try:
            reply, received = self._exchange(connection, method, path, body, headers)
        except Gone:
            self._note(sequence, request, None, invoked)
            raise
        if _is_refusal(reply, received):
            self._recorder.refused()
            return None
        answered = shown(reply, received)
        if "ETag" in reply.headers:
            self._seen[sequence] = reply.headers["ETag"]
        self._note(sequence, request, answered, invoked)
        return answered

    def _note(self, sequence: str, request: Request, reply: Reply | None, invoked: int) -> None:
        returned = NEVER if reply is None else self._recorder.now()
        self._recorder.add(Operation(self._number, sequence, request, reply, invoked, returned))


def _is_refusal(reply: HTTPResponse, body: bytes) -> bool:
    """Return whether the reply promises that nothing has changed, and shows no position."""
    says_so = reply.status == 503 and re.search(b"[Nn]othing has changed", body)
    return reply.status == 507 or bool(says_so)


def _by_position(reply: HTTPResponse, body: bytes) -> Reply:
    assert reply.status in _STATUSES, (reply.status, body)
    status = _STATUSES[reply.status]
    if reply.status in (204, 404):
        return Reply(status)
    found = re.fullmatch('"([0-9]+)-([0-9]+)"', reply.headers["ETag"])
    assert found, reply.headers["ETag"]
    position, version = map(int, found.groups())
    assert reply.status == 304 or int(json.loads(body)["position"]) == position, body
    return Reply(status, frozenset([position]), version)


def _stepping(reply: HTTPResponse, body: bytes) -> Reply:
    assert reply.status in _STATUSES, (reply.status, body)
    status = _STATUSES[reply.status]
    if status is Status.START:
        return Reply(status)
    found = re.fullmatch(rb'\{"value":"(\d+)","status":"200"\}', body)
    assert found, body
    return Reply(status, indices(int(found[1])))


def indices(term: int) -> frozenset[int]:
    """Return the n for which F(n) is the term, which has fewer than 4,000 digits.

    Term and index are related by Binet: n is the logarithm of F(n) times the square root of 5, to
    the base of the golden ratio, up to a rest that shrinks with n.
    """
    if term < 2:
        return frozenset([1, 2]) if term else frozenset([0])
    n = round((math.log(term) + math.log(5) / 2) / math.log((1 + math.sqrt(5)) / 2))
    assert fmpz.fib_ui(fmpz(n)) == term, "this is no term"
    return frozenset([n])
