"""The service under systemd, or a program with its protocols: sockets, notifications, units."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bigfib.server import systemd
from bigfib.state import reader
from tests.service import Serve, Service, until

ROOT = Path(__file__).parents[2]

CLIENTS = 20
REQUESTS = 40
PERIOD = 0.1
"""The pause of each client in seconds: together they send 200 requests a second."""


def handing_over(*sockets: socket.socket, pid: str = "$$") -> list[str]:
    """Return a command that runs another one as systemd would, with these sockets."""
    moved = "".join(f"exec {3 + i}<&{each.fileno()}; " for i, each in enumerate(sockets))
    variables = f"LISTEN_PID={pid} LISTEN_FDS={len(sockets)} LISTEN_FDNAMES=http"
    return ["bash", "-c", f'{moved}{variables} exec "$0" "$@"']


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket as systemd opens it, with a descriptor higher than those handed over."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as opened:
        high = socket.socket(fileno=os.dup(opened.fileno()))
    moved = socket.socket(fileno=fcntl.fcntl(high.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))
    high.close()
    with moved:
        yield moved


class Load:
    """Clients that make steps; half of them keep their connection while they can."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: list[int] = []
        self.failed: list[str] = []
        self.connections = 0

    def run(self, number: int) -> None:
        keeps = number % 2 == 0
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        begun = time.monotonic()
        for request in range(REQUESTS):
            time.sleep(max(0.0, begun + (request + number / CLIENTS) * PERIOD - time.monotonic()))
            try:
                # The client opens a new connection if the last reply announced that it is closed.
                self.connections += connection.sock is None
                connection.request(
                    "GET", "/api0/next", headers={} if keeps else {"Connection": "close"}
                )
                reply = connection.getresponse()
                body = reply.read()
            except OSError as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            found = re.fullmatch(rb'\{"value":"(\d+)","status":"200"\}', body)
            if found:
                self.acknowledged.append(int(found[1]))
            else:
                self.failed.append(f"{reply.status} {body!r}")
        connection.close()

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self.run, args=(i,)) for i in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.acknowledged) + len(self.failed) >= count)


