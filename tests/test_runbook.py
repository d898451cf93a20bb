"""The procedures of docs/operations.md do what they promise."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.postgres import Cluster, program
from tests.runbook import PROCEDURES, ROOT, Machine
from tests.service import until

NewMachine = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[NewMachine]:
    """Create machines that have bigfib; their services are stopped at the end."""
    made = []

    def new(name: str, installed: bool = True) -> Machine:
        bigfib = Path(sys.executable).with_name("bigfib")
        made.append(Machine(tmp_path / name, bigfib if installed else None))
        return made[-1]

    yield new
    for each in made:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((each.root / "run/pid").read_text()), signal.SIGKILL)


@pytest.fixture
def running(machine: NewMachine) -> Machine:
    """A machine with a service that has made seven steps."""
    started = machine("old")
    started.shell("systemctl start bigfib")
    started.step(7)
    return started


def test_backup_has_every_step_and_service_goes_on(running: Machine) -> None:
    running.run("backup")
    running.step()
    backup = running.root / "var/backups/bigfib.log"
    assert running.shell(f"bigfib current -f {backup}") == "13\n"
    assert running.position() == 8


def test_restore_returns_to_the_backup_and_keeps_the_replaced_log(running: Machine) -> None:
    running.run("backup")
    running.step(2)
    running.run("restore")
    assert running.position() == 7
    replaced = running.log.with_name("state.log.replaced")
    assert running.shell(f"bigfib current -f {replaced}") == "34\n"


def test_repair_of_a_damaged_log_starts_the_service_again(running: Machine) -> None:
    running.shell("systemctl stop bigfib")
    content = bytearray(running.log.read_bytes())
    # The last byte of the first step's record; later records prove that it was durable.
    content[len(content) // 2] ^= 1
    running.log.write_bytes(content)
    with pytest.raises(AssertionError, match="is damaged"):
        running.shell("systemctl start bigfib")
    running.run("repair")
    assert running.position() == 7
    assert running.log.with_name("state.log.damaged").read_bytes() == content


def test_move_to_another_machine_takes_the_position_along(
    running: Machine, machine: NewMachine
) -> None:
    new = machine("new")
    new.shell("systemctl start bigfib")
    assert new.position() == 0
    running.run("move")
    assert not (running.root / "run/pid").exists()
    backup = running.root / "var/backups/bigfib.log"
    (new.root / "var/backups/bigfib.log").write_bytes(backup.read_bytes())
    new.run("restore")
    assert new.position() == 7
    # The ids in it are secrets, and copying has lost the file's mode.
    assert new.log.stat().st_mode & 0o777 == 0o600


class TestDatabase:
    @pytest.fixture
    def variables(self, running: Machine, cluster: Cluster) -> dict[str, str]:
        """Variables of PostgreSQL's programs, for a cluster on which `bigfib` needs a password."""
        access = cluster.data / "pg_hba.conf"
        access.write_text(f"host all bigfib all scram-sha-256\n{access.read_text()}")
        cluster.sql("SELECT pg_reload_conf()")
        for name in ("createuser", "createdb", "psql"):
            (running.root / "usr/local/bin" / name).symlink_to(program(name))
        return {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.port), "PGUSER": "postgres"}

    @staticmethod
    def to_database(machine: Machine, variables: dict[str, str]) -> None:
        # Creating users needs root, and the directory of unit files needs systemd.
        user = PROCEDURES["database-user"].replace("PASSWORD", "secret")
        user = user.replace("useradd", ": useradd").replace("--owner bigfib ", "")
        machine.shell(user)
        machine.shell(PROCEDURES["database"], text="secret\nsecret\n", **variables)

    def test_move_to_a_database_and_back_keeps_the_position(
        self, running: Machine, variables: dict[str, str]
    ) -> None:
        self.to_database(running, variables)
        assert running.position() == 7
        running.step()
        store = "postgresql://bigfib@localhost/bigfib?passfile=/etc/bigfib/pgpass"
        running.shell(f"BIGFIB_STORE='{store}'\n{PROCEDURES['move-to-log']}", **variables)
        assert "state log" in running.journal()
        assert running.position() == 8

    def test_rotated_password_is_used_by_the_next_connection(
        self, running: Machine, variables: dict[str, str], cluster: Cluster
    ) -> None:
        self.to_database(running, variables)
        (running.root / "pgpass").write_text("localhost:*:bigfib:bigfib:another\n")
        rotate = PROCEDURES["rotate-password"].replace("--owner bigfib ", "")
        running.shell(rotate, text="another\nanother\n", **variables)
        # The old password is no longer accepted, and every connection is opened again.
        cluster.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'bigfib'"
        )
        until(running.ready)
        running.step()
        assert running.position() == 8


@pytest.mark.campaign
def test_installation_upgrade_and_downgrade_keep_the_position(
    machine: NewMachine, require: Callable[[str], str]
) -> None:
    for name in ("git", "make", "man"):
        require(name)
    new = machine("new", False)
    (version,) = re.findall("checkout v(.*)", PROCEDURES["downgrade"])
    repository = new.root / "repository"
    commit = "git add --all && git -c user.name=a -c user.email=a@example.org commit --quiet -m a"
    new.shell(f"""
        git init --quiet {repository}
        git -C {ROOT} ls-files -z --cached --others --exclude-standard \\
          | tar --create --directory {ROOT} --null --files-from - \\
          | tar --extract --directory {repository}
        cd {repository}
        {commit}
        git tag v{version}
    """)
    new.shell(PROCEDURES["install"].replace("REPOSITORY", str(repository)))
    assert f"bigfib {version} listens on" in new.journal()
    # The unit's Documentation= names it.
    manual = new.root / "usr/local/share/man"
    assert "bigfib log repair" in new.shell(f"MANPATH={manual} man 1 bigfib")
    new.step(7)

    new.shell(f"""
        cd {repository}
        sed --in-place 's/{version}/99.9.9/' bigfib/__init__.py
        {commit}
    """)
    new.run("upgrade")
    assert "bigfib 99.9.9 listens on" in new.journal()
    new.step()
    new.run("downgrade")
    assert f"bigfib {version} listens on" in new.journal()
    assert new.position() == 8
    new.shell("git -C /opt/bigfib checkout --quiet - && git -C /opt/bigfib pull")


def test_every_procedure_is_run_by_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    run = set(re.findall(r'(?:run\(|PROCEDURES\[)["\']([\w-]+)["\']', tests))
    assert run >= set(PROCEDURES)
