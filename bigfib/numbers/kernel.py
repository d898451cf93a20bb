"""Call the C kernel (kernel.c) through ctypes: sums of digits, and exact products in threads.

ctypes rather than an extension module: the library then needs no Python headers to build, is the
same for every version of Python, and lets other threads run. A call costs half a microsecond.

If the kernel was not built, or the processor lacks AVX2, `load` returns None, and callers compute
without it.
"""

import contextlib
import ctypes
import mmap
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any, Final

LIBRARY: Final = Path(__file__).with_name("libkernel.so")

LIMB_DIGITS: Final = 18
"""Decimal digits of a limb."""

_PRIMES: Final = 3
_DOUBLE: Final = 8

_HUGE: Final = 1 << 21

# How often progress is reported while products are computed, in seconds.
_REPORT_EVERY: Final = 0.1

# Measured at 10^7 .. 10^9: the share of a product that its transforms take; carries take the rest.
_TRANSFORMS: Final = 0.8

EVEN, ODD = 1, 2
"""The two results for a and b. EVEN: a(a + 2b), aa + bb. ODD: aa + (a + b)(a + b), a(a + 2b)."""


class NoKernel(Exception):
    """The kernel cannot be used; the message says why, and what to do."""


class Kernel:
    """The functions of a compiled kernel; ``variant`` names the vector instructions it uses."""

    def __init__(self, library: Path = LIBRARY) -> None:
        """Load ``library``, or raise `NoKernel`."""
        if not library.exists():
            raise NoKernel("it was not built; install a C compiler, then reinstall bigfib")
        try:
            functions = ctypes.CDLL(str(library))
            # A step takes microseconds, so it does not release the interpreter's lock.
            holding = ctypes.PyDLL(str(library))
            functions.bigfib_variant.restype = c_char_p
            variant: bytes | None = functions.bigfib_variant()
        except (AttributeError, OSError) as error:
            raise NoKernel(f"it cannot be loaded ({error}); reinstall bigfib") from error
        if variant is None:
            raise NoKernel("this processor lacks AVX2 or FMA")
        self.variant = variant.decode()
        self._step = holding.bigfib_step
        self._step.restype = c_int
        self._step.argtypes = [c_int, *4 * (c_char_p, c_size_t)]
        # CPython's function that allocates bytes to be filled in.
        self._unwritten: Callable[[None, int], bytes] = ctypes.PYFUNCTYPE(
            ctypes.py_object, c_char_p, ctypes.c_ssize_t
        )(("PyBytes_FromStringAndSize", ctypes.pythonapi))
        limbs = (c_void_p, c_size_t)
        self.points: Callable[[int], int] = _typed(functions.bigfib_points, c_size_t, c_size_t)
        self.transform: Callable[..., None] = _typed(
            functions.bigfib_transform,
            None,
            *(c_int, c_int, c_int, c_void_p, c_size_t, *limbs, *limbs, c_void_p, c_void_p),
        )
        self.carry: Callable[..., int] = _typed(
            functions.bigfib_carry, c_size_t, *limbs, c_void_p, c_void_p, c_void_p
        )
        self.read: Callable[[int, bytes, int], None] = _typed(
            functions.bigfib_read, None, c_void_p, c_char_p, c_size_t
        )
        self.write: Callable[[int, int, int], None] = _typed(
            functions.bigfib_write, None, c_void_p, *limbs
        )
        self.residue: Callable[[int, int, int], int] = _typed(
            functions.bigfib_residue, c_uint64, *limbs, c_uint64
        )

    def step(
        self,
        subtract: bool,
        digits: int,
        first: bytes,
        first_digits: int,
        second: bytes,
        second_digits: int,
        closing: bytes = b"",
    ) -> bytes:
        """Return the last ``digits`` digits of a sum or a difference, then ``closing``.

        A shorter result is padded with leading zeros. Each number is ASCII digits, most significant
        first, perhaps with other bytes after them; the second is not larger than the first.
        """
        room = len(closing)
        made = self._unwritten(None, digits + room)
        self._step(
            subtract, made, digits, first, first_digits, second, second_digits, closing, room
        )
        return made


def _typed(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype = result
    function.argtypes = arguments
    return function


@lru_cache(maxsize=1)
def _loaded() -> Kernel | NoKernel:
    try:
        return Kernel()
    except NoKernel as error:
        return error


def load() -> Kernel | None:
    """Return the kernel, or None if it cannot be used."""
    loaded = _loaded()
    return loaded if isinstance(loaded, Kernel) else None


def description() -> str:
    """Return which kernel is in use, or why there is none and what to do."""
    loaded = _loaded()
    return loaded.variant if isinstance(loaded, Kernel) else f"none, {loaded}"


class Buffer:
    """Allocate zeroed memory that begins on a page of its own."""

    def __init__(self, size: int) -> None:
        """Allocate ``size`` bytes, or raise `MemoryError`."""
        try:
            memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"there are no {size} bytes of memory") from error
        # With small pages, the operating system would take a tenth of the computing time.
        if size >= _HUGE:
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.view = memoryview(memory)


