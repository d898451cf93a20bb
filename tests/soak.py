"""One of the clients of test_soak.py: ``python -m tests.soak HOST PORT SEED REQUESTS CONNECTIONS``.

It asks for everything that there is, at random, and leaves in the middle now and then. At the end
it says, as JSON, what it was told: where each of its own sequences stands, and within what bounds
it has moved the shared one.
"""

import contextlib
import json
import random
import re
import socket
import sys
import time
from collections import Counter

# The service is killed and restarted meanwhile.
_BACK_WITHIN = 60.0

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_POSITION = re.compile(rb'"position": ?"(\d+)"')
_ID = re.compile(rb'"id":"([0-9a-f]{32})"')


class Lost(Exception):
    """The connection was closed before the reply was complete."""


class Wire:
    """A connection that is opened again when it is lost."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def send(self, request: bytes) -> None:
        deadline = time.monotonic() + _BACK_WITHIN
        while self._socket is None:
            try:
                self._socket = socket.create_connection(self._address, timeout=60)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                assert time.monotonic() < deadline, "the service is not there"
                time.sleep(0.01)
        # A request that cannot be sent gets no reply.
        with contextlib.suppress(OSError):
            self._socket.sendall(request)

    def receive(self, *, head: bool = False) -> tuple[int, bytes]:
        """Return status and body of a reply.

        Raises:
            Lost: there is none, or only the beginning of one.
        """
        assert self._socket
        received = b""
        try:
            while True:
                piece = self._socket.recv(1 << 18)
                if not piece:
                    break
                received += piece
                top, there, body = received.partition(b"\r\n\r\n")
                length = _LENGTH.search(top + b"\r\n") if there else None
                if there and (
                    head
                    or (length and len(body) >= int(length[1]))
                    or (b"chunked" in top and body.endswith(b"0\r\n\r\n"))
                    or top.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
                ):
                    return int(received[9:12]), body
        except OSError:
            pass
        self.close()
        if received.startswith(b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            return 400, b""
        raise Lost


class Client:
    """A connection, with its own sequence."""

    def __init__(self, wire: Wire, rng: random.Random) -> None:
        self._wire = wire
        self._rng = rng
        self.id = ""
        self.position = 0
        self.answers: Counter[str] = Counter()
        # By how much the shared sequence was moved, at least and at most.
        self.least = self.most = 0
        self._asked: tuple[str, int] = ("", 0)

    def _request(self, method: str, target: str, *fields: str, body: str = "") -> None:
        head = "".join(f"{field}\r\n" for field in ("Host: localhost", *fields))
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._wire.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n{body}".encode())

    def ask(self) -> None:
        """Send some request."""
        rng = self._rng
        chance = rng.random()
        own = f"/api1/sequences/{self.id}"
        if not self.id:
            self._asked = ("create", 0)
            self._request("POST", "/api1/sequences")
        elif chance < 0.35:
            # Step forward and back, so that terms do not grow.
            by = rng.choice((1, -1))
            self._asked = ("shared", by)
            self._request("GET", "/api0/next" if by > 0 else "/api0/previous")
        elif chance < 0.45:
            method = rng.choice(("GET", "HEAD"))
            self._asked = (method, 0)
            self._request(method, "/api0/current")
        elif chance < 0.65:
            by = rng.choice((1, 1, 1, 1, 3, 50, -1, -2, -40))
            self._asked = ("own", self.position + by)
            fields = [f'If-Match: "{self.position}"'] if rng.random() < 0.5 else []
            way = "next" if by > 0 else "previous"
            self._request("POST", f"{own}/{way}?by={abs(by)}", *fields)
        elif chance < 0.68:
            position = rng.randrange(2000)
            self._asked = ("own", position)
            self._request("PUT", own, body=f'{{"position":"{position}"}}')
        elif chance < 0.72:
            self._asked = ("look", 0)
            self._request("GET", own)
        elif chance < 0.73:
            self._asked = ("delete", 0)
            self._request("DELETE", own)
        elif chance < 0.74:
            self._asked = ("stale", 412)
            self._request("POST", f"{own}/next", f'If-Match: "{self.position + 1}"')
        else:
            self._ask_for_a_term(chance)

    def _ask_for_a_term(self, chance: float) -> None:
        rng = self._rng
        n = rng.randrange(3000) * rng.choice((1, 1, 1, -1))
        fields: list[str] = []
        if chance < 0.82:
            target = f"/api1/terms/{n}"
            if rng.random() < 0.2:
                fields = ["Accept: text/plain", "Range: bytes=0-0"]
        elif chance < 0.85:
            target = f"/api1/terms/{rng.randrange(10**30)}?modulo={rng.randrange(1, 10**9)}"
        elif chance < 0.87:
            target = f"/api1/terms/{rng.randrange(10**30)}/summary"
        elif chance < 0.88:
            target = f"/api1/terms?from={n}&count=20"
        elif chance < 0.91:
            target = rng.choice(("/livez", "/readyz", "/openapi.json", "/test/stats"))
        elif chance < 0.9998:
            self._ask_in_vain(chance, n)
            return
        else:
            self._ask_for_a_large_term()
            return
        self._asked = ("term", 206 if fields else 200)
        self._request("GET", target, *fields)

    def _ask_in_vain(self, chance: float, n: int) -> None:
        rng = self._rng
        method = "GET"
        if chance < 0.94:
            target, expected = rng.choice(("/nothing", "/api0", "/%00", "/x" * 300)), 404
        elif chance < 0.96:
            target, expected = rng.choice(("/api1/terms/007", "/api1/terms/1?base=1")), 422
        elif chance < 0.97:
            method, target, expected = "POST", "/api0/next", 405
        elif chance < 0.98:
            target, expected = "/api0/next\0", 400
        elif chance < 0.99:
            self._asked = ("gone", 0)
            self._wire.send(
                b"GET /api1/terms/20000 HTTP/1.1\r\nHost: localhost\r\n" + b"\r\n" * (n & 1)
            )
            return
        else:
            method, target, expected = "DELETE", f"/api1/terms/{n}/job", 404
        self._asked = ("term", expected)
        self._request(method, target)

    def _ask_for_a_large_term(self) -> None:
        self._asked = ("far", 0)
        far = 1_000_001 + self._rng.randrange(5) * 3_000_000
        method = self._rng.choice(("GET", "DELETE"))
        self._request(method, f"/api1/terms/{far}" + ("/job" if method == "DELETE" else ""))

    def hear(self) -> None:
        """Compare the answer with what is known, and update that."""
        what, about = self._asked
        if what == "gone":
            self._wire.close()
            self.answers["left in the middle"] += 1
            return
        if what in ("shared", "own") and self._rng.random() < 0.01:
            # Pretend that the reply was lost.
            self._wire.close()
            self._doubt(what, about)
            return
        try:
            status, body = self._wire.receive(head=what == "HEAD")
        except Lost:
            self.answers["lost"] += 1
            self._doubt(what, about)
            return
        self.answers[str(status)] += 1
        if what == "create":
            found = _ID.search(body)
            assert status == 201, body
            assert found
            self.id, self.position = found[1].decode(), 0
        elif what == "delete":
            assert status == 204, body
            self.id = ""
        elif what == "shared":
            assert status == 200 or (status == 409 and about < 0), body
            if status == 200:
                self.least += about
                self.most += about
        elif what == "own":
            assert status == (200 if about >= 0 else 409), body
            self.position = about if status == 200 else self.position
            assert self._shown(body) == self.position, body
        elif what in ("GET", "HEAD"):
            assert status == 200, body
        elif what == "look":
            assert status == 200, body
            assert self._shown(body) == self.position, (self.position, body)
        elif what == "far":
            assert status in (200, 202, 204, 404, 503), body
        else:
            assert status == about, (status, about, body)

    def _shown(self, body: bytes) -> int:
        found = _POSITION.search(body)
        assert found, body
        return int(found[1])

    def _doubt(self, what: str, about: int) -> None:
        """Find out whether a change was made, if that is possible."""
        self.answers["in doubt"] += 1
        if what == "shared":
            self.least += min(about, 0)
            self.most += max(about, 0)
        elif what == "delete":
            self.id = ""
        elif what == "own":
            # If two requests arrive at once on two connections, the later may be handled first.
            # So the change may be made after the first look, but not after the second.
            self._look()
            shown = self._look()
            assert shown in (self.position, about), (self.position, about)
            self.position = shown

    def _look(self) -> int:
        while True:
            self._request("GET", f"/api1/sequences/{self.id}")
            with contextlib.suppress(Lost):
                status, body = self._wire.receive()
                assert status == 200, body
                return self._shown(body)


def main(host: str, port: int, seed: int, requests: int, connections: int) -> None:
    rng = random.Random(seed)
    clients = [Client(Wire((host, port)), rng) for _ in range(connections)]
    for number in range(-(-requests // connections)):
        for client in clients:
            client.ask()
        for client in clients:
            client.hear()
        if number % 100 == 99:
            print(100 * connections, flush=True)
    answers: Counter[str] = Counter()
    for client in clients:
        answers += client.answers
    result = {
        "answers": answers,
        "least": sum(client.least for client in clients),
        "most": sum(client.most for client in clients),
        "own": {client.id: client.position for client in clients if client.id},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
