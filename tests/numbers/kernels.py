"""Compile kernels for tests, and compute whole numbers with them."""

import os
import random
from pathlib import Path

import pytest
from gmpy2 import mpz

from bigfib.numbers.kernel import EVEN, LIMB_DIGITS, ODD, Kernel, Number, Products
from hatch_build import NUMBERS, SOURCE, compile_kernel

ROOT = Path(__file__).parent.parent.parent
C_SOURCE = ROOT / NUMBERS / SOURCE


def compiled(directory: Path, *extra: str, source: Path = C_SOURCE) -> Path:
    """Compile a kernel; skip the test if that is expected to fail."""
    library = directory / "kernel.so"
    failure = compile_kernel(source, library, *extra)
    if failure:
        if os.environ.get("CI") == "true" and os.environ.get("CC") != "false":
            pytest.fail(failure)
        pytest.skip(f"no C compiler: {failure}")
    return library


def broken(directory: Path, good: str, bad: str) -> Kernel:
    """Compile a kernel in whose source ``bad`` replaces ``good``."""
    source = C_SOURCE.read_text()
    assert source.count(good) == 1
    changed = directory / "broken.c"
    changed.write_text(source.replace(good, bad))
    return Kernel(compiled(directory, "-O1", source=changed))


def text(number: mpz) -> bytes:
    digits: str = number.digits()
    return digits.encode()


def limbs_of(number: mpz) -> int:
    return -(-len(text(number)) // LIMB_DIGITS)


def read(kernel: Kernel, number: mpz) -> Number:
    digits = text(number)
    read = Number(kernel, limbs_of(number))
    read.read(digits)
    return read


def check_results(
    kernel: Kernel, kind: int, a: mpz, b: mpz, expected: list[mpz], threads: int = 1
) -> None:
    """Compare the first result for a and b, or both, computed with as few limbs as they need."""
    limbs = limbs_of(max(expected))
    results = [Number(kernel, limbs) for _ in expected]
    size = Products.size(kernel, limbs, len(results) == 2, threads)
    products = Products(kernel, size, threads)
    products.compute(kind, read(kernel, a), read(kernel, b), limbs, results)
    assert [bytes(products.text(result)) for result in results] == list(map(text, expected))


def shaped(randomness: random.Random, digits: int) -> mpz:
    """Return a number of this many digits: random ones, or ones that are hard to carry."""
    shape = randomness.randrange(6)
    if shape == 0:
        return mpz(10) ** digits - 1
    if shape == 1:
        return mpz(10) ** (digits - 1)
    if shape == 2:
        return mpz(1) << int((digits - 1) * 3.3219280948873623)
    if shape == 3:
        return mpz(10) ** digits // 2
    if shape == 4:
        return mpz("9" + "".join(randomness.choices("09", k=digits - 1)))
    return mpz("7" + "".join(map(str, randomness.choices(range(10), k=digits - 1))))


def check_step(kernel: Kernel, a: mpz, b: mpz, closing: bytes = b"") -> None:
    """Compare a sum and a difference of a >= b with GMP's, at all requested lengths."""
    first, second = text(a), text(b)
    for subtract, result in ((False, a + b), (True, a - b)):
        digits = text(result)
        for count in {len(digits), len(first), len(first) + 1}:
            found = kernel.step(
                *(subtract, count, first + b"x", len(first), second + b"yz", len(second), closing)
            )
            assert found == digits.rjust(count, b"0")[-count:] + closing


def check_products(kernel: Kernel, a: mpz, b: mpz, threads: int = 1) -> None:
    """Compare what a kernel computes from a and b with GMP's results."""
    square, even, odd = a * a, a * (a + 2 * b), a * a + (a + b) ** 2
    check_results(kernel, EVEN, a, mpz(0), [square], threads)
    check_results(kernel, EVEN, a, b, [even, square + b * b], threads)
    check_results(kernel, ODD, a, b, [odd, even], threads)