class TestHandedOver:
    def test_restart_refuses_no_client_and_loses_no_step(
        self, serve: Serve, listener: socket.socket
    ) -> None:
        def start() -> Service:
            return serve(before=handing_over(listener), inherits=(listener.fileno(),))

        service = start()
        assert service.port == listener.getsockname()[1]
        with Load(service.port) as load:
            for restart in range(1, 4):
                load.wait_for(restart * CLIENTS * REQUESTS // 5)
                assert service.stop(signal.SIGTERM) == 0
                service = start()
        assert load.failed == []
        assert len(load.acknowledged) == CLIENTS * REQUESTS
        # The restarts happened during requests: clients that keep connections needed new ones.
        assert load.connections > CLIENTS // 2 * (REQUESTS + 1)
        # F(1) and F(2) have the same value.
        assert len(set(load.acknowledged)) == CLIENTS * REQUESTS - 1
        assert service.stop(signal.SIGTERM) == 0
        assert reader.read(service.file).position(b"shared") == CLIENTS * REQUESTS

    def test_client_that_has_only_connected_is_served_before_the_stop(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            with service.connect() as idle:
                idle.connect()
                # Longer than a client would wait.
                time.sleep(1)
                connection.connect()
                service.process.send_signal(signal.SIGTERM)
                # Connections are being closed.
                assert idle.sock.recv(1) == b""
            connection.request("GET", "/api0/next")
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("Connection", "")[:5]) == (200, "close")
        assert service.wait() == 0

    def test_inherited_socket_has_the_options_of_our_own(
        self, serve: Serve, listener: socket.socket
    ) -> None:
        service = serve(before=handing_over(listener), inherits=(listener.fileno(),))
        # The two share their settings.
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_blocking(listener.fileno())
        assert service.value("next") == 1

    def test_workers_share_an_inherited_socket(
        self, serve: Serve, listener: socket.socket, database: str
    ) -> None:
        service = serve(
            *("--workers", "2", "--store", database),
            before=handing_over(listener),
            inherits=(listener.fileno(),),
        )
        assert [service.value("next") for _ in range(3)] == [1, 1, 2]
        assert service.stop(signal.SIGTERM) == 0
        # The socket still listens, so that connections are not refused.
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass

    def test_client_that_trickles_is_closed_and_others_are_not_refused(
        self, serve: Serve, listener: socket.socket
    ) -> None:
        service = serve(before=handing_over(listener), inherits=(listener.fileno(),))
        with socket.create_connection(listener.getsockname()) as trickling:
            trickling.sendall(b"GET /api0/next HTTP/1.1\r\n")
            service.process.send_signal(signal.SIGTERM)
            # The deadline of 5 seconds ends it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    trickling.sendall(b"X")
                    time.sleep(0.1)
        assert service.wait() == 0
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass

    def test_socket_for_another_process_is_left_alone(
        self, serve: Serve, listener: socket.socket
    ) -> None:
        before = handing_over(listener, pid="1")
        service = serve(before=before, inherits=(listener.fileno(),))
        assert service.port != listener.getsockname()[1]

    @pytest.mark.parametrize(
        "kind", ["two", "unix", "datagram", "file", "closed", "unbound", "bound", "connected"]
    )
    def test_unsuitable_socket_is_refused_in_one_line(
        self, path: Path, listener: socket.socket, kind: str
    ) -> None:
        with contextlib.ExitStack() as opened:
            sockets = [listener]
            says = "2 sockets"
            if kind == "two":
                sockets *= 2
            elif kind in ("file", "closed"):
                says = "no socket"
            elif kind in ("unbound", "bound", "connected"):
                says = "does not listen"
                sockets = [opened.enter_context(socket.socket())]
                if kind == "bound":
                    sockets[0].bind(("127.0.0.1", 0))
                elif kind == "connected":
                    sockets[0].connect(listener.getsockname())
            else:
                says = "not TCP"
                family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
                form = socket.SOCK_STREAM if kind == "unix" else socket.SOCK_DGRAM
                sockets = [opened.enter_context(socket.socket(family, form))]
            before = handing_over(*sockets)
            if kind in ("file", "closed"):
                third = "exec 3</dev/null; " if kind == "file" else "exec 3<&-; "
                before[2] = third + before[2].replace(f"exec 3<&{listener.fileno()}; ", "")
            refused = subprocess.run(
                [*before, sys.executable, "-m", "bigfib", "serve", "-f", path],
                pass_fds=[each.fileno() for each in sockets],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        assert refused.returncode == 1
        assert re.fullmatch(rf"bigfib: .*{says}.*\n", refused.stderr), refused.stderr
        assert not path.exists()

    def test_socket_activation_by_systemd_itself_serves(
        self, path: Path, require: Callable[[str], str]
    ) -> None:
        activate = require("systemd-socket-activate")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # It starts the service at the first connection, and hands the connection over.
        with subprocess.Popen(
            [
                *(activate, "-l", f"127.0.0.1:{port}", sys.executable, "-m", "bigfib", "serve"),
                *("-f", path, "--cache-dir", path.with_name("cache")),
            ],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                while "Listening on" not in process.stderr.readline():
                    assert process.poll() is None
                with contextlib.closing(
                    HTTPConnection("127.0.0.1", port, timeout=20)
                ) as connection:
                    connection.request("GET", "/api0/next")
                    assert b'"1"' in connection.getresponse().read()
            finally:
                process.terminate()
            process.communicate()
            assert process.returncode == 0


class Manager:
    """The notifications that systemd gets."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)

    def hear(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    # The address of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as directory:
        manager = Manager(Path(directory) / "notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        with manager.socket:
            yield manager


class TestNotifications:
    def test_service_notifies_of_start_life_and_stop(
        self, serve: Serve, manager: Manager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        service = serve()
        assert manager.hear() == [f"STATUS={service.url}; state log {service.file}"]
        for _ in range(4):
            assert manager.hear() == ["READY=1", "WATCHDOG=1"]
        service.process.send_signal(signal.SIGTERM)
        while (heard := manager.hear()) != ["STOPPING=1"]:
            assert heard == ["READY=1", "WATCHDOG=1"]
        assert service.wait() == 0

    @pytest.mark.parametrize(
        ("name", "why"), [("nobody", "No such file"), ("n" * 108, "path too long")]
    )
    def test_notification_that_fails_is_logged_and_does_no_harm(
        self,
        serve: Serve,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        why: str,
    ) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / name))
        service = serve()
        assert service.value("next") == 1
        assert service.stop(signal.SIGTERM) == 0
        assert re.search(f"cannot notify systemd: .*{why}", "".join(service.said))

    def test_supervisor_notifies_for_its_workers(
        self, serve: Serve, manager: Manager, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        service = serve("--workers", "2", "--store", database)
        assert manager.hear() == ["READY=1", "STATUS=2 workers"]
        for _ in range(4):
            assert manager.hear() == ["WATCHDOG=1"]
        assert service.stop(signal.SIGTERM) == 0

    def test_worker_that_stops_reporting_is_killed_and_replaced(
        self, serve: Serve, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        service = serve("--workers", "2", "--store", database)
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
        worker = int(children.read_text().split()[0])
        assert service.process.stderr is not None
        lines = iter(service.process.stderr.readline, "")

        def give_up() -> None:
            service.process.kill()
            os.kill(worker, signal.SIGCONT)

        deadline = threading.Timer(60, give_up)
        deadline.start()
        # The second, which is started when the first has told that it answers: until then that one
        # may take a minute.
        assert any("listens on" in line for line in lines)
        os.kill(worker, signal.SIGSTOP)
        assert any("has not answered for 2 s; it is killed" in line for line in lines)
        deadline.cancel()
        assert any("listens on" in line for line in lines)
        assert service.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("microseconds", "seconds"),
    [
        ("30000000", 30.0),
        ("1", 0.1),
        ("999999999999", 999_999.999999),
        ("0", None),
        ("", None),
        ("18446744073709551615", None),
        ("9" * 5000, None),
        ("\u0663", None),
    ],
)
def test_watchdog_seconds_are_read_from_the_environment(
    microseconds: str,
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert systemd.watchdog_seconds() == seconds
    assert len(caplog.messages) == (seconds is None and microseconds not in ("", "0"))


LOOP = """
import sys, time
from bigfib.server import systemd

def loop(call):
    while True:
        call()

def tell():
    print("told", flush=True)

kind = sys.argv[1]
def forever():
    while True:
        pass
def in_c():
    sum(iter(int, 1))

def turn():
    while True:
        time.sleep(0.01)
        soon()
def soon():
    time.sleep(0.01)

calls = {
    "turns": lambda: time.sleep(0.01), "a long turn": turn,
    "within Python": forever, "within C": in_c,
}
with systemd.notifying(tell, 0.2, loop.__code__, turn.__code__):
    loop(calls[kind])
"""


@pytest.mark.parametrize(
    ("kind", "told"), [("turns", 20), ("a long turn", 20), ("within Python", 2), ("within C", 2)]
)
def test_watchdog_is_notified_only_while_the_loop_is_alive(kind: str, told: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, kind], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), True)
        if told == 20:
            lines = [process.stdout.readline() for _ in range(told)]
            assert lines == ["told\n"] * told
            process.kill()
            return
        assert process.stdout.readline() == "told\n"
        # Ten times as long as clients would wait: at the start, and when the call is first noticed.
        time.sleep(2)
        process.kill()
        assert 1 + len(process.stdout.readlines()) <= told


class TestUnits:
    UNITS = (ROOT / "deploy" / "bigfib.service", ROOT / "deploy" / "bigfib.socket")

    def test_units_beside_a_faulty_one_pass_systemd_analyze_verify(
        self, require: Callable[[str], str], tmp_path: Path
    ) -> None:
        analyze = require("systemd-analyze")
        for unit in self.UNITS:
            # The programs that they run are not installed here.
            text = unit.read_text().replace("/opt/bigfib/.venv/bin/bigfib", sys.executable)
            text = re.sub("^Documentation=.*$", "", text, flags=re.MULTILINE)
            (tmp_path / unit.name).write_text(text)
        # systemd-analyze reads all units that ours need: here, one with a fault of its own.
        other = tmp_path / "others" / "other.service"
        (other.parent / "sysinit.target.wants").mkdir(parents=True)
        (other.parent / "sysinit.target.wants" / other.name).symlink_to(other)
        other.write_text("[Service]\nExecStart=/bin/true\nStandardOutput=syslog\n")
        done = subprocess.run(
            [
                *(analyze, "verify", "--recursive-errors=no"),
                *(tmp_path / unit.name for unit in self.UNITS),
            ],
            env=os.environ | {"SYSTEMD_UNIT_PATH": f"{other.parent}:"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")

    def test_unit_sets_no_limit_of_starts(self) -> None:
        unit = self.UNITS[0].read_text().split("[Service]")[0]
        # Otherwise five starts in ten seconds are the limit, which takes the socket down, too.
        assert "\nStartLimitIntervalSec=0\n" in unit

    def test_unit_exposure_is_rated_ok(self, require: Callable[[str], str]) -> None:
        # 0 is no exposure, 10 full exposure; from 2 on it is no longer rated as OK.
        command = [require("systemd-analyze"), "security", "--offline=true", "--threshold=19"]
        done = subprocess.run(
            [*command, self.UNITS[0]], capture_output=True, text=True, timeout=60, check=False
        )
        assert "Overall exposure level for bigfib.service" in done.stdout
        assert done.returncode == 0, done.stdout

    def test_service_runs_under_memory_deny_write_execute(self, serve: Serve) -> None:
        # What MemoryDenyWriteExecute= does: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN).
        deny = "import ctypes, os, sys; denied = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)"
        run = "os.execv(sys.argv[1], sys.argv[1:])"
        before = [sys.executable, "-c", f"{deny}; denied and sys.exit('PR_SET_MDWE'); {run}"]
        if subprocess.run([*before, "/bin/true"], capture_output=True, check=False).returncode:
            pytest.skip("PR_SET_MDWE needs Linux 6.3")
        service = serve(before=before)
        assert service.value("next") == 1
        # A term that is long enough for the kernel by ctypes, and one that a child computes.
        assert service.ask("/api1/terms/1000000")[0].status == 200
        until(lambda: service.ask("/api1/terms/1000001")[0].status == 200)
        assert service.stop(signal.SIGTERM) == 0
