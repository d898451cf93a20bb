"""A real Patroni: etcd, and two nodes with a synchronous standby, on loopback."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.postgres import Cluster, free_port, missing, program
from tests.service import until

# Seconds: a leader that does not renew its key for so long is replaced.
_TTL = 10

_CONFIGURATION: dict[str, Any] = {
    "scope": "bigfib",
    "bootstrap": {
        "dcs": {
            "ttl": _TTL,
            "loop_wait": 1,
            "retry_timeout": 3,
            "synchronous_mode": True,
            "postgresql": {
                "use_pg_rewind": True,
                "parameters": {"max_connections": 40, "wal_log_hints": "on"},
            },
        },
        "initdb": [{"encoding": "UTF8"}, "no-sync", "data-checksums"],
    },
}


class Node:
    """Patroni and the PostgreSQL that it runs.

    Attributes:
        name: How Patroni calls it.
        port: Where PostgreSQL listens.
    """

    def __init__(self, name: str, directory: Path, etcd: int) -> None:
        self.name = name
        self.port, self._rest = free_port(), free_port()
        self._directory = directory
        self.configuration = directory / f"{name}.yml"
        self._data = directory / name
        self._process: subprocess.Popen[bytes] | None = None
        own = {
            "name": name,
            "etcd3": {"host": f"127.0.0.1:{etcd}"},
            "restapi": {
                "listen": f"127.0.0.1:{self._rest}",
                "connect_address": f"127.0.0.1:{self._rest}",
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._data),
                "bin_dir": str(program("pg_rewind").parent),
                "pgpass": str(directory / f"{name}.pgpass"),
                "authentication": {
                    role: {"username": "postgres"} for role in ("superuser", "replication")
                },
                "parameters": {
                    "unix_socket_directories": str(directory),
                    "shared_buffers": "16MB",
                },
                "pg_hba": [
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
            },
        }
        # JSON is YAML.
        self.configuration.write_text(json.dumps(_CONFIGURATION | own))

    def start(self) -> None:
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                Cluster.as_user("patroni", str(self.configuration)),
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def restart_patroni(self) -> None:
        """Restart Patroni; its PostgreSQL goes on."""
        assert self._process
        self._process.kill()
        self._process.wait()
        self.start()

    def state(self) -> dict[str, Any]:
        """Return what Patroni reports of it; nothing if it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self._rest}/patroni", timeout=2) as reply:
                state: dict[str, Any] = json.load(reply)
        except OSError:
            return {}
        return state

    def signal_postgres(self, number: int) -> None:
        """Send a signal to all processes of PostgreSQL."""
        with suppress(FileNotFoundError):
            main = int((self._data / "postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
            for pid in [main, *map(int, children)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def signal_all(self, number: int) -> None:
        """Send a signal to all processes of the node, as if to the machine."""
        assert self._process
        self._process.send_signal(number)
        self.signal_postgres(number)
        if number == signal.SIGKILL:
            self._process.wait()


class Patroni:
    """The cluster.

    Attributes:
        url: The connection string with both nodes.
    """

    def __init__(self, directory: Path) -> None:
        self._etcd_port = free_port()
        self._etcd = self._start_etcd(directory)
        self.nodes = [Node(name, directory, self._etcd_port) for name in ("a", "b")]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.url = f"postgresql://postgres@{hosts}/postgres"

    def _start_etcd(self, directory: Path) -> "subprocess.Popen[bytes]":
        at, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        with (directory / "etcd.log").open("ab") as log:
            return subprocess.Popen(
                Cluster.as_user(
                    *("etcd", "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync"),
                    *("--listen-client-urls", at, "--advertise-client-urls", at),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ),
                stdout=log,
                stderr=log,
                cwd="/",
            )

    def leader(self) -> Node:
        """Return the node that is primary."""
        (node,) = (node for node in self.nodes if node.state().get("role") == "master")
        return node

    def is_whole(self) -> bool:
        """Return whether there are a primary, and a standby that etcd knows to be synchronous."""
        states = sorted((node.state() for node in self.nodes), key=lambda one: one.get("role", ""))
        return [(one.get("role"), one.get("sync_standby", False)) for one in states] == [
            ("master", False),
            ("replica", True),
        ]

    def switch_over(self) -> None:
        """Make the standby the primary, by ``patronictl``."""
        subprocess.run(
            ["patronictl", "-c", self.nodes[0].configuration, "switchover", "--force", "bigfib"],
            check=True,
            capture_output=True,
            cwd="/",
        )

    def signal_etcd(self, number: int) -> None:
        self._etcd.send_signal(number)

    def stop(self) -> None:
        """End all processes."""
        for node in self.nodes:
            with suppress(AssertionError, ProcessLookupError):
                node.signal_all(signal.SIGKILL)
        self._etcd.kill()
        self._etcd.wait()


@contextmanager
def patroni() -> Iterator[Patroni]:
    """Run a cluster; without its programs skip the test, or fail in CI."""
    for name, package in (
        ("patroni", "patroni"),
        ("patronictl", "patroni"),
        ("etcd", "etcd-server"),
    ):
        if not shutil.which(name):
            missing(f"{name} (Debian: {package})")
    with tempfile.TemporaryDirectory(prefix="bigfib-patroni-") as name:
        directory = Path(name)
        Cluster._own(directory)
        cluster = Patroni(directory)
        try:
            for node in cluster.nodes:
                node.start()
            until(cluster.is_whole)
            yield cluster
        finally:
            cluster.stop()
