"""Which connections are closed, as seen by real clients."""

import contextlib
import fcntl
import logging
import os
import resource
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bigfib.server.bjoern.idle import (
    MOST_HELD,
    MOST_HELD_BY_ALL,
    SHORT_TIMEOUT,
    TIMEOUT,
    ConnectionWatch,
)
from tests.service import Serve, memory, until

BEFORE = TIMEOUT - 1
AFTER = TIMEOUT + 1


class Server:
    """A server that acts as the test orders, and its watch, with a clock that the test sets."""

    def __init__(self, descriptors: int = 1000) -> None:
        self.opened = ExitStack()
        self.listener = self.opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.now = 0.0
        self.watch = ConnectionWatch(self.listener, descriptors, clock=lambda: self.now)

    def close(self) -> None:
        self.watch.close()
        self.opened.close()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection: the client's and the server's."""
        client = self.opened.enter_context(socket.create_connection(self.listener.getsockname()))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        served, _ = self.listener.accept()
        return client, self.opened.enter_context(served)

    def look(self, *times: float) -> None:
        """Look at all connections, at each of these times."""
        for now in times:
            self.now = now
            # Each round looks twice as far beyond the connections that it has found.
            for _ in range(5):
                while not self.watch.look():
                    pass


def is_closed(served: socket.socket) -> bool:
    """Return whether the server reads end-of-file; read all bytes before it."""
    served.setblocking(False)
    try:
        while served.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    return True


def read_on(client: socket.socket) -> None:
    while client.recv(1 << 20):
        pass


def await_received(served: socket.socket, count: int) -> None:
    """Wait until this many bytes can be read."""
    served.settimeout(20)
    while len(served.recv(count, socket.MSG_PEEK)) < count:
        pass


def await_acknowledged(served: socket.socket) -> None:
    """Wait until the client has acknowledged everything."""
    until(lambda: not any(fcntl.ioctl(served, termios.TIOCOUTQ, bytes(4))))


def await_full(served: socket.socket) -> None:
    """Wait until the client's kernel accepts no more bytes."""
    waiting = b""
    while waiting != (waiting := fcntl.ioctl(served, termios.TIOCOUTQ, bytes(4))):
        time.sleep(0.2)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class TestTime:
    def test_silent_client_is_closed_in_its_time(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0, BEFORE)
        assert not is_closed(served)
        server.look(AFTER)
        assert is_closed(served)
        # As bjoern does when it has read end-of-file.
        served.close()
        client.settimeout(20)
        assert client.recv(1) == b""

    def test_request_that_arrives_when_an_idle_connection_is_closed_is_answered(
        self, server: Server
    ) -> None:
        client, served = server.connect()
        server.look(0, AFTER)
        client.sendall(b"POST")
        await_received(served, 4)
        served.sendall(b"answer")
        assert is_closed(served)
        served.close()
        client.settimeout(20)
        assert client.recv(100) == b"answer"
        assert client.recv(100) == b""

    def test_connection_with_the_descriptor_of_a_closed_one_is_closed_in_its_own_time(
        self, server: Server
    ) -> None:
        client, served = server.connect()
        server.look(0)
        number = served.fileno()
        client.close()
        served.close()
        _, following = server.connect()
        if following.fileno() != number:
            os.dup2(following.fileno(), number)
        server.look(BEFORE, BEFORE + AFTER)
        assert is_closed(following)

    def test_an_answered_client_has_the_time_again(self, server: Server) -> None:
        _, served = server.connect()
        server.look(0)
        served.send(b"answer")
        await_acknowledged(served)
        server.look(BEFORE, AFTER)
        assert not is_closed(served)
        server.look(BEFORE + AFTER)
        assert is_closed(served)

    def test_a_request_has_its_own_time(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0)
        client.send(b"GET")
        await_received(served, 3)
        server.look(BEFORE, AFTER)
        assert not is_closed(served)

    def test_a_request_byte_by_byte_has_not_more(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0)
        for now in range(1, int(AFTER) + 2):
            client.send(b"G")
            await_received(served, now)
            server.look(now)
        assert is_closed(served)

    def test_reply_that_is_not_read_is_closed_in_its_time(self, server: Server) -> None:
        client, served = server.connect()
        served.setblocking(False)
        while True:
            try:
                served.send(bytes(1 << 20))
            except BlockingIOError:
                break
        await_full(served)
        server.look(0, BEFORE, AFTER)
        with pytest.raises(BrokenPipeError):
            served.send(b"more")
        # The kernel drops the bytes that the client has not read.
        served.close()
        client.settimeout(20)
        with pytest.raises(ConnectionResetError):
            read_on(client)

    def test_new_connection_on_the_same_descriptor_is_watched_anew(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0)
        number = served.fileno()
        client.close()
        served.close()
        _, served = server.connect()
        if served.fileno() != number:
            os.dup2(served.fileno(), number)
        server.look(AFTER)
        assert not is_closed(served)

    def test_other_sockets_and_files_are_left_alone(self, server: Server, tmp_path: Path) -> None:
        others = Server()
        _, other = others.connect()
        with (tmp_path / "file").open("w") as file:
            server.look(0, AFTER)
            file.write("written")
        assert not is_closed(other)
        others.close()

    def test_connection_of_another_port_is_left_alone_between_ours(self, server: Server) -> None:
        _, first = server.connect()
        others = Server()
        _, other = others.connect()
        _, last = server.connect()
        assert first.fileno() < other.fileno() < last.fileno()
        server.look(0, AFTER)
        assert [is_closed(served) for served in (first, other, last)] == [True, False, True]
        others.close()

    def test_on_no_port_nothing_is_watched(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            client.connect(str(tmp_path / "socket"))
            served, _ = listener.accept()
            watch = ConnectionWatch(listener, 1000, clock=iter(range(0, 10**6, 100)).__next__)
            for _ in range(20):
                watch.look()
            watch.close()
            assert not is_closed(served)
            served.close()


class TestDescriptors:
    def test_timeout_when_half_the_descriptors_are_taken_is_short(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = Server(descriptors=20)
        try:
            several = [server.connect()[1] for _ in range(10)]
            server.look(0, SHORT_TIMEOUT + 1)
            assert not any(map(is_closed, several))
            assert not caplog.records
            several.append(server.connect()[1])
            server.look(SHORT_TIMEOUT + 2, SHORT_TIMEOUT + 3)
            assert list(map(is_closed, several)) == [True] * 10 + [False]
            server.look(SHORT_TIMEOUT + 4)
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
        finally:
            server.close()

    def test_closing_needs_no_free_descriptor(self, server: Server) -> None:
        _, served = server.connect()
        server.look(0)
        with ExitStack() as taken:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (served.fileno() + 1, limits[1]))
            taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            with contextlib.suppress(OSError):
                while True:
                    taken.enter_context(socket.socket())
            with pytest.raises(OSError, match="Too many open files"):
                socket.socket()
            server.look(AFTER)
        assert is_closed(served)


class TestMemory:
    def send(self, client: socket.socket, served: socket.socket, count: int) -> None:
        """Let the server read this many bytes."""
        served.settimeout(20)
        while count:
            sent = client.send(bytes(min(count, 1 << 16)))
            count -= sent
            while sent:
                sent -= len(served.recv(sent))

    def test_connection_that_sent_more_than_its_limit_is_closed(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0)
        self.send(client, served, MOST_HELD)
        server.look(1)
        assert not is_closed(served)
        self.send(client, served, 1)
        server.look(2)
        assert is_closed(served)

    def test_reply_resets_the_bytes_held_of_a_connection(self, server: Server) -> None:
        client, served = server.connect()
        server.look(0)
        for round_ in range(1, 4):
            self.send(client, served, MOST_HELD)
            served.send(b"answer")
            await_acknowledged(served)
            server.look(round_)
        assert not is_closed(served)

    def test_connection_that_sent_most_is_closed_when_all_sent_too_much(
        self, server: Server
    ) -> None:
        count = MOST_HELD_BY_ALL // (2 << 20)
        several = [server.connect() for _ in range(count)]
        small, served = server.connect()
        server.look(0)
        for client, end in several:
            self.send(client, end, 2 << 20)
        server.look(1)
        assert not any(is_closed(end) for _, end in several)
        self.send(small, served, 1000)
        server.look(2)
        # To close one of those that have sent most is enough.
        assert sum(is_closed(end) for _, end in several) == 1
        assert not is_closed(served)

    def test_connection_with_the_descriptor_of_one_that_sent_most_is_left_alone(
        self, server: Server
    ) -> None:
        """Between the look and the closing, the descriptor is given to another connection."""
        several = [server.connect() for _ in range(MOST_HELD_BY_ALL // MOST_HELD + 1)]
        first, (_, idle) = several[0][1], server.connect()
        # With descriptors this high, one round does not inspect all of them.
        high = [os.dup2(idle.fileno(), number, inheritable=False) for number in (100, 200, 400)]
        server.look(0)
        for client, end in several:
            self.send(client, end, MOST_HELD)
        assert not server.watch.look()
        client, following = server.connect()
        self.send(client, following, MOST_HELD)
        os.dup2(following.fileno(), first.fileno())
        while not server.watch.look():
            pass
        assert not is_closed(following)
        for descriptor in high:
            os.close(descriptor)


class TestTheService:
    def test_service_with_no_descriptors_left_comes_back(self, serve: Serve) -> None:
        service = serve(before=["bash", "-c", 'ulimit -n 100; exec "$0" "$@"'])
        with ExitStack() as opened:
            for _ in range(100):
                client = socket.create_connection((service.host, service.port))
                opened.enter_context(client)
            assert service.value("next") == 1
        assert "Traceback" not in "".join(service.said)

    def test_body_without_end_is_not_held_in_memory(self, serve: Serve) -> None:
        service = serve()
        before = memory(service)
        with socket.create_connection((service.host, service.port), timeout=20) as client:
            client.sendall(b"POST /api1/sequences HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n")
            highest = sent = 0
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while sent < 10**10:
                    sent += client.send(bytes(1 << 16))
                    highest = max(highest, memory(service))
        assert sent < 10**9
        assert highest - before < 300 << 20
        assert service.value("next") == 1
