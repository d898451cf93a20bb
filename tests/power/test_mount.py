"""The mounted disk is a file system like others, until its power is cut."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys

import pytest

from tests.power.machine import Machine

STEPS = """
import os, sys
os.chdir(sys.argv[1])
directory = os.open(".", os.O_DIRECTORY)
fd = os.open("a", os.O_RDWR | os.O_CREAT | os.O_APPEND)
os.write(fd, b"1")
os.fsync(fd)
os.fsync(directory)
os.write(fd, b"2")
os.rename("a", "b")
print("renamed", flush=True)
os.fsync(directory)
"""


def steps(machine: Machine) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", STEPS, str(machine.directory)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_are_as_in_any_file_system(machine: Machine) -> None:
    one = machine.directory / "one"
    one.write_bytes(b"x" * 300_000)
    assert one.read_bytes() == b"x" * 300_000
    with one.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(299_999)
        file.write(b"yz")
        file.flush()
        assert os.fstat(file.fileno()).st_size == 300_001
        identity = os.fstat(file.fileno()).st_ino
        os.ftruncate(file.fileno(), 3)
    one.rename(machine.directory / "two")
    assert (machine.directory / "two").read_bytes() == b"xxx"
    assert (machine.directory / "two").stat().st_ino == identity
    (machine.directory / "two").chmod(0o640)
    assert (machine.directory / "two").stat().st_mode & 0o777 == 0o640
    (machine.directory / "in" / "it").mkdir(parents=True)
    assert sorted(os.listdir(machine.directory)) == ["in", "two"]  # noqa: PTH208 - as it comes
    (machine.directory / "two").unlink()
    with pytest.raises(FileNotFoundError):
        (machine.directory / "two").stat()


def test_appending_goes_to_the_end_after_a_cut_has_moved_it(machine: Machine) -> None:
    file = machine.directory / "a"
    sizes = set()
    for seed in range(20):
        machine.format()
        with file.open("ab", buffering=0) as log:
            log.write(b"x" * 600)
            os.fsync(log.fileno())
            fd = os.open(machine.directory, os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)
            log.write(b"y" * 600)
        machine.power_on(random.Random(seed))
        size = file.stat().st_size
        sizes.add(size)
        with file.open("ab", buffering=0) as log:
            log.write(b"z")
        assert file.read_bytes()[size:] == b"z"
    assert {600, 1200} < sizes


@pytest.mark.parametrize("count", range(1, 9))
def test_program_dies_in_the_call_at_which_power_is_cut(machine: Machine, count: int) -> None:
    machine.arm(count)
    done = steps(machine)
    machine.look()
    # Create, write, sync, sync, write, rename, sync; then nothing is left to be cut.
    calls = ["create", "write", "sync", "sync", "write", "rename", "sync", ""]
    assert machine.cut_at.partition(" ")[0] == calls[count - 1]
    assert done.returncode == (-signal.SIGKILL if count < 8 else 0)
    assert done.stdout == ("renamed\n" if count > 6 else "")
    machine.power_on(random.Random(0))
    names = {path.name for path in machine.directory.iterdir()}
    if count > 7:
        assert names == {"b"}
    elif count > 4:
        assert names in ({"a"}, {"b"})
        assert next(machine.directory.iterdir()).read_bytes().startswith(b"1")


def test_nothing_works_while_the_power_is_off(machine: Machine) -> None:
    machine.arm(1)
    steps(machine)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (machine.directory / "c").write_bytes(b"")
    machine.go_on()
    assert (machine.directory / "a").read_bytes() == b""


def test_calls_are_counted_by_kind_and_by_what_is_synced(machine: Machine) -> None:
    for kind, count, then, cut_at in (
        ("sync", 2, 0, "sync new a"),
        ("sync", 2, 1, "write"),
        ("a", 1, 0, "sync a"),
        ("new b", 1, 0, "sync new b, no a"),
        ("rename", 1, 1, "sync new b, no a"),
    ):
        machine.format()
        machine.arm(count, kind=kind, then=then)
        assert steps(machine).returncode == -signal.SIGKILL
        machine.look()
        assert machine.cut_at == cut_at
        machine.go_on()


def test_syncs_are_listed_by_what_they_make_durable(machine: Machine) -> None:
    machine.arm(99)
    steps(machine)
    machine.arm(99)
    with (machine.directory / "b").open("rb+") as file:
        os.fsync(file.fileno())
        file.write(b"z")
        file.flush()
        os.fsync(file.fileno())
    machine.look()
    assert machine.syncs == {
        "a": 1,
        "new a": 1,
        "new b": 1,
        "no a": 1,
        "b of an earlier process": 1,
        "b": 1,
    }


def _left(machine: Machine, seed: int, then: int) -> set[str]:
    """Return the names that are left by a cut this many calls after the first directory sync."""
    machine.format()
    machine.arm(1, kind="new a", then=then)
    steps(machine)
    machine.power_on(random.Random(seed))
    return {path.name for path in machine.directory.iterdir()}


def test_sync_that_is_left_out_keeps_nothing(machine: Machine) -> None:
    assert all(_left(machine, seed, 1) == {"a"} for seed in range(12))
    machine.mutate("new a")
    assert set() in [_left(machine, seed, 1) for seed in range(12)]
    machine.mutate("new a", number=1)
    assert all(_left(machine, seed, 1) == {"a"} for seed in range(12))


def test_sync_that_is_late_keeps_nothing_until_then(machine: Machine) -> None:
    machine.mutate("new a", late_by=1)
    # First at the write, before it has an effect; then at the rename, when the sync is made.
    assert set() in [_left(machine, seed, 1) for seed in range(12)]
    assert set() not in [_left(machine, seed, 2) for seed in range(12)]


def test_write_to_a_full_mounted_disk_raises_enospc(machine: Machine) -> None:
    machine.limit(1000)
    file = machine.directory / "a"
    with file.open("wb", buffering=0) as opened:
        assert opened.write(b"x" * 1500) == 1000
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            opened.write(b"x")
    machine.limit(None)
    assert file.read_bytes() == b"x" * 1000
