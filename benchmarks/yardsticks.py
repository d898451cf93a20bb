"""Define the small applications that bigfib is compared with.

``yardsticks.py NAME [DIGITS]`` serves one by bjoern, and prints where it listens.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bigfib.server.bjoern.loop import IterationHook

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

Body = Callable[[], Sequence[bytes]]
"""A function that returns the pieces of a body."""

IN_PIECES_FROM: Final = 1 << 16
"""Bytes from which on a body is sent in two pieces; below that, one piece is as fast."""


def constant(digits: int = 1) -> Body:
    """Return a body that is the same each time: the limit for a term of as many digits.

    It is sent in the fastest way that bjoern has: a short body in one piece, and most of a long one
    without copying it. At 209 thousand digits this gives 2.2 times as many replies a second as one
    piece, which bjoern copies.
    """
    opening, rest = b'{"value":"', b"1" * digits + b'","status":"200"}'
    pieces = [opening + rest] if digits < IN_PIECES_FROM else [opening, rest]
    return lambda: pieces


def constant_in_one_piece(digits: int) -> Body:
    """Return a body of the same bytes as `constant`, in one piece, as most applications send it."""
    pieces = [b"".join(constant(digits)())]
    return lambda: pieces


def synced() -> Body:
    """Return a body for which a record is written and synced each time: the limit of one client."""
    # On the disk that the logs are on; open as long as the process runs.
    descriptor, path = tempfile.mkstemp(dir=Path(__file__).parent)
    Path(path).unlink()
    pieces = constant()()
    offset = 0

    def body() -> Sequence[bytes]:
        nonlocal offset
        offset += os.pwrite(descriptor, bytes(20), offset)
        os.fdatasync(descriptor)
        return pieces

    return body


def grouped() -> None:
    """Write a record for each request, and sync once for all waiting replies, until killed.

    A durable step needs at least that, so this is the limit of durable steps on this disk.
    """
    file = tempfile.TemporaryFile(buffering=0, dir=".")  # noqa: SIM115 - as long as the process
    pieces = constant()()
    written = synced = 0

    def body() -> Sequence[bytes]:
        nonlocal written
        written += os.pwrite(file.fileno(), bytes(20), written)
        return pieces

    def sync() -> None:
        nonlocal synced
        if written > synced:
            os.fdatasync(file.fileno())
            synced = written

    serve(application(body), sync)


def file(path: str) -> None:
    """Serve a file, which the operating system sends, until killed."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        opened = open(path, "rb")  # noqa: PTH123, SIM115 - bjoern closes it
        length = ("Content-Length", str(os.fstat(opened.fileno()).st_size))
        start_response("200 OK", [("Content-Type", "text/plain"), length])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened)
        return wrapped

    serve(app)


def application(body: Body) -> Application:
    """Return an application that answers each request with the pieces that ``body`` returns."""

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        pieces = body()
        length = ("Content-Length", str(sum(map(len, pieces))))
        start_response("200 OK", [("Content-Type", "application/json"), length])
        return pieces

    return app


def serve(app: Application, at_end_of_iteration: Callable[[], None] | None = None) -> None:
    """Serve the application until killed."""
    import bjoern

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()
        if at_end_of_iteration:
            hook = IterationHook(listener, at_end_of_iteration)
            hook.install()
        print(f"listens on http://{host}:{port}", flush=True)
        bjoern.server_run(listener, app)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "file":
        file(*arguments)
    if name == "grouped":
        grouped()
    bodies: dict[str, Callable[..., Body]] = {
        "constant": constant,
        "constant_in_one_piece": constant_in_one_piece,
        "synced": synced,
    }
    serve(application(bodies[name](*map(int, arguments))))
