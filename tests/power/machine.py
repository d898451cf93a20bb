"""A machine whose power can be cut: a directory on which a `Disk` is mounted, and its switch."""

import json
import os
import random
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest

from tests.power.forks import Forked, Forks

_FUSE = Path("/dev/fuse")


def require_fuse() -> None:
    """Skip the test if nothing can be mounted; in CI fail, if the machine could."""
    reason = ""
    if not _FUSE.exists():
        reason = "there is no /dev/fuse"
    elif os.geteuid() != 0:
        reason = "only root may mount a file system"
    elif not find_library("fuse") and not find_library("fuse3"):
        reason = "libfuse is not installed (Debian: fuse3)"
    elif not shutil.which("umount"):
        reason = "umount is not installed"
    if reason:
        if os.environ.get("CI") == "true" and _FUSE.exists():
            pytest.fail(reason)
        pytest.skip(reason)


class Machine:
    """A disk that is mounted.

    Attributes:
        directory: Where.
        boot_id: A file with what tells this boot of the machine from others.
        cut_at: The call at which the power was cut last, empty if it was not since `arm`.
        syncs: How often each kind of sync was made since the disk was formatted.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.power.mount", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self.cut_at = ""
        self.syncs: dict[str, int] = {}
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "it was not mounted"
        self.boot_id = directory.with_name("boot_id")
        self._forks: Forks | None = None

    def serve(self, arguments: list[str], log: Path) -> Forked:
        """Return a service that runs there.

        Raises:
            AssertionError: it does not start.
        """
        if not self._forks:
            # Here, to be after the mounting.
            self.boot_id.touch()
            self._forks = Forks(self.boot_id)
        return Forked(self._forks, arguments, log)

    def remove(self) -> None:
        """Unmount the disk, which nobody uses any more."""
        if self._forks:
            self._forks.remove()
        subprocess.run(["umount", "-l", str(self.directory)], check=True)
        self._process.communicate(timeout=20)

    def _tell(self, order: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": order, **arguments}) + "\n")
        self._process.stdin.flush()
        state = json.loads(self._process.stdout.readline())
        self.cut_at, self.syncs = state["cut at"], state["syncs"]

    def arm(self, count: int, *, kind: str | None = None, then: int = 0) -> None:
        """Cut the power at a call from now on.

        Args:
            count: How many calls from now.
            kind: Count only these, such as ``rename``, or the syncs of `syncs`.
            then: How many calls of any kind after it.
        """
        self._tell("arm", kind=kind, count=count, then=then)

    def look(self) -> None:
        """Note whether the power was cut, and what was synced."""
        self._tell("state")

    def power_on(self, randomness: random.Random, *, powersafe: bool = True) -> None:
        """Cut the power, if it is not off, and go on with what that has left.

        Args:
            randomness: What chooses that.
            powersafe: Whether a sector that was being written keeps what it held before.
        """
        self._tell("power on", seed=randomness.getrandbits(32), powersafe=powersafe)

    def go_on(self) -> None:
        """Go on with all changes, as if only a program had been killed."""
        self._tell("power on", seed=None, powersafe=True)

    def format(self) -> None:
        """Empty the disk."""
        self._tell("format")

    def limit(self, room: int | None) -> None:
        """Leave room for this many more bytes; None for any number."""
        self._tell("limit", room=room)

    def mutate(self, sync: str, *, number: int | None = None, late_by: int = 0) -> None:
        """Omit or delay syncs; see `Mutant`. Without a name, make all of them again."""
        self._tell("mutate", sync=sync, number=number, late_by=late_by)
