"""Mount a `Disk` by FUSE, and cut its power at any call: ``python -m tests.power.mount DIRECTORY``.

Programs use the mounted directory as any other. Lines of JSON on standard input say when to cut the
power; each is answered by one on standard output. At a cut the program that makes the call is
killed before the call returns, and every later call fails, until the power is on again. So nobody
learns of anything that was done after the cut.

A sync can be left out, or be late, to see that tests find that. Syncs are told apart by what they
are to make durable: the data of ``state.log``, and whether another process has left that unsynced;
or ``new state.log``, ``other state.log``, ``no state.log`` in a directory.
"""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import mfusepy

from tests.power.disk import Disk, Inode, Truncate

_KEEP_SIZE = 1


class Mutant(NamedTuple):
    """A sync that is not made as it should be.

    Attributes:
        sync: What it is to make durable.
        number: Which sync of that file or directory it is, from 0; None for all.
        late_by: After how many more calls it is made; 0 for never.
    """

    sync: str
    number: int | None
    late_by: int


class FileSystem:
    """The calls of FUSE, one at a time."""

    use_ns = True
    # A file without a name has only its handle. (With libfuse 3, mfusepy passes none when a file
    # is truncated.)
    flag_nullpath_ok = flag_nopath = mfusepy.fuse_version_major == 2

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.disk = Disk()
        self.is_off = False
        self.cut_at = ""
        self.syncs: Counter[str] = Counter()
        self.mutant: Mutant | None = None
        self._armed: dict[str, Any] | None = None
        # Delayed syncs, each with the number of calls after which it is made.
        self._late: list[tuple[Inode, int]] = []
        self._handles: dict[int, Inode] = {}
        # The number of the process, of those that ran in turn, that last wrote to each file.
        self._life = 0
        self._writers: dict[int, int] = {}

    # --- Power -----------------------------------------------------------------------------------

    def arm(self, **trigger: Any) -> None:
        """Cut the power at a call, or only kill who calls.

        Args:
            trigger: ``kind`` of the calls to count, None for all; ``count`` of them; ``then`` how
                many more calls of any kind; ``loses`` whether the power fails.
        """
        self._armed = trigger
        self._life += 1
        self.cut_at = ""

    def power_on(self, seed: int | None, powersafe: bool) -> None:
        """Go on after a cut, or start one here; without a seed nothing is lost."""
        if seed is not None:
            self.disk.cut_power(random.Random(seed), powersafe=powersafe)
        self._armed = None
        self._late.clear()
        self.is_off = False

    def _happens(self, kind: str, *what: str) -> None:
        """Count a call that changes something, and cut the power if it is the one."""
        armed = self._armed
        if armed:
            if armed["count"] > 0:
                armed["count"] -= armed["kind"] in (None, kind, *what)
            else:
                armed["then"] -= 1
            if armed["count"] <= 0 and armed["then"] <= 0:
                self._armed = None
                self.is_off = True
                self.cut_at = f"{kind} {', '.join(what)}".strip()
                os.kill(mfusepy.fuse_get_context()[2], signal.SIGKILL)
                self._require_power()
        due = [inode for inode, calls in self._late if calls == 1]
        self._late = [(inode, calls - 1) for inode, calls in self._late if calls > 1]
        for inode in due:
            self._sync(inode)

    def _require_power(self) -> None:
        if self.is_off:
            raise OSError(errno.EIO, "the power is off")

    def _sync(self, inode: Inode) -> None:
        if inode.is_directory:
            self.disk.sync_names(inode)
            inode.syncs += 1
        else:
            inode.sync()

    def _is_to_sync(self, inode: Inode) -> None:
        self._require_power()
        what = self._what_directory(inode) if inode.is_directory else self._what_file(inode)
        self._happens("sync", *what)
        self.syncs.update(what)
        mutant = self.mutant
        if mutant and mutant.sync in what and mutant.number in (None, inode.syncs):
            # It counts as made, so that the next sync is another one.
            inode.syncs += 1
            if mutant.late_by:
                self._late.append((inode, mutant.late_by))
        else:
            self._sync(inode)

    def _what_file(self, file: Inode) -> list[str]:
        """Return what a sync of the file makes durable."""
        if not file.pending:
            return []
        directories = [one.entries for one in self.disk.walk()]
        names = [name for one in directories for name, inode in one.items() if inode is file]
        earlier = " of an earlier process" if self._writers[file.number] != self._life else ""
        return [name + earlier for name in names]

    def _what_directory(self, directory: Inode) -> list[str]:
        """Return what a sync of the directory makes durable."""
        before, now = directory.durable_entries, directory.entries
        what = [f"no {name}" for name in before if name not in now]
        for name, inode in now.items():
            if name not in before:
                what.append(f"new {name}")
            elif before[name] is not inode:
                what.append(f"other {name}")
        return sorted(what)

    # --- Calls that change something -------------------------------------------------------------

    def create(self, path: str, mode: int) -> int:
        with self.mutex:
            self._require_power()
            inode = self.disk.create(path, stat.S_IFREG | stat.S_IMODE(mode))
            self._own(inode)
            self._happens("create", path)
            return self._handle(inode)

    def mkdir(self, path: str, mode: int) -> None:
        with self.mutex:
            self._require_power()
            self._own(self.disk.create(path, stat.S_IFDIR | mode))
            self._happens("mkdir", path)

    def unlink(self, path: str) -> None:
        with self.mutex:
            self._require_power()
            self.disk.unlink(path)
            self._happens("unlink", path)

    def rename(self, old: str, new: str) -> None:
        with self.mutex:
            self._require_power()
            self.disk.rename(old, new)
            self._happens("rename", new)

    def write(self, _path: str | None, data: bytes, offset: int, handle: int) -> int:
        with self.mutex:
            self._require_power()
            file = self._handles[handle]
            written = self.disk.write(file, data, offset)
            self._writers[file.number] = self._life
            self._happens("write")
            return written

    def truncate(self, path: str | None, length: int, handle: int | None = None) -> None:
        with self.mutex:
            self._require_power()
            file = self._inode(path, handle)
            file.change(Truncate(length))
            self._writers[file.number] = self._life
            self._happens("truncate")

    def fallocate(self, _path: str | None, mode: int, offset: int, size: int, handle: int) -> None:
        with self.mutex:
            self._require_power()
            file = self._handles[handle]
            if mode != _KEEP_SIZE:
                raise OSError(errno.EOPNOTSUPP, "room can only be reserved")
            self.disk.reserve(file, offset + size)
            self._happens("fallocate")

    def fsync(self, _path: str | None, _datasync: int, handle: int) -> None:
        with self.mutex:
            self._is_to_sync(self._handles[handle])

    def fsyncdir(self, _path: str | None, _datasync: int, handle: int) -> None:
        self.fsync(None, 0, handle)

    def chmod(self, path: str, mode: int) -> None:
        with self.mutex:
            inode = self.disk.find(path)
            inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        with self.mutex:
            inode = self.disk.find(path)
            inode.uid = inode.uid if uid == -1 else uid
            inode.gid = inode.gid if gid == -1 else gid

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        """Ignore it: nobody needs times."""

    # --- Calls that only look --------------------------------------------------------------------

    def init(self, _path: str) -> None:
        print(json.dumps({"mounted": True}), flush=True)

    def getattr(self, path: str | None, handle: int | None = None) -> dict[str, Any]:
        with self.mutex:
            inode = self._inode(path, handle)
            return {
                "st_ino": inode.number,
                "st_mode": inode.mode,
                "st_nlink": 1,
                "st_size": len(inode.content),
                "st_uid": inode.uid,
                "st_gid": inode.gid,
                "st_mtime": time.time_ns(),
            }

    def readdir(self, _path: str | None, handle: int) -> Iterator[tuple[str, dict[str, int], int]]:
        with self.mutex:
            # A name without an inode number would not be listed.
            for name, inode in self._handles[handle].entries.items():
                yield name, {"st_ino": inode.number, "st_mode": inode.mode}, 0

    def open(self, path: str, _flags: int) -> int:
        with self.mutex:
            self._require_power()
            return self._handle(self.disk.find(path))

    def opendir(self, path: str) -> int:
        return self.open(path, 0)

    def read(self, _path: str | None, size: int, offset: int, handle: int) -> bytes:
        with self.mutex:
            self._require_power()
            return bytes(self._handles[handle].content[offset : offset + size])

    def release(self, _path: str | None, handle: int) -> None:
        with self.mutex:
            del self._handles[handle]

    releasedir = release

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255}

    def _own(self, inode: Inode) -> None:
        inode.uid, inode.gid, _ = mfusepy.fuse_get_context()

    def _handle(self, inode: Inode) -> int:
        handle = max(self._handles, default=0) + 1
        self._handles[handle] = inode
        return handle

    def _inode(self, path: str | None, handle: int | None) -> Inode:
        if handle is not None and handle in self._handles:
            return self._handles[handle]
        if path is None:
            raise OSError(errno.ESTALE, "neither path nor handle")
        return self.disk.find(path)


