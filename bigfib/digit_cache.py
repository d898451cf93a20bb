"""The digit cache: finished far terms as files, kept from one run of the service to the next.

The file of F(n), n > 0, holds its decimal digits and nothing else, so that it can be sent as it is.
It is written under another name, checked, and then renamed, so that under its own name there is
never a part of a term. Whatever is found there is trusted only after a check: of its length, and of
its residue modulo a prime of 157 digits, which no change of a digit or two leaves as it was.
Several services may share the directory.
"""

import contextlib
import os
import re
import time
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from gmpy2 import mpz

from bigfib.numbers import fibonacci

_PRIME: Final = (mpz(1) << 521) - 1  # Robinson 1952

# Measured on 21 million digits: 0.09 s at 512 to 2048 digits at a time, more below and above.
_CHECKED_AT_ONCE: Final = 1024

_WRITTEN_AT_ONCE: Final = 1 << 20

_OURS: Final = re.compile(r"[0-9]+\.(digits|[0-9]+\.part)", re.ASCII)

# A term is written within seconds; who has not written for so long has been killed.
_ABANDONED_SECONDS: Final = 3600


class Seal(NamedTuple):
    """What tells a file from every other, and from itself after a change."""

    inode: int
    size: int
    mtime_ns: int


def seal(file: BinaryIO) -> Seal:
    """Return the seal of an open file."""
    status = os.fstat(file.fileno())
    return Seal(status.st_ino, status.st_size, status.st_mtime_ns)


def holds_term(file: BinaryIO, n: int) -> bool:
    """Return whether the file, read from where it stands, holds the digits of F(n), n > 0."""
    if seal(file).size != fibonacci.digit_count(n):
        return False
    remainder, shift = mpz(0), mpz(10) ** _CHECKED_AT_ONCE
    while piece := file.read(_CHECKED_AT_ONCE):
        if not piece.isdigit():
            return False
        if len(piece) < _CHECKED_AT_ONCE:
            shift = mpz(10) ** len(piece)
        remainder = (remainder * shift + mpz(piece.decode())) % _PRIME
    return bool(remainder == fibonacci.residue(n, _PRIME))


class DigitCache:
    """The files of one directory.

    Attributes:
        directory: Where they are.
        max_bytes: How many bytes the files may have together.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Keep terms in ``directory``, which is made when the first of them comes."""
        self.directory = directory
        self.max_bytes = max_bytes

    def open(self, n: int) -> BinaryIO:
        """Open the file of F(n), checked or not.

        Raises:
            OSError: there is none, or it cannot be read.
        """
        # Of a pipe in its place it would otherwise wait for a writer.
        return open(os.open(self._path(n), os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: PTH123

    def note_use(self, file: BinaryIO) -> None:
        """Let an open file be the last to be removed."""
        # The file may be another user's, with whom the directory is shared.
        with contextlib.suppress(PermissionError):
            # The time of access alone: the other one is part of the seal.
            os.utime(file.fileno(), ns=(time.time_ns(), seal(file).mtime_ns))

    def check(self, n: int) -> Seal | None:
        """Return the seal of the file of F(n) if it holds that term, and remove it if it does not.

        Raises:
            OSError: it cannot be read, or not be removed.
        """
        try:
            with self.open(n) as file:
                before = seal(file)
                if holds_term(file, n) and seal(file) == before:
                    return before
        except FileNotFoundError:
            return None
        self._path(n).unlink(missing_ok=True)
        return None

    def store(self, n: int, digits: str) -> Seal:
        """Keep the digits of F(n), and return the seal of their file.

        Files that have not been used for long are removed to make room.

        Raises:
            OSError: they cannot be kept; nothing is left of them.
            ValueError: what was written is not F(n).
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(len(digits))
        part = self.part(n, os.getpid())
        try:
            # Nobody has a reason to write to it again.
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
            with open(descriptor, "w+b") as file:  # noqa: PTH123 - see above
                for start in range(0, len(digits), _WRITTEN_AT_ONCE):
                    file.write(digits[start : start + _WRITTEN_AT_ONCE].encode())
                file.seek(0)
                if not holds_term(file, n):
                    raise ValueError(f"what was written to {part} is not F({n})")
                part.rename(self._path(n))
                return seal(file)
        finally:
            part.unlink(missing_ok=True)

    def part(self, n: int, pid: int) -> Path:
        """Return where the process ``pid`` writes F(n)."""
        return self.directory / f"{n}.{pid}.part"

    def _path(self, n: int) -> Path:
        return self.directory / f"{n}.digits"

    def _make_room(self, size: int) -> None:
        found, total = [], size
        abandoned = time.time() - _ABANDONED_SECONDS
        for entry in os.scandir(self.directory):
            if not _OURS.fullmatch(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # Another service has removed it.
            if not entry.name.endswith(".part"):
                found.append((status.st_atime_ns, status.st_size, entry.path))
            elif status.st_mtime < abandoned:
                Path(entry.path).unlink(missing_ok=True)
                continue
            total += status.st_size
        for _, length, path in sorted(found):
            if total <= self.max_bytes:
                break
            Path(path).unlink(missing_ok=True)
            total -= length
