"""Steps and products of the C kernel, with every buffer as short as it may be, against GMP.

``python -m tests.fuzz.kernel LIBRARY TIMES``: so that it can be run with a kernel that is compiled
with AddressSanitizer, which sees each access beyond a buffer of the C library's allocator.
"""

import ctypes
import random
import sys
from ctypes import c_size_t, c_uint64, c_void_p
from pathlib import Path

from gmpy2 import mpz

from bigfib.numbers.kernel import LIMB_DIGITS, Kernel
from tests.numbers.kernels import check_step, shaped, text

_C = ctypes.CDLL(None)
_C.memalign.restype = c_void_p
_C.memalign.argtypes = [c_size_t, c_size_t]
_C.free.argtypes = [c_void_p]


def check(kernel: Kernel, randomness: random.Random) -> None:
    a, b = (shaped(randomness, randomness.randrange(1, 3_000)) for _ in range(2))
    check_step(kernel, max(a, b), min(a, b), b"}" * randomness.randrange(3))
    even, square = a * (a + 2 * b), a * a
    kind = randomness.randrange(3)
    both = kind and randomness.randrange(2)
    expected = [[a * b], [even, square + b * b], [square + (a + b) ** 2, even]][kind]
    assert _product(kernel, kind, bool(both), a, b) == expected[: 1 + both]


def _product(kernel: Kernel, kind: int, both: bool, a: mpz, b: mpz) -> list[mpz]:
    taken: list[int] = []

    def take(size: int) -> int:
        taken.append(_C.memalign(32, size))
        return taken[-1]

    numbers = []
    for digits in (text(a), text(b)):
        limbs = -(-len(digits) // LIMB_DIGITS)
        numbers += [take(8 * limbs), limbs]
        kernel.read(numbers[-2], digits, len(digits))
    limbs = 2 * max(numbers[1], numbers[3]) + 1 if kind else numbers[1] + numbers[3]
    points = kernel.points(limbs)
    residues = [take(8 * points * (1 + both)) for _ in range(3)]
    done = c_uint64()
    for prime, to in enumerate(residues):
        work = take(8 * points * (1 + both) + 2 * points)
        kernel.transform(kind, both, prime, to, limbs, *numbers, work, ctypes.byref(done))
    results = []
    for result in range(1 + both):
        out = take(8 * limbs)
        kernel.carry(out, limbs, *(to + 8 * points * result for to in residues))
        written = take(LIMB_DIGITS * limbs)
        kernel.write(written, out, limbs)
        results.append(mpz(ctypes.string_at(written, LIMB_DIGITS * limbs)))
        assert kernel.residue(out, limbs, 2**61 - 1) == results[-1] % (2**61 - 1)
    for address in taken:
        _C.free(address)
    return results


if __name__ == "__main__":
    kernel, randomness = Kernel(Path(sys.argv[1])), random.Random(21)
    for _ in range(int(sys.argv[2])):
        check(kernel, randomness)
