"""A connection of the campaign, and its replies."""

import asyncio
import contextlib
import re
import socket
import struct
from typing import Final, NamedTuple

Address = tuple[str, int]

TIMEOUT: Final = 20.0
"""Seconds within which a reply to a valid request must come."""

_RESET: Final = struct.pack("ii", 1, 0)


class Reply(NamedTuple):
    """A complete reply."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def kept(self) -> bool:
        """Return whether another request may follow."""
        return self.headers.get(b"connection") != b"close"


class Gone(Exception):
    """The connection is closed, and no reply to this request has begun."""


class Broken(Exception):
    """The bytes received are not a complete reply."""


class Client:
    """A connection, and the bytes received on it."""

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
        """Send the bytes, as far as the service reads them."""
        with contextlib.suppress(ConnectionError):
            await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Return the next bytes, nothing at the end."""
        try:
            return await self._loop.sock_recv(self._socket, 1 << 18)
        except ConnectionError:
            return b""

    async def arrival(self) -> None:
        """Wait until bytes have arrived, without reading them."""
        arrived: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._socket, arrived.cancel)
        try:
            await asyncio.wait({arrived}, timeout=TIMEOUT)
        finally:
            self._loop.remove_reader(self._socket)

    async def reply(self, method: bytes = b"GET", timeout: float = TIMEOUT) -> Reply:
        """Return the next reply.

        Raises:
            Gone: there is none.
            Broken: it is none, or not whole.
            asyncio.TimeoutError: none has begun by then.
        """
        if not self._buffer:
            self._buffer += await asyncio.wait_for(self.receive(), timeout)
        return await asyncio.wait_for(self._reply(method), TIMEOUT)

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
        """Shut down the sending side."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection; unread bytes make this a reset."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
