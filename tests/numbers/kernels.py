"""Compile kernels for tests, and compute whole numbers with them."""

import os
import random
from pathlib import Path

import pytest
from gmpy2 import mpz

from bigfib.numbers.kernel import LIMB_DIGITS, PRODUCT, Kernel, Number, Products
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


def read(kernel: Kernel, number: mpz) -> Number:
    digits = text(number)
    read = Number(-(-len(digits) // LIMB_DIGITS))
    read.read(kernel, digits)
    return read


def computed(kernel: Kernel, kind: int, a: mpz, b: mpz, threads: int = 1) -> list[mpz]:
    """Compute a product, or both results of the other kinds."""
    first = read(kernel, a)
    second = first if a is b else read(kernel, b)
    both = kind != PRODUCT
    limbs = 2 * max(first.limbs, second.limbs) + 1 if both else first.limbs + second.limbs
    results = [Number(limbs) for _ in range(1 + both)]
    size = Products.size(kernel, limbs, both, threads)
    products = Products(kernel, size, threads)
    products.compute(kind, first, second, limbs, results)
    # A number without limbs is zero.
    return [mpz(bytes(products.text(result)) or b"0") for result in results]


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
    assert computed(kernel, PRODUCT, a, b, threads) == [a * b]
    even, square = a * (a + 2 * b), a * a
    assert computed(kernel, 1, a, b, threads) == [even, square + b * b]
    assert computed(kernel, 2, a, b, threads) == [square + (a + b) ** 2, even]
