"""Messages on standard error, and how often they are repeated."""

import io
import json
import logging
import resource
import secrets
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path

import falcon.testing
import pytest

from bigfib.api.app import create_app
from bigfib.numbers.decimals import DecimalPair
from bigfib.sequences import Sequences
from bigfib.server.logs import QUIET_SECONDS, RepeatLimiter, configure
from bigfib.settings import LogFormat
from bigfib.state.log import Log
from tests.service import Serve, jobs


class TestRepeatLimiter:
    @pytest.fixture(autouse=True)
    def writing(self) -> None:
        self.now = 0.0
        self.written = io.StringIO()
        self.handler = RepeatLimiter(self.written, clock=lambda: self.now)

    def say(self, message: str, level: int = logging.ERROR, name: str = "store") -> None:
        self.handler.handle(logging.LogRecord(name, level, "", 0, message, None, None))

    def said(self) -> list[str]:
        return self.written.getvalue().splitlines()

    def test_message_that_comes_again_is_counted(self) -> None:
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

    def test_message_after_another_is_written_again(self) -> None:
        for message in ("lost", "lost", "back", "lost", "lost"):
            self.say(message)
        assert self.said() == ["lost", "lost (1 times more)", "back", "lost"]

    def test_loggers_do_not_interrupt_each_other(self) -> None:
        for _ in range(3):
            self.say("full", name="log")
            self.say("lost", name="store")
        assert self.said() == ["full", "lost"]

    def test_information_is_always_written(self) -> None:
        for _ in range(3):
            self.say("listens", logging.INFO)
        assert self.said() == ["listens"] * 3


Configured = Callable[[LogFormat], None]


@pytest.fixture
def configured() -> Iterator[Configured]:
    """Configure logging of this process as in a service, until the end of the test."""
    root = logging.getLogger()
    level, before = root.level, root.handlers.copy()
    yield configure
    root.setLevel(level)
    for handler in root.handlers.copy():
        if handler not in before:
            root.removeHandler(handler)


def fill_disk(serve: Serve, *arguments: str, times: int) -> str:
    """Return the messages of a service that is asked for steps and has no room for them."""
    service = serve(*arguments)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for _ in range(times):
        assert service.ask("/api0/next")[0].status == 507
    assert service.stop(signal.SIGTERM) == 0
    return "".join(service.said[1:])


class TestService:
    def test_full_disk_is_logged_once_with_a_count(self, serve: Serve) -> None:
        said = fill_disk(serve, times=50)
        assert said.count("the sequence stays where it is") == 2
        assert "the sequence stays where it is (49 times more)\n" in said

    def test_json_lines_have_time_level_and_request(self, serve: Serve, path: Path) -> None:
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

    def test_failure_that_ends_the_service_is_logged_as_json(
        self, serve: Serve, require: Callable[[str], str], tmp_path: Path
    ) -> None:
        strace = [require("strace"), "-D", "-f", "-o", str(tmp_path / "trace")]
        failure = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"]
        service = serve("--log-format", "json", before=[*strace, *failure])
        with pytest.raises(HTTPException):
            service.ask("/api0/next")
        assert service.wait() == 1
        document = json.loads(service.said[-1])
        assert document["level"] == "critical"
        assert "Input/output error while syncing" in document["message"]

    def test_failure_to_start_is_logged_as_json(self, serve: Serve) -> None:
        from tests.server.test_serve import run

        service = serve()
        refused = run("--log-format", "json", "-p", str(service.port))
        assert refused.returncode == 1
        assert "Address already in use" in json.loads(refused.stderr)["message"]

    def test_unexpected_error_is_logged_once_with_its_route(
        self, path: Path, capsys: pytest.CaptureFixture[str], configured: Configured
    ) -> None:
        """A repeated message is one document, with the route and not with the id."""

        configured(LogFormat.JSON)

        def fail(_: int) -> DecimalPair:
            raise ZeroDivisionError("nobody foresaw it")

        with Log(path) as log:
            ids = [secrets.token_bytes(16) for _ in range(5)]
            for one in ids:
                log.note(one, 7)
            sequences = Sequences(log, pair_at=fail)
            app = create_app(log, sequences, jobs(path), per_client=False)
            for one in ids:
                reply = falcon.testing.simulate_get(app, f"/api1/sequences/{one.hex()}")
                assert reply.status_code == 500
                assert reply.headers["Content-Type"] == "application/problem+json"
                assert reply.headers["X-Content-Type-Options"] == "nosniff"
                assert "standard error" in reply.json["detail"]
        (document,) = map(json.loads, capsys.readouterr().err.splitlines())
        assert document["message"] == "/api1/sequences/{sequence_id}"
        assert document["level"] == "error"
        assert document["exception"].endswith("ZeroDivisionError: nobody foresaw it")
        assert not [one for one in ids if one.hex()[:6] in document["exception"]]

    def test_unknown_log_format_is_refused(self) -> None:
        from tests.server.test_serve import run

        refused = run("--log-format", "xml", "-p", "0")
        assert refused.returncode == 2
        assert refused.stderr.startswith("bigfib: argument --log-format: invalid choice: 'xml'")
        assert refused.stderr.count("\n") == 1
