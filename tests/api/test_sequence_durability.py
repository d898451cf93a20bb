"""No reply about a sequence shows a change before its commit, or loses one."""

import json
import random
import re
import signal
import socket
import struct
import threading
from collections import Counter
from contextlib import closing
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any

import falcon.testing
import pytest

from bigfib.api.app import create_app
from bigfib.sequences import Sequences, parse_id
from bigfib.state import reader
from bigfib.state.log import Log
from tests.api.sequences import (
    COLLECTION,
    JSON,
    created,
    position,
    term,
)
from tests.service import Serve, jobs


class TestDurability:
    """No reply shows a position before it is committed; the log is a real one."""

    @pytest.mark.parametrize(
        ("method", "rest", "headers", "status"),
        [
            ("GET", "", {}, "200"),
            ("HEAD", "", {}, "200"),
            ("GET", "", {"If-None-Match": "*"}, "304"),
            ("GET", "", {"If-Match": '"0"'}, "412"),
            ("POST", "/next", {"If-Match": '"0"'}, "412"),
            ("POST", "/previous?by=2", {}, "409"),
            ("POST", "/next", {}, "200"),
            ("PUT", "", {}, "200"),
            ("DELETE", "", {}, "204"),
        ],
    )
    def test_reply_after_a_step_under_way_leaves_after_its_commit(
        self, path: Path, method: str, rest: str, headers: dict[str, str], status: str
    ) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            sequence = sequences.create()
            log.commit()
            own = f"{COLLECTION}/{sequence.hex()}"
            # A step of another client, whose reply has not been sent yet.
            sequences.forward(sequence)
            under_way = log.changes
            assert log.committed < under_way
            # The position is in the headers, which leave before the server asks for the body.
            assert self._begin(app, log, method, own + rest, headers) == (status, log.changes)
            assert log.changes >= under_way

    @staticmethod
    def _begin(
        app: Any, log: Log, method: str, target: str, headers: dict[str, str]
    ) -> tuple[str, int]:
        """Return the status of a reply, and what is committed when its headers are sent."""
        content = b'{"position":"7"}' if method == "PUT" else b""
        path, _, query = target.partition("?")
        environ = falcon.testing.create_environ(
            path,
            method=method,
            query_string=query,
            headers=headers | JSON,
            body=content.decode(),
        )
        assert isinstance(environ["wsgi.input"], BytesIO)
        begun: list[tuple[str, int]] = []
        app(environ, lambda status, _headers: begun.append((status[:3], log.committed)))
        return begun[0]

    def test_reply_to_a_creation_leaves_after_its_commit(self, path: Path) -> None:
        with Log(path) as log:
            app = create_app(log, Sequences(log), jobs(path), per_client=False)
            before = log.committed
            assert self._begin(app, log, "POST", COLLECTION, {}) == ("201", log.changes)
            assert log.changes > before


class Cut(Exception):
    """The reply was cut off, or not read."""


class CarefulClient(threading.Thread):
    """A client that moves its own sequences over a bad connection, and keeps track of them."""

    STEPS = 150

    def __init__(self, number: int, paths: list[str], tried: Counter[str]) -> None:
        super().__init__()
        self._random = random.Random(number)
        self.believed = dict.fromkeys(paths, 0)
        self._tried = tried
        self.address = ("", 0)
        self.back = threading.Event()
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self.STEPS):
                self._move(self._random.choice(list(self.believed)))
        except BaseException as failure:
            self.failed = failure
            raise

    def _move(self, path: str) -> None:
        here = self.believed[path]
        by = self._random.choice([1, 1, 1, 2, 50])
        way = self._random.choice(["next", "next", "previous"])
        goal = here + by if way == "next" else here - by
        request = (
            f'POST {path}/{way}?by={by} HTTP/1.1\r\nHost: localhost\r\nIf-Match: "{here}"\r\n'
            "Connection: close\r\n\r\n"
        ).encode()
        for attempt in range(1000):
            try:
                status, body = self._ask(request)
            except (Cut, OSError):
                self._tried["replies cut"] += 1
                self.back.wait(10)
                continue
            told = json.loads(body)
            if status == 409:
                assert goal < 0
                return
            if status == 412:
                # The lost reply was that of this very change.
                assert attempt > 0
                self._tried["changes found made"] += 1
            else:
                assert status == 200, body
                assert told["value"] == term(goal)
            assert told["position"] == str(goal)
            self.believed[path] = goal
            return
        raise AssertionError("the service is gone")

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        """Send the request, and perhaps close the connection at some moment."""
        with closing(socket.create_connection(self.address, timeout=10)) as connection:
            moment = self._random.random()
            if moment < 0.1:
                connection.sendall(request[: self._random.randrange(len(request))])
                raise Cut
            connection.sendall(request)
            if moment < 0.3:
                if moment < 0.2:
                    # Reset the connection instead of closing it.
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raise Cut
            received = b""
            while piece := connection.recv(self._random.choice([1, 10, 65536])):
                received += piece
                if moment < 0.4 and self._random.random() < 0.1:
                    raise Cut
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or not length or len(body) < int(length[1]):
            raise Cut
        return int(head.split()[1]), body


@pytest.mark.parametrize("kills", [0, 6])
def test_clients_whose_replies_are_cut_know_the_positions_of_their_sequences(
    serve: Serve, tried: Counter[str], kills: int
) -> None:
    """With ``If-Match`` every sequence ends where its client expects it."""
    service = serve()
    clients = [
        CarefulClient(number, [created(service) for _ in range(8)], tried) for number in range(8)
    ]
    for client in clients:
        client.address = (service.host, service.port)
        client.back.set()
        client.start()
    for _ in range(kills):
        clients[0].join(0.15)
        for client in clients:
            client.back.clear()
        service.process.kill()
        assert service.wait() == -signal.SIGKILL
        tried["kills among cut replies"] += 1
        service = serve()
        for client in clients:
            client.address = (service.host, service.port)
            client.back.set()
    for client in clients:
        client.join()
        assert client.failed is None
    believed = {path: at for client in clients for path, at in client.believed.items()}
    assert len(believed) == 64
    assert {path: position(service, path) for path in believed} == believed
    assert service.stop(signal.SIGTERM) == 0
    contents = reader.read(service.file)
    for path, at in believed.items():
        assert contents.position(parse_id(path.rpartition("/")[2])) == at
    assert sum(believed.values()) > 1000
    assert tried["changes found made"] > 50


def test_sequences_acknowledged_before_a_kill_are_there(serve: Serve) -> None:
    """If the service is killed while sequences are created, all acknowledged ones are there."""
    service = serve()
    paths: list[str] = []

    def create() -> None:
        try:
            with service.connect() as connection:
                while True:
                    connection.request("POST", COLLECTION)
                    reply = connection.getresponse()
                    reply.read()
                    paths.append(reply.headers["Location"])
        except (OSError, HTTPException):
            pass

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    threads[0].join(0.5)
    service.process.kill()
    for thread in threads:
        thread.join()
    service.wait()
    service = serve()
    assert len(paths) > 100
    for path in paths:
        assert position(service, path) == 0