def _obey(system: FileSystem, order: dict[str, Any]) -> dict[str, Any]:
    """Execute a line of standard input, and return the answer."""
    with system.mutex:
        match order.pop("do"):
            case "arm":
                system.arm(**order)
            case "power on":
                system.power_on(**order)
            case "format":
                system.disk = Disk()
                system.syncs.clear()
            case "limit":
                system.disk.limit(order["room"])
            case "mutate":
                system.mutant = Mutant(**order) if order["sync"] else None
            case "state":
                pass
            case unknown:
                raise AssertionError(unknown)
        return {"cut at": system.cut_at, "syncs": system.syncs}


def _listen(system: FileSystem, directory: str) -> None:
    for line in sys.stdin:
        print(json.dumps(_obey(system, json.loads(line))), flush=True)
    # The program that wanted the file system is gone, and may have unmounted it.
    subprocess.run(["umount", "-l", directory], stderr=subprocess.DEVNULL, check=False)
    os._exit(0)


def main() -> None:
    directory = sys.argv[1]
    system = FileSystem()
    threading.Thread(target=_listen, args=[system, directory], daemon=True).start()
    # Cache nothing in the kernel: after a cut its cache would be wrong.
    mfusepy.FUSE(
        system,
        directory,
        foreground=True,
        nothreads=True,
        direct_io=True,
        hard_remove=True,
        use_ino=True,
        entry_timeout=0,
        attr_timeout=0,
        negative_timeout=0,
        fsname="bigfib-power",
    )


if __name__ == "__main__":
    main()
