"""Requests to services that share a store, and queries to their database."""

import os
import subprocess
import sys
from http.client import HTTPConnection, HTTPResponse

import psycopg
from flint import fmpz

# The database must not end a wait, however busy this machine is.
PATIENT = "options=-c%20lock_timeout%3D20000%20-c%20statement_timeout%3D20000"

LOST = b'{"value":"-3","status":"503"}'


def body_at(position: int) -> bytes:
    return b'{"value":"%b","status":"200"}' % str(fmpz.fib_ui(fmpz(position))).encode()


def position(url: str, sequence_id: bytes = b"shared") -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT position FROM bigfib_sequences WHERE id = %s", [sequence_id]
        ).fetchone()
    return int(row[0]) if row else 0


def ask(
    connection: HTTPConnection, path: str, method: str = "GET", cookie: str = ""
) -> tuple[HTTPResponse, bytes]:
    connection.request(method, path, headers={"Cookie": f"bigfib={cookie}"} if cookie else {})
    reply = connection.getresponse()
    return reply, reply.read()


def transactions(url: str) -> int:
    """Return how many writing transactions there have been, including this one."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT txid_current()").fetchone()
        assert row
        return int(row[0])


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bigfib", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        timeout=30,
        check=False,
    )
