"""What the process says on standard error, and how often."""

import io
import json
import logging
import resource
import signal
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bigfib.stderr import QUIET_SECONDS, OnceInAWhile
from tests.service import Serve


class TestOnceInAWhile:
    @pytest.fixture(autouse=True)
    def writing(self) -> None:
        self.now = 0.0
        self.written = io.StringIO()
        self.handler = OnceInAWhile(self.written, clock=lambda: self.now)

    def say(self, message: str, level: int = logging.ERROR, name: str = "store") -> None:
        self.handler.handle(logging.LogRecord(name, level, "", 0, message, None, None))

    def said(self) -> list[str]:
        return self.written.getvalue().splitlines()

    def test_what_comes_again_is_counted(self) -> None:
        for _ in range(100):
            self.say("full")
        assert self.said() == ["full"]
        self.now += QUIET_SECONDS
        self.say("full")
        assert self.said() == ["full", "full (100 times more)"]
        for _ in range(3):
            self.say("full")
        self.handler.close()
        assert self.said()[2:] == ["full (3 times more)"]

    def test_what_was_said_last_is_how_things_are(self) -> None:
        for message in ("lost", "lost", "back", "lost", "lost"):
            self.say(message)
        assert self.said() == ["lost", "lost (1 times more)", "back", "lost"]

    def test_loggers_do_not_interrupt_each_other(self) -> None:
        for _ in range(3):
            self.say("full", name="log")
            self.say("lost", name="store")
        assert self.said() == ["full", "lost"]

    def test_what_is_no_trouble_is_always_said(self) -> None:
        for _ in range(3):
            self.say("listens", logging.INFO)
        assert self.said() == ["listens"] * 3


def fill_disk(serve: Serve, *arguments: str, times: int) -> str:
    """Return what a service says that is asked for steps which it has no room for."""
    service = serve(*arguments)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for _ in range(times):
        assert service.ask("/api0/next")[0].status == 507
    assert service.stop(signal.SIGTERM) == 0
    return "".join(service.said[1:])


class TestService:
    def test_says_once_that_the_disk_is_full(self, serve: Serve) -> None:
        said = fill_disk(serve, times=50)
        assert said.count("the sequence stays where it is") == 2
        assert "the sequence stays where it is (49 times more)\n" in said

    def test_json(self, serve: Serve, path: Path) -> None:
        lines = fill_disk(serve, "--log-format", "json", "--access-log", times=2).splitlines()
        documents = [json.loads(line) for line in lines]
        assert [document["level"] for document in documents[:1]] == ["error"]
        assert str(path) in documents[0]["message"]
        for document in documents:
            told = datetime.strptime(document["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
            age = datetime.now(timezone.utc) - told.replace(tzinfo=timezone.utc)
            assert 0 <= age.total_seconds() < 60
        access = [document for document in documents if "status" in document]
        assert len(access) == 2
        assert (
            access[0].items()
            >= {
                "client": "127.0.0.1",
                "method": "GET",
                "path": "/api0/next",
                "protocol": "HTTP/1.1",
                "status": 507,
                "bytes": len(b'{"value":"-2","status":"507"}'),
            }.items()
        )
        assert "stopped" in [document.get("message") for document in documents]

    def test_another_format_is_refused(self) -> None:
        from tests.test_server import run

        refused = run("--log-format", "xml", "-p", "0")
        assert refused.returncode == 2
        assert refused.stderr.startswith("bigfib: argument --log-format: invalid choice: 'xml'")
        assert refused.stderr.count("\n") == 1
