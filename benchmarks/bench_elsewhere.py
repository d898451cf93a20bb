"""Measure requests to a running service, which ``--url`` names.

They are compared with its ``/livez``, a constant word. A sequence is created and deleted.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import ELSEWHERE
from benchmarks.load import STEPS, seconds_per_request, take_turns
from benchmarks.sizes import POSITIONS, by_digits

pytestmark = pytest.mark.usefixtures("load_generator")


@by_digits()
@pytest.mark.benchmark(group=ELSEWHERE)
def bench_requests(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, quick: bool, digits: int
) -> None:
    url = pytestconfig.option.url.rstrip("/")
    term = f"{url}/api1/terms/{POSITIONS[digits]}"
    text = ("-H", "Accept: text/plain")
    while ask("GET", term)[0] == 202:
        time.sleep(0.1)
    measure = partial(seconds_per_request, seconds=0.5 if quick else 1.0, connections=16)
    with sequence(url, POSITIONS[digits]) as own:
        take_turns(
            benchmark,
            3 if quick else 5,
            {
                "yardstick livez": lambda: measure(f"{url}/livez"),
                "current": lambda: measure(own),
                "step": lambda: measure(own, arguments=STEPS),
                "term": lambda: measure(term, arguments=text),
            },
        )


@contextmanager
def sequence(url: str, position: int) -> Iterator[str]:
    """Create a sequence at a position, yield its address, and delete it at the end."""
    sequences = f"{url}/api1/sequences"
    own = f"{sequences}/{json.loads(ask('POST', sequences)[1])['id']}"
    try:
        # The service first computes a large term.
        while ask("PUT", own, json.dumps({"position": str(position)}).encode())[0] == 503:
            time.sleep(0.1)
        yield own
    finally:
        ask("DELETE", own)


def ask(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of a reply.

    Raises:
        HTTPError: the service refuses, by another status than 503.
    """
    json_sent = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, json_sent if body else {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return 503, b""
