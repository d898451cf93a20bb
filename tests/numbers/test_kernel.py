"""The C kernel, compared with GMP: steps, products and bounds; a broken kernel is noticed."""

import ctypes
import platform
import random
import re
from collections import Counter
from pathlib import Path

import gmpy2
import pytest
from gmpy2 import mpz

from bigfib.numbers.kernel import EVEN, LIMB_DIGITS, ODD, Kernel, NoKernel, Number, Products
from hatch_build import VECTORS, compile_kernel
from tests.numbers.kernels import (
    C_SOURCE,
    broken,
    check_products,
    check_results,
    check_step,
    compiled,
    read,
    shaped,
    text,
)

# Transforms have 8 or 12 times a power of two points, at least 192.
LENGTHS = sorted(k << i for i in range(4, 10) for k in (8, 12))[1:]


class TestStep:
    def test_of_every_short_length_equals_gmp(self, kernel: Kernel) -> None:
        randomness = random.Random(11)
        for digits in range(1, 260):
            for fewer in {0, 1, digits - 1}:
                a = shaped(randomness, digits)
                check_step(kernel, a, min(a, shaped(randomness, max(digits - fewer, 1))), b'"}')

    def test_of_ten_thousand_pairs_equals_gmp(self, kernel: Kernel, tried: Counter[str]) -> None:
        randomness = random.Random(12)
        for _ in range(5_000):
            digits = randomness.choice([64, 96, 100, 300, 1_000])
            a = shaped(randomness, digits + randomness.randrange(40))
            b = shaped(randomness, len(text(a)) - randomness.randrange(2))
            check_step(kernel, max(a, b), min(a, b))
            tried["steps of the kernel"] += 2

    @pytest.mark.parametrize("digits", [300, 1_000, 100_003])
    def test_carries_through_all_digits(self, kernel: Kernel, digits: int) -> None:
        nines = mpz(10) ** digits - 1
        check_step(kernel, nines, mpz(1))
        check_step(kernel, nines, nines)
        check_step(kernel, nines + 1, mpz(1))
        # Words that sum to nines and are carried into, from each place in a vector.
        for place in range(120):
            check_step(kernel, nines - nines // 2 + mpz(10) ** place, nines // 2)

    def test_sum_of_more_digits_than_wanted_is_cut_off(self, kernel: Kernel) -> None:
        assert kernel.step(False, 100, b"9" * 100, 100, b"1", 1) == b"0" * 100


class TestProducts:
    @pytest.mark.parametrize("points", LENGTHS)
    def test_at_every_length_of_transforms_equal_gmp(self, kernel: Kernel, points: int) -> None:
        randomness = random.Random(points)
        assert [kernel.points(points + more) for more in (-1, 0)] == [points, points]
        assert kernel.points(points + 1) > points
        for limbs in (points - 1, points, points + 1):
            digits = limbs // 2 * LIMB_DIGITS
            nines = mpz(10) ** digits - 1
            check_products(kernel, nines, nines)
            a, b = (shaped(randomness, digits - randomness.randrange(30)) for _ in range(2))
            check_products(kernel, a, b)

    def test_of_a_thousand_pairs_equal_gmp(self, kernel: Kernel, tried: Counter[str]) -> None:
        randomness = random.Random(13)
        for _ in range(200):
            longest = randomness.choice([20, 200, 2_000, 20_000])
            a, b = (shaped(randomness, randomness.randrange(1, longest)) for _ in range(2))
            check_products(kernel, a, b)
            tried["products of the kernel"] += 5

    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("digits", [100_000, 400_000])
    def test_products_in_threads_equal_gmp(self, kernel: Kernel, digits: int, threads: int) -> None:
        randomness = random.Random(digits)
        nines = mpz(10) ** digits - 1
        check_products(kernel, nines, nines, threads)
        check_products(kernel, shaped(randomness, digits), nines, threads)

    def test_first_result_alone_is_exact(self, kernel: Kernel) -> None:
        a, b = mpz(10) ** 20_000 // 7, mpz(10) ** 19_990 // 3
        check_results(kernel, EVEN, a, b, [a * (a + 2 * b)])
        check_results(kernel, ODD, a, b, [a * a + (a + b) ** 2])

    @pytest.mark.parametrize("points", [3 << 10, 1 << 12, 3 << 11, 1 << 13, 3 << 12, 1 << 14])
    def test_progress_rises_to_one(self, kernel: Kernel, points: int) -> None:
        a = read(kernel, mpz(10) ** (points // 2 * LIMB_DIGITS) - 1)
        assert kernel.points(2 * a.limbs) == points
        told: list[float] = []
        products = Products(kernel, Products.size(kernel, 2 * a.limbs, both=False))
        zero, square = Number(kernel, 0), Number(kernel, 2 * a.limbs)
        products.compute(EVEN, a, zero, 2 * a.limbs, [square], told.append)
        assert told == sorted(told)
        assert told[-1] == 1

    def test_with_another_rounding_mode_equal_gmp(self, kernel: Kernel) -> None:
        libm = ctypes.CDLL("libm.so.6")
        # FE_UPWARD of <fenv.h>; FE_TONEAREST is zero on both.
        upward, nearest = 0x400000 if platform.machine() == "aarch64" else 0x800, 0
        a = mpz(10) ** 30_000 // 7
        # Threads start with the mode of the thread that starts them.
        assert libm.fesetround(upward) == 0
        try:
            check_products(kernel, a, a)
        finally:
            libm.fesetround(nearest)

    def test_too_much_memory_is_an_error(self, kernel: Kernel) -> None:
        with pytest.raises(MemoryError):
            Products(kernel, 1 << 62)


def test_residues_equal_gmp(kernel: Kernel) -> None:
    randomness = random.Random(14)
    for digits in [*range(1, 700, 7), 100_000]:
        number = shaped(randomness, digits)
        limbs = read(kernel, number)
        for modulus in (1, 2, int(gmpy2.next_prime(randomness.getrandbits(61))), 2**62 - 57):
            assert kernel.residue(limbs.address, limbs.limbs, modulus) == number % modulus


class TestBounds:
    """The bounds derived in the first comment of kernel.c."""

    def test_primes_have_the_roots_that_are_needed(self) -> None:
        source = C_SOURCE.read_text()
        lists = re.findall(r"u64 (?:PRIMES|ROOTS)\[3\] = {([0-9, ]+)}", source)
        primes, roots = ([int(number) for number in found.split(",")] for found in lists)
        for p, root in zip(primes, roots, strict=True):
            assert gmpy2.is_prime(p)
            assert p < 2**51 / 3.1
            assert (p - 1) % (3 << 28) == 0
            rest, factors = p - 1, set()
            for q in (2, 3, 5, 7):
                while rest % q == 0:
                    rest //= q
                    factors.add(q)
            assert gmpy2.is_prime(rest)
            assert all(pow(root, (p - 1) // q, p) != 1 for q in {*factors, rest})
        # The coefficients of a^2 + (a + b)^2 for F(10^10), whose limbs are nines.
        limbs = 1_044_938_201 // LIMB_DIGITS + 1
        assert 5 * limbs * 10**36 < primes[0] * primes[1] * primes[2]

    def test_largest_intermediates_are_within_them(self, tmp_path: Path) -> None:
        library = compiled(tmp_path, f'-DTRACK="{Path(__file__).with_name("track.h")}"', "-O1")
        tracking = Kernel(library)
        largest = (ctypes.c_double * 2).in_dll(ctypes.CDLL(str(library)), "bigfib_tracked")
        randomness = random.Random(15)
        for digits in (500, 3_000, 5_000, 20_000, 30_000, 50_000):
            nines = mpz(10) ** digits - 1
            check_products(tracking, nines, nines)
            check_products(tracking, *(shaped(randomness, digits) for _ in range(2)))
        assert 3 < largest[0] < 5.93
        assert 1.5 < largest[1] < 2.97


BREAKAGES = {
    "dropped carry of a step": ("+ 1 - right", "+ 0 * right"),
    "lost carry of nines": ("lost |= (words)(sum == 0);", ""),
    "carry of the last digits": ("lost[0] = 1;", ";"),
    "dropped carry of a product": ("next = after + d1 + over", "next = after + d1"),
    "wrong root of a table": (
        "const vector next = all(r[--t]);",
        "const vector next = all(r[--t] + (t == 2));",
    ),
    "wrong root of rows": ("to->sine = balanced(", "to->sine = 1 + balanced("),
    "one prime left out": ("(u128)w3[c] * high + rest", "(u128)rest"),
    "unreduced sum": (
        "x[0] = reduced(even + odd, q), x[2 * h] = times",
        "x[0] = even + odd, x[2 * h] = times",
    ),
}


@pytest.mark.campaign
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_kernel_is_noticed(breakage: str, tmp_path: Path) -> None:
    kernel = broken(tmp_path, *BREAKAGES[breakage])
    with pytest.raises(AssertionError):
        check_a_little(kernel)


def check_a_little(kernel: Kernel) -> None:
    steps, products = TestStep(), TestProducts()
    steps.test_carries_through_all_digits(kernel, 300)
    for points in LENGTHS[-2:]:
        products.test_at_every_length_of_transforms_equal_gmp(kernel, points)


def test_whole_kernel_is_not_taken_for_broken(kernel: Kernel) -> None:
    check_a_little(kernel)


@pytest.mark.campaign
@pytest.mark.skipif(not VECTORS, reason="all instructions of this processor are in its base")
def test_kernel_for_other_processors_equals_gmp(tmp_path: Path) -> None:
    """The code that compilers make if vectors are shorter, and products are not fused."""
    check_a_little(Kernel(compiled(tmp_path, "-mno-fma", "-mno-avx2", "-mno-avx")))


class TestWithoutIt:
    def test_missing_library_is_reported_with_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(NoKernel, match="install a C compiler"):
            Kernel(tmp_path / "none.so")

    def test_file_that_is_no_library_is_reported(self, tmp_path: Path) -> None:
        library = tmp_path / "kernel.so"
        library.write_bytes(b"no library")
        with pytest.raises(NoKernel, match="cannot be loaded"):
            Kernel(library)

    def test_failing_compiler_is_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "kernel.so"
        for compiler in ("false", "no-such-compiler"):
            monkeypatch.setenv("CC", compiler)
            assert compile_kernel(C_SOURCE, library)
            assert not library.exists()
