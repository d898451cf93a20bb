"""A real service in a real process, for tests."""

import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from bigfib.digit_cache import DigitCache
from bigfib.jobs import Jobs

TIMEOUT = 60
"""Seconds that anything may take on a busy machine before a test fails."""


class Service:
    """A service that is ready."""

    def __init__(
        self, arguments: list[str], file: Path, before: list[str], inherits: tuple[int, ...] = ()
    ) -> None:
        self.file = file
        self.process = subprocess.Popen(
            [
                *before,
                *(sys.executable, "-m", "bigfib", "serve", "-p", "0"),
                *(() if "--store" in arguments else ("-f", str(file))),
                *("--cache-dir", str(file.with_name("cache"))),
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=inherits,
        )
        assert self.process.stderr is not None
        if not self.listens(self.process.stderr):
            self.process.communicate()
            raise AssertionError(f"the service did not start: {self.said}")

    def listens(self, stderr: Iterable[str]) -> bool:
        """Return whether the service says where it listens."""
        self.said: list[str] = []
        for line in stderr:
            self.said.append(line)
            found = re.search(r"listens on http://(.*):(\d+); .* at position (\d+),", line)
            if found:
                self.host, self.port = found[1].strip("[]"), int(found[2])
                self.start_position = int(found[3])
                self.url = f"http://{found[1]}:{found[2]}"
                return True
        return False

    def connect(self) -> "closing[HTTPConnection]":
        return closing(HTTPConnection(self.host, self.port, timeout=TIMEOUT))

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[HTTPResponse, bytes]:
        """Send one request on a new connection; return reply and body."""
        with self.connect() as connection:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply, reply.read()

    def value(self, name: str) -> int:
        """Request ``/api0/name``, and return the value of its ``200``."""
        reply, body = self.ask(f"/api0/{name}")
        found = re.fullmatch(rb'\{"value":"(\d+)","status":"200"\}', body)
        assert reply.status == 200, body
        assert found, body
        return int(found[1])

    def stop(self, signal_number: int) -> int:
        """Send the signal, read the remaining messages, and return the exit status."""
        self.process.send_signal(signal_number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process, and return the exit status."""
        assert self.process.stderr is not None
        # Not `communicate`, which misses what was read together with the first line.
        self.said.append(self.process.stderr.read())
        return self.process.wait(timeout=TIMEOUT)


def exchange(service: Service, request: bytes) -> bytes:
    """Send the bytes, and return all that comes until the service closes the connection."""
    with socket.create_connection((service.host, service.port), timeout=TIMEOUT) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def until(true: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def seconds_of_work(pid: int) -> float:
    """Return the CPU time that a process has used, 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(stat.rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")


def memory(service: Service) -> int:
    """Return how many bytes of memory the service has now."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@contextmanager
def full_disk(service: Service, spare: int = 0) -> Iterator[None]:
    """Limit the service's log to ``spare`` more bytes; the kernel refuses to write beyond.

    A service under load needs some: unlike a disk, the limit takes back what was reserved.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    size = service.file.stat().st_size + spare
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    yield
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)


def descriptors(service: Service) -> int:
    """Return how many descriptors the service has open."""
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def reset(service: Service) -> None:
    """Put the shared sequence at 0."""
    json_type = {"Content-Type": "application/json"}
    reply, body = service.ask("/api1/sequences/shared", "PUT", json_type, b'{"position":"0"}')
    assert reply.status == 200, body


def jobs(path: Path) -> Jobs:
    """Return an object for large terms, for an application without a service."""
    return Jobs(DigitCache(path.with_name("cache"), 1 << 20), 2_000_000)


Serve = Callable[..., Service]
"""The type of the fixture `serve`."""
