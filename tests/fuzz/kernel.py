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

from bigfib.numbers.kernel import EVEN, LIMB_DIGITS, ODD, Kernel
from tests.numbers.kernels import check_step, limbs_of, shaped, text

_C = ctypes.CDLL(None)
_C.memalign.restype = c_void_p
_C.memalign.argtypes = [c_size_t, c_size_t]
_C.free.argtypes = [c_void_p]


def check(kernel: Kernel, randomness: random.Random) -> None:
    a, b = (shaped(randomness, randomness.randrange(1, 3_000)) for _ in range(2))
    check_step(kernel, max(a, b), min(a, b), b"}" * randomness.randrange(3))
    b *= randomness.randrange(3) > 0
    even, square = a * (a + 2 * b), a * a
    results = {EVEN: [even, square + b * b], ODD: [square + (a + b) ** 2, even]}
    kind, count = randomness.choice([EVEN, ODD]), randomness.choice([1, 2])
    _check_results(kernel, kind, a, b, results[kind][:count])


def _check_results(kernel: Kernel, kind: int, a: mpz, b: mpz, expected: list[mpz]) -> None:
    taken: list[int] = []

    def take(size: int) -> int:
        taken.append(_C.memalign(32, size))
        return taken[-1]

    numbers = []
    for number in (a, b):
        numbers += [take(8 * limbs_of(number)), limbs_of(number)]
        kernel.read(numbers[-2], text(number), len(text(number)))
    limbs, both = limbs_of(max(expected)), len(expected) == 2
    points = kernel.points(limbs)
    residues = [take(8 * points * (1 + both)) for _ in range(3)]
    done = c_uint64()
    for prime, to in enumerate(residues):
        work = take(8 * points * (1 + both) + 2 * points)
        kernel.transform(kind, both, prime, to, limbs, *numbers, work, ctypes.byref(done))
    for result, number in enumerate(expected):
        out = take(8 * limbs)
        kernel.carry(out, limbs, *(to + 8 * points * result for to in residues))
        written = take(LIMB_DIGITS * limbs)
        kernel.write(written, out, limbs)
        assert mpz(ctypes.string_at(written, LIMB_DIGITS * limbs)) == number
        assert kernel.residue(out, limbs, 2**61 - 1) == number % (2**61 - 1)
    for address in taken:
        _C.free(address)


if __name__ == "__main__":
    kernel, randomness = Kernel(Path(sys.argv[1])), random.Random(21)
    for _ in range(int(sys.argv[2])):
        check(kernel, randomness)
