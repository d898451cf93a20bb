"""Real proxies in front of a service: nginx as deployed, and haproxy that reuses connections."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.postgres import free_port
from tests.service import Service

Address = tuple[str, int]
Start = Callable[..., Address]
"""Start a proxy in front of a service; see `nginx`."""

_NGINX = Path(__file__).parent.parent / "deploy" / "nginx.conf"
_HAPROXY = Path(__file__).parent / "haproxy.cfg"

UNLIMITED = {
    "rate=100r/s": "rate=1000000r/s",
    "limit_conn connections 50": "limit_conn connections 30000",
}
"""Changes to nginx's configuration: tests have many clients with one address."""


@contextmanager
def nginx(directory: Path) -> Iterator[Start]:
    """Start nginx with our configuration, with other ports, and with these ``changes``."""
    program = _program("nginx")

    def command(
        service: Service, changes: dict[str, str] | None, port: int, own: Path
    ) -> list[str]:
        changed = {
            "listen 80 ": f"listen 127.0.0.1:{port} ",
            "server 127.0.0.1:8080 ": f"server {service.host}:{service.port} ",
            # As root, nginx runs workers as another user, who may not enter directories of tests.
            "events {": f"user {'root' if os.geteuid() == 0 else 'nobody'};\nevents {{",
            **(changes or {}),
        }
        configuration = _changed(_NGINX, changed, own / "nginx.conf")
        return [
            *(program, "-p", str(own), "-c", str(configuration), "-e", str(own / "log")),
            *("-g", f"daemon off; pid {own / 'nginx.pid'};"),
        ]

    with _starting(directory / "nginx", command) as start:
        yield start


@contextmanager
def haproxy(directory: Path) -> Iterator[Start]:
    """Start haproxy with the configuration next to this module, with other ports."""
    program = _program("haproxy")

    def command(
        service: Service, changes: dict[str, str] | None, port: int, own: Path
    ) -> list[str]:
        changed = {
            "bind 127.0.0.1:80": f"bind 127.0.0.1:{port}",
            "server bigfib 127.0.0.1:8080": f"server bigfib {service.host}:{service.port}",
            **(changes or {}),
        }
        return [program, "-db", "-f", str(_changed(_HAPROXY, changed, own / "haproxy.cfg"))]

    with _starting(directory / "haproxy", command) as start:
        yield start


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        reason = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _changed(configuration: Path, changes: dict[str, str], to: Path) -> Path:
    text = configuration.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    to.write_text(text)
    return to


@contextmanager
def _starting(
    directory: Path, command: Callable[[Service, dict[str, str] | None, int, Path], list[str]]
) -> Iterator[Start]:
    with ExitStack() as started:

        def start(service: Service, changes: dict[str, str] | None = None) -> Address:
            port = free_port()
            own = directory / str(port)
            own.mkdir(parents=True)
            with (own / "log").open("a") as log:
                process = subprocess.Popen(
                    command(service, changes, port, own), stdout=log, stderr=log
                )
            started.callback(_stop, process)
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    return "127.0.0.1", port
                assert process.poll() is None, (own / "log").read_text()
                time.sleep(0.01)

        yield start


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait()
