"""Compute what the disk may hold after a power loss, from the system calls that were made.

`Recorder` passes every call that changes files on to the real system and writes it down. `Disk`
replays such calls on a model of a disk with a volatile cache: only what has been synced is sure to
survive; of the writes since then any may be there, whole or torn, and any not.

What a write leaves as it is in a sector survives as well (SQLite calls it powersafe overwrite),
unless a test asks for a disk of which that is not true: there a power loss may harm any sector or
page that was being written, and all that it held.
"""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Call = tuple[object, ...]

SECTOR = 512
PAGE = 4096


class Recorder:
    """The real system calls, recorded in `calls`, with numbers for files."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._files: dict[int, int] = {}
        self._count = 0

    def open(self, path: Path, flags: int, mode: int = 0o777, /) -> int:
        fd = os.open(path, flags, mode)
        if flags & os.O_DIRECTORY:
            self._files[fd] = -1
        else:
            self._count += 1
            self._files[fd] = self._count
            self.calls.append(("open", self._count, path.name, bool(flags & os.O_TRUNC)))
        return fd

    def close(self, fd: int, /) -> None:
        os.close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        self.calls.append(("write", self._files[fd], bytes(data), offset))
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, length: int, /) -> None:
        self.calls.append(("truncate", self._files[fd], length))
        os.ftruncate(fd, length)

    def fsync(self, fd: int, /) -> None:
        # The real call would only take time; the model does what it promises.
        self.calls.append(("sync", self._files[fd]))

    fdatasync = fsync

    def rename(self, source: Path, target: Path, /) -> None:
        self.calls.append(("rename", source.name, target.name))
        source.rename(target)

    def unlink(self, path: Path, /) -> None:
        path.unlink()
        self.calls.append(("unlink", path.name))

    def acknowledge(self, positions: dict[bytes, int | None]) -> None:
        """Record that a client has been shown these positions."""
        self.calls.append(("acknowledged", dict(positions)))

    def append(self, sequence_id: bytes, position: int | None) -> None:
        """Record that a sequence is about to be moved."""
        self.calls.append(("appended", sequence_id, position))


@dataclass
class File:
    """A file: what is certainly on disk, and the writes since the last sync."""

    durable: bytes = b""
    pending: list[Call] = field(default_factory=list)


class Disk:
    """A directory on a disk with a volatile cache."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._inodes: dict[int, File] = {}
        self._durable_names = {name: File(content) for name, content in files.items()}
        self._pending_names: list[tuple[str, str | None, File | None]] = []
        self._names = dict(self._durable_names)
        self.acknowledged: dict[bytes, int | None] = {}
        self.since: dict[bytes, list[int | None]] = {}

    def do(self, call: Call) -> None:
        """Apply one call."""
        match call:
            case ("open", int(number), str(name), bool(truncates)):
                if name not in self._names:
                    self._names[name] = File()
                    self._pending_names.append((name, None, self._names[name]))
                elif truncates:
                    self._names[name].pending.append(("truncate", 0))
                self._inodes[number] = self._names[name]
            case ("write", int(number), data, offset):
                self._inodes[number].pending.append(("write", data, offset))
            case ("truncate", int(number), length):
                self._inodes[number].pending.append(("truncate", length))
            case ("sync", -1):
                self._durable_names = dict(self._names)
                self._pending_names.clear()
            case ("sync", int(number)):
                file = self._inodes[number]
                file.durable = _after(file.durable, file.pending)
                file.pending.clear()
            case ("rename", str(source), str(target)):
                self._names[target] = self._names.pop(source)
                self._pending_names.append((target, source, self._names[target]))
            case ("unlink", str(name)):
                del self._names[name]
                self._pending_names.append((name, None, None))
            case ("acknowledged", dict(positions)):
                self.acknowledged.update(positions)
                for sequence_id in positions:
                    self.since[sequence_id] = []
            case ("appended", bytes(sequence_id), position):
                assert position is None or isinstance(position, int)
                self.since.setdefault(sequence_id, []).append(position)
            case _:
                raise AssertionError(call)

    def survivors(self, chance: random.Random, *, powersafe: bool = True) -> dict[str, bytes]:
        """Return files that a power loss at this moment may leave."""
        names = dict(self._durable_names)
        # A journalling file system keeps the order of changes to a directory.
        kept = chance.randint(0, len(self._pending_names))
        for name, source, file in self._pending_names[:kept]:
            if source is not None:
                names.pop(source, None)
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        torn: Callable[[File], bytes] = chance.choice(
            [
                lambda file: file.durable,
                lambda file: _after(file.durable, file.pending),
                lambda file: _after(file.durable, _subset(file.pending, chance, SECTOR)),
                lambda file: _after(file.durable, _subset(file.pending, chance, 1)),
                lambda file: _after(file.durable, _last_torn(file.pending, chance)),
            ]
        )
        return {
            name: torn(file) if powersafe else _harmed(torn(file), file.pending, chance)
            for name, file in names.items()
        }

    def synced(self, name: str) -> int:
        """Return how many bytes of a file, by its present name, are certainly on the disk."""
        return len(self._names[name].durable)

    def honest(self, sequence_id: bytes) -> set[int]:
        """Return the possible positions: as last acknowledged, or moved since."""
        possible = [self.acknowledged.get(sequence_id), *self.since.get(sequence_id, [])]
        return {position or 0 for position in possible}


def _after(content: bytes, calls: Iterable[Call]) -> bytes:
    """Return the content after the calls."""
    changed = bytearray(content)
    for call in calls:
        match call:
            case ("write", bytes(data), int(offset)):
                if len(changed) < offset:
                    changed.extend(bytes(offset - len(changed)))
                changed[offset : offset + len(data)] = data
            case ("truncate", int(length)):
                del changed[length:]
                changed.extend(bytes(length - len(changed)))
    return bytes(changed)


def _subset(calls: list[Call], chance: random.Random, unit: int) -> list[Call]:
    """Return some of the calls; of a write, some units of the disk."""
    kept: list[Call] = []
    for call in calls:
        match call:
            case ("write", bytes(data), int(offset)):
                at = offset
                while at < offset + len(data):
                    end = min((at // unit + 1) * unit, offset + len(data))
                    if chance.random() < 0.7:
                        kept.append(("write", data[at - offset : end - offset], at))
                    at = end
            case _:
                if chance.random() < 0.5:
                    kept.append(call)
    return kept


def _harmed(content: bytes, calls: list[Call], chance: random.Random) -> bytes:
    """Return the content, with some of the units harmed that were being written."""
    unit = chance.choice([SECTOR, PAGE])
    harmed = bytearray(content)
    for call in calls:
        match call:
            case ("write", bytes(data), int(offset)):
                for start in range(offset // unit * unit, offset + len(data), unit):
                    old = harmed[start : start + unit]
                    kept = chance.choice([len(old), 0, chance.randint(0, len(old))])
                    lost = len(old) - kept
                    harmed[start + kept : start + unit] = chance.choice(
                        [bytes(lost), chance.randbytes(lost)]
                    )
    return bytes(harmed)


def _last_torn(calls: list[Call], chance: random.Random) -> list[Call]:
    """Return the calls up to one of them, of which only the beginning is there."""
    if not calls:
        return []
    kept = calls[: chance.randint(1, len(calls))]
    match kept[-1]:
        case ("write", bytes(data), int(offset)):
            kept[-1] = ("write", data[: chance.randint(0, len(data))], offset)
    return kept
