"""A disk with a volatile cache: it models what a power cut leaves of unsynced changes.

What was synced is there. Of the rest any part may be, as file systems leave it:

* Names: changes of directories are journalled, so that the first few of them are there, in their
  order; or, as without a journal, each name by itself. A name is sure when its directory was
  synced, whatever was done to the file.
* Data: of a file, nothing since its last sync, or everything, or the first few writes with the last
  of them torn, or each sector or page as it was at any moment since. Its size is one that it had
  since; what was never written below that reads as zeros, or as what a deleted file has left there.
* Each file and each directory fares by itself, so that a rename may be there without the data of
  the file, and the data without the rename.

A sector that is written again keeps what it held before where the same is written (SQLite calls it
powersafe overwrite): appending harms no earlier bytes of the last sector. A disk can be told not to
do that: then a power cut may harm each sector or page that was being written, and all that it held.
"""

import errno
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR = 512
PAGE = 4096


class Write(NamedTuple):
    offset: int
    data: bytes

    def touches(self, start: int, end: int) -> bool:
        return self.offset < end and start < self.offset + len(self.data)

    def size_after(self, size: int) -> int:
        return max(size, self.offset + len(self.data))


class Truncate(NamedTuple):
    length: int

    def touches(self, _start: int, end: int) -> bool:
        return self.length < end

    def size_after(self, _size: int) -> int:
        return self.length


Change = Write | Truncate


@dataclass(eq=False)
class Inode:
    """A file or a directory: as programs see it, and as it is on the disk.

    Attributes:
        number: Its number.
        mode: Type and permissions; these and the owner are never lost.
        uid: Its owner.
        gid: Its group.
        content: The bytes of a file.
        durable: Those on the disk.
        pending: What has been done to a file since.
        syncs: How often it was synced.
        reserved: The number of bytes that have room for sure.
        entries: The names in a directory.
        durable_entries: Those on the disk.
    """

    number: int
    mode: int
    uid: int = 0
    gid: int = 0
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)
    syncs: int = 0
    reserved: int = 0
    entries: "dict[str, Inode]" = field(default_factory=dict)
    durable_entries: "dict[str, Inode]" = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def change(self, change: Change) -> None:
        apply(change, self.content)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self.pending.clear()
        self.syncs += 1


def apply(change: Change, content: bytearray) -> None:
    size = change.size_after(len(content))
    content.extend(bytes(max(0, size - len(content))))
    match change:
        case Write(offset, data):
            content[offset : offset + len(data)] = data
        case Truncate(length):
            del content[length:]


class NameChange(NamedTuple):
    """A change of directories.

    Attributes:
        directory: Where a name is given or taken away.
        name: The name.
        inode: What has the name then; None for nothing.
        source: The name that it had before, of a rename.
    """

    directory: Inode
    name: str
    inode: Inode | None
    source: tuple[Inode, str] | None = None

    def places(self) -> set[tuple[int, str]]:
        places = {(self.directory.number, self.name)}
        if self.source:
            places.add((self.source[0].number, self.source[1]))
        return places

    def is_in(self, directory: Inode) -> bool:
        return self.directory is directory or bool(self.source and self.source[0] is directory)


class Disk:
    """The file system of one disk, empty at first.

    Attributes:
        root: Its root directory.
        capacity: How many bytes its files may have together.
        pending_names: Changes of directories that are not on the disk, in their order.
    """

    def __init__(self) -> None:
        self._count = 0
        self.root = self._inode(stat.S_IFDIR | 0o755)
        self.capacity: int | None = None
        self.pending_names: list[NameChange] = []
        # The content of blocks that belong to no file any more.
        self._recycled = b""

    def _inode(self, mode: int) -> Inode:
        self._count += 1
        return Inode(self._count, mode)

    def walk(self) -> Iterator[Inode]:
        """Yield all files and directories that have a name."""
        waiting = [self.root]
        while waiting:
            one = waiting.pop()
            yield one
            waiting += one.entries.values()

    def find(self, path: str) -> Inode:
        one = self.root
        for name in path.strip("/").split("/") if path.strip("/") else ():
            if name not in one.entries:
                raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
            one = one.entries[name]
        return one

    def place(self, path: str) -> tuple[Inode, str]:
        """Return the directory of a path, and the name in it."""
        parent, _, name = path.rpartition("/")
        return self.find(parent), name

    # --- What programs do ------------------------------------------------------------------------

    def create(self, path: str, mode: int) -> Inode:
        directory, name = self.place(path)
        inode = self._inode(mode)
        self._rename(NameChange(directory, name, inode))
        return inode

    def unlink(self, path: str) -> None:
        self.find(path)
        self._rename(NameChange(*self.place(path), None))

    def rename(self, old: str, new: str) -> None:
        self._rename(NameChange(*self.place(new), self.find(old), self.place(old)))

    def _rename(self, change: NameChange) -> None:
        if lost := change.directory.entries.get(change.name):
            self._recycled = bytes(lost.content) or self._recycled
        _apply_name(change, lambda directory: directory.entries)
        self.pending_names.append(change)

    def write(self, file: Inode, data: bytes, offset: int) -> int:
        """Write as much as there is room for, and return the length."""
        if self.capacity is not None:
            left = self.capacity - self._used() + max(len(file.content), file.reserved)
            data = data[: max(0, left - offset)]
            if not data:
                raise OSError(errno.ENOSPC, "the disk is full")
        file.change(Write(offset, data))
        return len(data)

    def limit(self, room: int | None) -> None:
        """Leave room for this many more bytes; None for any number."""
        self.capacity = None if room is None else self._used() + room

    def reserve(self, file: Inode, end: int) -> None:
        """Reserve room for this many bytes, without changing the file."""
        has = max(len(file.content), file.reserved)
        if self.capacity is not None and end - has > self.capacity - self._used():
            raise OSError(errno.ENOSPC, "the disk is full")
        file.reserved = max(end, file.reserved)

    def _used(self) -> int:
        return sum(max(len(one.content), one.reserved) for one in self.walk())

    def sync_names(self, directory: Inode) -> None:
        """Make the names in a directory durable."""
        left = []
        for change in self.pending_names:
            if change.is_in(directory):
                _apply_name(change, lambda one: one.durable_entries)
            else:
                left.append(change)
        self.pending_names = left

    # --- What a power cut leaves -----------------------------------------------------------------

    def cut_power(self, chance: random.Random, *, powersafe: bool = True) -> None:
        """Lose any part of what was not synced, and harm more if not ``powersafe``."""
        for change in self._surviving_names(chance):
            _apply_name(change, lambda one: one.durable_entries)
        self.pending_names.clear()
        waiting = [self.root]
        while waiting:
            one = waiting.pop()
            if one.is_directory:
                one.entries = dict(one.durable_entries)
                waiting += one.entries.values()
            else:
                one.durable = surviving_data(one, chance, self._recycled)
                if not powersafe:
                    one.durable = _harmed(one, chance)
                one.content = bytearray(one.durable)
                one.pending.clear()
                one.reserved = 0

    def _surviving_names(self, chance: random.Random) -> list[NameChange]:
        pending = self.pending_names
        if chance.random() < 0.7:
            return pending[: chance.choice([0, len(pending), chance.randint(0, len(pending))])]
        kept = []
        lost: set[tuple[int, str]] = set()
        for change in pending:
            # If a name never reached the disk, later changes of it cannot be there either.
            if lost & change.places() or chance.random() < 0.5:
                lost |= change.places()
            else:
                kept.append(change)
        return kept


