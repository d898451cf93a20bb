"""Check replies of the API."""

import json
from collections.abc import Callable
from http.client import HTTPResponse

from flint import fmpz

JSON, TEXT = {"Accept": "application/json"}, {"Accept": "text/plain"}
OCTETS, LINES = {"Accept": "application/octet-stream"}, {"Accept": "application/x-ndjson"}
PROBLEM = "application/problem+json"

LIMIT = 1_000_000
MAX_TERM = 100_000_000

Answer = tuple[HTTPResponse, bytes]
Get = Callable[..., Answer]


def expected(n: int) -> int:
    """F(n) by FLINT; F(-n) = (-1)^(n+1) F(n)."""
    magnitude = int(fmpz.fib_ui(fmpz(abs(n))))
    return -magnitude if n < 0 and n % 2 == 0 else magnitude


def expected_text(n: int) -> bytes:
    """Return the digits by FLINT; Python refuses to write numbers this long."""
    sign = "-" if n < 0 and n % 2 == 0 else ""
    return (sign + fmpz.fib_ui(fmpz(abs(n))).str(base=10)).encode()


def refused(answer: Answer, status: int, says: str = "", **members: str) -> None:
    """Assert that the answer is a problem document that contains ``says`` and these members."""
    reply, body = answer
    assert reply.status == status, body[:300]
    assert reply.headers["Content-Type"] == PROBLEM
    assert reply.headers["Cache-Control"] == "no-store"
    problem = json.loads(body)
    assert problem["status"] == status
    assert says in problem["detail"], problem
    assert {name: problem.get(name) for name in members} == members
