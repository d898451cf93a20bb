"""Clients cannot crash the service, get replies of others, or leave a doubtful step unnoticed."""

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import proxies
from tests.campaign.run import Campaign
from tests.campaign.trials import LARGE, Trial, leaves, splits
from tests.service import Serve, Service, descriptors, full_disk, memory, until

_ASAN = os.environ.get("BIGFIB_TEST_ASAN")
"""The directory of a bjoern with AddressSanitizer; see `tests.campaign`."""

_MOST_GROWTH = 16 << 20
"""Bytes by which the memory of the service may grow in the second half of the trials."""


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Chooses the trials: always the same ones, except with `--torture`."""
    return random.randrange(1 << 32) if request.config.getoption("torture") else 7


def _under_asan(directory: Path) -> list[str]:
    """Return a command prefix that uses the bjoern with AddressSanitizer, if there is one."""
    if not _ASAN:
        return []
    library = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True)
    # Processes that compute terms do not start with it: it reserves more than their memory limit.
    preparing = directory / "sitecustomize.py"
    preparing.write_text("import os\nos.environ.pop('LD_PRELOAD')\n")
    return [
        "env",
        f"LD_PRELOAD={library.strip()}",
        f"PYTHONPATH={Path(_ASAN).absolute()}:{directory}",
        # Allocate every object separately, so that its use after it was freed is noticed.
        "PYTHONMALLOC=malloc",
        "ASAN_OPTIONS=detect_leaks=0:exitcode=99:handle_abort=1",
    ]


def _read_on(service: Service) -> threading.Thread:
    """Read the messages of the service, which would block otherwise."""
    assert service.process.stderr is not None
    reading = threading.Thread(target=service.said.extend, args=(service.process.stderr,))
    reading.start()
    return reading


@pytest.mark.campaign
@pytest.mark.parametrize("front", ["direct", "nginx", "haproxy"])
def test_split_hostile_and_abandoned_requests_cross_no_replies(
    serve: Serve, front: str, seed: int, times: int, tried: Counter[str], tmp_path: Path
) -> None:
    if front == "haproxy" and times == 1:
        pytest.skip("takes long; run with --torture")
    service = serve("--durability", "os", before=_under_asan(tmp_path))
    reading = _read_on(service)
    until(lambda: service.ask(f"/api1/terms/{LARGE}")[0].status == 200)
    at_start = descriptors(service)
    randomness = random.Random(seed)
    with ExitStack() as opened:
        address = (service.host, service.port)
        if front == "nginx":
            address = opened.enter_context(proxies.nginx(tmp_path))(service, proxies.UNLIMITED)
        elif front == "haproxy":
            address = opened.enter_context(proxies.haproxy(tmp_path))(service)
        campaign = Campaign(address, direct=front == "direct", nginx=front == "nginx")
        trials: list[Trial] = [
            *splits(8 if times == 1 else None, randomness),
            *(leaves() * (4 if times == 1 else 180)),
        ]
        randomness.shuffle(trials)
        half = len(trials) // 2
        campaign.run(trials[:half], randomness)
        if not campaign.failures:
            before = memory(service)
            campaign.run(trials[half:], randomness)
            after = memory(service)
    tried.update(campaign.tried)
    said = "".join(service.said[-100:])
    assert not campaign.failures, (seed, service.process.poll(), *campaign.failures, said)
    # The first reply may arrive before its connection is closed.
    until(lambda: descriptors(service) <= at_start)
    # AddressSanitizer keeps freed memory.
    assert _ASAN or after - before < _MOST_GROWTH
    assert service.ask("/livez")[0].status == 200
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=20) == 0
    reading.join()
    said = "".join(service.said)
    assert "Traceback" not in said
    assert len(re.findall("hit errno", said)) <= campaign.tried["campaign: clients gone"]


def test_clients_gone_from_a_full_disk_harm_no_other_reply(serve: Serve) -> None:
    service = serve()
    reading = _read_on(service)
    step = b"POST /api1/sequences/shared/next HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with full_disk(service), service.connect() as other:
        for turn in range(100):
            with socket.create_connection((service.host, service.port)) as client:
                client.sendall(step * (1 + turn % 2))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.request("POST", "/api1/sequences/shared/next")
            reply = other.getresponse()
            assert (reply.status, json.loads(reply.read())["status"]) == (507, 507)
    assert service.value("current") == 0
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=20) == 0
    reading.join()
    assert "Traceback" not in "".join(service.said)
