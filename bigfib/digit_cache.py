"""Keep computed large terms as files, from one run of the service to the next.

The file of F(n), n > 0, holds its decimal digits and nothing else, so it can be sent unchanged. It
is written under a temporary name, checked, and then renamed, so that a file with the final name is
always complete. A file is trusted only after a check of its length and of its residues modulo two
random primes of 61 bits. Several services may share the directory.

Each check computes the digests of the term's representations, too. Every process checks a file
before it sends it, so that no digests need to be kept beside the file, where they might differ.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import gmpy2
from gmpy2 import mpz

from bigfib import terms
from bigfib.numbers import doubling, fibonacci, kernel

# Checking 21 million digits takes 0.12 s with pieces of 512 to 2048 digits, longer with others.
_CHECKED_AT_ONCE: Final = 1024

# With the kernel the same takes 0.04 s.
_CHECKED_AT_ONCE_BY_KERNEL: Final = 4096 * kernel.LIMB_DIGITS

_WRITTEN_AT_ONCE: Final = 1 << 20

_OURS: Final = re.compile(r"[0-9]+\.(digits|[0-9]+\.part)", re.ASCII)

# Writing a term takes seconds; after this time its writer must have been killed.
_ABANDONED_SECONDS: Final = 3600


class Seal(NamedTuple):
    """Identify the content of a file: the seal differs between files and changes with a write."""

    inode: int
    size: int
    mtime_ns: int


class CheckedFile(NamedTuple):
    """The seal of a file that has passed its check, and the digests of what is sent from it."""

    seal: Seal
    digests: tuple[bytes, ...]


def seal(file: BinaryIO) -> Seal:
    """Return the seal of an open file."""
    status = os.fstat(file.fileno())
    return Seal(status.st_ino, status.st_size, status.st_mtime_ns)


def holds_term(file: BinaryIO, n: int) -> bool:
    """Return whether the file, from its current offset, holds the digits of F(n), n > 0."""
    if seal(file).size != fibonacci.digit_count(n):
        return False
    found = kernel.load()
    at_once = _CHECKED_AT_ONCE_BY_KERNEL if found else _CHECKED_AT_ONCE
    primes = [doubling.random_prime(), doubling.random_prime()]
    number = kernel.Number(found, at_once // kernel.LIMB_DIGITS) if found else None
    residues = [mpz(0) for _ in primes]
    length, shifts = 0, residues
    while piece := file.read(at_once):
        if not piece.isdigit():
            return False
        if len(piece) != length:
            length = len(piece)
            shifts = [gmpy2.powmod(10, length, prime) for prime in primes]
        if number:
            number.read(piece)
            last = [number.residue(int(prime)) for prime in primes]
        else:
            last = [mpz(piece.decode())] * len(primes)
        parts = zip(residues, shifts, last, primes, strict=True)
        residues = [(before * shift + of_piece) % prime for before, shift, of_piece, prime in parts]
    return residues == [fibonacci.residue(n, prime) for prime in primes]


def digests(file: BinaryIO, n: int) -> tuple[bytes, ...]:
    """Return the SHA-256 of the digits in the file in each of `terms.decimal_frames`, in order."""
    frames = terms.decimal_frames(n)
    # Frames that begin alike share the work.
    begun = {opening: hashlib.sha256(opening) for opening, _ in frames}
    file.seek(0)
    while piece := file.read(_WRITTEN_AT_ONCE):
        for digest in begun.values():
            digest.update(piece)
    found = []
    for opening, closing in frames:
        digest = begun[opening].copy()
        digest.update(closing)
        found.append(digest.digest())
    return tuple(found)


class DigitCache:
    """Store terms in the files of a directory, and delete the least recently used."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Use ``directory``, created when the first term is stored, for ``max_bytes`` of files."""
        self.directory = directory
        self.max_bytes = max_bytes

    def open(self, n: int) -> BinaryIO:
        """Open the file of F(n) without a check, or raise `OSError`."""
        # Non-blocking: opening a pipe in its place would otherwise wait for a writer.
        return open(
            self._path(n), "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
        )

    def has_file(self, n: int) -> bool:
        """Return whether there is a file of F(n), which may not have been checked."""
        with contextlib.suppress(OSError):
            self.open(n).close()
            return True
        return False

    def note_use(self, file: BinaryIO) -> None:
        """Mark an open file as the most recently used."""
        # This fails if the file belongs to another user, or the disk is read-only.
        with contextlib.suppress(OSError):
            # Change only the access time: the modification time is part of the seal.
            os.utime(file.fileno(), ns=(time.time_ns(), seal(file).mtime_ns))

    def check(self, n: int) -> CheckedFile | None:
        """Return the facts of the file of F(n) if it holds that term; else delete it, return None.

        A file that cannot be read or deleted is kept until `store` replaces it.
        """
        with contextlib.suppress(OSError):
            with self.open(n) as file:
                if holds_term(file, n):
                    return CheckedFile(seal(file), digests(file, n))
            self._path(n).unlink()
        return None

    def store(self, n: int, text: str | memoryview) -> CheckedFile:
        """Store the digits of F(n), ``text``, and return the facts of their file.

        Delete the least recently used files while the total exceeds ``max_bytes`` or the disk is
        full.

        Raises:
            OSError: The digits cannot be stored; no partial file is left.
            ValueError: The file written does not hold F(n).
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        total = len(text) + sum(status.st_size for _, status in self._files())
        while total > self.max_bytes and (freed := self._remove_oldest()):
            total -= freed
        while True:
            try:
                return self._write(n, text)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._remove_oldest():
                    raise

    def _write(self, n: int, text: str | memoryview) -> CheckedFile:
        part = self.part(n, os.getpid())
        # A process that was killed may have had the same pid.
        part.unlink(missing_ok=True)
        try:
            # Read-only: the file never changes again.
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
            with open(descriptor, "w+b") as file:  # noqa: PTH123 - see above
                for start in range(0, len(text), _WRITTEN_AT_ONCE):
                    piece = text[start : start + _WRITTEN_AT_ONCE]
                    file.write(piece.encode() if isinstance(piece, str) else piece)
                file.seek(0)
                if not holds_term(file, n):
                    raise ValueError(f"the number written to {part} is not F({n})")
                checked = CheckedFile(seal(file), digests(file, n))
                part.rename(self._path(n))
                return checked
        finally:
            part.unlink(missing_ok=True)

    def part(self, n: int, pid: int) -> Path:
        """Return the temporary name under which the process ``pid`` writes F(n)."""
        return self.directory / f"{n}.{pid}.part"

    def _path(self, n: int) -> Path:
        return self.directory / f"{n}.digits"

    def lock(self, n: int) -> BinaryIO:
        """Lock F(n) against other processes that share the directory, waiting for the lock.

        Raises:
            OSError: The directory or the lock file cannot be used.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._open_lock()
        # Byte n of the one empty lock file stands for F(n). The lock ends with the process.
        fcntl.lockf(file, fcntl.LOCK_EX, 1, n)
        return file

    def is_locked(self, n: int) -> bool:
        """Return whether another process holds the lock of F(n), without waiting.

        A process that holds a `lock` must not call this: closing the file releases its locks.
        """
        try:
            with self._open_lock() as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, n)
        except BlockingIOError:
            return True
        except OSError:
            pass  # The directory does not exist yet, or may not be written to.
        return False

    def _open_lock(self) -> BinaryIO:
        path = self.directory / "lock"
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise OSError(errno.EINVAL, "not a regular file; remove it", str(path))
        # Neither wait for the other end of a pipe nor follow a link out of the directory.
        extra = os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW
        return open(
            path, "r+b", buffering=0, opener=lambda path, flags: os.open(path, flags | extra, 0o666)
        )

    def size(self) -> int:
        """Return the total size of the files; 0 if the directory cannot be read."""
        try:
            return sum(status.st_size for _, status in self._files())
        except OSError:
            return 0

    def _remove_oldest(self) -> int:
        """Delete the least recently used term; return its size, or 0 if there is none."""
        found = [(s.st_atime_ns, s.st_size, p) for p, s in self._files() if p.suffix == ".digits"]
        for _, length, path in sorted(found):
            with contextlib.suppress(OSError):
                path.unlink()
                return length
        return 0

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of this cache; delete unfinished files of killed processes."""
        abandoned = time.time() - _ABANDONED_SECONDS
        for entry in os.scandir(self.directory):
            if not _OURS.fullmatch(entry.name):
                continue
            # Another service may have deleted it.
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(".part") and status.st_mtime < abandoned:
                    Path(entry.path).unlink()
                elif stat.S_ISREG(status.st_mode):
                    yield Path(entry.path), status
