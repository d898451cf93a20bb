"""Measure requests to a running service, which ``--url`` names.

They are compared with its ``/livez``, a constant word. A sequence is created and deleted.
"""

from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.groups import ELSEWHERE
from benchmarks.load import STEPS, compute, seconds_per_request, take_turns
from benchmarks.sizes import POSITIONS, by_digits
from bigfib.client import Client

pytestmark = pytest.mark.usefixtures("load_generator")


@by_digits()
@pytest.mark.benchmark(group=ELSEWHERE)
def bench_requests(
    benchmark: BenchmarkFixture, pytestconfig: pytest.Config, quick: bool, digits: int
) -> None:
    url = pytestconfig.option.url.rstrip("/")
    term = f"{url}/api1/terms/{POSITIONS[digits]}"
    text = ("-H", "Accept: text/plain")
    compute(url, POSITIONS[digits])
    measure = partial(seconds_per_request, seconds=0.5 if quick else 1.0, connections=16)
    # The sequence is refused until the service has computed its terms.
    client = Client(url, attempts=60)
    sequence = client.create(POSITIONS[digits])
    own = client.address(sequence.id)
    try:
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
    finally:
        client.delete(sequence.id)
