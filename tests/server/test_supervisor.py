"""The supervisor of several workers: what it starts, restarts and kills."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.server import supervisor
from tests.service import Serve, until


def test_worker_that_never_reports_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STARTING_SECONDS", 0.0)
    with subprocess.Popen(["sleep", "60"]) as process:
        worker = supervisor.Worker()
        worker.note_start(process.pid)
        worker.kill_if_silent(60.0)
        assert process.poll() is None

        def is_killed() -> bool:
            worker.kill_if_silent(0.01)
            return process.poll() is not None

        try:
            until(is_killed)
            assert process.wait() == -signal.SIGKILL
        finally:
            process.kill()


@pytest.fixture
def failing_fork(require: Callable[[str], str], tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a command that runs a process in which forks with these numbers fail (EAGAIN)."""

    def command(when: str) -> list[str]:
        return [
            *(require("strace"), "-D", "-o", str(tmp_path / "trace"), "-e", "trace=clone"),
            *("-e", f"inject=clone:error=EAGAIN:when={when}"),
        ]

    return command


def test_fork_that_fails_at_the_start_is_reported_in_a_line(
    failing_fork: Callable[[str], list[str]], database: str
) -> None:
    done = subprocess.run(
        [
            *failing_fork("1"),
            *(sys.executable, "-m", "bigfib", "serve", "-p", "0", "--workers", "2"),
            *("--store", database),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        "bigfib: cannot start a worker process: Resource temporarily unavailable; .*ulimit -u.*\n",
        done.stderr,
    )


def test_fork_that_fails_at_a_restart_is_retried(
    serve: Serve, failing_fork: Callable[[str], list[str]], database: str
) -> None:
    # The first two forks start the workers; the next three replace the one that is killed.
    service = serve("--workers", "2", "--store", database, before=failing_fork("3..5"))
    assert service.process.stderr is not None
    pids: list[int] = []
    lines: list[str] = []

    def await_worker() -> None:
        for line in iter(service.process.stderr.readline, ""):  # type: ignore[union-attr]
            lines.append(line)
            if "listens on" in line:
                pids.append(int(re.findall(r"pid (\d+)", line)[0]))
                return
        raise AssertionError(lines)

    await_worker()
    os.kill(pids[0], signal.SIGKILL)
    await_worker()
    assert pids[1] != pids[0]
    assert sum("cannot start worker 2: Resource temporarily" in line for line in lines) == 1
    assert service.value("next") == 1
    assert service.stop(signal.SIGTERM) == 0
    assert "temporarily unavailable; trying again (2 times more)" in "".join(service.said)
