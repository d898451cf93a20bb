"""The programs of docs/clients.md, run against a service whose replies get lost."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from flint import fmpz

from tests.api.sequences import tagged
from tests.service import Serve, Service

CLIENTS = Path(__file__).parent.parent / "docs" / "clients.md"
N = 1_100_000


class LossyProxy(ThreadingHTTPServer):
    """Pass requests on to a service; lose the reply to a step, and one in the middle of a part.

    Attributes:
        steps: The paths of the steps that have been passed on, each time that they were.
        lost: What kinds of replies have been lost.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.service = service
        self.steps: list[str] = []
        self.lost: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    """Answers by what the service answers, unless that is to be lost."""

    server: LossyProxy

    def do_GET(self) -> None:
        service = self.server.service
        connection = HTTPConnection(service.host, service.port, timeout=20)
        connection.request(self.command, self.path, None, dict(self.headers.items()))
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        if self.path.endswith("/next"):
            self.server.steps.append(self.path)
            if "step" not in self.server.lost:
                self.server.lost.add("step")
                return
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name not in ("Connection", "Transfer-Encoding"):
                self.send_header(name, value)
        self.end_headers()
        first = reply.headers.get("Content-Range", "bytes 0-").startswith("bytes 0-")
        if not first and "part" not in self.server.lost:
            self.server.lost.add("part")
            body = body[:1000]
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Leave standard error alone."""


@pytest.fixture
def lossy(serve: Serve) -> Iterator[LossyProxy]:
    with LossyProxy(serve()) as proxy:
        thread = Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def run(language: str, command: list[str], file: Path, proxy: LossyProxy) -> str:
    """Run the program of docs/clients.md in this language; return what it prints."""
    found = re.findall(rf"```{language}\n(.*?)```", CLIENTS.read_text(), re.DOTALL)
    assert len(found) == 1
    assert found[0].count("localhost:8080") == 1
    file.write_text(found[0].replace("localhost:8080", f"127.0.0.1:{proxy.server_port}"))
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.campaign
@pytest.mark.parametrize("language", ["python", "js", "go"])
def test_client_whose_replies_are_lost_steps_once_and_gets_every_digit(
    language: str,
    lossy: LossyProxy,
    require: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without a C compiler, too.
    monkeypatch.setenv("CGO_ENABLED", "0")
    programs = {"python": sys.executable, "js": "node", "go": "go"}
    command = [require(programs[language]), *(["run"] if language == "go" else [])]
    name = {"python": "client.py", "js": "client.mjs", "go": "client.go"}[language]
    value = fmpz.fib_ui(fmpz(N))
    printed = run(language, command, tmp_path / name, lossy)
    assert printed == (
        f"position 1\n{len(str(value))} digits, modulo 1000000007: {int(value % 1_000_000_007)}\n"
    )
    assert lossy.lost == {"step", "part"}
    # Sent again, and made once: the program was told so by the position.
    path, again = lossy.steps
    assert path == again
    reply, _ = lossy.service.ask(path.removesuffix("/next"))
    assert tagged(reply) == 1
