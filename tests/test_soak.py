"""A long time of all kinds of requests and faults, compressed: nothing grows, and nothing is lost.

``make torture`` sends five million requests, which takes ten to twenty minutes; ``make test``
sends few, to see that this still works.
"""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bigfib.state import reader
from tests.service import Serve, Service, descriptors, memory, until

CLIENTS = 2
CONNECTIONS = 32


class Crowd:
    """The client processes, and how many requests they have sent."""

    def __init__(self, service: Service, requests: int) -> None:
        self.asked = 0
        self.results: list[dict[str, Any]] = []
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.soak", service.host, str(service.port)),
                    *(str(seed), str(requests // CLIENTS), str(CONNECTIONS)),
                ],
                cwd=Path(__file__).parent.parent,
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(CLIENTS)
        ]
        self._threads = [
            threading.Thread(target=self._listen, args=(process,), daemon=True)
            for process in self._processes
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith("{"):
                    self.results.append(json.loads(line))
                else:
                    self.asked += int(line)

    def ask_on(self) -> bool:
        """Wait a moment; return whether there is more to come."""
        self._threads[0].join(0.1)
        for process in self._processes:
            assert process.poll() in (None, 0), "a client was told something wrong"
        return any(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        """Wait for the end; all clients must have got correct replies."""
        assert [process.wait() for process in self._processes] == [0] * CLIENTS


def kill_a_computation(service: Service) -> bool:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    for child in children.read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
            return True
    return False


@pytest.mark.campaign
def test_soak_of_requests_and_kills_grows_nothing_and_loses_nothing(
    serve: Serve, times: int, tried: Counter[str]
) -> None:
    requests = 5_000_000 if times > 1 else 10_000
    chance = random.Random(8)
    settings = ("--rewrite-bytes", "100000")
    service = serve(*settings)
    again = (*settings, "-p", str(service.port))
    crowd = Crowd(service, requests)
    kills = [requests // 20, requests // 10]
    sizes: list[tuple[int, int]] = []
    while crowd.ask_on():
        if kills and crowd.asked >= kills[0]:
            kills.pop(0)
            service.process.kill()
            service.wait()
            service = serve(*again)
            tried["kills within the soak"] += 1
        if chance.random() < 0.05:
            tried["computations killed"] += kill_a_computation(service)
        sizes.append((crowd.asked, memory(service)))
    crowd.end()
    assert not kills
    assert len(crowd.results) == CLIENTS

    # No client is left. A computation may still run, for as long as it takes.
    fresh = serve("-f", str(service.file.with_name("fresh.log")))
    fresh.value("current")
    at_first = descriptors(fresh)
    until(lambda: service.ask("/livez")[0].status == 200 and descriptors(service) <= at_first)
    if times > 1:  # a few requests do not even fill the caches
        early = [size for asked, size in sizes if requests * 0.2 <= asked <= requests * 0.4]
        late = [size for asked, size in sizes if asked >= requests * 0.8]
        growth = statistics.median(late) / statistics.median(early)
        print(f"memory: {statistics.median(late):,} bytes, {growth:.3f} of what it was")
        assert growth <= 1.05

    assert service.stop(signal.SIGTERM) == 0
    assert "Traceback" not in "".join(service.said)
    require_what_clients_were_told(service.file, crowd)
    for result in crowd.results:
        tried.update({f"soak: {what}": count for what, count in result["answers"].items()})


def require_what_clients_were_told(file: Path, crowd: Crowd) -> None:
    """Assert that the log has each sequence at the position that its client was shown."""
    contents = reader.read(file)
    assert contents.fault is None
    least = most = 0
    for result in crowd.results:
        least += result["least"]
        most += result["most"]
        for sequence_id, position in result["own"].items():
            assert contents.position(bytes.fromhex(sequence_id)) == position
    assert least <= contents.position(b"shared") <= most
