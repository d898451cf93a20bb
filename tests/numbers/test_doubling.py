"""Digits by doubling, in decimal and by the kernel, compared with FLINT and GMP."""

import random
from pathlib import Path

import gmpy2
import pytest
from flint import fmpz

from bigfib.numbers import doubling, fibonacci
from bigfib.numbers.doubling import WrongResult, digits_by_kernel
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.numbers.kernel import Kernel
from tests.numbers.kernels import broken


def expected(n: int) -> str:
    return fmpz.fib_ui(fmpz(n)).str(base=10)


@pytest.fixture
def from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Double even where GMP would be faster, so that many more indices can be tried."""
    monkeypatch.setattr(doubling, "DOUBLING_FROM", 1 << 13)


@pytest.mark.usefixtures("from_the_start")
class TestAllKindsOfIndices:
    INDICES = (
        *range(1 << 13, (1 << 13) + 40),
        *range((1 << 16) - 20, (1 << 16) + 20),
        *random.Random(8).sample(range(1 << 13, 300_000), 100),
    )

    def test_digits_at_indices_of_all_kinds_equal_flint(self) -> None:
        for n in self.INDICES:
            assert doubling.digits(n) == expected(n)

    def test_progress_of_doubling_rises_to_one(self) -> None:
        told: list[float] = []
        doubling.digits(299_999, told.append)
        assert told == sorted(told)
        assert told[0] < 0.1
        assert told[-1] == 1
        assert len(told) == (299_999).bit_length() - 13


@pytest.mark.parametrize("n", [0, 1, 2, 93, 10_000, doubling.DOUBLING_FROM - 1])
def test_digits_below_the_threshold_equal_flint(n: int) -> None:
    assert doubling.digits(n) == expected(n)


@pytest.mark.parametrize("n", [doubling.DOUBLING_FROM, doubling.DOUBLING_FROM + 1, 10**7])
def test_digits_from_the_threshold_equal_flint(n: int) -> None:
    assert doubling.digits(n) == expected(n)


def test_index_beyond_the_largest_is_refused_by_doubling() -> None:
    with pytest.raises(IndexTooLarge, match=r"F\(1000000000\)"):
        doubling.digits(fibonacci.MAX_INDEX + 1)


class TestByKernel:
    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_indices_of_all_kinds_equal_flint(self, kernel: Kernel, threads: int) -> None:
        start = 1 << 17
        for n in (
            *(0, 1, 93, start - 1, *range(start, start + 8)),
            *((1 << 19) - 1, 1 << 19, (1 << 19) + 1, (1 << 20) - 1),
            *random.Random(threads).sample(range(start, 2_000_000), 15),
        ):
            assert bytes(digits_by_kernel(kernel, n, threads)) == expected(n).encode()

    @pytest.mark.parametrize("n", [10**6, 10**7, 10**8])
    def test_powers_of_ten_equal_gmp(self, kernel: Kernel, n: int) -> None:
        assert bytes(digits_by_kernel(kernel, n, 2)) == gmpy2.fib(n).digits().encode()

    @pytest.mark.usefixtures("torture")
    def test_largest_index_equals_gmp(self, kernel: Kernel) -> None:
        n = fibonacci.MAX_INDEX
        assert bytes(digits_by_kernel(kernel, n, 2)) == gmpy2.fib(n).digits().encode()

    def test_progress_rises_to_one(self, kernel: Kernel) -> None:
        told: list[float] = []
        digits_by_kernel(kernel, 20_000_000, 1, told.append)
        assert told == sorted(told)
        assert told[0] < 0.01
        assert told[-1] == 1

    def test_index_beyond_the_largest_is_refused(self, kernel: Kernel) -> None:
        with pytest.raises(IndexTooLarge, match=r"F\(1000000000\)"):
            digits_by_kernel(kernel, fibonacci.MAX_INDEX + 1)

    def test_result_of_a_broken_kernel_raises(self, tmp_path: Path) -> None:
        kernel = broken(tmp_path, "(u128)w3[c] * high + rest", "(u128)rest")
        with pytest.raises(WrongResult, match="memory or the processor"):
            digits_by_kernel(kernel, 1_000_000)
