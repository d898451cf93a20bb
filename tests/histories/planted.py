"""A proxy that breaks a promise now and then, to show that histories reveal it."""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.histories.clients import Address


class Fault(Enum):
    NONE = "none"
    DOUBLE_STEP = "a step is made twice, and the first reply is passed on"
    STALE_READ = "the reply to an earlier look is sent again"
    LOST_REPLY = "a request is passed on, and its reply is not"
    POSITION_ONLY = "the same, and conditions are compared with the position only"


@contextmanager
def proxy(upstream: Address, fault: Fault) -> Iterator[Address]:
    """Pass requests to the upstream, with the fault in one of ten requests that allow it."""
    chance = random.Random(5)
    looks: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            strikes = chance.random() < 0.1
            reply = self._ask(body)
            if self.path.endswith(("/next", "/next?by=1")):
                if strikes and fault is Fault.DOUBLE_STEP:
                    self._ask(body)
            elif self.command == "GET":
                earlier = looks.setdefault(self.path, reply)
                if strikes and fault is Fault.STALE_READ:
                    reply = earlier
            if strikes and fault in (Fault.LOST_REPLY, Fault.POSITION_ONLY):
                self.close_connection = True
                return
            self.wfile.write(reply)

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 - as the base class wants

        def _ask(self, body: bytes) -> bytes:
            """Return the reply of the upstream, as bytes."""
            with closing(HTTPConnection(*upstream, timeout=20)) as connection:
                headers = dict(self.headers)
                if fault is Fault.POSITION_ONLY and "If-Match" in headers:
                    headers["If-Match"] = re.sub("-[0-9]+", "", headers["If-Match"])
                connection.request(self.command, self.path, body, headers)
                reply = connection.getresponse()
                head = f"HTTP/1.1 {reply.status} {reply.reason}\r\n"
                for name, value in reply.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding"):
                        head += f"{name}: {value}\r\n"
                return f"{head}\r\n".encode() + reply.read()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Address("127.0.0.1", server.server_port)
        server.shutdown()
