"""An acknowledged step is never lost by the whole service, which is killed, traced, or fails."""

import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.sequences import SHARED
from bigfib.state import floor, reader
from bigfib.state.compaction import REWRITE_BYTES
from bigfib.state.log import Durability, Log
from tests.service import Serve, Service, until

CLIENTS = 4

FLOOR = "state.log.floor>"
"""Part of every call that writes or syncs a floor, which an idle service does, too."""


class Client(threading.Thread):
    """A client that steps forward as fast as it can until the service is gone."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service
        self.sent = 0
        # Keep hashes, because the terms grow.
        self.acknowledged: list[int] = []

    def run(self) -> None:
        try:
            with self._service.connect() as connection:
                while True:
                    self.sent += 1
                    connection.request("GET", "/api0/next")
                    reply = connection.getresponse()
                    self.acknowledged.append(hash(reply.read()))
        except (OSError, HTTPException):
            pass


@pytest.mark.parametrize(
    "kills", [pytest.param(10, id="few"), pytest.param(20, marks=pytest.mark.campaign, id="many")]
)
def test_steps_acknowledged_before_a_kill_under_load_are_kept(
    serve: Serve, tried: Counter[str], times: int, kills: int
) -> None:
    moments = random.Random(kills)
    least = most = 0
    acknowledged: list[int] = []
    for number in range(kills * times):
        # In every other run, the log is being compacted all the while.
        rewriting = ["--rewrite-bytes", "1000"] if number % 2 else []
        service = serve(*rewriting)
        position = service.start_position
        assert least <= position <= most
        assert service.ask("/api0/current")[1] == body_at(position)
        clients = [Client(service) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        threading.Timer(moments.uniform(0, 0.1), service.process.kill).start()
        assert service.wait() == -signal.SIGKILL
        for client in clients:
            client.join()
        least = position + sum(len(client.acknowledged) for client in clients)
        most = position + sum(client.sent for client in clients)
        tried["kills under load"] += 1
        assert most <= least + CLIENTS
        for client in clients:
            acknowledged += client.acknowledged
    assert len(acknowledged) > 10 * kills * times
    # No step was acknowledged twice: only F(1) and F(2) have the same value.
    assert len(set(acknowledged)) >= len(acknowledged) - 1


def until_all_step(clients: list[Client]) -> None:
    until(lambda: min(len(client.acknowledged) for client in clients) > 20)


def until_stopped(pid: int) -> None:
    status = Path(f"/proc/{pid}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")


def body_at(position: int) -> bytes:
    return b'{"value":"%b","status":"200"}' % str(fmpz.fib_ui(fmpz(position))).encode()


class TestSystemCalls:
    """The system calls of the service, in order, by strace."""

    @pytest.fixture
    def strace(self, require: Callable[[str], str], tmp_path: Path) -> list[str]:
        # With -D the service is our child, without strace in between.
        return [require("strace"), "-D", "-f", "-y", "-s", "500", "-o", str(tmp_path / "trace")]

    @pytest.fixture(params=["commits by iterations", "commits each reply"])
    def way(self, request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
        """A command prefix for a service whose event loop can be hooked, or cannot."""
        if request.param == "commits by iterations":
            return []
        # As with a bjoern that contains libev, and does not export its functions.
        (tmp_path / "sitecustomize.py").write_text(
            "import ctypes, _ctypes\n"
            "found = ctypes.PyDLL\n"
            "ctypes.PyDLL = lambda name: found(\n"
            "    _ctypes.__file__ if '_bjoern' in str(name) else name\n"
            ")\n"
        )
        return ["env", f"PYTHONPATH={tmp_path}"]

    def test_every_step_is_written_then_synced_then_sent(
        self, serve: Serve, strace: list[str], way: list[str], tmp_path: Path
    ) -> None:
        service = serve(before=[*strace, "-e", "trace=pwrite64,fdatasync,write", *way])
        with service.connect() as connection:
            for _ in range(5):
                connection.request("GET", "/api0/next")
                connection.getresponse().read()
        assert service.stop(signal.SIGTERM) == 0
        order = []
        for line in (tmp_path / "trace").read_text().splitlines():
            if FLOOR in line:
                continue
            if "pwrite64(" in line and "shared" in line:
                order.append("record")
            elif "fdatasync(" in line:
                order.append("sync")
            elif '\\"status\\":\\"200\\"' in line:
                order.append("digits")
        assert order == ["record", "sync", "digits"] * 5
        assert ("cannot follow this bjoern's event loop" in "".join(service.said)) == bool(way)

    def test_so_is_every_change_of_a_sequence(
        self, serve: Serve, strace: list[str], way: list[str], tmp_path: Path
    ) -> None:
        service = serve(before=[*strace, "-e", "trace=pwrite64,fdatasync,write", *way])
        with service.connect() as connection:
            connection.request("POST", "/api1/sequences")
            reply = connection.getresponse()
            reply.read()
            path = reply.headers["Location"]
            for method, rest in (
                ("POST", "/next"),
                ("POST", "/next?by=9"),
                ("POST", "/previous"),
                ("PUT", ""),
                ("DELETE", ""),
            ):
                body = b'{"position":"3"}' if method == "PUT" else None
                connection.request(method, path + rest, body, {"Content-Type": "application/json"})
                connection.getresponse().read()
        assert service.stop(signal.SIGTERM) == 0
        order = []
        for line in (tmp_path / "trace").read_text().splitlines():
            if FLOOR in line:
                continue
            if "pwrite64(" in line:
                order.append("record")
            elif "fdatasync(" in line:
                order.append("sync")
            elif '\\"position\\":' in line or "204 No Content" in line:
                order.append("answer")
        # The first write is the log's header.
        assert order[-18:] == ["record", "sync", "answer"] * 6

    def test_one_sync_serves_all_replies_of_an_iteration(
        self, serve: Serve, strace: list[str], way: list[str], tmp_path: Path
    ) -> None:
        # Every sync takes 50 ms: all others have sent their requests when the first is done.
        delay = "inject=fdatasync:delay_enter=50000"
        service = serve(before=[*strace, "-e", "trace=fdatasync", "-e", delay, *way])
        address = (service.host, service.port)
        with ExitStack() as connections:
            clients = [
                connections.enter_context(socket.create_connection(address)) for _ in range(20)
            ]
            for _ in range(3):
                for client in clients:
                    client.sendall(b"GET /api0/next HTTP/1.1\r\nHost: localhost\r\n\r\n")
                for client in clients:
                    while not client.recv(65536).endswith(b"}"):
                        pass
        assert service.stop(signal.SIGTERM) == 0
        assert serve().start_position == 60
        lines = (tmp_path / "trace").read_text().splitlines()
        syncs = sum("fdatasync(" in line and FLOOR not in line for line in lines)
        # If iterations cannot be hooked, each reply commits by itself.
        assert 60 <= syncs <= 62 if way else 3 <= syncs <= 6

    def test_iteration_under_load_is_one_write_and_one_sync(
        self, serve: Serve, strace: list[str], tmp_path: Path
    ) -> None:
        service = serve(before=[*strace, "-e", "trace=epoll_wait,pwrite64,fdatasync"])
        clients = [Client(service) for _ in range(16)]
        for client in clients:
            client.start()
        until_all_step(clients)
        service.process.kill()
        service.wait()
        for client in clients:
            client.join()
        trace = (tmp_path / "trace").read_text()
        iterations = [
            re.findall(
                r"(pwrite64|fdatasync)\(",
                "".join(line + "\n" for line in lines.splitlines() if FLOOR not in line),
            )
            for lines in trace.split("epoll_wait(")[1:]
        ]
        writing = [calls for calls in iterations if calls]
        # The kill may cut the last reply short.
        assert len(writing) > 10
        assert all(calls == ["pwrite64", "fdatasync"] for calls in writing[:-1])
        steps = sum(len(client.acknowledged) for client in clients)
        assert steps > 2 * len(writing), "they did not share them"

    def test_no_reply_shows_more_than_is_synced(
        self, serve: Serve, strace: list[str], way: list[str], tmp_path: Path
    ) -> None:
        """Each of these numbers of clients shares iterations, syncs and records."""
        service = serve(before=[*strace, "-xx", "-e", "trace=pwrite64,fdatasync,write", *way])

        def step() -> None:
            with service.connect() as connection:
                for _ in range(30):
                    connection.request("POST", "/api1/sequences/shared/next")
                    assert connection.getresponse().read().startswith(b"{")

        clients = [threading.Thread(target=step) for _ in range(16)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert service.stop(signal.SIGTERM) == 0
        written = synced = 0
        told = []
        for line in (tmp_path / "trace").read_text().splitlines():
            data = bytes.fromhex("".join(re.findall(r"\\x(..)", line)))
            # In a record, id and position follow their lengths.
            record = re.search(rb"\x06shared(.)(..)", data, re.DOTALL)
            if "pwrite64(" in line:
                if record:
                    written = int.from_bytes(record[2][: record[1][0]], "big")
            elif re.search(r"fdatasync.* = 0$", line):
                synced = written
            elif told_now := re.search(rb'"position":"(\d+)"', data):
                told.append(int(told_now[1]))
                assert told[-1] <= synced
        assert sorted(told) == list(range(1, 481))

    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", "/api0/next"),
            ("POST", "/api1/sequences/shared/next"),
            ("POST", "/api1/sequences"),
        ],
    )
    def test_a_failed_sync_is_the_end(
        self,
        serve: Serve,
        strace: list[str],
        way: list[str],
        path: Path,
        tmp_path: Path,
        method: str,
        target: str,
    ) -> None:
        failure = "inject=fdatasync:error=EIO:when=3"
        only = ["-P", str(path)]
        service = serve(before=[*strace, *only, "-e", "trace=fdatasync", "-e", failure, *way])
        assert [service.value("next") for _ in range(2)] == [1, 1]
        with pytest.raises(HTTPException):
            service.ask(target, method)
        assert service.wait() == 1
        assert re.fullmatch(
            r"bigfib: state log .*: Input/output error while syncing; .* restart the service .*\n",
            service.said[-1],
        )
        assert (tmp_path / "trace").read_text().count("fdatasync(") == 3, "it was tried again"
        assert serve().start_position in (2, 3)

    @pytest.mark.parametrize(
        ("method", "target"), [("GET", "/api0/next"), ("POST", "/api1/sequences")]
    )
    def test_a_rewriting_that_is_not_durable_is_the_end(
        self, serve: Serve, strace: list[str], path: Path, method: str, target: str
    ) -> None:
        with Log(path, Durability.OS) as log:
            while log.size < REWRITE_BYTES - 500:
                log.note(SHARED, 7)
                log.commit()
        # The syncs of the main thread: two when the log is opened, then that of the directory.
        failure = "inject=fsync:error=EIO:when=3"
        service = serve("--durability", "os", before=[*strace, "-e", "trace=fsync", "-e", failure])

        def is_seen() -> bool:
            # No reply waits for a sync here, so the next change is the first to notice.
            service.value("next")
            return service.ask("/readyz")[0].status != 200

        until(is_seen)
        reply, body = service.ask("/readyz")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert b"is unavailable" in body
        assert service.ask("/readyz?verbose")[0].status == 503
        with pytest.raises(HTTPException):
            service.ask(target, method)
        assert service.wait() == 1
        assert re.fullmatch(
            r"bigfib: state log .*: Input/output error while syncing its directory; .*\n",
            "".join(service.said[1:]),
        )


class TestTheFileItself:
    @pytest.mark.parametrize("how", ["removed", "replaced"])
    def test_a_log_taken_away_is_the_end(self, serve: Serve, path: Path, how: str) -> None:
        service = serve()
        assert service.value("next") == 1
        if how == "removed":
            path.unlink()
        else:
            other = path.with_name("other")
            other.write_bytes(path.read_bytes())
            other.rename(path)
        with pytest.raises(HTTPException):
            service.ask("/api0/next")
        assert service.wait() == 1
        assert f"state log {path}: it has been {how};" in "".join(service.said)

    @pytest.mark.parametrize("durability", Durability)
    @pytest.mark.parametrize("how", ["truncated", "truncated to half", "written to"])
    def test_log_changed_by_another_under_load_ends_the_service(
        self, serve: Serve, path: Path, how: str, durability: Durability, times: int
    ) -> None:
        """No request after the change is acknowledged."""
        moments = random.Random(11)
        for _ in range(3 * times):
            path.unlink(missing_ok=True)
            floor.path_of(path).unlink(missing_ok=True)
            service = serve("--durability", durability.value)
            clients = [Client(service) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            until_all_step(clients)
            time.sleep(moments.uniform(0, 0.02))
            # Stopped, so that it is known which requests were sent before.
            service.process.send_signal(signal.SIGSTOP)
            until_stopped(service.process.pid)
            sent = sum(client.sent for client in clients)
            if how == "written to":
                with path.open("ab") as file:
                    file.write(b"a line\n")
            else:
                os.truncate(path, path.stat().st_size // 2 if how == "truncated to half" else 0)
            service.process.send_signal(signal.SIGCONT)
            assert service.wait() == 1
            for client in clients:
                client.join()
            # Requests on their way when the service was stopped may have been committed before.
            assert sum(len(client.acknowledged) for client in clients) <= sent
            said = "".join(service.said)
            assert f"state log {path}: another program has {how.split(' to half')[0]}" in said

    def test_step_on_a_full_file_system_is_507_until_there_is_room(
        self, serve: Serve, require: Callable[[str], str], tmp_path: Path
    ) -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            [require("mount"), "-t", "tmpfs", "-o", "size=64k", "tmpfs", small],
            capture_output=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip("mounting is not permitted; test_stepping.py limits the file")
        try:
            service = serve("-f", str(small / "state.log"))
            ballast = small / "ballast"
            with pytest.raises(OSError, match="No space left"):
                ballast.write_bytes(bytes(1 << 20))
            steps = 0
            while (answer := service.ask("/api0/next"))[0].status == 200:
                steps += 1
            # The last page of the log had room for this much.
            assert 10 < steps < 1000
            assert answer[0].status == 507
            assert answer[1] == b'{"value":"-2","status":"507"}'
            assert service.ask("/api0/current")[1] == body_at(steps)
            ballast.unlink()
            assert service.ask("/api0/next")[1] == body_at(steps + 1)
            assert service.stop(signal.SIGTERM) == 0
            assert reader.read(small / "state.log").position(b"shared") == steps + 1
        finally:
            subprocess.run(["umount", "-l", small], check=True)
