"""Run a real PostgreSQL in its own directory, for tests."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
from psycopg import pq

from tests.service import until

# The newest version, by number: Debian keeps the programs outside of PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))

_SETTINGS = {
    "shared_buffers": "16MB",
    "max_connections": "40",
    "autovacuum": "off",
    # A standby looks for its primary, and for what it has missed, ten times a second.
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "100ms",
    "listen_addresses": "127.0.0.1",
}


def program(name: str) -> Path:
    """Return the path of one of PostgreSQL's programs; without it skip, or fail in CI."""
    found = shutil.which(name) or next(
        (str(path / name) for path in reversed(_DEBIAN) if (path / name).exists()), None
    )
    if found is None:
        missing(f"{name} of PostgreSQL (Debian: postgresql)")
    return Path(found)


def missing(name: str) -> NoReturn:
    """Skip the test for lack of a program, or fail in CI."""
    reason = f"{name} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Cluster:
    """One server and its data.

    Attributes:
        port: Where it listens on 127.0.0.1.
        before: A command that runs the server, such as one that sets its clock; empty for none.
    """

    before: Sequence[str] = ()

    def __init__(
        self, template: "Cluster | None" = None, programs: Callable[[str], Path] = program
    ) -> None:
        """Create a cluster without starting it, from the stopped ``template`` if there is one."""
        self._program = programs
        self.directory = Path(tempfile.mkdtemp(prefix="bigfib-postgres-"))
        self._own(self.directory)
        self.data = self.directory / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if template:
            self._run("cp", "-r", str(template.data), str(self.data))
        else:
            self._run(
                *(str(self._program("initdb")), "-D", str(self.data), "-U", "postgres"),
                *("-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"),
            )

    @staticmethod
    def _own(path: Path) -> None:
        """Give a directory to the user who runs the server, which refuses to be run by root."""
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(path, user.pw_uid, user.pw_gid)

    @staticmethod
    def as_user(*command: str) -> list[str]:
        if os.geteuid() != 0:
            return list(command)
        return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            self.as_user(*command), capture_output=True, text=True, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr

    def start(self, **settings: str) -> None:
        """Start it, and wait until it accepts connections."""
        options = [
            option
            for name, value in {**_SETTINGS, **settings}.items()
            for option in ("-c", f"{name}={value}")
        ]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.as_user(
                    *(*self.before, str(self._program("postgres")), "-D", str(self.data)),
                    *("-p", str(self.port), "-k", str(self.directory), *options),
                ),
                stdout=log,
                stderr=log,
                cwd="/",
            )
        address = b"host=127.0.0.1 port=%d" % self.port
        while pq.PGconn.ping(address) != pq.Ping.OK:
            assert self.process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it at once, but in order, and wait for its end."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its processes, as a power failure would."""
        assert self.process is not None
        self._signal_all(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        """Pause the processes: connections stay open, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in [self.process.pid, *map(int, children.read_text().split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _signal(self, number: int) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()
        self.process = None

    def remove(self) -> None:
        """Stop it in any state, and remove its files."""
        if self.process and self.process.poll() is None:
            self.resume()
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def standby(self, port: int) -> "Cluster":
        """Return a standby of this server, which is running; the standby is not started."""
        other = Cluster.__new__(Cluster)
        other._program = self._program
        other.directory = Path(tempfile.mkdtemp(prefix="bigfib-postgres-"))
        self._own(other.directory)
        other.data = other.directory / "data"
        other.port = port
        other.process = None
        other._run(
            *(str(program("pg_basebackup")), "-D", str(other.data), "-R", "--no-sync"),
            *("-c", "fast", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"),
        )
        return other

    def promote(self) -> None:
        """Promote the standby to a primary, and wait until it is one."""
        self._run(str(program("pg_ctl")), "promote", "-w", "-D", str(self.data))

    def cancel_waits(self) -> int:
        """Cancel all waits for a standby, as an administrator might; return how many."""
        waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return len(self.sql(f"SELECT pg_cancel_backend(pid) {waits}"))

    def await_lock(self) -> None:
        """Wait until a statement waits for a lock that another holds."""
        until = time.monotonic() + 20
        while not self.sql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            assert time.monotonic() < until

    def offer_tls(self, user: str) -> Path:
        """Offer TLS as ``localhost``, accept ``user`` only by TLS, and return the authority."""
        authority, key, request, certificate = (
            self.data / name for name in ("ca.pem", "server.key", "server.csr", "server.crt")
        )
        of = self.data / "san"
        of.write_text("subjectAltName=DNS:localhost\n")
        ca_key = self.data / "ca.key"
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        for arguments in (
            ("req", "-x509", *new, "-subj", "/CN=a", "-keyout", ca_key, "-out", authority),
            ("req", *new, "-subj", "/CN=localhost", "-keyout", key, "-out", request),
            (
                *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", ca_key),
                *("-CAcreateserial", "-extfile", of, "-out", certificate),
            ),
        ):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True)
        self._own(key)
        key.chmod(0o600)
        access = self.data / "pg_hba.conf"
        rules = f"hostssl all {user} all scram-sha-256\nhostnossl all {user} all reject\n"
        access.write_text(rules + access.read_text())
        self.sql("ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
        while self.sql("SHOW ssl") != [("on",)]:
            pass
        return authority

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run each statement by itself, and return the rows of the last."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            rows: list[tuple[object, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows


@contextlib.contextmanager
def pgbouncer(
    cluster: Cluster, database: str, mode: str, connections: int, port: int | None = None
) -> Iterator[str]:
    """Run PgBouncer in front of a cluster, and yield the URL of a database through it.

    Args:
        cluster: The cluster.
        database: The URL of the database without PgBouncer.
        mode: The ``pool_mode``.
        connections: How many connections to each database PgBouncer opens.
        port: Where PgBouncer listens; without it, at a free port.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        missing("pgbouncer")
    port = port or free_port()
    settings = cluster.directory / f"pgbouncer{port}.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={cluster.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {connections}\n"
    )
    with (cluster.directory / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen(
            Cluster.as_user(program, str(settings)), stdout=log, stderr=log, cwd="/"
        )
    try:
        until(lambda: _listens(port))
        yield f"postgresql://127.0.0.1:{port}/{database.rpartition('/')[2]}"
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def synchronous_standby(primary: Cluster, port: int, before: Sequence[str] = ()) -> Cluster:
    """Return a running standby that gets every commit before the primary reports it.

    Args:
        primary: The primary, which is running.
        port: Where the standby listens.
        before: See `Cluster`.
    """
    standby = primary.standby(port)
    standby.before = before
    # Once promoted, it waits for no standby.
    with (standby.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("synchronous_standby_names = ''\n")
    standby.start()
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    while primary.sql("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
        pass
    return standby
