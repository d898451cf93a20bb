"""Hook the iterations of a real event loop of bjoern, in another process."""

import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Serve, and print at the end of every iteration which requests it has read.
SERVE = """
import socket, sys, bjoern
from bigfib.server.bjoern.loop import IterationHook

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

hook = IterationHook(listener, at_end)
hook.install()
print(listener.getsockname()[1], flush=True)
bjoern.server_run(listener, app)
"""

Start = Callable[..., "tuple[subprocess.Popen[str], int]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(last: str, *before: str) -> "tuple[subprocess.Popen[str], int]":
        process = subprocess.Popen(
            [*before, sys.executable, "-c", SERVE.format(last=last)],
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
    client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    return client


def test_requests_that_arrive_together_are_read_in_one_iteration(start: Start) -> None:
    process, port = start("pass")
    assert process.stdout
    # During one iteration, 50 more requests arrive.
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
        ("raise SystemExit(7)", ""),
        ("raise KeyError(7)", r"Traceback (.|\n)*KeyError: 7\n"),
    ],
)
def test_failure_at_end_of_iteration_sends_no_reply(start: Start, last: str, said: str) -> None:
    process, port = start(last)
    with ask(port, "/first") as client:
        assert client.recv(1000).endswith(b"told")
    with ask(port, "/last") as client:
        assert client.recv(1000) == b""
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.fullmatch(said, error)


def test_failure_at_end_of_iteration_sends_no_reply_when_stderr_is_closed(start: Start) -> None:
    process, port = start("raise KeyError(7)")
    assert process.stderr
    process.stderr.close()
    with ask(port, "/last") as client:
        assert client.recv(1000) == b""
    assert process.wait(timeout=20) == 1


def test_open_connections_are_served_while_descriptors_are_exhausted(
    start: Start, require: Callable[[str], str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    calls = "trace=accept,accept4,epoll_wait"
    process, port = start("pass", require("strace"), "-D", "-f", "-o", str(trace), "-e", calls)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (40, 40))
    with ExitStack() as opened, ask(port, "/first") as client:
        assert client.recv(1000).endswith(b"told")
        for _ in range(100):
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        while "EMFILE" not in trace.read_text():
            assert process.poll() is None
        before = trace.stat().st_size
        for _ in range(100):
            client.sendall(b"GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).endswith(b"told")
    process.kill()
    process.wait()
    made = trace.read_text()[before:]
    # bjoern itself tries in every iteration.
    assert 100 <= made.count("accept") <= 2 * made.count("epoll_wait")
