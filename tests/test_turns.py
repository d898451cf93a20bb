"""The turns of a real event loop of bjoern, in a process of its own."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

# Serves, and says at every turn's end which requests it has read by then.
SERVE = """
import socket, sys, bjoern
from bigfib.turns import Turns

listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
listener.setblocking(False)
asked = []

def app(environ, start_response):
    asked.append(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "4")])
    return [b"told"]

def at_end():
    if asked:
        print(*asked, flush=True)
        if asked == ["/last"]:
            {last}
        asked.clear()

turns = Turns(listener, at_end)
turns.follow_next_loop()
print(listener.getsockname()[1], flush=True)
bjoern.server_run(listener, app)
"""

Start = Callable[[str], "tuple[subprocess.Popen[str], int]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(last: str) -> "tuple[subprocess.Popen[str], int]":
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE.format(last=last)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(port: int, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    return client


def test_who_comes_together_is_served_in_one_turn(start: Start) -> None:
    process, port = start("pass")
    assert process.stdout
    # While one turn lasts, 50 more come.
    process.send_signal(signal.SIGSTOP)
    clients = [ask(port, f"/{number}") for number in range(50)]
    process.send_signal(signal.SIGCONT)
    for client in clients:
        with client:
            assert client.recv(1000).endswith(b"\r\n\r\ntold")
    assert sorted(process.stdout.readline().split()) == sorted(f"/{n}" for n in range(50))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("raise SystemExit('it is over')", "it is over\n"),
        ("raise KeyError(7)", r"Traceback (.|\n)*KeyError: 7\n"),
    ],
)
def test_an_end_that_fails_lets_no_reply_leave(start: Start, last: str, said: str) -> None:
    process, port = start(last)
    with ask(port, "/first") as client:
        assert client.recv(1000).endswith(b"told")
    with ask(port, "/last") as client:
        assert client.recv(1000) == b""
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.fullmatch(said, error)