class Number:
    """A natural number in limbs of 18 digits, least significant first."""

    def __init__(self, kernel: Kernel, room: int) -> None:
        """Allocate ``room`` limbs; the number is 0."""
        self._kernel = kernel
        self._buffer = Buffer(8 * room)
        self.address = self._buffer.address
        self.limbs = 0

    def read(self, digits: bytes) -> None:
        """Set the number to ``digits``, for which there is room."""
        self.limbs = -(-len(digits) // LIMB_DIGITS)
        self._kernel.read(self.address, digits, len(digits))

    def residue(self, modulus: int) -> int:
        """Return the number modulo ``modulus``, which is below 2^62."""
        return self._kernel.residue(self.address, self.limbs, modulus)


class Products:
    """Compute products, in memory allocated once and in threads."""

    def __init__(self, kernel: Kernel, size: int, threads: int = 1) -> None:
        """Allocate ``size`` bytes, as `size` returns for the largest product.

        At most three threads have work to do.

        Raises:
            MemoryError: There is not enough memory.
        """
        self._kernel = kernel
        self._buffer = Buffer(size)
        self._threads = min(threads, _PRIMES)
        self._done = c_uint64()

    @staticmethod
    def size(kernel: Kernel, limbs: int, both: bool, threads: int = 1) -> int:
        """Return the bytes needed for a product of ``limbs`` limbs, or for ``both`` results."""
        points = kernel.points(limbs)
        each = (1 + both) * points
        return _DOUBLE * (_PRIMES * each + min(threads, _PRIMES) * (each + points // 4))

    def compute(
        self,
        kind: int,
        a: Number,
        b: Number,
        limbs: int,
        results: list[Number],
        report: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Compute the first result of ``kind``, or both; they may replace a and b.

        ``limbs`` is at least the length of the results. ``report`` is called with the share of the
        work that is done, from 0 to 1.
        """
        points, both = self._kernel.points(limbs), len(results) == 2
        each = _DOUBLE * (1 + both) * points
        residues = [self._buffer.address + prime * each for prime in range(_PRIMES)]
        free = [
            self._buffer.address + _PRIMES * each + thread * (each + _DOUBLE * points // 4)
            for thread in range(self._threads)
        ]
        self._done.value = 0

        def transform(prime: int) -> None:
            work = free.pop()
            self._kernel.transform(
                *(kind, both, prime, residues[prime], limbs, a.address, a.limbs),
                *(b.address, b.limbs, work, ctypes.byref(self._done)),
            )
            free.append(work)

        def carry(index: int) -> None:
            parts = [residue + _DOUBLE * index * points for residue in residues]
            results[index].limbs = self._kernel.carry(results[index].address, limbs, *parts)

        self._run(
            transform,
            _PRIMES,
            lambda: report(_TRANSFORMS * self._done.value / (_PRIMES * points)),
        )
        self._run(carry, len(results), lambda: None)
        report(1)

    def _run(self, work: Callable[[int], None], count: int, report: Callable[[], None]) -> None:
        """Call ``work`` with each number below ``count``, in threads, and ``report`` meanwhile.

        If the system starts no more threads (``ulimit -u``), fewer do the work, or this one does.
        """
        left = list(range(count))

        def work_on() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    work(left.pop())

        threads = [Thread(target=work_on) for _ in range(min(self._threads, count))]
        started: list[Thread] = []
        try:
            with contextlib.suppress(RuntimeError):
                for thread in threads:
                    thread.start()
                    started.append(thread)
            if not started:
                work_on()
            for thread in started:
                while thread.is_alive():
                    thread.join(_REPORT_EVERY)
                    report()
        finally:
            # The caller may free the memory that the threads use.
            for thread in started:
                thread.join()
        report()

    def text(self, number: Number) -> memoryview:
        """Return the digits of ``number`` > 0, in memory that the next product overwrites."""
        end = LIMB_DIGITS * number.limbs
        self._kernel.write(self._buffer.address, number.address, number.limbs)
        first = bytes(self._buffer.view[:LIMB_DIGITS])
        return self._buffer.view[LIMB_DIGITS - len(first.lstrip(b"0")) : end]
