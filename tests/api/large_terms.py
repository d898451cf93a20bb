"""Request large terms from a real service, and find its processes and files."""

import json
import time
from http.client import HTTPResponse
from pathlib import Path

from flint import fmpz

from bigfib import terms
from tests.service import Service

TEXT = {"Accept": "text/plain"}
JSON = {"Accept": "application/json"}
PUT = {"Content-Type": "application/json"}

# The smallest large term, and one that takes a while.
NEAR = terms.decimal_limit() + 1
LONG = 900_000_000


def expected(n: int) -> bytes:
    sign = b"-" if n < 0 and n % 2 == 0 else b""
    return sign + fmpz.fib_ui(fmpz(abs(n))).str(base=10).encode()


def document(n: int) -> bytes:
    value = expected(n)
    return b'{"n":"%d","digits":"%d","value":"%b"}' % (n, len(value.lstrip(b"-")), value)


def accepted(answer: tuple[HTTPResponse, bytes], n: int) -> dict[str, str]:
    """Return the document of a 202 for F(n)."""
    reply, body = answer
    assert reply.status == 202, body[:300]
    assert reply.headers["Location"] == f"/api1/terms/{n}/job"
    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["ETag"] is None
    job: dict[str, str] = json.loads(body)
    assert job["n"] == str(n)
    return job


def awaited(
    service: Service, n: int, headers: dict[str, str] | None = None
) -> tuple[HTTPResponse, bytes]:
    """Request F(n) until the answer is not a 202."""
    deadline = time.monotonic() + 120
    while True:
        reply, body = service.ask(f"/api1/terms/{n}", headers=headers)
        if reply.status != 202:
            return reply, body
        accepted((reply, body), n)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def job(service: Service, n: int) -> dict[str, str] | None:
    reply, body = service.ask(f"/api1/terms/{n}/job")
    if reply.status == 404:
        assert reply.headers["Content-Type"] == "application/problem+json"
        return None
    assert reply.status == 200
    found: dict[str, str] = json.loads(body)
    return found


def done(service: Service, n: int) -> bool:
    return job(service, n) == {"n": str(n), "state": "done", "progress": 1, "seconds_left": 0}


def workers(service: Service) -> list[int]:
    """Return the processes that compute for the service."""
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def cached(service: Service, n: int) -> Path:
    return service.file.with_name("cache") / f"{n}.digits"


def files(service: Service) -> list[str]:
    directory = service.file.with_name("cache")
    return names(directory) if directory.exists() else []


def names(directory: Path) -> list[str]:
    """Return the files in the cache, except for the lock."""
    return sorted(entry.name for entry in directory.iterdir() if entry.name != "lock")