def _apply_name(change: NameChange, entries: Callable[[Inode], dict[str, Inode]]) -> None:
    if change.source:
        entries(change.source[0]).pop(change.source[1], None)
    if change.inode:
        entries(change.directory)[change.name] = change.inode
    else:
        entries(change.directory).pop(change.name, None)


def surviving_data(file: Inode, chance: random.Random, recycled: bytes) -> bytes:
    """Return what the disk may hold of a file."""
    way = chance.randrange(5)
    if way == 0 or not file.pending:
        return file.durable
    if way == 1:
        return bytes(file.content)
    if way == 2:
        return _torn(file, chance)
    fill = recycled if chance.random() < 0.3 else b""
    return _by_units(file, chance, SECTOR if way == 3 else PAGE, fill)


def _harmed(file: Inode, chance: random.Random) -> bytes:
    """Return what has survived of a file, with the units harmed that were being written."""
    unit = chance.choice([SECTOR, PAGE])
    content = bytearray(file.durable)
    for start in range(0, len(content), unit):
        if any(one.touches(start, start + unit) for one in file.pending) and chance.random() < 0.5:
            size = len(content[start : start + unit])
            content[start : start + unit] = chance.choice([bytes(size), chance.randbytes(size)])
    return bytes(content)


def _torn(file: Inode, chance: random.Random) -> bytes:
    """Return the first few writes, the last of them torn at a sector."""
    content = bytearray(file.durable)
    count = chance.randint(1, len(file.pending))
    for change in file.pending[: count - 1]:
        apply(change, content)
    last = file.pending[count - 1]
    if isinstance(last, Write):
        whole = (last.offset + chance.randint(0, len(last.data))) // SECTOR * SECTOR
        last = Write(last.offset, last.data[: max(0, whole - last.offset)])
    if not isinstance(last, Write) or last.data:
        apply(last, content)
    return bytes(content)


def _by_units(file: Inode, chance: random.Random, unit: int, fill: bytes) -> bytes:
    """Return each unit as it was at any moment since the last sync."""
    sizes = [len(file.durable)]
    for change in file.pending:
        sizes.append(change.size_after(sizes[-1]))
    size = chance.choice([sizes[-1], chance.choice(sizes)])
    content = bytearray()
    for start in range(0, size, unit):
        touching = [one for one in file.pending if one.touches(start, start + unit)]
        newest = chance.choice([0, len(touching), chance.randint(0, len(touching))])
        content += _unit(file.durable, touching[:newest], start, unit, fill)
    return bytes(content[:size])


def _unit(durable: bytes, changes: list[Change], start: int, unit: int, fill: bytes) -> bytes:
    """Return a unit of a file after some of the changes that affect it."""
    if start >= len(durable) and not changes and fill:
        at = start % len(fill) // unit * unit
        return fill[at : at + unit].ljust(unit, b"\0")
    content = bytearray(durable[start : start + unit].ljust(unit, b"\0"))
    for change in changes:
        match change:
            case Write(offset, data):
                first, last = max(offset, start), min(offset + len(data), start + unit)
                content[first - start : last - start] = data[first - offset : last - offset]
            case Truncate(length):
                kept = max(0, length - start)
                content[kept:] = bytes(unit - kept)
    return bytes(content)
