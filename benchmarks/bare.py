"""The yardstick: a bjoern application that returns a constant body of the same length."""

import socket
from collections.abc import Callable, Iterable
from typing import Any

import bjoern

BODY = b'{"value":"1","status":"200"}'


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer anything."""
    length = ("Content-Length", str(len(BODY)))
    start_response("200 OK", [("Content-Type", "application/json"), length])
    return [BODY]


with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = listener.getsockname()
    print(f"listens on http://{host}:{port}", flush=True)
    bjoern.server_run(listener, app)
