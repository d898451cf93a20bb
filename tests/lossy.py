"""A proxy that loses replies, for tests of clients that must cope with that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.service import Service

_LONG = 1000


class LossyProxy(ThreadingHTTPServer):
    """Pass requests on to a service; lose the first reply to each change, and cut a long one off.

    Attributes:
        passed: Method and path of the changes that have been passed on.
        before_change: Called before a change is passed on.
    """

    daemon_threads = True

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self.passed: list[str] = []
        self.has_cut = False
        self.before_change: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """Return the reply of the service, unless it is to be lost."""

    server: LossyProxy

    def do_GET(self) -> None:
        service, proxy = self.server.service, self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        change = f"{self.command} {self.path}"
        if self.command != "GET":
            proxy.before_change()
        connection = HTTPConnection(service.host, service.port, timeout=20)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        if self.command != "GET":
            proxy.passed.append(change)
            if proxy.passed.count(change) == 1:
                return
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name not in ("Connection", "Transfer-Encoding"):
                self.send_header(name, value)
        self.end_headers()
        if len(content) > _LONG and not proxy.has_cut:
            proxy.has_cut = True
            content = content[:_LONG]
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def lossy(service: Service) -> Iterator[LossyProxy]:
    """Run a proxy in front of the service."""
    with LossyProxy(service) as proxy:
        thread = Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
