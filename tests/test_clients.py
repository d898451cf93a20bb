"""Real clients get the replies to their own requests, and crash nothing."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proxies import UNLIMITED, Address
from tests.service import Serve

FETCH = Path(__file__).parent / "fetch.mjs"
STATUSES = ["-s", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} "]


@pytest.mark.campaign
def test_fetch_of_node_gets_replies_of_its_own(serve: Serve, require: Callable[[str], str]) -> None:
    service = serve("--durability", "os")
    done = subprocess.run(
        [require("node"), str(FETCH), service.url, "50", "40"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"right": 2000, "wrong": 0}
    assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("length", [1, 70_000], ids=["short", "longer than bjoern reads at once"])
def test_curl_that_offers_http_2_is_answered_twice(
    serve: Serve, require: Callable[[str], str], length: int
) -> None:
    service = serve()
    step = f"{service.url}/api0/next"
    command = [require("curl"), "--http2", *STATUSES, "-H", f"X: {'x' * length}", step, step]
    assert subprocess.check_output(command, timeout=20) == b"200 200 "
    assert service.value("current") == 1
    assert service.stop(signal.SIGTERM) == 0


def test_curl_that_offers_http_2_sends_a_body_by_nginx_only(
    serve: Serve, proxy: Callable[..., Address], require: Callable[[str], str]
) -> None:
    service = serve()
    host, port = proxy(service, UNLIMITED)
    found = {}
    for url in (service.url, f"http://{host}:{port}"):
        target = f"{url}/api1/sequences/shared"
        command = [require("curl"), "--http2", *STATUSES[:3], *STATUSES[5:], "-X", "PUT"]
        command += ["-H", "Content-Type: application/json", "-d", '{"position":"7"}', target]
        found[url] = subprocess.check_output(command, timeout=20)
    assert list(found.values()) == [b"400 ", b"200 "]
    assert service.value("current") == 13
    assert service.stop(signal.SIGTERM) == 0
