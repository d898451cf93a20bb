"""Several workers on one port."""

import os
import re
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.service import Serve
from tests.shared_store.asking import ask, position, run


class TestWorkers:
    def test_workers_share_the_port_and_stop_together(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "3")
        pids = await_children(service.process.pid, 3)
        before = {pid: sockets(pid) for pid in pids}
        with ExitStack() as opened:
            connections = [opened.enter_context(service.connect()) for _ in range(60)]
            for connection in connections:
                assert ask(connection, "/api0/next")[0].status == 200
            # The kernel distributes connections; one of three gets none of 60 once in 10^10 runs.
            assert all(sockets(pid) > baseline for pid, baseline in before.items())
        assert position(database) == 60
        assert service.stop(signal.SIGTERM) == 0
        assert not any(alive(pid) for pid in pids)

    def test_worker_with_one_cpu_keeps_to_it_and_says_which_worker_it_is(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database, "--workers", "3", "--one-cpu")
        allowed = sorted(os.sched_getaffinity(0))
        pids: dict[int, int] = {}

        def note(line: str) -> None:
            assert line, "it has ended"
            place = re.search(r"\(worker (\d) of 3, pid (\d+)\) listens on", line)
            if place:
                pids[int(place[1])] = int(place[2])

        note(service.said[-1])
        assert service.process.stderr is not None
        while len(pids) < 3:
            note(service.process.stderr.readline())
        assert set(pids.values()) == children(service.process.pid)
        # A worker that replaces another gets its CPU.
        os.kill(pids.pop(2), signal.SIGKILL)
        while 2 not in pids:
            note(service.process.stderr.readline())
        for number, pid in pids.items():
            assert os.sched_getaffinity(pid) == {allowed[(number - 1) % len(allowed)]}
        assert service.stop(signal.SIGTERM) == 0

    def test_worker_that_is_killed_is_started_again(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "2")
        pids = await_children(service.process.pid, 2)
        killed = min(pids)
        os.kill(killed, signal.SIGKILL)
        now = await_children(service.process.pid, 2, without=killed)
        assert len(now - pids) == 1
        for _ in range(20):
            service.ask("/api0/next")
        assert position(database) == 20
        assert service.stop(signal.SIGINT) == 0
        assert f"worker {killed} has ended (status -9)" in "".join(service.said)
        assert not any(alive(pid) for pid in now)

    def test_supervisor_that_is_killed_takes_its_workers_along(
        self, serve: Serve, database: str
    ) -> None:
        service = serve("--store", database, "--workers", "2")
        pids = await_children(service.process.pid, 2)
        service.process.kill()
        until = time.monotonic() + 5
        try:
            while any(alive(pid) for pid in pids):
                assert time.monotonic() < until
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def test_workers_that_cannot_serve_are_an_error_of_one_line(self, path: Path) -> None:
        done = run("serve", "-p", "0", "--workers", "2", "--store", "postgresql://127.0.0.1:1/x")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "Connection refused" in done.stderr
        done = run("serve", "-p", "0", "--workers", "2", "-f", str(path))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "--store postgresql://" in done.stderr
        assert not path.exists()

    def test_port_of_workers_is_refused_to_others(self, serve: Serve, database: str) -> None:
        service = serve("--store", database, "--workers", "2")
        done = run("serve", "-p", str(service.port), "--workers", "2", "--store", database)
        assert done.returncode == 1
        assert "Address already in use" in done.stderr


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def await_children(pid: int, count: int, without: int = 0) -> set[int]:
    until = time.monotonic() + 20
    while len(found := children(pid) - {without}) < count:
        assert time.monotonic() < until
    return found


def sockets(pid: int) -> int:
    """Return how many sockets the process has open."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(link.readlink()).startswith("socket:")
    return count


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
