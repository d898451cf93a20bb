"""Owner, group and mode of the files of a log, whoever rewrites it."""

import os
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from bigfib.state import reader
from bigfib.state.compaction import new_path
from bigfib.state.errors import Unusable
from bigfib.state.log import Log
from bigfib.state.repair import repair

UID, GID = 12345, 23456

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


def access(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def floor_of(path: Path) -> Path:
    return path.with_name(path.name + ".floor")


def lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct, autouse=True)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def path() -> Iterator[Path]:
    """The path of a log in a directory that other users may enter."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory / "state.log"


def make_log(path: Path, uid: int, gid: int, mode: int) -> None:
    with Log(path) as log:
        for position in range(1, 10):
            log.note(b"shared", position)
            log.commit()
    for each in (path, floor_of(path)):
        os.chown(each, uid, gid)
        each.chmod(mode)
    lock_of(path).unlink()


@as_root
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o660, 0o644])
def test_compaction_by_root_keeps_owner_group_and_mode(path: Path, mode: int) -> None:
    make_log(path, UID, GID, mode)
    inode = path.stat().st_ino
    with Log(path) as log:
        log.compact()
    assert path.stat().st_ino != inode, "it was not compacted"
    assert access(path) == (UID, GID, mode)


@as_root
def test_repair_by_root_keeps_owner_group_and_mode(path: Path) -> None:
    make_log(path, UID, GID, 0o640)
    harmed = bytearray(path.read_bytes())
    harmed[40] ^= 1
    path.write_bytes(harmed)
    assert access(repair(path).target) == (UID, GID, 0o640)
    assert access(lock_of(path)) == (UID, GID, 0o640)


@as_root
def test_lock_created_by_root_is_the_owners_of_the_log(path: Path) -> None:
    make_log(path, UID, GID, 0o660)
    Log(path).close()
    assert access(lock_of(path)) == (UID, GID, 0o660)


@as_root
def test_lock_of_a_read_only_log_can_be_written_by_its_owner(path: Path) -> None:
    make_log(path, UID, GID, 0o444)
    Log(path).close()
    assert access(lock_of(path)) == (UID, GID, 0o644)


@as_root
def test_log_and_lock_created_by_root_are_the_owners_of_the_directory(path: Path) -> None:
    os.chown(path.parent, UID, GID)
    Log(path).close()
    assert access(path) == (UID, GID, 0o600)
    assert access(lock_of(path)) == (UID, GID, 0o600)


@as_root
def test_service_opens_its_log_after_maintenance_by_root(path: Path) -> None:
    os.chown(path.parent, UID, GID)
    make_log(path, UID, GID, 0o600)
    environ = {**os.environ, "BIGFIB_FILE": str(path)}
    command = [sys.executable, "-m", "bigfib"]
    for arguments in (["log", "compact"], ["next"]):
        subprocess.run([*command, *arguments], env=environ, check=True, capture_output=True)

    def step() -> None:
        with Log(path) as log:
            assert log.position(b"shared") == 10
            log.note(b"shared", 11)
            log.commit()
            log.compact()

    run_as(UID, GID, [], step)
    assert access(path) == (UID, GID, 0o600)


def run_as(uid: int, gid: int, groups: list[int], work: Callable[[], None]) -> None:
    """Run the work in a process of this user, who may not be able to start an interpreter."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def compact(path: Path) -> None:
    with Log(path) as log:
        log.compact()


@as_root
def test_compaction_by_a_member_of_the_group_keeps_group_and_mode(path: Path) -> None:
    make_log(path, UID, GID, 0o660)
    path.parent.chmod(0o777)
    run_as(UID + 1, 999, [GID], partial(compact, path))
    assert access(path) == (UID + 1, GID, 0o660)
    assert reader.read(path).position(b"shared") == 9


@as_root
def test_compaction_by_somebody_else_grants_nothing_to_their_group(path: Path) -> None:
    make_log(path, UID, GID, 0o666)
    path.parent.chmod(0o777)
    run_as(UID + 1, 999, [], partial(compact, path))
    assert access(path) == (UID + 1, 999, 0o606)
    assert reader.read(path).position(b"shared") == 9


@as_root
@pytest.mark.parametrize("directory_mode", [0o755, 0o711])
def test_reader_without_write_permission_can_sync(path: Path, directory_mode: int) -> None:
    make_log(path, UID, GID, 0o644)
    path.parent.chmod(directory_mode)

    def look() -> None:
        assert reader.read(path, synced=True).position(b"shared") == 9
        with pytest.raises(PermissionError):
            path.open("r+b")

    run_as(UID + 1, 999, [], look)


def test_compaction_by_the_owner_keeps_the_mode(path: Path) -> None:
    with Log(path) as log:
        log.note(b"shared", 1)
        path.chmod(0o640)
        log.compact()
    assert access(path)[2] == 0o640


def test_links_in_place_of_new_files_are_not_followed(path: Path, tmp_path: Path) -> None:
    """Root must not change the owner of a file to which a link of another user points."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    before = access(precious)
    with Log(path) as log:
        log.note(b"shared", 1)
        new_path(path).symlink_to(precious)
        log.compact()
    lock_of(path).unlink()
    lock_of(path).symlink_to(precious)
    with pytest.raises(Unusable):
        Log(path)
    assert precious.read_text() == "mine"
    assert access(precious) == before


def test_lock_that_is_no_file_is_named(path: Path) -> None:
    os.mkfifo(lock_of(path))
    with pytest.raises(Unusable, match=r"state\.log\.lock: it is not a regular file; change its"):
        Log(path)
